"""``application/json`` and ``application/jsonlines`` ⇄ rows and arrays.

Rows come as a list of lists, a list of records, one flat list (one row) or one record; bare or under
``instances``, ``inputs`` or ``data``; ``{"features": [...]}`` is a row, as AWS's own algorithms take it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import nan
from typing import Any

import numpy as np
import orjson

from mmekit.errors import BadRequest, PredictionFailed
from mmekit_handlers.table import EMPTY_BODY, Array, Table, Text, not_a_number, ragged

#: Keys that hold the rows: TensorFlow Serving's and KServe's ``instances``, Hugging Face's ``inputs``,
#: ``data`` of pandas' split form. Their neighbours (``columns``, ``signature_name``) are looked at below.
_WRAPPERS = ("instances", "inputs", "data")

_NUMBERS = frozenset((int, float, bool, type(None)))
_EXPECTED = 'expected rows of numbers: [[1, 2], [3, 4]], [{"a": 1}], or either under "instances" or "inputs"'


def read_json(body: bytes, text: Text = False) -> Table:
    """Read rows; null, NaN and empty become NaN. ``text`` allows strings.

    Raises ``BadRequest`` with the position of a syntax error, or row and column of a value.
    """
    value, columns = _unwrap(parse_json(body))
    return _table(value, columns, text)


def read_json_array(body: bytes) -> Array:
    """Read numbers of any shape: int64 when all are integers, else float64; null is NaN."""
    parsed = parse_json(body)
    value, _ = _unwrap(parsed)
    if isinstance(value, dict) or (isinstance(value, list) and value and isinstance(value[0], dict)):
        return _table(value, None, False).values
    # A body has two quotes a string: when only the wrapper's keys have them, no leaf is a string.
    quotes = 2 * len(parsed) if isinstance(parsed, dict) else 0
    if body.count(b'"') != quotes:
        try:
            _check_leaves(value, ())
        except RecursionError:
            raise BadRequest("the arrays in the body are nested too deeply") from None
    return _array(value)


def read_jsonlines(body: bytes, text: Text = False) -> Table:
    """Read one row a line: a list, a record or ``{"features": [...]}``."""
    rows: list[Any] = []
    for number, line in enumerate(body.splitlines(), 1):
        if not line.strip():
            continue
        try:
            value, _ = _unwrap(parse_json(line))
        except BadRequest as error:
            raise BadRequest(f"line {number}: {error.message}") from None
        if _is_features(value):
            value = value["features"]
        rows.extend(value if _is_rows(value) else [value])
    if not rows:
        raise BadRequest(EMPTY_BODY)
    return _table(rows, None, text)


def parse_json(body: bytes) -> Any:
    """Parse a document; the literals NaN, Infinity and -Infinity are numbers, as Python writes them."""
    if not body or body.isspace():
        raise BadRequest("the body is empty; expected a JSON document")
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if b"NaN" not in body and b"Infinity" not in body:
            raise _malformed(error) from None
    try:
        return json.loads(body)
    except json.JSONDecodeError as error:
        raise _malformed(error) from None
    except (ValueError, RecursionError) as error:  # not UTF-8; an integer of 5,000 digits; 1,000 deep
        raise BadRequest(f"the body is not JSON: {error}") from None


def write_json(value: Any) -> bytes:
    """Write strict JSON: NaN and infinities become null, arrays become nested lists."""
    try:
        return orjson.dumps(value, _plain, orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)
    except TypeError as error:  # orjson.JSONEncodeError
        kind = type(value).__name__
        raise PredictionFailed(f"the prediction, a {kind}, cannot be written as JSON: {error}") from None


def write_jsonlines(values: Array) -> bytes:
    """Write each row as JSON on a line of its own."""
    return b"".join(write_json(row) + b"\n" for row in np.atleast_1d(values).tolist())


def _plain(value: Any) -> Any:
    """Turn what orjson does not know into what it does: arrays of other dtypes, numpy scalars, DataFrames."""
    if isinstance(value, bytes):
        return value.decode()
    if hasattr(value, "toarray"):
        return value.toarray()
    if hasattr(value, "tolist"):
        return value.tolist()
    if hasattr(value, "to_numpy"):
        return value.to_numpy().tolist()
    raise TypeError(f"{type(value).__name__} is not JSON serializable")


def _malformed(error: json.JSONDecodeError) -> BadRequest:
    return BadRequest(f"the body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}")


def _unwrap(value: Any) -> tuple[Any, list[str] | None]:
    """Return what the wrapper holds, and the names beside it (pandas' split form)."""
    if isinstance(value, dict):
        for key in _WRAPPERS:
            if key in value and isinstance(value[key], list | dict):
                columns = value.get("columns")
                named = isinstance(columns, list) and all(isinstance(name, str) for name in columns)
                return value[key], columns if named else None
    return value, None


def _is_features(value: Any) -> bool:
    return isinstance(value, dict) and list(value) == ["features"] and isinstance(value["features"], list)


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], list | dict)


def _table(value: Any, columns: list[str] | None, text: Text) -> Table:
    if isinstance(value, dict):
        value = _columns_to_records(value)
    if not isinstance(value, list):
        raise BadRequest(f"the body holds {_name(value)}; {_EXPECTED}")
    if not value:
        raise BadRequest("the body has no rows; expected at least one row")
    if isinstance(value[0], dict):
        value, columns = _records(value)
    rows = value if columns is not None or isinstance(value[0], list) else [value]
    _check_widths(rows, columns)
    return Table(_matrix(rows, columns, text), tuple(columns) if columns else None)


def _columns_to_records(record: dict[str, Any]) -> list[dict[str, Any]]:
    """One record is one row; a record of equally long lists is rows by column (TF Serving's ``inputs``)."""
    lengths = {len(value) if isinstance(value, list) else -1 for value in record.values()}
    if list(record) == ["features"] or lengths == {-1}:
        return [record]
    if len(lengths) != 1 or -1 in lengths:
        raise BadRequest(f"the body is an object with lists of different lengths; {_EXPECTED}")
    return [dict(zip(record, row, strict=True)) for row in zip(*record.values(), strict=True)]


def _records(records: list[Any]) -> tuple[list[Any], list[str] | None]:
    """Return rows in the order of the first record's keys, and the keys."""
    keys = list(records[0])
    if _is_features(records[0]):
        return [record["features"] if _is_features(record) else record for record in records], None
    rows = []
    for number, record in enumerate(records, 1):
        if not isinstance(record, dict):
            raise BadRequest(f"row {number} is {_name(record)}; row 1 is an object")
        if record.keys() != records[0].keys():
            raise BadRequest(_key_difference(number, record.keys(), records[0].keys()))
        rows.append([record[key] for key in keys])
    return rows, keys


def _key_difference(number: int, found: Any, expected: Any) -> str:
    missing = ", ".join(sorted(expected - found))
    extra = ", ".join(sorted(found - expected))
    said = [f"lacks {missing} (send null for a missing value)"] if missing else []
    said += [f"has {extra}"] if extra else []
    return f"row {number} differs from row 1: it {' and '.join(said)}"


def _check_widths(rows: list[Any], columns: Sequence[str] | None) -> None:
    for number, row in enumerate(rows, 1):
        if not isinstance(row, list):
            raise BadRequest(f"row {number} is {_name(row)}; row 1 is an array")
        if len(row) != len(rows[0]):
            raise ragged(number, len(row), len(rows[0]))
    if not rows[0]:
        raise BadRequest("row 1 has no values")
    if columns is not None and len(columns) != len(rows[0]):
        raise BadRequest(f'row 1 has {len(rows[0])} columns, "columns" names {len(columns)}')


def _matrix(rows: list[list[Any]], columns: Sequence[str] | None, text: Text) -> Array:
    types: set[type] = set()
    for row in rows:
        types.update(map(type, row))
    if types <= _NUMBERS:
        return _array(rows, np.float64)
    values = np.empty((len(rows), len(rows[0])), object)
    for i, row in enumerate(rows):
        for j, value in enumerate(row):
            name = columns[j] if columns else None
            # Without names only the model knows which columns are text; it says so later.
            is_text = text if isinstance(text, bool) else name is None or name in text
            if type(value) not in _NUMBERS and not (is_text and isinstance(value, str)):
                raise not_a_number(i + 1, j + 1, value, name)
            values[i, j] = nan if value is None else value
    return values


def _check_leaves(value: Any, place: tuple[int, ...]) -> None:
    if isinstance(value, list):
        for index, item in enumerate(value):
            _check_leaves(item, (*place, index))
    elif type(value) not in _NUMBERS:
        if len(place) == 2:
            raise not_a_number(place[0] + 1, place[1] + 1, value)
        where = "".join(f"[{index}]" for index in place)
        raise BadRequest(f"{value!r:.60} at {where or 'the top'} is not a number")


def _array(value: Any, dtype: type | None = None) -> Array:
    try:
        array = np.array(value, dtype)
        # An object array: null or an integer over 64 bits among the numbers.
        return array.astype(np.float64) if array.dtype.kind not in "iufb" else array
    except OverflowError:
        raise BadRequest("an integer in the body is too large for a float64") from None
    except (ValueError, TypeError):
        raise BadRequest("the arrays in the body are not all of the same shape") from None


def _name(value: Any) -> str:
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
