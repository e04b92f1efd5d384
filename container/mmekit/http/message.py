"""Requests and responses as values, and how heads, paths and queries are written and read.

Nothing here touches a socket. What a path or a header means is the routes' business.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from urllib.parse import unquote_to_bytes

from mmekit.errors import BadRequest, MmekitError, ServiceUnavailable

Headers = list[tuple[bytes, bytes]]

#: Phrases of RFC 9110, 15.5, which the standard library spells differently before Python 3.13.
_PHRASES = {
    413: "Content Too Large",
    414: "URI Too Long",
    416: "Range Not Satisfiable",
    422: "Unprocessable Content",
}

_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {_PHRASES.get(status.value, status.phrase)}\r\n".encode()
    for status in HTTPStatus
}

#: Statuses whose answer ends with its head and has no Content-Length (RFC 9110, 8.6 and 15.4.5).
BODILESS = frozenset({204, 304})

#: Header lines that the layer writes itself; an application that sets one gets a ValueError.
OWN_HEADERS = frozenset({b"connection", b"content-length", b"date", b"transfer-encoding"})

# token = 1*tchar (RFC 9110, 5.6.2)
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")

# reason-phrase = 1*( HTAB / SP / VCHAR / obs-text ) (RFC 9112, 4)
_REASON = re.compile(r"[\t\x20-\x7e\x80-\xff]*")

_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")

#: Names found to be good, so that each is matched once; user code may choose names, so it is bounded.
_good_names: set[bytes] = set()
_MAX_GOOD_NAMES = 1024


class Request:
    """One request, complete.

    ``path`` and ``query`` are as sent, still percent-encoded; the query is without its "?". ``headers`` are
    in the order and spelling of the wire; ``first`` has the first value of each by its name in lower case.
    ``version`` is "1.0" or "1.1", ``peer`` "host:port", "unix" or "".
    """

    __slots__ = ("body", "first", "headers", "keep_alive", "method", "path", "peer", "query", "version")

    def __init__(
        self,
        method: str,
        path: str,
        query: str = "",
        headers: Headers | None = None,
        body: bytes | bytearray = b"",
        version: str = "1.1",
        keep_alive: bool = True,
        peer: str = "",
    ) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers = headers if headers is not None else []
        self.body = body
        self.version = version
        self.keep_alive = keep_alive
        self.peer = peer
        first = self.first = {name.lower(): value for name, value in headers}
        if len(first) != len(headers):
            self.first = {name.lower(): value for name, value in reversed(headers)}

    def header(self, name: bytes) -> bytes | None:
        """Return the value of ``name``, given in lower case; the first one where it was sent twice."""
        return self.first.get(name)


class Response:
    """One answer, complete. ``reason`` is the status's own phrase where it is None."""

    __slots__ = ("body", "headers", "reason", "status")

    def __init__(
        self,
        status: int,
        headers: Sequence[tuple[bytes, bytes]] = (),
        body: bytes | bytearray = b"",
        reason: str | None = None,
    ) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.reason = reason


def json_error(
    status: int, error_type: str, message: str, headers: Iterable[tuple[bytes, bytes]] = ()
) -> Response:
    """Make the error answer of SageMaker's contract, printed as MMS prints it (MMS: util/JsonUtils.java)."""
    body = json.dumps({"code": status, "type": error_type, "message": message}, indent=2) + "\n"
    return Response(status, [(b"content-type", b"application/json"), *headers], body.encode())


def error_response(error: MmekitError) -> Response:
    """Turn an error into its answer, with ``Retry-After`` where it names one."""
    retry_after_s = error.retry_after_s if isinstance(error, ServiceUnavailable) else None
    headers = [] if retry_after_s is None else [(b"retry-after", b"%d" % retry_after_s)]
    return json_error(error.status, error.type, error.message, headers)


def encode_head(status: int, reason: str | None, headers: Sequence[tuple[bytes, bytes]], own: bytes) -> bytes:
    """Write the status line, ``headers``, the layer's own lines ``own`` (with CRLF) and the empty line.

    Raises ValueError for a status, reason, name or value that would not be one on the wire: text of user code
    must not become another header or another answer.
    """
    line = _STATUS_LINES.get(status)
    if line is None or reason is not None or status < 200:
        line = _status_line(status, reason)
    fields = b""
    for field in headers:
        if field[0] not in _good_names:
            _check_name(field[0])
        fields += b"%b: %b\r\n" % field
    if fields.count(b"\n") != len(headers) or fields.count(b"\r") != len(headers) or b"\0" in fields:
        _name_bad_value(headers)
    return b"%b%b%b\r\n" % (line, fields, own)


def _status_line(status: int, reason: str | None) -> bytes:
    if not 200 <= status <= 999:
        raise ValueError(f"The status of an answer is between 200 and 999, not {status}.")
    if reason is None:
        known = _STATUS_LINES.get(status)
        return known if known is not None else b"HTTP/1.1 %d \r\n" % status
    if not _REASON.fullmatch(reason):
        raise ValueError(f"A reason phrase is printable Latin-1 text on one line, not {reason!r}.")
    return b"HTTP/1.1 %d %b\r\n" % (status, reason.encode("latin-1"))


def _check_name(name: bytes) -> None:
    if not _TOKEN.fullmatch(name):
        raise ValueError(f"{name!r} is not a header name (RFC 9110, 5.1).")
    if name.lower() in OWN_HEADERS:
        raise ValueError(f"The header {name.decode()} is written by the server; leave it out.")
    if len(_good_names) < _MAX_GOOD_NAMES:
        _good_names.add(bytes(name))


def _name_bad_value(headers: Sequence[tuple[bytes, bytes]]) -> None:
    for name, value in headers:
        if any(char in value for char in (b"\r", b"\n", b"\0")):
            raise ValueError(f"The value of header {name.decode()} has a line break or NUL: {value!r}.")


def split_target(target: str) -> tuple[str, str]:
    """Split a request target (RFC 9112, 3.2) into path and query, as sent.

    The absolute form ``http://host/path?query`` is accepted as its path, as section 3.2.2 asks of servers.
    """
    if target[0] != "/" and "://" in target:
        _, slash, rest = target.partition("://")[2].partition("/")
        target = slash + rest or "/"
    path, _, query = target.partition("?")
    return path, query


def split_path(raw: str) -> list[str]:
    """Split a raw path on "/", then percent-decode each segment; empty segments at the end are dropped.

    An encoded slash stays part of its segment. Raises BadRequest for text that is not percent-encoded UTF-8.
    """
    segments = (raw[1:] if raw[:1] == "/" else raw).split("/")
    while segments and not segments[-1]:
        segments.pop()
    if "%" not in raw:
        return segments
    return [percent_decode(segment, "path") for segment in segments]


def parse_query(raw: str) -> dict[str, str]:
    """Decode ``name=value&name=value``; the first of equal names wins, a name without "=" has the value "".

    Raises BadRequest for text that is not percent-encoded UTF-8.
    """
    values: dict[str, str] = {}
    for pair in raw.split("&"):
        if pair:
            name, _, value = pair.replace("+", " ").partition("=")
            values.setdefault(percent_decode(name, "query"), percent_decode(value, "query"))
    return values


def percent_decode(raw: str, part: str) -> str:
    """Decode one component; ``part`` names it in the BadRequest raised when that cannot be done."""
    if "%" not in raw:
        return raw
    if bad := _BAD_PERCENT.search(raw):
        raise BadRequest(
            f"The {part} has {raw[bad.start() : bad.start() + 3]!r} where % and two hex digits are expected."
        )
    try:
        return unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        raise BadRequest(f"The {part} part {raw[:200]!r} is not UTF-8 when percent-decoded.") from None
