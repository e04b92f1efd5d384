"""What HTTP allows beside the plain request, on the inference connector with a model `echo`."""

from __future__ import annotations

from tests.differential.exchange import JSON, Exchange, invoke, load, manage, raw, unload
from tests.support.wire import chunked, request

#: max_request_size
BODY_LIMIT = 65536

_CHUNKED = ("Transfer-Encoding", "chunked")
_EXPECT = ("Expect", "100-continue")

#: mmekit answers, where MMS refuses and closes the connection.
ANSWERED = {"status": 200, "reason": "OK", "closed": False, "header__connection": "keep-alive"}
_JSON_HEALTHY = {"status": "Healthy"}

#: mmekit refuses, before there is a request; MMS answers it.
_REFUSED = {
    "status": 400,
    "closed": True,
    "header__connection": "close",
    "header__x_request_id": None,
    "body": None,
}

#: What mmekit says where MMS answers with a status alone.
_ERROR_BODY = {
    "body": None,
    "header__content_type": "application/json",
    "header__pragma": "no-cache",
    "header__cache_control": "no-cache; no-store, must-revalidate, private",
    "header__expires": "Thu, 01 Jan 1970 00:00:00 UTC",
}
TOO_LARGE = {**_ERROR_BODY, "reason": "Content Too Large"}
AND_CLOSED = {"closed": True, "header__connection": "close"}


def malformed(name: str, sent: bytes) -> Exchange:
    return raw(name, sent, "GET").differing("malformed-requests", header__x_request_id=None, message=...)


def _unusual(name: str, sent: bytes, **ours: object) -> Exchange:
    """Served by MMS, refused by mmekit."""
    reason = {"reason": "Bad Request"} if b"/ping" in sent else {}
    return raw(name, sent, "GET").differing("unusual-requests", **{**_REFUSED, **reason, **ours})


def exchanges() -> list[Exchange]:
    """What HTTP allows beside the plain request."""
    ping = request("GET", "/ping")
    echo = "/predictions/echo"
    return [
        # With a slow prediction: which of two fast answers comes first differs in MMS from run to run.
        load("slow", max_batch_delay=100),
        raw(
            "pipelined-document-and-prediction",
            request("OPTIONS", "/") + request("POST", "/predictions/slow", (), b"1"),
            "OPTIONS",
            "POST",
        ).differing("openapi-documents", **{"1__body": ..., "1__layout": ...}),
        raw(
            "pipelined-prediction-and-document",
            request("POST", "/predictions/slow", (), b"1") + request("OPTIONS", "/"),
            "POST",
            "OPTIONS",
        ).differing(
            "pipelining",
            **{
                f"{number}__{aspect}": ...
                for number in (1, 2)
                for aspect in ("header__content_type", "layout", "body")
            },
            **{"2__header__x_request_id": "UUID"},
        ),
        unload("slow"),
        raw("chunked", request("POST", echo, [_CHUNKED]) + chunked(b"ab", b"c"), "POST"),
        raw(
            "chunked-with-trailer",
            request("POST", echo, [_CHUNKED, ("Trailer", "X-T")]) + b"1\r\na\r\n0\r\nX-T: 1\r\n\r\n",
            "POST",
        ),
        raw("expect-continue", request("POST", echo, [_EXPECT, ("Content-Length", "3")]), "POST"),
        raw(
            "expect-continue-too-large",
            request("POST", echo, [_EXPECT, ("Content-Length", str(BODY_LIMIT + 1))]),
            "POST",
        ).differing("body-limit", **TOO_LARGE, **AND_CLOSED),
        raw(
            "expect-other",
            request("POST", echo, [("Expect", "200-ok"), ("Content-Length", "1")]) + b"1",
            "POST",
        ).differing("expectations", **_ERROR_BODY, **AND_CLOSED),
        raw("expect-other-without-a-body", request("GET", "/ping", [("Expect", "200-ok")]), "GET").differing(
            "expectations",
            **{
                **_ERROR_BODY,
                "status": 200,
                "reason": "OK",
                "header__x_request_id": "UUID",
                "header__connection": "keep-alive",
                "body": _JSON_HEALTHY,
                "layout": ...,
            },
        ),
        raw("connection-close", request("GET", "/ping", [("Connection", "close")]), "GET").differing(
            "connection-close", closed=True, header__connection="close"
        ),
        raw("connection-keep-alive", request("GET", "/ping", [("Connection", "keep-alive")]), "GET"),
        raw("http-1.0", b"GET /ping HTTP/1.0\r\n\r\n", "GET").differing(
            "connection-close", closed=True, header__connection="close"
        ),
        raw("http-1.0-keep-alive", b"GET /ping HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "GET"),
        _unusual(
            "http-2.0",
            b"GET /ping HTTP/2.0\r\nHost: a\r\n\r\n",
            status=505,
            reason="HTTP Version Not Supported",
        ),
        raw("http-0.9", b"GET /ping\r\n\r\n", "GET").differing(
            "malformed-requests",
            status=505,
            reason="HTTP Version Not Supported",
            header__x_request_id=None,
            code=505,
            type="HttpVersionNotSupportedException",
            message=...,
        ),
        raw("no-host", b"GET /ping HTTP/1.1\r\n\r\n", "GET"),
        _unusual("line-ends-without-cr", b"GET /ping HTTP/1.1\nHost: a\n\n"),
        raw("empty-lines-first", b"\r\n\r\n" + ping, "GET"),
        _unusual("lower-case-method", b"get /ping HTTP/1.1\r\nHost: a\r\n\r\n"),
        _unusual("unknown-method", b"BREW /ping HTTP/1.1\r\nHost: a\r\n\r\n"),
        raw("absolute-target", b"GET http://localhost/ping HTTP/1.1\r\nHost: a\r\n\r\n", "GET").differing(
            "absolute-targets", **ANSWERED, body=_JSON_HEALTHY
        ),
        raw("asterisk", b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS").differing(
            "options-asterisk", **ANSWERED, body=...
        ),
        _other_path("fragment", b"GET /ping#x HTTP/1.1\r\nHost: a\r\n\r\n"),
        raw("escaped-path", b"GET /%70ing HTTP/1.1\r\nHost: a\r\n\r\n", "GET"),
        _other_path("escaped-slash", b"GET /ping%2fx HTTP/1.1\r\nHost: a\r\n\r\n"),
        raw("broken-escape", b"GET /ping%zz HTTP/1.1\r\nHost: a\r\n\r\n", "GET").differing(
            "broken-escapes",
            status=400,
            reason="Bad Request",
            code=400,
            type="BadRequestException",
            message="The path has '%zz' where % and two hex digits are expected.",
        ),
        malformed("space-in-target", b"GET /ping x HTTP/1.1\r\nHost: a\r\n\r\n"),
        malformed("no-version", b"garbage\r\n\r\n"),
        malformed("header-without-colon", b"GET /ping HTTP/1.1\r\nHost: a\r\nbroken\r\n\r\n"),
        malformed("header-with-space-in-name", b"GET /ping HTTP/1.1\r\nHost: a\r\nX Y: 1\r\n\r\n"),
        malformed("negative-length", request("POST", echo, [("Content-Length", "-1")])),
        malformed("length-no-number", request("POST", echo, [("Content-Length", "abc")])),
        malformed(
            "two-lengths", request("POST", echo, [("Content-Length", "1"), ("Content-Length", "2")]) + b"ab"
        ),
        _unusual(
            "length-and-chunked",
            request("POST", echo, [("Content-Length", "3"), _CHUNKED]) + chunked(b"ab"),
            header__content_type="application/json",
        ),
        raw("long-target", request("GET", "/ping?" + "x" * 3000), "GET"),
        raw("long-headers", request("GET", "/ping", [("X-Long", "x" * 7000)]), "GET"),
        raw("longer-target", request("GET", "/ping?" + "x" * 5000), "GET").differing(
            "head-limits", **ANSWERED, body=_JSON_HEALTHY
        ),
        raw("longer-headers", request("GET", "/ping", [("X-Long", "x" * 9000)]), "GET").differing(
            "head-limits", **ANSWERED, body=_JSON_HEALTHY
        ),
        raw("longest-target", request("GET", "/ping?" + "x" * 9000), "GET").differing(
            "head-limits",
            status=414,
            reason="URI Too Long",
            header__x_request_id=None,
            code=414,
            type="UriTooLongException",
            message=...,
        ),
        raw("longest-headers", request("GET", "/ping", [("X-Long", "x" * 40000)]), "GET").differing(
            "head-limits",
            status=431,
            reason="Request Header Fields Too Large",
            header__x_request_id=None,
            code=431,
            type="RequestHeaderFieldsTooLargeException",
            message=...,
        ),
        invoke("echo", b"x" * BODY_LIMIT, name="body-of-the-limit"),
        invoke("echo", b"x" * (BODY_LIMIT + 1), name="body-over-the-limit").differing(
            "body-limit", **TOO_LARGE, **AND_CLOSED
        ),
        raw(
            "chunked-over-the-limit",
            request("POST", echo, [_CHUNKED]) + chunked(*[b"x" * 1000] * (BODY_LIMIT // 1000 + 1)),
            "POST",
        ).differing("body-limit", **TOO_LARGE),
        manage("register-over-the-limit", "POST", "/models", b" " * (BODY_LIMIT + 1), JSON).differing(
            "body-limit", **TOO_LARGE, **AND_CLOSED
        ),
        invoke("echo", b"1", ("X-Request-Id", "mine"), ("x-MiXeD", "Kept"), name="headers-with-case"),
        invoke("echo", b"1", ("X-Two", "1"), ("X-Two", "2"), name="header-twice"),
        invoke("echo", b"1", ("Content-Encoding", "gzip"), name="encoded-body-stays-as-it-is"),
    ]


def _other_path(name: str, sent: bytes) -> Exchange:
    """Pings to MMS; to mmekit a path that there is not."""
    return raw(name, sent, "GET").differing(
        "escaped-paths", status=404, reason="Not Found", closed=True, header__connection="close", body=None
    )
