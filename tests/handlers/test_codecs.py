from __future__ import annotations

import contextlib
import io
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse

from mmekit.errors import BadRequest, NotAcceptable, PredictionFailed, UnsupportedMediaType
from mmekit_handlers import codecs
from mmekit_handlers.codecs import encode, read_array, read_csv, read_npz, read_table

NAMES = ("age", "town")
FLOATS = hnp.arrays(np.float64, hnp.array_shapes(min_dims=2, max_dims=2), elements=st.floats())


def values(body: bytes | str, content_type: str = "text/csv", **options: object) -> list[list[object]]:
    raw = body.encode() if isinstance(body, str) else body
    return read_table(raw, content_type, **options).values.tolist()  # type: ignore[arg-type]


def npy(array: np.ndarray, **options: bool) -> bytes:
    out = io.BytesIO()
    np.save(out, array, **options)
    return out.getvalue()


# --- CSV


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("1,2,3", [[1, 2, 3]]),
        ("1,2\n3,4\n", [[1, 2], [3, 4]]),
        ("1,2\r\n3,4\r\n", [[1, 2], [3, 4]]),
        ("1\r2", [[1], [2]]),
        ("1,2\n\n3,4", [[1, 2], [3, 4]]),
        ("5", [[5]]),
        ("1\n2\n", [[1], [2]]),
        (" 1 , 2\t", [[1, 2]]),
        ("1,2\r3,4", [[1, 2], [3, 4]]),
        ("+1,.5,1.,007,-0", [[1, 0.5, 1, 7, 0]]),
        ("1e3,1E-3,inf,-Infinity", [[1000, 0.001, float("inf"), float("-inf")]]),
        ("1e999,2", [[float("inf"), 2]]),
        ('"1","2"', [[1, 2]]),
        ("True,false", [[1, 0]]),
        (f"1,{2**70}", [[1, float(2**70)]]),
        ("\ufeff1,2", [[1, 2]]),
    ],
)
def test_csv_rows_of_numbers(body: str, expected: list[list[float]]) -> None:
    assert expected == values(body)


@pytest.mark.parametrize("body", ["1,,3", "1,nan,3", "1,NaN,3", "1, ,3", '1,"",3'])
def test_an_empty_csv_field_is_missing(body: str) -> None:
    np.testing.assert_array_equal([[1, np.nan, 3]], read_csv(body.encode()).values)


def test_a_csv_row_may_begin_and_end_with_a_missing_value() -> None:
    np.testing.assert_array_equal([[np.nan, 1, np.nan]], read_csv(b",1,\n").values)
    np.testing.assert_array_equal(
        [[np.nan, np.nan, np.nan], [1, np.nan, np.nan]], read_csv(b",,\r\n1,,\r\n").values
    )


@pytest.mark.parametrize(
    ("body", "columns", "rows"),
    [
        ("age,town\n1,2\n", ("age", "town"), [[1, 2]]),
        ('"age","town"\r\n1,2', ("age", "town"), [[1, 2]]),
        ('"a,b",c\n1,2', ("a,b", "c"), [[1, 2]]),
        ("x,y\n1,2\n3,4", ("x", "y"), [[1, 2], [3, 4]]),
        (",x\n0,5", ("", "x"), [[0, 5]]),
    ],
)
def test_a_first_row_without_numbers_above_rows_with_numbers_is_a_header(
    body: str, columns: tuple[str, ...], rows: list[list[float]]
) -> None:
    table = read_csv(body.encode())
    assert (columns, rows) == (table.columns, table.values.tolist())


def test_names_that_the_model_knows_make_a_header() -> None:
    table = read_csv(b"town,age\nrome,milan\n", names=NAMES, text=True)
    assert (table.columns, table.values.tolist()) == (("town", "age"), [["rome", "milan"]])


def test_text_above_text_is_no_header_without_names() -> None:
    table = read_csv(b"red,big\nblue,small\n", text=True)
    assert (table.columns, table.values.tolist()) == (None, [["red", "big"], ["blue", "small"]])


def test_the_header_parameter_of_the_media_type_decides() -> None:
    present = read_table(b"1,2\n3,4", "text/csv; header=present")
    assert (present.columns, present.values.tolist()) == (("1", "2"), [[3, 4]])
    with pytest.raises(BadRequest, match="row 1, column 1: 'a' is not a number"):
        read_table(b"a,b\n3,4", "text/csv; header=absent")


def test_text_columns_keep_what_looks_like_a_number() -> None:
    table = read_csv(b"31,02134\n,\n", names=NAMES, text=("town",))
    np.testing.assert_array_equal(
        np.array([[31.0, "02134"], [np.nan, np.nan]], object).astype(str), table.values.astype(str)
    )
    with pytest.raises(BadRequest, match=r"row 1, column 1 \(age\): 'old' is not a number"):
        read_csv(b"old,02134", names=NAMES, text=("town",))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", "the body is empty; expected at least one row"),
        (" \r\n\n", "the body is empty; expected at least one row"),
        (
            "1,2\n3,4\n5,abc\n",
            "row 3, column 2: 'abc' is not a number (both count from 1, a header row is not counted)",
        ),
        ("x,y\n1,2\n3,oops", "row 2, column 2 (y): 'oops' is not a number"),
        ("1_000,2", "row 1, column 1: '1_000' is not a number"),
        ("1,2\n3", "row 2 has 1 columns, row 1 has 2"),
        ("1,2\n3,4,5", "row 2 has 3 columns, row 1 has 2"),
        ("a,b\n1,2,3", "row 1 has 3 columns, the header names 2"),
        ("a,a\n1,2", "the header names column 'a' twice"),
        ('1,"2', "line 1 is not CSV: unexpected end of data"),
        (b"1,\xff", "the body is not UTF-8: byte 2 is 0xff"),
        ("1],[2", "row 1, column 1: '1]' is not a number"),
        ("[1,2]", "row 1, column 1: '[1' is not a number"),
        ("x" * 200, "row 1, column 1: '" + "x" * 56 + "... is not a number"),
    ],
)
def test_bad_csv_is_refused_with_its_place(body: str | bytes, message: str) -> None:
    with pytest.raises(BadRequest) as caught:
        values(body)
    assert caught.value.message.startswith(message)


def test_a_header_alone_is_no_row() -> None:
    with pytest.raises(BadRequest, match=r"a header \(age, town\) and no rows"):
        read_csv(b"age,town\n", names=NAMES)


# --- JSON


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("[1, 2]", [[1, 2]]),
        ("[[1, 2], [3, 4]]", [[1, 2], [3, 4]]),
        ('{"instances": [[1, 2]]}', [[1, 2]]),
        ('{"inputs": [1, 2]}', [[1, 2]]),
        ('{"instances": [{"features": [1, 2]}, {"features": [3, 4]}]}', [[1, 2], [3, 4]]),
        ('{"features": [1, 2]}', [[1, 2]]),
        ('{"signature_name": "x", "instances": [[1, true]]}', [[1, 1]]),
        ("[[Infinity, -Infinity]]", [[float("inf"), float("-inf")]]),
        (f"[[{10**25}]]", [[1e25]]),
    ],
)
def test_json_rows(body: str, expected: list[list[float]]) -> None:
    assert expected == values(body, "application/json; charset=utf-8")


@pytest.mark.parametrize(
    "body",
    [
        '[{"b": 1, "a": 2}, {"a": 4, "b": 3}]',
        '{"instances": [{"b": 1, "a": 2}, {"a": 4, "b": 3}]}',
        '{"inputs": {"b": [1, 3], "a": [2, 4]}}',
        '{"columns": ["b", "a"], "data": [[1, 2], [3, 4]]}',
    ],
)
def test_json_rows_with_names(body: str) -> None:
    table = read_table(body.encode(), "application/json")
    assert (table.columns, table.values.tolist()) == (("b", "a"), [[1, 2], [3, 4]])


@pytest.mark.parametrize("body", ["[[1, null]]", "[[1, NaN]]"])
def test_json_null_and_nan_are_missing(body: str) -> None:
    np.testing.assert_array_equal([[1, np.nan]], read_table(body.encode(), "application/json").values)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", "the body is empty; expected a JSON document"),
        ("[1, 2", "the body is not JSON: unexpected end of data at line 1, column 6"),
        ("[NaN, ", "the body is not JSON: Expecting value at line 1, column 7"),
        ("[]", "the body has no rows"),
        ("[[]]", "row 1 has no values"),
        ('[[1, 2], [3, "x"]]', "row 2, column 2: 'x' is not a number"),
        ('[[1, "2"]]', "row 1, column 2: '2' is not a number"),
        ('[{"a": 1, "b": "x"}]', "row 1, column 2 (b): 'x' is not a number"),
        ("[[1, 2], [3]]", "row 2 has 1 columns, row 1 has 2"),
        ("[[1], 2]", "row 2 is a number; row 1 is an array"),
        ('[{"a": 1}, 2]', "row 2 is a number; row 1 is an object"),
        ('[{"a": 1, "b": 1}, {"a": 2, "c": 1}]', "row 2 differs from row 1: it lacks b (send null"),
        ("[[[1]]]", "row 1, column 1: [1] is not a number"),
        ('"text"', "the body holds a string; expected rows of numbers"),
        ("3", "the body holds a number; expected rows"),
        ('{"a": [1, 2], "b": [1]}', "the body is an object with lists of different lengths"),
        ("[" * 2000, "the body is not JSON"),
        ("[NaN," + "1" * 5000 + "]", "the body is not JSON"),
        ("[[NaN, 1" + "0" * 400 + "]]", "an integer in the body is too large for a float64"),
    ],
)
def test_bad_json_is_refused_with_its_place(body: str, message: str) -> None:
    with pytest.raises(BadRequest) as caught:
        values(body, "application/json")
    assert caught.value.message.startswith(message)


def test_json_lines_are_rows() -> None:
    assert values('[1, 2]\n\n{"features": [3, 4]}\n', "application/jsonlines") == [[1, 2], [3, 4]]
    with pytest.raises(BadRequest, match="line 2: the body is not JSON"):
        values("[1]\n[", "application/jsonlines")


def test_json_arrays_keep_their_shape_and_integers() -> None:
    array = read_array(b'{"inputs": [[[1, 2]], [[3, 4]]]}', "application/json")
    assert ((2, 1, 2), np.int64) == (array.shape, array.dtype)
    with pytest.raises(BadRequest, match=r"'x' at \[0\]\[0\]\[1\] is not a number"):
        read_array(b'[[[1, "x"]]]', "application/json")
    for depth in (70, 900, 1010):
        for leaf in ("1", '"x"'):
            with pytest.raises(BadRequest):
                read_array(f"{'[' * depth}{leaf}{']' * depth}".encode(), "application/json")
    with pytest.raises(BadRequest, match="not all of the same shape"):
        read_array(b"[[[1, 2]], [[3]]]", "application/json")


# --- NPY and NPZ


def test_npy_keeps_dtype_shape_and_values() -> None:
    for dtype in ("<f4", ">f8", "i1", "?", "u2"):
        for order in ("C", "F"):
            array = np.asarray(np.arange(6).reshape(2, 3) % 2, dtype, order=order)
            back = read_array(npy(array), "application/x-npy")
            np.testing.assert_array_equal(array, back)
            assert back.dtype == array.dtype.newbyteorder("=")
            assert back.flags.writeable


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the body is empty"),
        (b"hello world", "the body is not npy: the magic string is not correct"),
        (
            npy(np.array([object()]), allow_pickle=True),
            "the npy body is an array of objects, which needs pickle",
        ),
        (npy(np.ones(3)) + b"x", "the npy header says float64 of shape (3,), 24 bytes; 25 follow it"),
        (npy(np.ones(3))[:-1], "the npy header says float64 of shape (3,), 24 bytes; 23 follow it"),
        (npy(np.array(["a"])), "the npy body is an array of <U1; expected numbers"),
        (npy(np.ones(1, complex)), "the npy body is an array of complex128; expected numbers"),
        (npy(np.zeros(2, [("a", "f4")])), "the npy body is an array of [('a', '<f4')]; expected numbers"),
        (npy(np.ones(3)).replace(b"(3,)", b"(-3,)"), "the "),
        (npy(np.ones(3)).replace(b"(3,), ", b"(10**9,)"), "the body is not npy"),
        (b"\x93NUMPY\x01\x00" + b"\xff\xff" + b"(" * 65535, "the body is not npy"),
        (npy(np.ones((1, 1, 1))), "the npy body has shape (1, 1, 1); expected (rows, columns)"),
    ],
)
def test_bad_npy_is_refused(body: bytes, message: str) -> None:
    with pytest.raises(BadRequest) as caught:
        values(body, "application/x-npy")
    assert caught.value.message.startswith(message)


def test_npz_is_a_sparse_matrix() -> None:
    out = io.BytesIO()
    sparse.save_npz(out, sparse.csc_matrix(np.eye(3)))
    np.testing.assert_array_equal(np.eye(3), read_npz(out.getvalue()).toarray())
    for body in (b"PK\x03\x04", b"x", out.getvalue()[:-30]):
        with pytest.raises(BadRequest, match="not a sparse matrix as scipy"):
            read_npz(body)
    with pytest.raises(BadRequest, match="the body is empty"):
        read_npz(b"")


# --- content types


def test_charset_is_honoured() -> None:
    assert values("é,1".encode("utf-16"), "text/csv; charset=utf-16", text=True) == [["é", 1]]
    assert values(b"[[1]]", "application/json; charset=UTF-8") == [[1]]
    with pytest.raises(BadRequest, match=r"the body is not utf-16: byte 0 is 0x31"):
        values(b"1", "text/csv; charset=utf-16")
    for charset in ("nonsense", "hex", "\\0"):
        with pytest.raises(UnsupportedMediaType, match="is not one that can be decoded"):
            values(b"1", f"text/csv; charset={charset}")


def test_415_names_what_can_be_read() -> None:
    with pytest.raises(UnsupportedMediaType) as caught:
        values(b"1", "image/png")
    assert caught.value.message == (
        "Content-Type is 'image/png'; this model reads text/csv, application/json, "
        "application/jsonlines, application/x-npy"
    )


# --- writing


@pytest.mark.parametrize(
    ("prediction", "content_type", "expected"),
    [
        (np.array([0.5, 1.0]), "application/json", b"[0.5,1.0]"),
        (np.array([0.1], np.float32), "application/json", b"[0.1]"),
        (np.array([np.nan, np.inf, 1]), "application/json", b"[null,null,1.0]"),
        (np.array(["a", "b"]), "application/json", b'["a","b"]'),
        (np.array(["a", 1], object), "application/json", b'["a",1]'),
        (np.float64(2.5), "application/json", b"2.5"),
        ({"score": np.float32(0.5), "of": np.arange(2)}, "application/json", b'{"score":0.5,"of":[0,1]}'),
        (sparse.csr_matrix(np.eye(2)), "application/json", b"[[1.0,0.0],[0.0,1.0]]"),
        (pd.DataFrame({"a": [1, 2]}), "application/json", b"[[1],[2]]"),
        (np.asfortranarray([[1, 2], [3, 4]]), "application/json", b"[[1,2],[3,4]]"),
        (np.array([0.5, 1.0]), "text/csv", b"0.5\n1.0\n"),
        (np.array([[1, 2], [3, 4]]), "text/csv", b"1,2\n3,4\n"),
        (np.array([[0.1, np.nan]], np.float32), "text/csv", b"0.1,nan\n"),
        (np.array([[np.inf, 1e300]]), "text/csv", b"inf,1e+300\n"),
        (np.array(["a,b", 'c"', "d"]), "text/csv", b'"a,b"\n"c"""\nd\n'),
        (np.array([True, False]), "text/csv", b"True\nFalse\n"),
        (3, "text/csv", b"3\n"),
        (np.array([[1.5, 2.0], [np.nan, 1]]), "application/jsonlines", b"[1.5,2.0]\n[null,1.0]\n"),
        ([{"a": 1}, {"a": 2}], "application/jsonlines", b'{"a":1}\n{"a":2}\n'),
    ],
)
def test_predictions_are_written(prediction: object, content_type: str, expected: bytes) -> None:
    assert expected == encode(prediction, content_type)


def test_npy_holds_numbers_and_strings() -> None:
    for array in (np.arange(4.0).reshape(2, 2), np.array(["a", "bc"]), np.array(["a", "bc"], object)):
        back = np.load(io.BytesIO(encode(array, "application/x-npy")), allow_pickle=False)
        assert array.tolist() == back.tolist()


@pytest.mark.parametrize(
    ("prediction", "content_type", "error", "message"),
    [
        ({"a": 1}, "text/csv", NotAcceptable, "the prediction, a dict, cannot be written as text/csv"),
        (
            np.ones((1, 1, 1)),
            "text/csv",
            NotAcceptable,
            r"of shape \(1, 1, 1\) cannot be written as text/csv",
        ),
        ([[1], [2, 3]], "text/csv", NotAcceptable, "a list, cannot be written as text/csv"),
        ([{"a": 1}], "text/csv", NotAcceptable, "holds a dict cannot be written as text/csv"),
        (np.array([None]), "application/x-npy", NotAcceptable, "holds Python objects"),
        (
            object(),
            "application/json",
            PredictionFailed,
            "the prediction, a object, cannot be written as JSON",
        ),
        (object(), "text/csv", PredictionFailed, "is a object; expected an array, a list or a number"),
        ([1], "image/png", NotAcceptable, "image/png cannot be written; expected one of"),
    ],
)
def test_what_cannot_be_written_is_said(
    prediction: object, content_type: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        encode(prediction, content_type)


# --- for any values


@given(FLOATS)
def test_csv_and_npy_give_back_any_floats(array: np.ndarray) -> None:
    for content_type in ("text/csv", "application/x-npy"):
        np.testing.assert_array_equal(array, read_table(encode(array, content_type), content_type).values)


@given(hnp.arrays(np.float64, (3, 2), elements=st.floats(allow_infinity=False)))
def test_json_gives_back_any_floats_but_infinities(array: np.ndarray) -> None:
    for content_type in ("application/json", "application/jsonlines"):
        np.testing.assert_array_equal(array, read_table(encode(array, content_type), content_type).values)


@given(hnp.arrays(np.float32, (2, 3), elements=st.floats(width=32)))
def test_csv_gives_back_any_float32(array: np.ndarray) -> None:
    np.testing.assert_array_equal(array, read_csv(encode(array, "text/csv")).values.astype(np.float32))


@given(hnp.arrays(np.float64, (2, 2), elements=st.floats(allow_infinity=False)))
def test_the_fast_reader_agrees_with_the_exact_one(array: np.ndarray) -> None:
    plain = "\n".join(",".join("" if np.isnan(x) else repr(float(x)) for x in row) for row in array)
    quoted = "\n".join(",".join("" if np.isnan(x) else f'"{float(x)!r}"' for x in row) for row in array)
    np.testing.assert_array_equal(read_csv(quoted.encode()).values, read_csv(plain.encode()).values)


CSV_LIKE = st.text("0123456789.,-+eE \r\n\t\"'ab[]_nai", max_size=40).map(str.encode)
JSON_LIKE = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
).map(lambda value: json.dumps(value).encode())


@settings(max_examples=300)
@given(st.binary() | CSV_LIKE | JSON_LIKE, st.booleans() | st.just(("a",)))
def test_no_bytes_raise_anything_but_bad_request(body: bytes, text: bool | tuple[str]) -> None:
    for content_type in codecs.READS:
        for prefix in (b"", b'{"instances":', b"\x93NUMPY\x01\x00", npy(np.ones(2))[:100]):
            for read in (
                lambda raw, kind: read_table(raw, kind, ("a", "b"), text),
                read_array,
            ):
                with contextlib.suppress(BadRequest):
                    read(prefix + body, content_type)
