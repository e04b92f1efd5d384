"""Answers, fails and ends as the request's body says."""

import os
import sys

from mms.service import PredictionException


class Refused(PredictionException):
    """An exception of the model's own."""


def _status(code, phrase="", body="handler's"):
    def answer(context):
        context.set_response_status(code, phrase, 0)
        return [body]

    return answer


def _header(name, value):
    def answer(context):
        context.set_response_header(0, name, value)
        return ["headers"]

    return answer


def _content_type_of(value):
    def answer(context):
        context.set_response_content_type(0, value)
        return ["1,2"]

    return answer


def _all_statuses(context):
    context.set_all_response_status(418, "Teapot")
    return ["teapot"]


def _last_header(context):
    context.set_response_header(0, "X-Twice", "first")
    context.set_response_header(0, "X-Twice", "second")
    return ["twice"]


def _two_cases(context):
    context.set_response_header(0, "X-Twice", "first")
    context.set_response_header(0, "x-twice", "second")
    return ["two cases"]


def _raises(error):
    def answer(context):
        raise error

    return answer


def _returns(value):
    return lambda context: value


def _circular():
    value = []
    value.append(value)
    return value


CASES = {
    # what may be returned
    "bytes": _returns([b"\x00\x01\xff"]),
    "bytearray": _returns([bytearray(b"abc")]),
    "empty-bytes": _returns([b""]),
    "str": _returns(["grün"]),
    "empty-str": _returns([""]),
    "dict": _returns([{"b": 1, "a": [1, 2, {"c": None}], "text": "grün"}]),
    "empty-dict": _returns([{}]),
    "list": _returns([[1, 2.5, "x"]]),
    "tuple": _returns([(1, 2)]),
    "int": _returns([7]),
    "float": _returns([0.1]),
    "true": _returns([True]),
    "none": _returns([None]),
    "nan": _returns([{"x": float("nan"), "y": float("inf")}]),
    # what may not
    "generator": lambda context: [iter(["a", b"b"])],
    "memoryview": _returns([memoryview(b"abc")]),
    "tuple-keys": _returns([{(1, 2): 3}]),
    "circular": lambda context: [_circular()],
    "surrogate": _returns(["\ud800"]),
    "object": _returns([object()]),
    "set": _returns([{1, 2}]),
    "not-a-list": _returns("text"),
    "a-dict": _returns({"a": 1}),
    "a-tuple": _returns(("a",)),
    "nothing": _returns(None),
    "too-many": _returns(["a", "b"]),
    "too-few": _returns([]),
    # statuses
    "status-201": _status(201, "Made"),
    "status-204": _status(204),
    "status-302": _status(302, "Elsewhere"),
    "status-404": _status(404, "Not Here"),
    "status-404-no-phrase": _status(404),
    "status-500": _status(500),
    "status-600": _status(600, "Odd"),
    "status-99": _status(99),
    "status-text": _status("202"),
    "status-phrase-lines": _status(404, "Not\r\nHere"),
    "status-phrase-spaces": _status(404, "Not   Here"),
    "status-none": _status(None, None),
    "status-all": _all_statuses,
    # headers
    "content-type": _content_type_of("text/csv; charset=utf-8"),
    "content-type-empty": _content_type_of(""),
    "content-type-number": _content_type_of(5),
    "header": _header("X-Own", "value"),
    "header-twice": _last_header,
    "header-two-cases": _two_cases,
    "header-transfer-encoding": _header("Transfer-Encoding", "chunked"),
    "header-latin-1": _header("X-Own", "grün"),
    "header-name": _header("X Own", "value"),
    "header-request-id": _header("x-request-id", "mine"),
    "header-connection": _header("Connection", "close"),
    "header-content-length": _header("Content-Length", "3"),
    "header-cache": _header("Cache-Control", "max-age=60"),
    "header-crlf": _header("X-Own", "a\r\nX-Injected: b"),
    "header-number": _header("X-Own", 5),
    # failures
    "prediction-exception": _raises(PredictionException("no good", 422)),
    "prediction-exception-default": _raises(PredictionException("no good")),
    "prediction-exception-200": _raises(PredictionException("no good", 200)),
    "prediction-exception-99": _raises(PredictionException("no good", 99)),
    "prediction-exception-600": _raises(PredictionException("no good", 600)),
    "prediction-exception-derived": _raises(Refused("no good", 418)),
    "base-exception": _raises(KeyboardInterrupt("stop")),
    "value-error": _raises(ValueError("bad value")),
    "memory-error": _raises(MemoryError("too much")),
    "exit": lambda context: sys.exit(3),
    "os-exit": lambda context: os._exit(3),
    "big": lambda context: ["x" * 300_000],
}


def handle(data, context):
    if data is None:
        return None
    return CASES[bytes(data[0]["body"]).decode()](context)
