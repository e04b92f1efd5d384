"""What an endpoint's containers have written, from CloudWatch Logs, merged by time.

SageMaker writes each instance's output to the stream ``VARIANT/INSTANCE`` of the endpoint's group.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from mmekit_toolkit.aws.clients import Aws

#: Events may reach CloudWatch Logs after later ones of other streams: each look goes back by this much.
_OVERLAP_MS = 30_000


@dataclass(frozen=True, order=True)
class LogEvent:
    """One line; in the order of ``time_ms`` (since 1970, UTC), lines of one millisecond by stream."""

    time_ms: int
    #: ``VARIANT/INSTANCE``.
    stream: str
    #: CloudWatch's own, "" where it gives none: lines of a stream and millisecond keep their order by it.
    id: str
    message: str


def group_of(endpoint: str) -> str:
    """Return the name of the endpoint's log group."""
    return f"/aws/sagemaker/Endpoints/{endpoint}"


def read(
    aws: Aws, endpoint: str, *, since_ms: int, streams: str = "", until_ms: int | None = None
) -> Iterator[LogEvent]:
    """Yield the lines from ``since_ms`` on, in CloudWatch's order: by time, then by ingestion.

    ``streams`` is what their streams' names begin with. Raises ClientError ``ResourceNotFoundException``
    where the endpoint has no group.
    """
    logs = aws.client("logs")
    named = {"logStreamNamePrefix": streams} if streams else {}
    ended = {} if until_ms is None else {"endTime": until_ms}
    pages = logs.get_paginator("filter_log_events").paginate(
        logGroupName=group_of(endpoint), startTime=since_ms, interleaved=True, **named, **ended
    )
    for page in pages:
        for event in page["events"]:
            # moto does not know logStreamNamePrefix.
            if event["logStreamName"].startswith(streams):
                yield LogEvent(
                    event["timestamp"],
                    event["logStreamName"],
                    event.get("eventId", ""),
                    event["message"].rstrip("\n"),
                )


class Follower:
    """Finds what is new at each look, each line once: looks overlap, and lines are known by their ids."""

    def __init__(self, aws: Aws, endpoint: str, *, since_ms: int, streams: str = "") -> None:
        self._aws = aws
        self._endpoint = endpoint
        self._streams = streams
        self._since_ms = since_ms
        self._seen: dict[str, int] = {}  # id → time_ms

    def look(self) -> Iterator[LogEvent]:
        """Yield what no look has yielded yet, by time, as it is read. Raises as ``read``."""
        for event in read(self._aws, self._endpoint, since_ms=self._since_ms, streams=self._streams):
            if event.id not in self._seen:
                self._seen[event.id] = event.time_ms
                yield event
        # Clocks of instances may be ahead of this one's, never the other way by more than the overlap.
        last_ms = min(max(self._seen.values(), default=0), int(time.time() * 1000))
        self._since_ms = max(self._since_ms, last_ms - _OVERLAP_MS)
        self._seen = {id_: at_ms for id_, at_ms in self._seen.items() if at_ms >= self._since_ms}
