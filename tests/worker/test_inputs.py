"""What MMS handlers find in ``data`` for each kind of request; facts were recorded from MMS 1.1.11."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmekit.errors import BadRequest
from mmekit.worker import inputs

FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=B"

FIELD = b'Content-Disposition: form-data; name="a"\r\n\r\nplain'
JSON_FIELD = b'Content-Disposition: form-data; name="a"\r\nContent-Type: application/json\r\n\r\n{"k": 2}'
JSON_FILE = (
    b'Content-Disposition: form-data; name="b"; filename="x.json"\r\n'
    b'Content-Type: application/json; charset=utf-8\r\n\r\n{"k": 1}'
)
TEXT_FILE = (
    b'Content-Disposition: form-data; name="t"; filename="t.txt"\r\nContent-Type: text/plain\r\n\r\nhi'
)
FILE = b'Content-Disposition: form-data; name="c"; filename="x.bin"\r\n\r\n\x00\xff'


def multipart(*parts: bytes, end: bytes = b"--B--\r\n") -> bytes:
    return b"".join(b"--B\r\n" + part + b"\r\n" for part in parts) + end


def found(
    query: str = "", content_type: str | None = None, body: bytes = b"", decode: bool = False
) -> dict[str, tuple[str, Any]]:
    parts = inputs.parts_of(query, content_type, body)
    return {part.name: (part.content_type, inputs.value_of(part, decode)) for part in parts}


# --- names and values


@pytest.mark.parametrize("content_type", [None, "text/csv", "application/octet-stream"])
def test_any_other_body_is_one_input_named_body(content_type: str | None) -> None:
    assert found("", content_type, b"1,2") == {"body": (content_type or "", bytearray(b"1,2"))}


def test_no_body_is_an_empty_bytearray() -> None:
    assert found() == {"body": ("", bytearray())}


def test_each_query_parameter_is_an_input_and_the_last_of_a_name_counts() -> None:
    assert found("x=1&y=&z&x=2&=v&a;b=3&p=%41+b&u=%ff", None, b"raw") == {
        "x": ("", bytearray(b"2")),
        "y": ("", bytearray()),
        "z": ("", bytearray()),
        "v": ("", bytearray()),
        "a": ("", bytearray()),
        "b": ("", bytearray(b"3")),
        "p": ("", bytearray(b"A b")),
        "u": ("", bytearray(b"\xff")),
        "body": ("", bytearray(b"raw")),
    }


def test_the_body_comes_before_a_query_parameter_of_its_name() -> None:
    assert found("body=1", "text/csv", b"raw") == {"body": ("text/csv", bytearray(b"raw"))}


@pytest.mark.parametrize("content_type", [FORM, "Application/X-www-form-urlencoded; charset=utf-8"])
def test_each_form_field_is_an_input(content_type: str) -> None:
    assert found("q=0", content_type, b"x=1&y=%41+b&x=2&z") == {
        "q": ("", bytearray(b"0")),
        "x": ("", bytearray(b"2")),
        "y": ("", bytearray(b"A b")),
        "z": ("", bytearray()),
    }


def test_an_empty_form_has_no_inputs() -> None:
    assert found("", FORM, b"") == {}


def test_a_form_field_without_a_name_is_left_out() -> None:
    assert found("", FORM, b"=1&a=2") == {"a": ("", bytearray(b"2"))}


def test_a_semicolon_separates_in_a_query_and_not_in_a_form() -> None:
    assert found("", FORM, b"a=1;b=2") == {"a": ("", bytearray(b"1;b=2"))}


def test_each_part_is_an_input_and_a_file_has_its_own_type() -> None:
    assert found("", MULTIPART, multipart(FIELD, JSON_FILE, FILE)) == {
        "a": ("", bytearray(b"plain")),
        "b": ("application/json", bytearray(b'{"k": 1}')),
        "c": ("application/octet-stream", bytearray(b"\x00\xff")),
    }


def test_the_last_part_of_a_name_counts() -> None:
    body = multipart(FIELD, FIELD.replace(b"plain", b"second"))
    assert found("", MULTIPART, body) == {"a": ("", bytearray(b"second"))}


@pytest.mark.parametrize("content_type", ["multipart/form-data", "multipart/mixed; boundary=B"])
def test_a_body_without_boundary_or_of_another_multipart_type_is_one_input(content_type: str) -> None:
    body = multipart(FIELD)
    media = content_type.partition(";")[0]
    assert found("", content_type, body) == {"body": (media, bytearray(body))}


@pytest.mark.parametrize("body", [b"", b"garbage", b"--C\r\n" + FIELD])
def test_a_multipart_body_without_its_boundary_has_no_inputs(body: bytes) -> None:
    assert found("", MULTIPART, body) == {}


@pytest.mark.parametrize("rest", [b"", b"Content-Disp", JSON_FILE])
def test_a_multipart_body_that_ends_early_has_the_parts_that_are_complete(rest: bytes) -> None:
    assert found("", MULTIPART, multipart(FIELD, end=b"--B\r\n" + rest)) == {"a": ("", bytearray(b"plain"))}


def test_a_quoted_boundary_and_a_preamble_are_understood() -> None:
    body = b"hello\r\n" + multipart(FIELD)
    assert found("", 'multipart/form-data; charset=utf-8; Boundary="B"', body) == {
        "a": ("", bytearray(b"plain"))
    }


# --- decoding


def test_json_and_text_are_decoded_when_asked_for() -> None:
    assert found("", "application/json; charset=x", b'{"a": [1, null]}', decode=True) == {
        "body": ("application/json", {"a": [1, None]})
    }
    assert found("", "text/csv", "grün".encode(), decode=True) == {"body": ("text/csv", "grün")}
    assert found("", MULTIPART, multipart(JSON_FILE, TEXT_FILE, FILE), decode=True) == {
        "b": ("application/json", {"k": 1}),
        "t": ("text/plain", "hi"),
        "c": ("application/octet-stream", bytearray(b"\x00\xff")),
    }


@pytest.mark.parametrize("content_type", ["Application/JSON", "application/json ; a=b", "application/jsonl"])
def test_other_types_stay_bytes_also_when_decoding(content_type: str) -> None:
    ((_, value),) = found("", content_type, b"1", decode=True).values()
    assert value == bytearray(b"1")


def test_fields_of_query_and_forms_stay_bytes_also_when_decoding() -> None:
    assert found("q=1", FORM, b"x=2", decode=True) == {"q": ("", bytearray(b"1")), "x": ("", bytearray(b"2"))}
    assert found("", MULTIPART, multipart(JSON_FIELD), decode=True) == {"a": ("", bytearray(b'{"k": 2}'))}


@pytest.mark.parametrize(
    ("content_type", "body", "text"),
    [
        ("application/json", b"{", "The body is application/json and cannot be read as JSON: Expecting"),
        ("application/json", b"", "The body is application/json and cannot be read as JSON: Expecting value"),
        ("application/json", b"\xff", "The body is application/json and must be UTF-8: byte 0 is 0xff."),
        ("application/json", b"[" * 200_000, "cannot be read as JSON: maximum recursion depth"),
        ("application/json", b"1" * 5_000, "cannot be read as JSON: Exceeds the limit"),
        ("text/csv", b"a\xe9", "The body is text/csv and must be UTF-8: byte 1 is 0xe9."),
        (MULTIPART, multipart(JSON_FILE.replace(b"}", b"")), "The part 'b' is application/json and cannot"),
    ],
)
def test_what_cannot_be_decoded_is_the_clients_mistake(content_type: str, body: bytes, text: str) -> None:
    with pytest.raises(BadRequest) as raised:
        found("", content_type, body, decode=True)
    assert text in raised.value.message


# --- nonsense


@pytest.mark.parametrize(
    ("query", "content_type", "body", "text"),
    [
        ("x=100%", None, b"", "The query string has '%' at byte 5; expected % and two hex digits."),
        ("x=%zz", None, b"", "The query string has '%zz' at byte 2"),
        ("", FORM, b"x=%4", "The form has '%4' at byte 2"),
        ("&".join("x" for _ in range(1025)), None, b"", "The query string has more than 1024 fields."),
        ("", FORM, b"&".join([b"x"] * 100_001), "The form has more than 100000 fields."),
        ("", MULTIPART, multipart(*[FIELD] * 100_001), "Maximum segment count exceeded"),
        ("", MULTIPART, multipart(b"X: y\r\n\r\nx"), "Missing Content-Disposition"),
        ("", MULTIPART, multipart(b"garbage\r\n\r\nx"), "Malformed segment header"),
        ("", MULTIPART, multipart(b"Content-Disposition: form-data\r\n\r\nx"), "a part without a name"),
        ("", MULTIPART, multipart(b"X-Long: " + b"x" * 9000 + b"\r\n" + FIELD), "header length exceeded"),
        ("", MULTIPART, multipart(b"X-A: b\r\n" * 17 + FIELD), "header count exceeded"),
    ],
)
def test_what_cannot_be_read_is_the_clients_mistake(
    query: str, content_type: str | None, body: bytes, text: str
) -> None:
    with pytest.raises(BadRequest) as raised:
        found(query, content_type, body)
    assert text in raised.value.message


def test_many_separators_are_not_many_fields_of_work() -> None:
    with pytest.raises(BadRequest, match="more than 100000"):
        found("", FORM, b"a&" * 1_000_000)
    with pytest.raises(BadRequest, match="more than 100000"):
        found("", FORM, b"&" * 100_000 + b"a=1&b=2")
    assert found("", FORM, b"a=" + b"&" * 1000) == {"a": ("", bytearray())}


def test_a_long_value_is_unescaped_in_pieces_that_cut_no_escape() -> None:
    for shift in range(4):
        text = b"x" * shift + b"%41+" * 50_000
        value = found("", FORM, b"a=" + text)["a"][1]
        assert value == b"x" * shift + b"A " * 50_000


def test_unescaping_takes_memory_of_a_few_bodies() -> None:
    body = b"a=" + b"%41" * 2_000_000
    tracemalloc.start()
    try:
        found("", FORM, body)
        assert tracemalloc.get_traced_memory()[1] < 6 * len(body)
    finally:
        tracemalloc.stop()


def test_a_file_name_of_rfc_5987_makes_a_part_a_file() -> None:
    head = b"Content-Disposition: form-data; name=\"a\"; filename*=UTF-8''%e6%97%a5.json\r\n"
    body = multipart(head + b'Content-Type: application/json\r\n\r\n{"k": 1}')
    assert found("", MULTIPART, body, decode=True) == {"a": ("application/json", {"k": 1})}


_MULTIPART_PIECES = st.sampled_from(
    [b"--B", b"--B--", b"\r\n", b"\n", b"\r", b": ", b'"', b";", b"a", b"\x00\xff", FIELD, JSON_FILE, b"%"]
)
_BODIES = st.binary(max_size=300) | st.lists(_MULTIPART_PIECES, max_size=30).map(b"".join)
_TYPES = st.sampled_from(
    [None, FORM, MULTIPART, "application/json", "text/csv", "multipart/form-data; boundary="]
)
_QUERIES = st.text("ab=&;%+0F\xe9日\0#", max_size=30)


@given(_QUERIES, _TYPES | st.text(max_size=40), _BODIES, st.booleans())
def test_whatever_comes_is_read_or_refused(
    query: str, content_type: str | None, body: bytes, decode: bool
) -> None:
    try:
        result = found(query, content_type, body, decode)
    except BadRequest:
        return
    assert all(isinstance(name, str) and name for name in result)


@given(st.dictionaries(st.text(min_size=1, max_size=8), st.binary(max_size=40), max_size=8))
def test_what_a_client_encodes_as_form_or_multipart_arrives_as_it_was(fields: dict[str, bytes]) -> None:
    from urllib.parse import quote, urlencode

    pairs = {name: bytearray(value) for name, value in fields.items()}
    encoded = urlencode(fields)
    assert {name: value for name, (_, value) in found(encoded, FORM, b"").items()} == pairs
    assert {name: value for name, (_, value) in found("", FORM, encoded.encode()).items()} == pairs
    boundary = "a-boundary-that-no-value-has-0123456789"
    parts = b"".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{quote(name)}"\r\n\r\n'.encode()
        + value
        + b"\r\n"
        for name, value in fields.items()
    )
    body = parts + f"--{boundary}--\r\n".encode()
    result = found("", f"multipart/form-data; boundary={boundary}", body)
    assert sorted(bytes(value) for _, value in result.values()) == sorted(fields.values())
