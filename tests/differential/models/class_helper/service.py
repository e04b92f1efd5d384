"""A service with a class beside it."""


class Helper:
    pass


class Service:
    def initialize(self, context):
        pass

    def handle(self, data, context):
        return ["one of two"]
