"""What a handler finds in its data and in the request's headers (contract 2.11)."""

from __future__ import annotations

from typing import Any

from tests.differential.differing import answered, bad_request, refused
from tests.differential.exchange import JSON, Exchange, Scenario, ask, get, invoke, load
from tests.support.wire import chunked

_CHUNKED = ("Transfer-Encoding", "chunked")
_FORM = ("Content-Type", "application/x-www-form-urlencoded")
_MULTIPART = ("Content-Type", "multipart/form-data; boundary=edge")


def _typed(name: str, body: bytes | str, *content_types: str) -> Exchange:
    return invoke("echo", body, *(("Content-Type", each) for each in content_types), name=name)


def _form(name: str, body: bytes | str) -> Exchange:
    return invoke("echo", body, _FORM, name=name)


def _part(disposition: str, value: bytes, *lines: str) -> bytes:
    head = "\r\n".join([f"Content-Disposition: form-data; {disposition}", *lines])
    return b"--edge\r\n" + head.encode() + b"\r\n\r\n" + value + b"\r\n"


def _multipart(
    name: str, *parts: bytes, end: bytes = b"--edge--\r\n", path: str = "/predictions/echo"
) -> Exchange:
    return ask(name, "POST", path, b"".join(parts) + end, _MULTIPART)


def _echo(inputs: dict[str, list[Any]], *types: str, **headers: Any) -> dict[str, Any]:
    """Return what models/echo answers: each input has the content type of its place in ``types``."""
    kinds = {name: {"content-type": kind} for name, kind in zip(inputs, types, strict=True)}
    given = {key.replace("_", "-"): value for key, value in headers.items()}
    return {"inputs": inputs, "headers": {**kinds, **given}}


_BODIES = (
    invoke("echo", b"", name="no-body"),
    invoke("echo", b"\x00\x01\xfe\xff", name="no-content-type"),
    _typed("octets", b"\x00\x01\xfe\xff", "application/octet-stream"),
    _typed("json", '{"a": [1, 2.5, null, "x"]}', "application/json"),
    _typed("json-charset", '{"a": 1}', "application/json; charset=utf-8"),
    _typed("json-no-space", '{"a": 1}', "application/json;charset=utf-8"),
    _typed("json-other-case", '{"a": 1}', "Application/JSON"),
    _typed("json-other-kind", '{"a": 1}', "application/jsonlines"),
    _typed("json-scalar", "3", "application/json"),
    _typed("json-nan", "[NaN, Infinity]", "application/json"),
    _typed("json-duplicates", '{"a": 1, "a": 2}', "application/json"),
    _typed("json-text", '"grün"', "application/json"),
    _typed("text", "grün", "text/plain"),
    _typed("text-charset", "gr\u00fcn", "text/plain; charset=utf-8"),
    _typed("text-csv", "1,2\n3,4\n", "text/csv"),
    _typed("text-other-case", "abc", "Text/plain"),
    _typed("text-empty", "", "text/plain"),
    _typed("image", b"\xff\xd8\xff", "image/jpeg"),
    _typed("content-type-empty", "abc", ""),
    _typed("content-type-odd", "abc", "nonsense"),
    get("get", "/predictions/echo"),
    ask("put", "PUT", "/predictions/echo", "abc"),
    ask("delete", "DELETE", "/predictions/echo"),
    ask("chunked", "POST", "/predictions/echo", chunked(b"ab", b"cd"), _CHUNKED),
    ask("chunked-json", "POST", "/predictions/echo", chunked(b'{"a"', b": 1}"), _CHUNKED, JSON),
    ask("chunked-empty", "POST", "/predictions/echo", chunked(), _CHUNKED),
)

_FORMS = (
    _form("form", "a=1&b=two"),
    _form("form-duplicates", "a=1&a=2&b=3"),
    _form("form-escapes", "a=%41%20b+c&n%C3%BC=gr%C3%BCn"),
    _form("form-raw-utf-8", "a=grün"),
    _form("form-no-value", "a&b=&c=1"),
    _form("form-separators", "&&a=1&&b=2&"),
    _form("form-semicolon", "a=1;b=2"),
    _form("form-equals", "a=b=c"),
    _form("form-empty", ""),
    _form("form-called-body", "body=1"),
    _typed("form-charset", "a=1", "application/x-www-form-urlencoded; charset=utf-8"),
    _typed("form-other-case", "a=1", "Application/X-WWW-Form-Urlencoded"),
    ask("form-get", "GET", "/predictions/echo", "a=1", _FORM),
)

_PARTS = (
    _multipart("part-field", _part('name="a"', b"1")),
    _multipart("part-bytes", _part('name="a"', b"\x00\xff\r\n\x01")).differing(
        "bytes-of-fields",
        body=_echo(
            {"a": ["bytearray", "\x00\xff\r\n\x01"]}, "", Content_Length="69", Content_Type=_MULTIPART[1]
        ),
    ),
    _multipart("part-empty", _part('name="a"', b"")),
    _multipart("part-two", _part('name="a"', b"1"), _part('name="b"', b"2")),
    _multipart("part-duplicates", _part('name="a"', b"1"), _part('name="a"', b"2")),
    _multipart("part-file", _part('name="f"; filename="f.bin"', b"\x00\xff", "Content-Type: image/png")),
    _multipart("part-file-no-type", _part('name="f"; filename="f.bin"', b"abc")),
    _multipart("part-file-json", _part('name="f"; filename="f"', b"[1]", "Content-Type: application/json")),
    _multipart(
        "part-file-json-charset",
        _part('name="f"; filename="f"', b"[1]", "Content-Type: application/json; charset=utf-8"),
    ),
    _multipart(
        "part-file-text", _part('name="f"; filename="f"', "grün".encode(), "Content-Type: text/plain")
    ),
    _multipart("part-file-empty-name", _part('name="f"; filename=""', b"abc", "Content-Type: text/plain")),
    _multipart("part-field-json", _part('name="a"', b"[1]", "Content-Type: application/json")),
    _multipart("part-field-text", _part('name="a"', b"abc", "Content-Type: text/plain; charset=utf-8")),
    _multipart(
        "part-file-and-field",
        _part('name="data"; filename="x.csv"', b"1,2", "Content-Type: text/csv"),
        _part('name="k"', b"5"),
    ),
    _multipart("part-unquoted-name", _part("name=a", b"1")),
    _multipart("part-none"),
    _multipart("part-no-end", _part('name="a"', b"1"), end=b""),
    _multipart("part-garbage", b"this is no multipart", end=b""),
    _multipart("part-preamble", b"before\r\n", _part('name="a"', b"1")),
    _multipart("part-epilogue", _part('name="a"', b"1"), end=b"--edge--\r\nafter"),
    bad_request(_multipart("part-no-name", _part('filename="x"', b"1")), "broken-inputs"),
    bad_request(
        _multipart("part-no-disposition", b"--edge\r\nContent-Type: text/plain\r\n\r\n1\r\n"), "broken-inputs"
    ),
    _typed(
        "part-quoted-boundary",
        _part('name="a"', b"1") + b"--edge--\r\n",
        'multipart/form-data; boundary="edge"',
    ),
    _typed("part-no-boundary", _part('name="a"', b"1") + b"--edge--\r\n", "multipart/form-data"),
    _typed(
        "part-other-case", _part('name="a"', b"1") + b"--edge--\r\n", "Multipart/Form-Data; boundary=edge"
    ),
    _typed("part-mixed", _part('name="a"', b"1") + b"--edge--\r\n", "multipart/mixed; boundary=edge"),
    _multipart("part-length-header", _part('name="a"', b"1", "Content-Length: 1")),
)

_QUERIES = (
    ask("query-predictions", "POST", "/predictions/echo?a=1", "abc"),
    ask("query-predictions-deeper", "POST", "/predictions/echo/further?a=1", "abc"),
    ask("query-invoke", "POST", "/models/echo/invoke?a=1&b=two", "abc"),
    ask("query-predict", "POST", "/echo/predict?a=1", "abc"),
    ask("query-invocations", "POST", "/invocations?model_name=echo&a=1", "abc"),
    get("query-get", "/models/echo/invoke?a=1"),
    ask("query-none", "POST", "/models/echo/invoke", "abc"),
    ask("query-empty", "POST", "/models/echo/invoke?", "abc"),
    ask("query-duplicates", "POST", "/models/echo/invoke?a=1&a=2", "abc"),
    ask("query-called-body", "POST", "/models/echo/invoke?body=1", "abc"),
    ask("query-no-value", "POST", "/models/echo/invoke?a&b=&=c", "abc"),
    ask("query-escapes", "POST", "/models/echo/invoke?a=%41%20b+c&n%C3%BC=gr%C3%BCn", "abc"),
    ask("query-semicolon", "POST", "/models/echo/invoke?a=1;b=2", "abc"),
    ask("query-json", "POST", "/models/echo/invoke?a=1", "[1]", JSON),
    ask("query-form", "POST", "/models/echo/invoke?a=1&b=2", "a=3", _FORM),
    _multipart("query-multipart", _part('name="a"', b"3"), path="/models/echo/invoke?a=1&b=2"),
)

_HEADERS = (
    invoke("echo", "abc", ("X-Own", "One"), name="header"),
    invoke("echo", "abc", ("x-OWN", "One"), name="header-case"),
    invoke("echo", "abc", ("X-Own", "one"), ("X-Own", "two"), name="header-twice"),
    invoke("echo", "abc", ("X-Own", "one"), ("x-own", "two"), name="header-twice-other-case").differing(
        "header-names-any-case",
        layout=...,
        body=_echo({"body": ["bytearray", "abc"]}, "", Content_Length="3", X_Own="two"),
    ),
    invoke("echo", "abc", ("X-Own", ""), name="header-empty"),
    invoke("echo", "abc", ("X-Own", "  spaces around  "), name="header-spaces"),
    invoke("echo", "abc", ("X-Own", "a, b"), name="header-list"),
    invoke("echo", "abc", ("X-Own", "gr\u00fcn"), name="header-latin-1"),
    invoke("echo", "abc", ("X-Amzn-SageMaker-Custom-Attributes", "trace=1"), name="header-custom-attributes"),
    invoke("echo", "abc", ("X-Request-Id", "mine"), name="header-request-id"),
    invoke("echo", "abc", ("Connection", "keep-alive"), name="header-connection"),
    invoke("echo", "abc", ("Body", "mine"), name="header-called-body").differing(
        "header-names-any-case",
        layout=...,
        body={
            "inputs": {"body": ["bytearray", "abc"]},
            "headers": {"Body": "mine", "Content-Length": "3"},
        },
    ),
    invoke("echo", "abc", ("body", "mine"), name="header-called-body-exactly"),
)

_BROKEN = (
    bad_request(
        _form("form-broken-escape", "a=%zz"),
        "broken-inputs",
        "The form has '%zz' at byte 2; expected % and two hex digits.",
    ),
    bad_request(
        ask("query-broken-escape", "POST", "/models/echo/invoke?a=%zz", "abc"),
        "broken-inputs",
        "The query string has '%zz' at byte 2; expected % and two hex digits.",
    ),
    _form("form-bytes", "a=%FF%00").differing(
        "bytes-of-fields",
        body=_echo({"a": ["bytearray", "\xff\x00"]}, "", Content_Length="8", Content_Type=_FORM[1]),
    ),
    ask("query-bytes", "POST", "/models/echo/invoke?a=%FF%00", "abc").differing(
        "bytes-of-fields",
        body=_echo(
            {"a": ["bytearray", "\xff\x00"], "body": ["bytearray", "abc"]}, "", "", Content_Length="3"
        ),
    ),
    answered(
        _form("form-no-name", "=1&b=2"),
        "nameless-fields",
        _echo({"b": ["bytearray", "2"]}, "", Content_Length="6", Content_Type=_FORM[1]),
    ),
    _form("form-many", "&".join(f"f{number}=1" for number in range(1500))),
    refused(
        ask("query-many", "POST", "/models/echo/invoke?" + "a&" * 1100, "abc"), "many-parameters", status=400
    ),
)

#: MMS's worker dies of each.
_UNDECODABLE = (
    bad_request(_typed("json-broken", "{", "application/json"), "undecodable-inputs"),
    bad_request(_typed("json-empty", "", "application/json"), "undecodable-inputs"),
    bad_request(
        _typed("json-bytes", b'"\xff"', "application/json"),
        "undecodable-inputs",
        "The body is application/json and must be UTF-8: byte 1 is 0xff.",
    ),
    bad_request(
        _typed("text-bytes", b"\xff", "text/plain"),
        "undecodable-inputs",
        "The body is text/plain and must be UTF-8: byte 0 is 0xff.",
    ),
    bad_request(
        _multipart(
            "part-json-broken", _part('name="f"; filename="f"', b"{", "Content-Type: application/json")
        ),
        "undecodable-inputs",
    ),
    invoke("echo", "abc", name="alive"),
)

_TWO_TYPES = _typed("content-type-twice", "[1]", "text/plain", "application/json")


def _two_types(value: Any) -> dict[str, Any]:
    json_type = "application/json"
    return _echo({"body": value}, json_type, Content_Length="3", Content_Type=json_type)


SCENARIOS: tuple[Scenario, ...] = (
    Scenario(
        "inputs-decoded",
        (
            load("echo"),
            *_BODIES,
            _TWO_TYPES.differing("content-type-twice", layout=..., body=_two_types(["list", [1]])),
            *_FORMS,
            *_PARTS,
            *_QUERIES,
            *_HEADERS,
            *_BROKEN,
            *_UNDECODABLE,
        ),
    ),
    Scenario(
        "inputs-as-they-are",
        (
            load("echo"),
            *_BODIES,
            _TWO_TYPES.differing("content-type-twice", body=_two_types(["bytearray", "[1]"])),
            _typed("json-broken", "{", "application/json"),
            _typed("json-empty", "", "application/json"),
            _typed("text-bytes", b"\xff", "text/plain"),
            *_FORMS[:4],
            *_PARTS[:14],
            *_QUERIES[2:5],
        ),
        {"decode_input_request": "false"},
    ),
)
