from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmekit.errors import BadRequest
from mmekit_handlers.recordio import read_recordio
from mmekit_handlers.sparse import SparseRows
from tests.support.recordio import frame, message, record, recordio, tensor, varint

NUMBERS = {
    "float32": st.floats(allow_nan=False, width=32),
    "float64": st.floats(allow_nan=False),
    "int32": st.integers(-(2**31), 2**31 - 1),
}
KINDS = st.sampled_from(sorted(NUMBERS))


@given(st.data(), KINDS, st.booleans(), st.integers(1, 5), st.none() | st.just(1.0))
def test_dense_rows_come_back_as_written(data, kind, packed, width, label) -> None:
    rows = data.draw(
        st.lists(st.lists(NUMBERS[kind], min_size=width, max_size=width), min_size=1, max_size=4)
    )
    body = recordio(*(tensor(kind, row, packed=packed) for row in rows), label=label)
    np.testing.assert_array_equal(np.array(rows, np.float64), read_recordio(body))


@given(st.data(), KINDS, st.booleans())
def test_sparse_rows_come_back_as_written(data, kind, packed) -> None:
    row = st.dictionaries(st.integers(0, 300), NUMBERS[kind], max_size=5)
    rows = data.draw(st.lists(row, min_size=1, max_size=4))
    body = recordio(*(tensor(kind, [*row.values()], [*row], [301], packed) for row in rows))
    read = read_recordio(body)
    assert isinstance(read, SparseRows)
    assert rows == [dict(zip(keys.tolist(), values.tolist(), strict=True)) for keys, values in read]
    assert read.width == 301


@given(st.binary(max_size=120), st.sampled_from(["raw", "frame", "record", "tensor"]))
def test_any_bytes_are_rows_or_a_bad_request(content: bytes, around: str) -> None:
    body = {
        "raw": content,
        "frame": frame(content),
        "record": frame(record(content)),
        "tensor": frame(record(message(2, content))),
    }[around]
    read_or_refuse(body)


@given(st.data())
def test_a_body_with_bytes_changed_or_cut_is_rows_or_a_bad_request(data) -> None:
    body = bytearray(recordio(tensor("float32", [1, 2], [0, 3], [4]), tensor("int32", [-1, 2]), label=1.0))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    read_or_refuse(bytes(body[: data.draw(st.integers(0, len(body)))]))


def read_or_refuse(body: bytes) -> None:
    try:
        read = read_recordio(body)
    except BadRequest:
        return
    assert isinstance(read, SparseRows) or read.ndim == 2


def test_dense_beside_sparse_rows_become_sparse() -> None:
    read = read_recordio(recordio(tensor("float32", [1, 2]), tensor("float32", [7], [5])))
    assert isinstance(read, SparseRows)
    assert [(keys.tolist(), values.tolist()) for keys, values in read] == [([0, 1], [1, 2]), ([5], [7])]
    assert read.width is None


def test_a_row_of_nothing_has_only_a_shape() -> None:
    read = read_recordio(recordio(tensor("float32", [], [], [1, 4])))
    assert isinstance(read, SparseRows)
    assert (len(read), read.width, read.values.size) == (1, 4, 0)


def test_other_features_and_fields_are_read_over() -> None:
    content = message(1, message(1, b"other") + message(2, message(9, b""))) + record(tensor("float32", [3]))
    content += message(3, b"a uid") + varint(12 << 3 | 5) + b"abcd"
    np.testing.assert_array_equal([[3.0]], read_recordio(frame(content)))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "the body is empty"),
        (b"1,2,3", "record 1: the body ends within the 8 bytes of its frame"),
        (b"1.5,2.5,3.5", "record 1: the frame begins with 0x2C352E31; expected recordio, 0xCED7230A"),
        (struct.pack("<II", 0xCED7230A, 9) + b"x", "record 1: it has 9 bytes, of which 1 came"),
        (frame(record(b"", "features")), "record 1: expected a feature named 'values', found 'features'"),
        (frame(b""), "expected a feature named 'values', found none"),
        (recordio(b""), "the feature 'values' holds no tensor"),
        (recordio(message(9, message(1, b"text"))), "the feature 'values' holds bytes"),
        (recordio(tensor("float32", [])), "record 1: it has no values"),
        (recordio(tensor("float32", [1, 2], [1])), "it has 1 keys for 2 values"),
        (recordio(tensor("float32", [1, 2], [1, 1])), "it has a key twice"),
        (recordio(tensor("float32", [1], [2**31])), "it has key 2147483648"),
        (recordio(message(2, message(1, b"123"))), "3 bytes of values are not a multiple of 4"),
        (recordio(tensor("float32", [1, 2]), tensor("float32", [1])), "row 2 has 1 columns, row 1 has 2"),
        (frame(b"\x0b"), "record 1: wire type 3; it is not a protobuf message"),
        (frame(b"\x00\x00"), "field number 0; it is not a protobuf message"),
        (frame(b"\x0a\x05a"), "field 1 has 5 bytes, 1 are left"),
        (frame(b"\xff" * 11), "a number is longer than 10 bytes"),
        (frame(b"\xff"), "it ends within a number"),
        (frame(b"\x08\x01"), "a number stands where a message is expected"),
        (recordio(message(2, varint(8) + b"\x01")), "a tensor's values have wire type 0"),
        (recordio(message(2, varint(2 << 3 | 5) + b"abcd")), "whole numbers have wire type 5"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_record(body: bytes, said: str) -> None:
    with pytest.raises(BadRequest) as raised:
        read_recordio(body)
    assert said in raised.value.message
