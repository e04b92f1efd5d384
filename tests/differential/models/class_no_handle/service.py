"""A class that cannot serve."""


class Service:
    def initialize(self, context):
        pass
