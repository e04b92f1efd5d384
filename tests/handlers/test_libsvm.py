from __future__ import annotations

import math

import numpy as np
import pytest
import xgboost as xgb
from hypothesis import given
from hypothesis import strategies as st

from mmekit.errors import BadRequest
from mmekit_handlers.libsvm import read_libsvm, rebase

VALUES = st.floats(allow_nan=False, allow_infinity=False, width=32)
ROWS = st.lists(st.dictionaries(st.integers(0, 500), VALUES, max_size=8), min_size=1, max_size=6)


def rows_of(body: bytes) -> list[dict[int, float]]:
    return [
        dict(zip(columns.tolist(), values.tolist(), strict=True)) for columns, values in read_libsvm(body)
    ]


@given(
    ROWS, st.sampled_from(["1 ", "-0.5 ", "0 qid:3 ", "0\t"]), st.sampled_from(["\n", "\r\n", " # note\n"])
)
def test_rows_come_back_as_written(rows: list[dict[int, float]], label: str, end: str) -> None:
    text = end.join(label + " ".join(f"{i}:{v!r}" for i, v in row.items()) for row in rows)
    assert rows_of(text.encode()) == rows


@given(st.binary(max_size=200) | st.text("0123456789:. \n#qid-+e_nai", max_size=80).map(str.encode))
def test_any_bytes_are_rows_or_a_bad_request(body: bytes) -> None:
    try:
        rows = read_libsvm(body)
    except BadRequest:
        return
    assert rows.starts[-1] == len(rows.values) == len(rows.columns)


def test_reads_what_xgboost_reads_from_the_same_file(tmp_path) -> None:
    text = "1 0:1.5 3:-2\n0 1:.25\n1 0:1e-3 1:2 2:3 3:4\n"
    (tmp_path / "rows").write_text(text)
    expected = xgb.DMatrix(f"{tmp_path}/rows?format=libsvm").get_data()
    rows = read_libsvm(text.encode())
    np.testing.assert_array_equal(expected.indptr, rows.starts)
    np.testing.assert_array_equal(expected.indices, rows.columns)
    np.testing.assert_array_equal(expected.data, rows.values.astype(np.float32))


def test_a_row_may_have_no_label_or_no_values() -> None:
    assert rows_of(b"0:1 2:3") == [{0: 1.0, 2: 3.0}]
    assert rows_of(b"1\n0 1:2\n\n1") == [{}, {1: 2.0}, {}, {}]


@pytest.mark.parametrize(
    ("line", "row"),
    [
        (b"1 0:1 2:3", {0: 1.0, 2: 3.0}),
        (b"1  0:1\t2:3 ", {0: 1.0, 2: 3.0}),
        (b"+1 0:+1 002:03", {0: 1.0, 2: 3.0}),
        (b"1 0:1. 2:.5", {0: 1.0, 2: 0.5}),
        (b"1 0:1e3 2:1E-3", {0: 1000.0, 2: 0.001}),
        (b"1 0:9007199254740993 2:-0", {0: 9007199254740992.0, 2: 0.0}),
        (b"1 0:123456789012345678901234567890", {0: 1.2345678901234568e29}),
    ],
)
def test_numbers_may_be_written_in_any_usual_way(line: bytes, row: dict[int, float]) -> None:
    assert rows_of(line) == [row]


def test_a_value_may_be_nan() -> None:
    assert math.isnan(rows_of(b"0:nan")[0][0])


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "the body is empty"),
        (b" \n\t ", "the body is empty"),
        (b"1 0:1\n0 1:x", "row 2, item 2: '1:x' has a value that is not a number"),
        (b"1 0:", "row 1, item 2: '0:' has a value that is not a number"),
        (b"a:1", "row 1, item 1: 'a:1' is not index:value"),
        (b"-1:1", "row 1, item 1: '-1:1' is not index:value"),
        (b":1", "row 1, item 1: ':1' is not index:value"),
        (b"1.5:1", "row 1, item 1: '1.5:1' is not index:value"),
        (b"1_0:1", "row 1, item 1: '1_0:1' is not index:value"),
        (b"1:1_0", "row 1, item 1: '1:1_0' has a value that is not a number"),
        (b"99999999999:1", "has an index over 2147483647"),
        (b"2147483648:1", "has an index over 2147483647"),
        (b"1 2:1 2:3", "row 1 has index 2 twice"),
        (b"1 2", "row 1, item 2: '2' is not index:value"),
        (b"1.0,2.0,3.0", "send Content-Type: text/csv for CSV"),
        (b"\xff\xfe", "is not index:value"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_place(body: bytes, said: str) -> None:
    with pytest.raises(BadRequest) as raised:
        read_libsvm(body)
    assert said in raised.value.message


@pytest.mark.parametrize(
    ("body", "first_index", "columns"),
    [
        # Auto: 0 is the first unless an index is one past the last feature, of which there are four.
        (b"0:1 3:1", None, [0, 3]),
        (b"1:1 3:1", None, [1, 3]),
        (b"1:1 4:1", None, [0, 3]),
        (b"0:1 4:1", None, [0, 4]),
        (b"1:1 5:1", None, [1, 5]),
        (b"1:1 4:1", 0, [1, 4]),
        (b"1:1 3:1", 1, [0, 2]),
        (b"1", 1, []),
    ],
)
def test_indices_count_from_zero_unless_they_cannot(
    body: bytes, first_index: int | None, columns: list[int]
) -> None:
    assert rebase(read_libsvm(body), 4, first_index).columns.tolist() == columns


def test_index_zero_contradicts_the_setting_that_they_count_from_one() -> None:
    with pytest.raises(BadRequest, match="row 2 has index 0; MMEKIT_XGBOOST_LIBSVM_BASE says"):
        rebase(read_libsvm(b"1:1\n0:1"), 4, 1)
