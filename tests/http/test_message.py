"""Paths, queries, headers and error bodies as plain values."""

from __future__ import annotations

import json

import pytest

from mmekit.errors import BadRequest, ModelNotFound, ServiceUnavailable
from mmekit.http import Request, error_response, parse_query, split_path


@pytest.mark.parametrize(
    ("raw", "segments"),
    [
        ("/", []),
        ("", []),
        ("*", ["*"]),
        ("/models", ["models"]),
        ("/models/", ["models"]),
        ("/models//", ["models"]),
        ("//models", ["", "models"]),
        ("/models//invoke", ["models", "", "invoke"]),
        ("/models/a%2Fb/invoke", ["models", "a/b", "invoke"]),
        ("/models/%C3%A9t%C3%A9", ["models", "été"]),
        ("/a+b%20c", ["a+b c"]),
        ("/%2e%2e/x", ["..", "x"]),
        ("/a%252Fb", ["a%2Fb"]),
    ],
)
def test_a_path_is_split_first_and_decoded_then(raw: str, segments: list[str]) -> None:
    assert split_path(raw) == segments


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ("/a/%C3", r"The path part '%C3' is not UTF-8 when percent-decoded\."),
        ("/a/%ff", r"is not UTF-8"),
        ("/a/%zz", r"The path has '%zz' where % and two hex digits are expected\."),
        ("/a/%4", r"The path has '%4' where"),
    ],
)
def test_a_path_that_cannot_be_decoded_is_a_bad_request(raw: str, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        split_path(raw)


@pytest.mark.parametrize(
    ("raw", "values"),
    [
        ("", {}),
        ("a=1", {"a": "1"}),
        ("a=1&a=2", {"a": "1"}),
        ("a=1&&b", {"a": "1", "b": ""}),
        ("a=x%20y+z&b=%26%3D", {"a": "x y z", "b": "&="}),
        ("a=b=c", {"a": "b=c"}),
        ("url=s3%3A%2F%2Fb%2Fk%2Bv", {"url": "s3://b/k+v"}),
    ],
)
def test_a_query_is_decoded_and_the_first_of_equal_names_wins(raw: str, values: dict[str, str]) -> None:
    assert parse_query(raw) == values


def test_a_query_that_cannot_be_decoded_is_a_bad_request() -> None:
    with pytest.raises(BadRequest, match="The query part '%E9' is not UTF-8"):
        parse_query("name=%E9")


def test_a_header_is_found_in_any_case_and_the_first_wins() -> None:
    request = Request("GET", "/", headers=[(b"X-A", b"1"), (b"x-a", b"2"), (b"Accept", b"text/csv")])
    assert request.header(b"x-a") == b"1"
    assert request.header(b"accept") == b"text/csv"
    assert request.header(b"x-b") is None
    assert request.first == {b"x-a": b"1", b"accept": b"text/csv"}


def test_an_error_is_answered_with_code_type_and_message() -> None:
    response = error_response(ModelNotFound("Model m is not loaded."))
    assert response.status == 404
    assert json.loads(response.body) == {
        "code": 404,
        "type": "ModelNotFoundException",
        "message": "Model m is not loaded.",
    }
    assert response.body.startswith(b'{\n  "code": 404,\n')
    assert response.headers == [(b"content-type", b"application/json")]


def test_an_error_with_a_time_to_retry_says_so() -> None:
    assert (b"retry-after", b"3") in error_response(ServiceUnavailable("full", 3)).headers
    assert len(error_response(ServiceUnavailable("stopping", None)).headers) == 1
