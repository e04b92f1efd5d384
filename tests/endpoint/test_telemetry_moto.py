"""What is added to moto: its streams are bounded."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from mmekit_endpoint.telemetry import moto_logs


@dataclass
class Event:
    message: str


@dataclass
class Stream:
    """Counts as moto's LogStream does."""

    events: list[Event] = field(default_factory=list)
    stored_bytes: int = 0

    def put_log_events(self, log_events: list[dict[str, Any]]) -> str:
        self.events += [Event(event["message"]) for event in log_events]
        self.stored_bytes += sum(len(event["message"]) for event in log_events)
        return "token"


@pytest.mark.parametrize(("max_events", "max_bytes", "kept"), [(100, 10**9, 100), (10**9, 300, 100)])
def test_streams_drop_their_oldest_events(
    monkeypatch: pytest.MonkeyPatch, max_events: int, max_bytes: int, kept: int
) -> None:
    monkeypatch.setattr(moto_logs, "MAX_EVENTS", max_events)
    monkeypatch.setattr(moto_logs, "MAX_BYTES", max_bytes)
    monkeypatch.setattr(moto_logs, "LogStream", Stream)
    original = Stream.put_log_events
    monkeypatch.setattr(Stream, "put_log_events", original)
    moto_logs.install()
    moto_logs.install()
    stream = Stream()
    for number in range(500):
        assert stream.put_log_events([{"message": f"{number:03}"}]) == "token"
        assert len(stream.events) <= 1.1 * kept
        assert stream.events[-1].message == f"{number:03}"
        assert stream.stored_bytes == 3 * len(stream.events)
    assert len(stream.events) >= kept
