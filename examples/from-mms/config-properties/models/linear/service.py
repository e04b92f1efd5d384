"""A handler of the function style; requests are JSON, decoded by the server."""

import json
import os

from mms.service import PredictionException

_model = {}


def handle(data, context):
    if data is None:
        with open(os.path.join(context.system_properties["model_dir"], "weights.json")) as file:
            _model.update(json.load(file))
        return None
    context.metrics.add_counter("Rows", sum(len(request["body"]) for request in data))
    return [[_predict(row) for row in request["body"]] for request in data]


def _predict(row):
    if len(row) != len(_model["weights"]):
        raise PredictionException(f"expected {len(_model['weights'])} numbers, got {len(row)}", 400)
    return sum(w * x for w, x in zip(_model["weights"], row, strict=True)) + _model["bias"]
