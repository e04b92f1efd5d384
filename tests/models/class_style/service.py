"""One class, as MMS finds it when the module has no function handle."""


class Service:
    def initialize(self, context):
        self.name = context.model_name

    def handle(self, data, context):
        for index, row in enumerate(data):
            context.set_response_content_type(index, "application/x-echo")
            context.set_response_header(index, "X-Length", str(len(row["body"])))
            context.metrics.add_counter("Calls", 1, index)
        return [{"name": self.name, "body": bytes(row["body"]).decode()} for row in data]
