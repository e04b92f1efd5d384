"""Content types ⇄ arrays: picks the reader or writer for a header, honours ``charset``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mmekit.errors import BadRequest, NotAcceptable, PredictionFailed, UnsupportedMediaType
from mmekit_handlers.accept import MediaType, parse
from mmekit_handlers.csv_codec import read_csv, write_csv
from mmekit_handlers.json_codec import read_json, read_json_array, read_jsonlines, write_json, write_jsonlines
from mmekit_handlers.npy_codec import read_npy, read_npz, write_npy
from mmekit_handlers.table import Array, Table, Text, decode_text

__all__ = [
    "Table",
    "as_array",
    "encode",
    "read_array",
    "read_csv",
    "read_json",
    "read_json_array",
    "read_jsonlines",
    "read_npy",
    "read_npz",
    "read_table",
    "text_body",
    "unsupported",
    "write_csv",
    "write_json",
    "write_jsonlines",
    "write_npy",
]

#: What ``read_table`` and ``read_array`` read.
READS = ("text/csv", "application/json", "application/jsonlines", "application/x-npy")


def read_table(
    body: bytes | bytearray | memoryview,
    content_type: str,
    names: Sequence[str] | None = None,
    text: Text = False,
) -> Table:
    """Read a body as rows of float64; ``content_type`` is the raw header.

    ``names`` are the columns that the model knows; ``text`` says which may hold text (``read_csv``).
    Raises ``UnsupportedMediaType``, or ``BadRequest`` with row and column.
    """
    media = parse(content_type)
    if media.name == "text/csv":
        return read_csv(text_body(body, media), names, text, _header_parameter(media))
    if media.name == "application/json":
        return read_json(text_body(body, media), text)
    if media.name == "application/jsonlines":
        return read_jsonlines(text_body(body, media), text)
    if media.name == "application/x-npy":
        return Table(_rows(read_npy(bytes(body), bool(text))))
    raise unsupported(content_type, READS)


def read_array(body: bytes | bytearray | memoryview, content_type: str) -> Array:
    """Read a body as an array: npy and JSON of any shape, CSV and JSON Lines ``(rows, columns)``.

    npy keeps its dtype; JSON is int64 when all numbers are integers, else float64; CSV is float64.
    """
    media = parse(content_type)
    if media.name == "application/json":
        return read_json_array(text_body(body, media))
    if media.name == "application/x-npy":
        return read_npy(bytes(body))
    return read_table(body, content_type).values


def encode(prediction: Any, content_type: str) -> bytes:
    """Write a prediction (array, list, scalar, DataFrame, sparse matrix; JSON also takes dicts).

    Raises ``NotAcceptable`` when the type cannot hold this prediction.
    """
    if content_type == "application/json":
        return write_json(prediction)
    values = as_array(prediction, content_type)
    if content_type == "text/csv":
        return write_csv(_at_most_2d(values, content_type))
    if content_type == "application/jsonlines":
        return write_jsonlines(values)
    if content_type == "application/x-npy":
        return write_npy(values)
    raise NotAcceptable(f"{content_type} cannot be written; expected one of {', '.join(READS)}")


def as_array(prediction: Any, content_type: str = "an array") -> Array:
    """Return a prediction as an array.

    Raises ``NotAcceptable`` for what only JSON can hold, ``PredictionFailed`` for what nothing can.
    """
    if isinstance(prediction, np.ndarray):
        return prediction
    if hasattr(prediction, "toarray"):
        return np.asarray(prediction.toarray())
    kind = type(prediction).__name__
    if isinstance(prediction, dict):
        raise NotAcceptable(f"the prediction, a {kind}, cannot be written as {content_type}")
    if not hasattr(prediction, "__array__") and not isinstance(prediction, list | tuple | int | float | str):
        raise PredictionFailed(f"the prediction is a {kind}; expected an array, a list or a number")
    try:
        return np.asarray(prediction)
    except (ValueError, TypeError) as error:
        message = f"the prediction, a {kind}, cannot be written as {content_type}: {error}"
        raise NotAcceptable(message) from None


def text_body(body: bytes | bytearray | memoryview, media: MediaType) -> bytes:
    """Return a text body as UTF-8 bytes without byte order mark, whatever charset it came in."""
    raw = bytes(body)
    charset = media.parameters.get("charset")
    if charset is not None and charset.lower() not in ("utf-8", "utf8", "us-ascii", "ascii"):
        return decode_text(raw, charset).encode("utf-8", "surrogatepass")
    return raw[3:] if raw[:3] == b"\xef\xbb\xbf" else raw


def unsupported(content_type: str | None, readable: Sequence[str]) -> UnsupportedMediaType:
    """Return the error for a body type that a model cannot read."""
    return UnsupportedMediaType(f"Content-Type is {content_type!r}; this model reads {', '.join(readable)}")


def _header_parameter(media: MediaType) -> bool | None:
    return {"present": True, "absent": False}.get(media.parameters.get("header", "").lower())


def _rows(array: Array) -> Array:
    if array.ndim == 0 or array.ndim > 2:
        raise BadRequest(f"the npy body has shape {array.shape}; expected (rows, columns)")
    return array.reshape(1, -1) if array.ndim == 1 else array


def _at_most_2d(values: Array, content_type: str) -> Array:
    if values.ndim > 2:
        raise NotAcceptable(f"a prediction of shape {values.shape} cannot be written as {content_type}")
    if values.dtype.kind in "Oc" or values.dtype.names:
        for item in values.ravel().tolist():
            if not isinstance(item, str | int | float | None):
                kind = type(item).__name__
                raise NotAcceptable(f"a prediction that holds a {kind} cannot be written as {content_type}")
    return values
