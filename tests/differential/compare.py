"""Two replies to the same bytes: in which aspects they differ, what must vary taken out.

Aspects are ``answered``, ``status``, ``reason``, ``closed``, ``header NAME``, for errors ``code``,
``type`` and ``message``, else ``body``; and ``layout`` (how JSON is indented). With several replies on one
connection each has its number before it: ``2 status``.
"""

from __future__ import annotations

import json
import re
from http import HTTPStatus
from typing import Any

from tests.support.wire import Reply

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")

#: Fields of workers. How ids look is the difference `worker-ids`, shown by a test of its own.
_VARYING = {"id": "WORKER", "memoryUsage": "BYTES"}

#: Left out: `date` is the difference `date-header`, the length follows from the body.
_HEADERS_LEFT_OUT = {"date", "content-length"}


def differences(mms: list[Reply], ours: list[Reply]) -> dict[str, tuple[Any, Any]]:
    """Return aspect → (what MMS answers, what mmekit answers), for each aspect that differs."""
    if len(mms) != len(ours):
        return {"replies": (len(mms), len(ours))}
    found = {}
    for number, (left, right) in enumerate(zip(mms, ours, strict=True), 1):
        prefix = f"{number} " if len(mms) > 1 else ""
        found.update({prefix + aspect: pair for aspect, pair in _differences(left, right).items()})
    return found


def _differences(mms: Reply, ours: Reply) -> dict[str, tuple[Any, Any]]:
    left, right = _aspects(mms), _aspects(ours)
    if mms.status and not mms.reason and ours.reason == _standard_phrase(ours.status):
        # The difference `reason-phrases`, shown by a test of its own.
        left["reason"] = right["reason"]
    if isinstance(left.get("message"), str) and str(right.get("message")).startswith(left["message"]):
        # Ours goes on with the cause.
        left["message"] = right["message"]
    if mms.status != 0 and ours.status != 0 and set(left) & {"body"} != set(right) & {"body"}:
        # One is an error, the other is not: that says it all.
        for name in ("code", "type", "message", "layout"):
            left.pop(name, None)
            right.pop(name, None)
    names = [*left, *(name for name in right if name not in left)]
    return {name: (left.get(name), right.get(name)) for name in names if left.get(name) != right.get(name)}


def _standard_phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _aspects(reply: Reply) -> dict[str, Any]:
    found: dict[str, Any] = {"answered": "never" if reply.hung else "closed" if not reply.status else "yes"}
    if not reply.status:
        return found
    found |= {"status": reply.status, "reason": reply.reason, "closed": reply.closed}
    for name, value in reply.headers:
        if name.lower() not in _HEADERS_LEFT_OUT:
            found[f"header {name.lower()}"] = _UUID.sub("UUID", value)
    text = reply.body.decode("utf-8", "surrogateescape")
    try:
        value = json.loads(text)
    except ValueError:
        return found | {"body": _fixed(text)}
    found["layout"] = [line[: len(line) - len(line.lstrip(" "))] for line in text.split("\n")]
    if isinstance(value, dict) and {"code", "type"} <= set(value) <= {"code", "type", "message"}:
        # How a message breaks into lines is no matter of layout: JSON escapes line ends.
        return found | value
    return found | {"body": _fixed(value)}


def _fixed(value: Any) -> Any:
    """Put fixed words in place of ids, times and sizes that differ from run to run."""
    if isinstance(value, list):
        return [_fixed(item) for item in value]
    if isinstance(value, dict):
        varying = _VARYING if "startTime" in value else {}
        return {key: varying.get(key) or _fixed(item) for key, item in value.items()}
    if isinstance(value, str):
        return _TIME.sub("TIME", _UUID.sub("UUID", value))
    return value
