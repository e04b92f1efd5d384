"""The function that MMS examples end with: one service a process, initialized when first called."""


class Service:
    def __init__(self):
        self.initialized = False

    def initialize(self, context):
        self.model_dir = context.system_properties["model_dir"]
        self.initialized = True

    def handle(self, data, context):
        return [f"{self.model_dir} {len(row['body'])}" for row in data]


_service = Service()


def handle(data, context):
    if not _service.initialized:
        _service.initialize(context)
    if data is None:
        return None
    return _service.handle(data, context)
