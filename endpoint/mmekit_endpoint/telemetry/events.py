"""What happened: instances, loads, evictions, failures. The newest in memory, all in a file of JSON lines."""

from __future__ import annotations

import time
from collections import deque
from itertools import islice
from pathlib import Path

import msgspec

from mmekit_endpoint.telemetry.event_file import EventFile

#: Events that can be asked for.
MAX_EVENTS = 10_000


class Event(msgspec.Struct, frozen=True):
    """One thing that happened; names are "" where they say nothing."""

    #: Counts from 1, across restarts of the service.
    sequence: int
    #: Seconds since the epoch.
    time: float
    kind: str
    text: str
    endpoint: str = ""
    variant: str = ""
    instance: str = ""
    model: str = ""
    numbers: dict[str, float] = {}


class EventLog:
    """Takes events in the event loop; a thread appends them to ``path``, where there is one."""

    def __init__(self, path: Path | None) -> None:
        self._events: deque[Event] = deque(maxlen=MAX_EVENTS)
        self._file = EventFile(path) if path is not None else None
        self._sequence = self._file.last_sequence() if self._file is not None else 0

    def add(
        self,
        kind: str,
        text: str,
        *,
        endpoint: str = "",
        variant: str = "",
        instance: str = "",
        model: str = "",
        **numbers: float,
    ) -> None:
        """Write down that something happened."""
        self._sequence += 1
        event = Event(self._sequence, time.time(), kind, text, endpoint, variant, instance, model, numbers)
        self._events.append(event)
        if self._file is not None:
            self._file.write(msgspec.json.encode(event) + b"\n")

    def since(self, sequence: int, limit: int) -> list[Event]:
        """Return the first ``limit`` events after that one, of those in memory."""
        if not self._events:
            return []
        skipped = max(0, sequence + 1 - self._events[0].sequence)
        return list(islice(self._events, skipped, skipped + limit))

    def close(self) -> None:
        """Write what is not written yet; nothing may be added afterwards."""
        if self._file is not None:
            self._file.close()
