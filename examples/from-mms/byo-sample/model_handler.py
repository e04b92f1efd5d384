"""A handler as in AWS's sample of a multi-model container: one service a process, loaded once."""

import json
import os


class ModelHandler:
    def __init__(self):
        self.initialized = False
        self.model = None

    def initialize(self, context):
        """Load the model; context.system_properties names its folder."""
        model_dir = context.system_properties["model_dir"]
        with open(os.path.join(model_dir, "weights.json")) as file:
            self.model = json.load(file)
        self.initialized = True

    def preprocess(self, requests):
        """Turn each body, lines of CSV, into rows of numbers."""
        return [self._rows(request.get("body").decode()) for request in requests]

    def inference(self, batch):
        return [[self._predict(row) for row in rows] for rows in batch]

    def postprocess(self, predictions):
        return [json.dumps(values) for values in predictions]

    def handle(self, data, context):
        return self.postprocess(self.inference(self.preprocess(data)))

    def _rows(self, text):
        return [[float(value) for value in line.split(",")] for line in text.splitlines()]

    def _predict(self, row):
        weights = self.model["weights"]
        return sum(weight * value for weight, value in zip(weights, row, strict=True)) + self.model["bias"]


_service = ModelHandler()


def handle(data, context):
    if not _service.initialized:
        _service.initialize(context)

    if data is None:
        return None

    return _service.handle(data, context)
