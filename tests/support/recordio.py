"""Writes recordio-protobuf as SageMaker's SDK does, by its own few lines of the wire format."""

from __future__ import annotations

import struct
from collections.abc import Sequence

#: Field of the tensor in ``Value``, and how its values are packed.
TENSORS = {"float32": (2, "<f"), "float64": (3, "<d"), "int32": (7, None)}


def varint(number: int) -> bytes:
    number &= 2**64 - 1
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def message(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def tensor(
    kind: str,
    values: Sequence[float],
    keys: Sequence[int] = (),
    shape: Sequence[int] = (),
    packed: bool = True,
) -> bytes:
    number, code = TENSORS[kind]
    single = [struct.pack(code, value) if code else varint(int(value)) for value in values]
    wire = {"<f": 5, "<d": 1, None: 0}[code]
    content = message(1, b"".join(single)) if packed else b"".join(varint(8 | wire) + one for one in single)
    for place, numbers in ((2, keys), (3, shape)):
        if packed and numbers:
            content += message(place, b"".join(map(varint, numbers)))
        elif numbers:
            content += b"".join(varint(place << 3) + varint(one) for one in numbers)
    return message(number, content)


def record(value: bytes, name: str = "values", label: float | None = None) -> bytes:
    content = message(1, message(1, name.encode()) + message(2, value))
    if label is not None:
        content += message(2, message(1, b"values") + message(2, tensor("float32", [label])))
    return content


def frame(content: bytes) -> bytes:
    return struct.pack("<II", 0xCED7230A, len(content)) + content + b"\0" * (-len(content) % 4)


def recordio(*values: bytes, label: float | None = None) -> bytes:
    return b"".join(frame(record(value, label=label)) for value in values)
