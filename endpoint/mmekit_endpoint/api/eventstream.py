"""Answers of InvokeEndpointWithResponseStream: messages of ``application/vnd.amazon.eventstream``.

A message is the length of all and of its headers, their CRC32, the headers, the payload, and the CRC32 of
what came before (Smithy: "Amazon Event Stream Specification").
"""

from __future__ import annotations

import json
import struct
from typing import Literal
from zlib import crc32

#: Bytes of a payload in one message (the specification: 24 MB, 16 MB before). Readers hold a whole message.
_MAX_PAYLOAD = 512 * 1024

#: Type of a header's value: text, with its length before it.
_TEXT = 7


def payload_part(data: bytes) -> bytes:
    """Write a part of the container's answer as a PayloadPart; several for a large one, none for none."""
    starts = range(0, len(data), _MAX_PAYLOAD)
    return b"".join(_message(_PART, data[start : start + _MAX_PAYLOAD]) for start in starts)


def exception(
    kind: Literal["ModelStreamError", "InternalStreamFailure"], message: str, error_code: str | None = None
) -> bytes:
    """Write the error with which a stream ends early.

    ``error_code`` is ModelStreamError's: ModelInvocationTimeExceeded or StreamBroken.
    """
    body = {"Message": message} if error_code is None else {"Message": message, "ErrorCode": error_code}
    headers = _headers("exception", kind, "application/json")
    return _message(headers, json.dumps(body).encode())


def _headers(message_type: str, name: str, content_type: str) -> bytes:
    return b"".join(
        struct.pack(">B", len(header))
        + header.encode()
        + struct.pack(">BH", _TEXT, len(value))
        + value.encode()
        for header, value in (
            (":message-type", message_type),
            (f":{message_type}-type", name),
            (":content-type", content_type),
        )
    )


def _message(headers: bytes, payload: bytes) -> bytes:
    # 16: the two lengths and the two checksums.
    lengths = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    start = b"%b%b%b" % (lengths, struct.pack(">I", crc32(lengths)), headers)
    return b"%b%b%b" % (start, payload, struct.pack(">I", crc32(payload, crc32(start))))


_PART = _headers("event", "PayloadPart", "application/octet-stream")
