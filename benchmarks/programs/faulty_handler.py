"""An XGBoost model that can be told to misbehave: the neighbour of the other models."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import numpy
import xgboost


class FaultyService:
    """A handler in the class style of Multi Model Server."""

    def initialize(self, context: Any) -> None:
        self._booster = xgboost.Booster({"nthread": 1})
        self._booster.load_model(os.path.join(context.system_properties["model_dir"], "model.ubj"))

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[str]:
        return [self._predict(bytes(request["body"])) for request in data]

    def _predict(self, body: bytes) -> str:
        if body == b"crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if body == b"hang":
            while True:
                time.sleep(1)
        row = numpy.array([body.split(b",")], dtype=numpy.float32)
        return str(float(self._booster.inplace_predict(row)[0]))
