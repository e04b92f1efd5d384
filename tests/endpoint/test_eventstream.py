"""botocore's own reader makes of the messages what was written."""

from __future__ import annotations

from typing import Any

import boto3
import pytest
from botocore.eventstream import EventStream, EventStreamBuffer
from botocore.exceptions import EventStreamError
from botocore.parsers import EventStreamJSONParser
from hypothesis import given
from hypothesis import strategies as st

from mmekit_endpoint.api.eventstream import exception, payload_part


def read(data: bytes, size: int = 1 << 30) -> list[Any]:
    """Return the messages in some bytes that arrive ``size`` at a time."""
    buffer = EventStreamBuffer()
    messages = []
    for start in range(0, len(data), size):
        buffer.add_data(data[start : start + size])
        messages += list(buffer)
    return messages


def test_a_part_is_one_event() -> None:
    (message,) = read(payload_part(b"one"))
    assert message.headers == {
        ":message-type": "event",
        ":event-type": "PayloadPart",
        ":content-type": "application/octet-stream",
    }
    assert message.payload == b"one"


def test_a_large_part_is_several_events() -> None:
    data = bytes(range(256)) * 5000
    messages = read(payload_part(data))
    assert [len(message.payload) for message in messages] == [524288, 524288, 231424]
    assert b"".join(message.payload for message in messages) == data
    assert len(read(payload_part(bytes(524288)))) == 1


def test_an_empty_part_is_no_event() -> None:
    assert payload_part(b"") == b""


@given(st.lists(st.binary(max_size=300)), st.integers(1, 400))
def test_any_bytes_arrive_however_they_are_cut(parts: list[bytes], size: int) -> None:
    data = b"".join(payload_part(part) for part in parts)
    assert [message.payload for message in read(data, size)] == [part for part in parts if part]


def test_an_exception_has_its_type_and_json() -> None:
    (message,) = read(exception("ModelStreamError", "über", "StreamBroken"))
    assert message.headers == {
        ":message-type": "exception",
        ":exception-type": "ModelStreamError",
        ":content-type": "application/json",
    }
    assert message.payload == b'{"Message": "\\u00fcber", "ErrorCode": "StreamBroken"}'


class Raw:
    """A connection with some bytes to read."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def stream(self) -> list[bytes]:
        return [self.data]


@pytest.mark.parametrize("kind", ["ModelStreamError", "InternalStreamFailure"])
def test_boto3_raises_what_ends_a_stream(kind: Any) -> None:
    client = boto3.client("sagemaker-runtime", "eu-west-1")
    model = client.meta.service_model.operation_model("InvokeEndpointWithResponseStream")
    raw = Raw(payload_part(b"a") + payload_part(b"b") + exception(kind, "it broke", "StreamBroken"))
    stream = EventStream(
        raw, model.get_event_stream_output(), EventStreamJSONParser(), "InvokeEndpointWithResponseStream"
    )

    parts = []
    with pytest.raises(EventStreamError, match="it broke") as caught:
        for event in stream:
            parts.append(event["PayloadPart"]["Bytes"])

    assert parts == [b"a", b"b"]
    assert caught.value.response["Error"] == {"Code": kind, "Message": "it broke"}
    client.close()
