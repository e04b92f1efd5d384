"""A class without initialize."""


class Service:
    def handle(self, data, context):
        return ["bare"]
