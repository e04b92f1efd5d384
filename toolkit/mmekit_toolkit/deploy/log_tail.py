"""The last lines that an endpoint's new containers logged: often the reason why they did not start."""

from __future__ import annotations

import time
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from mmekit_toolkit.aws.clients import Aws
from mmekit_toolkit.aws.explanations import code
from mmekit_toolkit.aws.log_events import group_of

#: Lines that are shown, and streams (one an instance) that they are taken from.
_LINES = 20
_STREAMS = 3
#: Clocks differ by so much, in milliseconds. What is older belongs to fleets that served before.
_SLACK_MS = 5_000
#: Lines are in CloudWatch some seconds after they were written: how often to look, and seconds between.
_LOOKS = 4
_PAUSE_S = 1.5


def shown(aws: Aws, endpoint: str, *, since_ms: int) -> list[str]:
    """Return the last lines of fleets begun since then (ms since the epoch), under a heading; never raise."""
    group = group_of(endpoint)
    try:
        lines = _when_there(aws, group, since_ms - _SLACK_MS)
    except (BotoCoreError, ClientError) as error:
        return [f"The log group {group} could not be read: {error}"]
    if not lines:
        return [f"The new containers have logged nothing to {group}; they may never have been started."]
    return [f"The last lines of {group}:", *(f"  {line}" for line in lines)]


def _when_there(aws: Aws, group: str, since_ms: int) -> list[str]:
    for _ in range(_LOOKS - 1):
        if lines := _lines(aws, group, since_ms):
            return lines
        time.sleep(_PAUSE_S)  # CloudWatch tells nobody when lines have come
    return _lines(aws, group, since_ms)


def _lines(aws: Aws, group: str, since_ms: int) -> list[str]:
    logs = aws.client("logs")
    try:
        answer = logs.describe_log_streams(logGroupName=group, orderBy="LastEventTime", descending=True)
    except ClientError as error:
        if code(error) == "ResourceNotFoundException":
            return []
        raise
    new = [stream for stream in answer["logStreams"] if stream["creationTime"] >= since_ms]
    events: list[dict[str, Any]] = []
    for stream in new[:_STREAMS]:
        page = logs.get_log_events(
            logGroupName=group, logStreamName=stream["logStreamName"], startFromHead=False, limit=_LINES
        )
        events += page["events"]
    events.sort(key=lambda event: int(event["timestamp"]))
    return [str(event["message"]).rstrip() for event in events[-_LINES:]]
