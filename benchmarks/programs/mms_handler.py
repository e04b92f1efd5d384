"""The same prediction as mmekit's built-in handlers, written by hand for Multi Model Server.

It parses with orjson and predicts as mmekit's handlers do, which is faster than the handlers in
AWS's images: what differs between the servers is then the server.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy
import orjson

_predict: Callable[[Any], Any] | None = None


def handle(data: list[dict[str, Any]] | None, context: Any) -> list[bytes] | None:
    """Load the model when called with None, as MMS does once a worker; else one answer a request."""
    global _predict  # MMS has one model a process
    if data is None or _predict is None:
        _predict = load(context.system_properties["model_dir"])
    if data is None:
        return None
    return [_answer(_predict, bytes(request["body"])) for request in data]


def _answer(predict: Callable[[Any], Any], body: bytes) -> bytes:
    row = numpy.asarray([orjson.loads(b"[" + body + b"]")], dtype=numpy.float32)
    return b",".join(str(value).encode() for value in predict(row).ravel().tolist())


def load(folder: str) -> Callable[[Any], Any]:
    files = sorted(os.listdir(folder))
    path = os.path.join(folder, next(file for file in files if file.startswith("model.")))
    if path.endswith((".ubj", ".json")):
        return _load_xgboost(path)
    return _load_torch(path) if path.endswith(".pt") else _load_sklearn(path)


def _load_xgboost(path: str) -> Callable[[Any], Any]:
    import xgboost

    booster = xgboost.Booster({"nthread": 1})
    booster.load_model(path)
    return lambda row: booster.inplace_predict(row)


def _load_sklearn(path: str) -> Callable[[Any], Any]:
    import joblib

    estimator = joblib.load(path)
    return lambda row: numpy.asarray(estimator.predict(row))


def _load_torch(path: str) -> Callable[[Any], Any]:
    import torch

    torch.set_num_threads(1)
    script = torch.jit.load(path).eval()  # type: ignore[no-untyped-call]  # torch's gap

    def predict(row: Any) -> Any:
        with torch.inference_mode():
            return script(torch.from_numpy(row)).numpy()

    return predict
