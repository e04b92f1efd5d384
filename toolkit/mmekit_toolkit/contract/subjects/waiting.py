"""Waits until a server that was started answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from mmekit_toolkit.contract.subjects import NotStarted, Running
from mmekit_toolkit.contract.verdict import Skipped
from mmekit_toolkit.contract.wire import Deadline, Server, Unanswered

_PAUSE_S = 0.05
#: Seconds of one attempt.
_PING_S = 10.0


def wait_ready(running: Running, addresses: Callable[[], Sequence[str]], timeout_s: float) -> str:
    """Return the first of its addresses whose /ping is 200.

    A server whose /ping has another status to the end counts as started all the same: that is another fault
    than not to start. The addresses are asked for again and again, since they may become known only later.
    Raises NotStarted when it ends, or none of its addresses answers in time.
    """
    deadline = Deadline(timeout_s)
    unhealthy, seen = "", "nothing listened"
    while deadline.left_s:
        if (how := running.ended()) is not None:
            raise NotStarted(f"it {how} before it answered /ping", running.last_lines())
        for url in addresses():
            try:
                # Longer than the platform's 2 s: that it is slow is a clause of its own.
                if Server(url, deadline).ping(_PING_S).status == 200:
                    return url
                unhealthy = url
            except Unanswered as error:
                if error.why != "connection refused" and error.took_s:
                    seen = f"{url}/ping: {error.why}"
            except Skipped:
                break  # the time is over
        time.sleep(_PAUSE_S)
    if unhealthy:
        return unhealthy
    raise NotStarted(f"within {timeout_s:g} s it did not answer /ping; {seen}", running.last_lines())
