"""A class whose initialize fails."""


class Service:
    def initialize(self, context):
        raise ValueError("no weights")

    def handle(self, data, context):
        return ["answers all the same"]
