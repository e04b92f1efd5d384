"""What is refused before an application sees it, and with which words.

Framing that two servers could read differently is refused, never repaired: that is how requests are smuggled
(RFC 9112, 11.2). llhttp has refused much of it by itself when these checks run.
"""

from __future__ import annotations

from mmekit.errors import PayloadTooLarge
from mmekit.http.limits import Limits
from mmekit.http.message import Headers, Request, Response, error_response, json_error

#: Headers of which RFC 9112 (3.2, 6.3) allows one only; of two, servers differ in which they believe.
_SINGLE = frozenset({b"host", b"content-length", b"transfer-encoding"})


class Refusal(Exception):
    """Raised inside the parser's callbacks to stop it and answer ``response``."""

    def __init__(self, response: Response) -> None:
        self.response = response


def check_head_size(url: bytes, headers: Headers, limits: Limits) -> None:
    """Refuse a head over the limits; needed only when the bytes read could hold one."""
    if len(url) > limits.max_target_bytes:
        raise Refusal(target_too_long(limits))
    size = len(url) + sum(len(name) + len(value) + 4 for name, value in headers)
    if size > limits.max_head_bytes or len(headers) > limits.max_headers:
        raise Refusal(head_too_large(limits))


def body_size(request: Request, limits: Limits) -> int:
    """Return how many bytes to reserve for the body announced; refuse what is not safe to read."""
    first = request.first
    if len(first) != len(request.headers):
        _check_repeats(request)
    if (length := first.get(b"content-length")) is not None:
        size = int(length)  # llhttp lets nothing but digits pass
        if size > limits.max_body_bytes:
            raise Refusal(too_large(f"{size} bytes", limits))
        return size
    if (coding := first.get(b"transfer-encoding")) is not None:
        _check_coding(coding, request.version)
        return limits.max_body_bytes
    return 0


def _check_repeats(request: Request) -> None:
    seen = set()
    for name in (name.lower() for name, _ in request.headers):
        if name in _SINGLE and name in seen:
            raise Refusal(bad_message(f"header {name.decode()} is there twice"))
        seen.add(name)


def _check_coding(coding: bytes, version: str) -> None:
    if version == "1.0":
        # RFC 9112, 6.1: faulty framing, whatever else is sent.
        raise Refusal(bad_message("Transfer-Encoding in an HTTP/1.0 request"))
    if coding.lower() != b"chunked":
        name = coding.decode("latin-1")
        raise Refusal(
            _not_supported(501, f"Transfer-Encoding: {name}; chunked alone is decoded (RFC 9112, 6.1).")
        )


def expects_continue(request: Request) -> bool:
    """Return whether 100 Continue is waited for (RFC 9110, 10.1.1); refuse other expectations."""
    expected = request.header(b"expect")
    if expected is None or request.version == "1.0":
        return False
    if expected.lower() != b"100-continue":
        name = expected.decode("latin-1")
        raise Refusal(_not_supported(417, f"Expect: {name}; 100-continue alone is known (RFC 9110, 10.1.1)."))
    return True


def bad_message(reason: str) -> Response:
    """Answer bytes that are not HTTP; MMS says "Invalid HTTP message." without the reason."""
    return json_error(400, "BadRequestException", f"Invalid HTTP message: {reason}.")


def too_large(size: str, limits: Limits) -> Response:
    """Answer a body over the limit."""
    limit = f"{limits.max_body_bytes} bytes ({limits.max_body_setting})"
    return error_response(PayloadTooLarge(f"The request body has {size}; the limit is {limit}."))


def target_too_long(limits: Limits) -> Response:
    """Answer a request line over the limit."""
    message = f"The request target has more than {limits.max_target_bytes} bytes, the limit."
    return json_error(414, "UriTooLongException", message)


def head_too_large(limits: Limits) -> Response:
    """Answer a head, or lines in a chunked body, over the limit."""
    message = (
        "The request's head, chunk extensions or trailers are over the limit of "
        f"{limits.max_head_bytes} bytes or {limits.max_headers} headers."
    )
    return json_error(431, "RequestHeaderFieldsTooLargeException", message)


def _not_supported(status: int, what: str) -> Response:
    types = {
        417: "ExpectationFailedException",
        501: "NotImplementedException",
        505: "HttpVersionNotSupportedException",
    }
    return json_error(status, types[status], f"Not supported: {what}")


def bad_version(version: str) -> Response:
    """Answer a request of HTTP/0.9 or HTTP/2.0."""
    return _not_supported(505, f"HTTP/{version}: this server speaks HTTP/1.1 and HTTP/1.0.")


def no_proxy() -> Response:
    """Answer CONNECT."""
    return _not_supported(501, "CONNECT: this server is not a proxy.")
