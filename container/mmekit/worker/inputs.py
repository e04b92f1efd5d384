"""What an MMS handler finds in ``data``: query, form, multipart and plain bodies as named inputs.

Names, types and what counts as text or JSON are those of MMS (InferenceRequestHandler.java,
otf_message_handler.py). Where MMS answers 500 or loses its worker because a client sent nonsense,
this raises ``BadRequest``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

from mmekit.errors import BadRequest

#: Most fields of a query; MMS ignores what is beyond.
MAX_QUERY_FIELDS = 1024
#: Most fields of a form and parts of a multipart body.
MAX_FORM_FIELDS = 100_000
#: Escapes are undone in pieces of so many bytes: the library needs 75 times the memory of its text.
_PIECE = 64 * 1024
#: Longest header line of a part in bytes, and most headers of a part.
_MAX_PART_HEADER = 8192
_MAX_PART_HEADERS = 16

_FORM = "application/x-www-form-urlencoded"
_MULTIPART = "multipart/form-data"
#: There "=name" is a name without value, as to MMS; in a form it is a value without name.
_QUERY = "query string"
_BOUNDARY = re.compile(r';\s*boundary="?([^";,]+)', re.IGNORECASE)
#: A percent sign that does not begin an escape (RFC 3986, 2.1).
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")


@dataclass(frozen=True, slots=True)
class Part:
    """One named input: ``content_type`` is without parameters, "" where the client gave none."""

    name: str
    content_type: str
    value: bytes | bytearray | memoryview


def has_parts(media: str) -> bool:
    """Whether a body of this media type consists of several inputs; each other one is an input itself."""
    return media == _MULTIPART or media.lower() == _FORM


def media_type(content_type: str | None) -> str:
    """Return a header's value without parameters, "" for None."""
    return content_type.partition(";")[0] if content_type else ""


def parts_of(query: str, content_type: str | None, body: bytes | bytearray | memoryview) -> Iterable[Part]:
    """Return a request's inputs in order; of several with one name the last counts.

    A multipart body without its boundary has none, and one that ends early those that are complete.
    Raises ``BadRequest`` for broken escapes, broken parts and too many of either.
    """
    yield from _fields(query.encode("latin-1", "replace"), b"&;", _QUERY, MAX_QUERY_FIELDS)
    media = media_type(content_type)
    if media.lower() == _FORM:
        yield from _fields(bytes(body), b"&", "form", MAX_FORM_FIELDS)
    elif media == _MULTIPART and (boundary := _BOUNDARY.search(content_type or "")):
        yield from _multipart(boundary[1].strip(), body)
    else:
        yield Part("body", media, body)


def value_of(part: Part, decode: bool) -> Any:
    """Return what the handler gets: a bytearray, or with ``decode`` JSON as an object and text as str.

    The type is compared with its case, as MMS does. Raises ``BadRequest`` for what cannot be decoded.
    """
    if decode and part.content_type == "application/json":
        try:
            return json.loads(_text(part))
        except (ValueError, RecursionError) as error:
            raise BadRequest(
                f"{_where(part)} is application/json and cannot be read as JSON: {error}"
            ) from None
    if decode and part.content_type.startswith("text"):
        return _text(part)
    return part.value if isinstance(part.value, bytearray) else bytearray(part.value)


def _where(part: Part) -> str:
    return "The body" if part.name == "body" else f"The part {part.name!r}"


def _text(part: Part) -> str:
    try:
        return str(part.value, "utf-8")
    except UnicodeDecodeError as error:
        raise BadRequest(
            f"{_where(part)} is {part.content_type} and must be UTF-8: byte {error.start} is "
            f"0x{part.value[error.start]:02x}."
        ) from None


def _fields(text: bytes, separators: bytes, where: str, most: int) -> Iterator[Part]:
    if not text:
        return
    if bad := _BAD_ESCAPE.search(text):
        shown = text[bad.start() : bad.start() + 3].decode("latin-1")
        raise BadRequest(f"The {where} has {shown!r} at byte {bad.start()}; expected % and two hex digits.")
    fields = re.split(b"[" + separators + b"]", text, maxsplit=most)
    if len(fields) > most:
        raise BadRequest(f"The {where} has more than {most} fields.")
    for field in fields:
        name, _, value = (field.lstrip(b"=") if where == _QUERY else field).partition(b"=")
        if name:
            yield Part(_unescape(name).decode("utf-8", "replace"), "", _unescape(value))


def _unescape(text: bytes) -> bytes:
    text = text.replace(b"+", b" ")
    pieces = bytearray()
    start = 0
    while start < len(text):
        end = start + _PIECE
        cut = text.find(b"%", end - 2, end)
        if cut != -1 and end < len(text):
            end = cut
        pieces += unquote_to_bytes(text[start:end])
        start = end
    return bytes(pieces)


def _multipart(boundary: str, body: bytes | bytearray | memoryview) -> Iterator[Part]:
    from multipart import MultipartError, PushMultipartParser

    try:
        parser = PushMultipartParser(
            boundary.encode("latin-1", "replace"),
            max_header_size=_MAX_PART_HEADER,
            max_header_count=_MAX_PART_HEADERS,
            max_segment_count=MAX_FORM_FIELDS,
        )
        head, pieces = None, bytearray()
        for event in parser.parse(bytes(body)) if body else ():
            if isinstance(event, bytes | bytearray):
                pieces += event
            elif event is not None:
                head, pieces = event, bytearray()
            elif head is not None:
                yield Part(_part_name(head.name), _part_type(head), pieces)
    except MultipartError as error:
        raise BadRequest(f"The {_MULTIPART} body cannot be read: {error}.") from None


def _part_name(name: str | None) -> str:
    if not name:
        raise BadRequest(
            f"The {_MULTIPART} body has a part without a name; expected "
            'Content-Disposition: form-data; name="…" in each.'
        )
    return name


def _part_type(segment: Any) -> str:
    """Return a file's own content type; a plain field has none, whatever its headers say."""
    disposition = segment.header("Content-Disposition") or ""
    if segment.filename is None and "filename*=" not in disposition.lower():  # RFC 5987, 3.2
        return ""
    header: str | None = segment.header("Content-Type")
    return media_type(header).strip() if header else "application/octet-stream"
