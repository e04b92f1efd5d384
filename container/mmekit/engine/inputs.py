"""Requests as Multi Model Server hands them to a handler → requests as our handlers read them.

MMS takes a request apart before its workers see it: form fields, parts and query parameters are
entries of one dictionary. What it took apart is put together again, so that each handler reads the
request with its own parser.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from mmekit.worker.context import Request
from mmekit.worker.messages import Headers

_BODY = "body"
_FORM = b"application/x-www-form-urlencoded"
_MULTIPART = b"multipart/form-data"


def request_of(row: Mapping[str, Any], headers: Mapping[str, Any], request_id: str) -> Request:
    """Make a request of one row of a batch and of ``context.get_all_request_header`` for it."""
    # Beside the headers, which are texts, MMS lists a dictionary for each part.
    kinds = {name: value for name, value in headers.items() if isinstance(value, dict)}
    sent: Headers = [
        (name.encode("latin-1", "replace"), value.encode("latin-1", "replace"))
        for name, value in headers.items()
        if isinstance(value, str)
    ]
    media_type = _media_type(sent)
    if media_type == _FORM:
        body: bytes | bytearray = urlencode(
            {name: bytes(_raw(value)) for name, value in row.items()}
        ).encode()
        return Request(sent, body, request_id)
    if media_type == _MULTIPART and _BODY not in row:
        boundary = secrets.token_hex(16)
        kind = (b"content-type", _MULTIPART + b"; boundary=" + boundary.encode())
        others = [header for header in sent if header[0].lower() != b"content-type"]
        return Request([*others, kind], _multipart(row, kinds, boundary), request_id)
    query = urlencode({name: bytes(_raw(value)) for name, value in row.items() if name != _BODY})
    return Request(sent, _raw(row.get(_BODY, b"")), request_id, query)


def _media_type(headers: Headers) -> bytes:
    values = [value for name, value in headers if name.lower() == b"content-type"]
    return values[-1].partition(b";")[0].strip().lower() if values else b""


def _raw(value: Any) -> bytes | bytearray:
    """Undo ``decode_input_request=true``."""
    if isinstance(value, bytes | bytearray):
        return value
    return value.encode() if isinstance(value, str) else json.dumps(value).encode()


def _multipart(row: Mapping[str, Any], kinds: Mapping[str, Mapping[str, Any]], boundary: str) -> bytes:
    """Write fields as RFC 7578 has them; a part that came with a type of its own is a file."""
    lines: list[bytes] = []
    for name, value in row.items():
        kind = str(kinds.get(name, {}).get("content-type") or "")
        quoted = name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
        file = f'; filename="{quoted}"\r\nContent-Type: {kind}' if kind else ""
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{quoted}"{file}\r\n\r\n'
        lines += [head.encode(), bytes(_raw(value)), b"\r\n"]
    return b"".join([*lines, f"--{boundary}--\r\n".encode()])
