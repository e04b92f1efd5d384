"""moto's CloudWatch Logs, with streams that do not grow for ever: the oldest events are dropped."""

from __future__ import annotations

from functools import wraps
from typing import Any

from moto.logs.models import LogStream

#: What a stream keeps at least, when it has had more.
MAX_EVENTS = 50_000
MAX_BYTES = 32 * 1024 * 1024

#: What is dropped beyond that, as a share of it, is dropped at once: cutting a list's head costs its length.
_SLACK = 1.1


def install() -> None:
    """Bound moto's streams; before the first request, once or more."""
    stream: Any = LogStream  # its methods are replaced
    if not hasattr(stream.put_log_events, "__wrapped__"):
        stream.put_log_events = _bounded(stream.put_log_events)


def _bounded(put_log_events: Any) -> Any:
    @wraps(put_log_events)
    def put(stream: Any, log_events: list[dict[str, Any]]) -> str:
        token: str = put_log_events(stream, log_events)
        if len(stream.events) > _SLACK * MAX_EVENTS or stream.stored_bytes > _SLACK * MAX_BYTES:
            _trim(stream)
        return token

    return put


def _trim(stream: Any) -> None:
    dropped = max(0, len(stream.events) - MAX_EVENTS)
    kept_bytes = sum(len(event.message) for event in stream.events[dropped:])
    while kept_bytes > MAX_BYTES:
        kept_bytes -= len(stream.events[dropped].message)
        dropped += 1
    del stream.events[:dropped]
    stream.stored_bytes = kept_bytes
