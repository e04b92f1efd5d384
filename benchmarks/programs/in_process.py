"""Times a model's bare prediction and a handler's whole cycle in this process, without a server.

Reads settings as JSON from standard input; prints the medians in microseconds.
"""

from __future__ import annotations

import gc
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import inline_server  # type: ignore[import-not-found]  # beside this program
import mms_handler  # type: ignore[import-not-found]  # beside this program
import numpy

from mmekit.worker.context import Request

_SECONDS = 0.7


def median_us(call: Callable[[], object]) -> float:
    """Call for a fixed time after a warm-up; return the median of single calls."""
    for _ in range(20):
        call()
    times = []
    end = time.perf_counter() + _SECONDS
    now = time.perf_counter()
    while now < end:
        call()
        done = time.perf_counter()
        times.append(done - now)
        now = done
    return statistics.median(times) * 1e6


def main(settings: dict[str, Any]) -> dict[str, float]:
    """Return microseconds of each step; a model whose code is named has no bare prediction."""
    steps = {}
    body = settings["body"].encode()
    if settings["handler"] is None:
        predict = mms_handler.load(settings["folder"])
        row = numpy.asarray([json.loads(b"[" + body + b"]")], dtype=numpy.float32)
        steps["bare prediction"] = median_us(lambda: predict(row))
    load = {"model_name": "m", "url": settings["folder"]}
    if settings["handler"] is not None:
        load["handler"] = settings["handler"]
    inline_server.load(load)
    model = inline_server.models["m"]
    headers = [(name.lower().encode(), value.encode()) for name, value in settings["headers"].items()]
    steps["handler"] = median_us(lambda: model([Request(headers, body, "")], False))
    return steps


if __name__ == "__main__":
    gc.freeze()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    print(json.dumps(main(json.load(sys.stdin))))
