from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmekit.errors import NotAcceptable
from mmekit_handlers.accept import choose, most_wanted, parse, parse_accept, plain_content_type

OFFERED = ("application/json", "text/csv", "application/jsonlines", "application/x-npy")
JSON, CSV, LINES, NPY = OFFERED


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, JSON),
        ("", JSON),
        ("*/*", JSON),
        ("text/csv", CSV),
        ("TEXT/CSV", CSV),
        ("csv", CSV),
        ("text/csv; charset=utf-8", CSV),
        ("text/*", CSV),
        ("application/*", JSON),
        ("text/csv, application/json", CSV),
        ("application/json, text/csv", JSON),
        ("text/csv;q=0.5, application/json", JSON),
        ("text/csv;q=0.5, application/json;q=0.4", CSV),
        ("image/png, application/x-npy;q=0.1", NPY),
        ("text/html, */*;q=0.1", JSON),
        ("application/json;q=0, */*", CSV),
        ("application/*, application/json;q=0", LINES),
        ("text/csv;q=nonsense", CSV),
        ("application/x-ndjson", LINES),
        ("*/*;q=0.8, text/csv;q=0.2", JSON),
        ('application/json;note="a,b";q=0.3, text/csv;q=0.2', JSON),
    ],
)
def test_the_most_wanted_type_that_can_be_made_is_chosen(accept: str | None, expected: str) -> None:
    assert expected == choose(accept, OFFERED, JSON)


@pytest.mark.parametrize("accept", ["image/png", "application/json;q=0", "*/*;q=0", "image/*, text/html"])
def test_406_names_what_was_asked_and_what_can_be_made(accept: str) -> None:
    with pytest.raises(NotAcceptable) as caught:
        choose(accept, OFFERED, JSON)
    assert (
        f"Accept is {accept!r}; this model can answer with application/json, text/csv, "
        "application/jsonlines, application/x-npy"
    ) == caught.value.message


def test_the_setting_is_the_answer_to_no_preference_only() -> None:
    assert choose(None, OFFERED, JSON, "text/csv") == CSV
    assert choose("*/*", OFFERED, JSON, "text/csv;q=0.5") == CSV
    assert choose("application/json", OFFERED, JSON, "text/csv") == JSON


def test_a_setting_that_the_model_cannot_answer_is_named() -> None:
    with pytest.raises(NotAcceptable, match="SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT is 'image/png'"):
        choose(None, OFFERED, JSON, "image/png")


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, "application/json"),
        ("*/*", "application/json"),
        ("text/*", "application/json"),
        ("image/png", "image/png"),
        ("text/csv;q=0.2, application/x-npy", "application/x-npy"),
        ("application/json;q=0.9", "application/json"),
        ("application/json; verbose=true", "application/json; verbose=true"),
    ],
)
def test_user_code_gets_one_type_without_its_q(accept: str | None, expected: str) -> None:
    assert expected == most_wanted(accept, "application/json")


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("application/json; charset=utf-8", "application/json"),
        ("Text/CSV", "text/csv"),
        ("multipart/form-data; boundary=AbC", "multipart/form-data; boundary=AbC"),
    ],
)
def test_user_code_gets_a_content_type_it_can_compare(header: str, expected: str) -> None:
    assert expected == plain_content_type(header)


def test_parameters_may_be_quoted() -> None:
    media = parse('Text/CSV ; Header="pre\\"sent" ;charset=latin-1')
    assert (media.name, dict(media.parameters)) == (
        "text/csv",
        {"header": 'pre"sent', "charset": "latin-1"},
    )


@given(st.text())
def test_no_header_value_breaks_the_parser(header: str) -> None:
    parse(header)
    parse_accept(header)
    most_wanted(header, "application/json")
    try:
        assert choose(header, OFFERED, JSON) in OFFERED
    except NotAcceptable:
        pass
