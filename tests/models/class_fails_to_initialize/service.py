class Service:
    def initialize(self, context):
        raise OSError("the license server does not answer")

    def handle(self, data, context):
        return data
