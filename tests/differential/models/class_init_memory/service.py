"""A class whose initialize does not fit."""


class Service:
    def initialize(self, context):
        raise MemoryError("no room")

    def handle(self, data, context):
        return ["answers all the same"]
