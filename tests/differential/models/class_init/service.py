"""A class that cannot be made."""


class Service:
    def __init__(self):
        raise ValueError("no weights")

    def handle(self, data, context):
        return ["unreachable"]
