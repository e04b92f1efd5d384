"""One log stream of CloudWatch Logs, and the lines that are on their way to it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from mmekit_endpoint.telemetry.log_lines import EVENT_OVERHEAD_BYTES

#: PutLogEvents takes so many events and bytes at once.
MAX_BATCH_EVENTS = 10_000
MAX_BATCH_BYTES = 1_048_576


class LogEvent(NamedTuple):
    """A line and when it was read, in milliseconds since the epoch."""

    timestamp: int
    message: str


class LogStream:
    """Sends lines in order. Group and stream are made when they are missing, as after a restart of Logs."""

    def __init__(self, region: str, group: str, name: str) -> None:
        self._region = region
        self._group = group
        self.name = name
        self._waiting: deque[LogEvent] = deque()
        self._last = 0

    @property
    def is_idle(self) -> bool:
        """Whether everything was sent."""
        return not self._waiting

    def put(self, lines: list[str], now: float) -> None:
        """Take lines that were read at ``now``, in seconds since the epoch."""
        # A batch must be in the order of time, also where the clock is put back.
        self._last = max(self._last, int(now * 1000))
        self._waiting.extend(LogEvent(self._last, line) for line in lines)

    def drop(self) -> int:
        """Give up what waits; return how many lines that were."""
        dropped = len(self._waiting)
        self._waiting.clear()
        return dropped

    def send(self, client: Callable[[str, str], Any]) -> None:
        """Send all that waits; what was not sent goes on waiting. Raises botocore's errors."""
        while self._waiting:
            batch = next_batch(self._waiting)
            self._put_events(client(self._region, "logs"), batch)
            for _ in batch:
                self._waiting.popleft()

    def _put_events(self, logs: Any, batch: list[LogEvent]) -> None:
        named = {"logGroupName": self._group, "logStreamName": self.name}
        events = [event._asdict() for event in batch]
        try:
            logs.put_log_events(**named, logEvents=events)
        except logs.exceptions.ResourceNotFoundException:
            _unless_there(logs, logs.create_log_group, logGroupName=self._group)
            _unless_there(logs, logs.create_log_stream, **named)
            logs.put_log_events(**named, logEvents=events)


def next_batch(waiting: deque[LogEvent]) -> list[LogEvent]:
    """Return the first events that can be sent at once; they stay where they are."""
    batch: list[LogEvent] = []
    size = 0
    for event in waiting:
        size += len(event.message.encode()) + EVENT_OVERHEAD_BYTES
        if size > MAX_BATCH_BYTES or len(batch) == MAX_BATCH_EVENTS:
            break
        batch.append(event)
    return batch


def _unless_there(logs: Any, create: Any, **named: str) -> None:
    try:
        create(**named)
    except logs.exceptions.ResourceAlreadyExistsException:
        pass
