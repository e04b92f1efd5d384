"""``application/x-recordio-protobuf`` → rows: SageMaker's RecordIO frames around ``aialgs`` records.

A frame is ``<II`` (magic, length), the record, and zeros up to a multiple of 4. A record is the
protobuf message ``aialgs.data.Record``, of which this reads what a prediction needs::

    Record        { map<string, Value> features = 1; map<string, Value> label = 2; ... }
    Value         { oneof { Float32Tensor = 2; Float64Tensor = 3; Int32Tensor = 7; Bytes = 9 } }
    Float32Tensor { repeated float values = 1; repeated uint64 keys = 2; repeated uint64 shape = 3 }

(AWS docs: cdf-training.html; sagemaker-containers: record_pb2.py.) The wire format is that of
https://protobuf.dev/programming-guides/encoding/; no protobuf library is needed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from mmekit.errors import BadRequest
from mmekit_handlers.sparse import SparseRows
from mmekit_handlers.table import EMPTY_BODY, Array, ragged

MAGIC = 0xCED7230A
_FRAME = struct.Struct("<II")

# Wire types.
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

#: Tensors by their field number in ``Value``: dtype of fixed-width values, None for varints.
_TENSORS = {2: "<f4", 3: "<f8", 7: None}
_BYTES_VALUE = 9

#: Indices are held as int32 by XGBoost's sparse input.
_MAX_COLUMNS = 2**31 - 1

#: A field: its number, its wire type, and an integer or the bytes.
_Field: TypeAlias = tuple[int, int, int | memoryview]


class _Malformed(Exception):
    """A record is not what it should be; the text says why."""


@dataclass(slots=True)
class _Row:
    values: Array
    keys: Array
    shape: list[int] = field(default_factory=list)

    @property
    def is_sparse(self) -> bool:
        # A sparse row of nothing has neither keys nor values, only its shape.
        return bool(self.keys.size) or (not self.values.size and bool(self.shape))


def read_recordio(body: bytes) -> Array | SparseRows:
    """Read the feature ``values`` of each record: ``(rows, columns)`` float64, or sparse rows.

    Labels and other features are read over. Raises ``BadRequest`` with the record, counted from 1.
    """
    rows = []
    for number, record in enumerate(_records(memoryview(body)), 1):
        try:
            rows.append(_row(record))
        except _Malformed as error:
            raise BadRequest(f"record {number}: {error}") from None
    if not rows:
        raise BadRequest(EMPTY_BODY)
    return _sparse(rows) if any(row.is_sparse for row in rows) else _dense(rows)


def _records(body: memoryview) -> Iterator[memoryview]:
    offset, number = 0, 1
    while offset < len(body):
        if len(body) - offset < _FRAME.size:
            raise BadRequest(f"record {number}: the body ends within the 8 bytes of its frame")
        magic, length = _FRAME.unpack_from(body, offset)
        if magic != MAGIC:
            raise BadRequest(
                f"record {number}: the frame begins with 0x{magic:08X}; expected recordio, 0x{MAGIC:08X}"
            )
        offset += _FRAME.size
        end = offset + (length + 3) // 4 * 4
        if end > len(body):
            raise BadRequest(f"record {number}: it has {length} bytes, of which {len(body) - offset} came")
        yield body[offset : offset + length]
        offset, number = end, number + 1


def _row(record: memoryview) -> _Row:
    found = None
    names = []
    for number, _, content in _fields(record):
        if number != 1:
            continue
        name, value = _map_entry(content)
        names.append(name)
        if name == "values":
            found = value
    if found is None:
        raise _Malformed(f"expected a feature named 'values', found {', '.join(map(repr, names)) or 'none'}")
    return _value(found)


def _map_entry(content: int | memoryview) -> tuple[str, memoryview]:
    name, value = "", memoryview(b"")
    for number, _, part in _fields(_message(content)):
        if number == 1:
            name = bytes(_message(part)).decode("utf-8", "replace")
        elif number == 2:
            value = _message(part)
    return name, value


def _value(content: memoryview) -> _Row:
    row = None
    for number, _, part in _fields(content):
        if number in _TENSORS:
            row = _tensor(_message(part), _TENSORS[number])
        elif number == _BYTES_VALUE:
            raise _Malformed("the feature 'values' holds bytes; expected a tensor of numbers")
    if row is None:
        raise _Malformed("the feature 'values' holds no tensor")
    return row


def _tensor(content: memoryview, dtype: str | None) -> _Row:
    values: list[Array] = []
    keys: list[int] = []
    shape: list[int] = []
    for number, wire, part in _fields(content):
        if number == 1:
            values.append(_numbers(wire, part, dtype))
        elif number == 2:
            keys += _varints(wire, part)
        elif number == 3:
            shape += _varints(wire, part)
    joined = np.concatenate(values) if values else np.empty(0, np.float64)
    return _checked(joined, keys, shape)


def _checked(values: Array, keys: list[int], shape: list[int]) -> _Row:
    if keys and len(keys) != len(values):
        raise _Malformed(f"it has {len(keys)} keys for {len(values)} values")
    if keys and max(keys) >= _MAX_COLUMNS:
        raise _Malformed(f"it has key {max(keys)}; the highest that can be is {_MAX_COLUMNS - 1}")
    if len(set(keys)) != len(keys):
        raise _Malformed("it has a key twice")
    if not values.size and not shape:
        raise _Malformed("it has no values")
    return _Row(values, np.array(keys, np.int64), shape)


def _numbers(wire: int, content: int | memoryview, dtype: str | None) -> Array:
    """Read values, packed or one by one: protobuf takes both for a repeated number."""
    if dtype is None:
        # An int32 below 0 is sent as 64 bits of two's complement; protobuf keeps the low 32.
        low = np.array([number & 0xFFFFFFFF for number in _varints(wire, content)], np.uint32)
        return low.view(np.int32).astype(np.float64)
    width = int(dtype[-1])
    if wire != _BYTES and wire != (_FIXED32 if width == 4 else _FIXED64):
        raise _Malformed(f"a tensor's values have wire type {wire}")
    raw = _message(content)
    if len(raw) % width:
        raise _Malformed(f"{len(raw)} bytes of values are not a multiple of {width}")
    return np.frombuffer(raw, dtype).astype(np.float64)


def _varints(wire: int, content: int | memoryview) -> list[int]:
    if wire == _VARINT and isinstance(content, int):
        return [content]
    if wire != _BYTES:
        raise _Malformed(f"whole numbers have wire type {wire}")
    raw = bytes(_message(content))
    numbers = []
    offset = 0
    while offset < len(raw):
        number, offset = _varint(raw, offset)
        numbers.append(number)
    return numbers


def _fields(content: memoryview) -> Iterator[_Field]:
    raw = bytes(content)
    offset = 0
    while offset < len(raw):
        tag, offset = _varint(raw, offset)
        number, wire = tag >> 3, tag & 7
        if number == 0:
            raise _Malformed("field number 0; it is not a protobuf message")
        if wire == _VARINT:
            value, offset = _varint(raw, offset)
            yield number, wire, value
            continue
        if wire == _BYTES:
            length, offset = _varint(raw, offset)
        elif wire in (_FIXED32, _FIXED64):
            length = 4 if wire == _FIXED32 else 8
        else:
            raise _Malformed(f"wire type {wire}; it is not a protobuf message")
        end = offset + length
        if end > len(raw):
            raise _Malformed(f"field {number} has {length} bytes, {len(raw) - offset} are left")
        yield number, wire, content[offset:end]
        offset = end


def _varint(raw: bytes, offset: int) -> tuple[int, int]:
    """Return the number at ``offset``, of at most 64 bits, and where it ends."""
    result = shift = 0
    while True:
        if offset >= len(raw):
            raise _Malformed("it ends within a number")
        byte = raw[offset]
        offset += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result & 0xFFFFFFFFFFFFFFFF, offset
        shift += 7
        if shift >= 70:
            raise _Malformed("a number is longer than 10 bytes")


def _message(content: int | memoryview) -> memoryview:
    if isinstance(content, int):
        raise _Malformed("a number stands where a message is expected")
    return content


def _dense(rows: list[_Row]) -> Array:
    width = len(rows[0].values)
    for number, row in enumerate(rows, 1):
        if len(row.values) != width:
            raise ragged(number, len(row.values), width)
    return np.stack([row.values for row in rows])


def _sparse(rows: list[_Row]) -> SparseRows:
    columns = [row.keys if row.is_sparse else np.arange(len(row.values)) for row in rows]
    starts = np.cumsum([0, *(len(keys) for keys in columns)])
    # A shape of several numbers is of one row all the same: (1, n).
    widths = [int(np.prod(np.array(row.shape, object))) for row in rows if row.shape]
    values = np.concatenate([row.values for row in rows])
    return SparseRows(values, np.concatenate(columns), starts, max(widths, default=None))
