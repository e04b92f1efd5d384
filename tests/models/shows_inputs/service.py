"""Answers with what it is given: the inputs of each request with their types, and the headers."""

import json
import os

from mms.service import PredictionException


def handle(data, context):
    if data is None:
        return None
    return [json.dumps(_shown(row, context, index)) for index, row in enumerate(data)]


def _shown(row, context, index):
    body = row.get("body")
    if isinstance(body, bytearray) and body.startswith(b"raise "):
        raise PredictionException("told", int(body[6:]))
    if isinstance(body, bytearray) and body.startswith(b"long "):
        return "x" * (int(body[5:]) - 2)
    return {
        "inputs": {name: [type(value).__name__, _text(value)] for name, value in row.items()},
        "headers": context.get_all_request_header(index),
        "cwd": os.getcwd(),
        "pid": os.getpid(),
    }


def _text(value):
    return value.decode("latin-1") if isinstance(value, bytearray) else value
