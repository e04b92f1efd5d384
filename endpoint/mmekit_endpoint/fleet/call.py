"""One invocation on its way through the fleet."""

from __future__ import annotations

from collections.abc import Callable

from mmekit_endpoint.errors import EndpointError
from mmekit_endpoint.fleet.connection import Answer, OnHead, OnPart, Request


class Call:
    """An invocation: what goes to the container, until when, and who is told of the outcome.

    ``finished`` is called once, with the container's 2xx answer or an error; ``variant`` then names the
    variant that took the call.
    """

    __slots__ = (
        "arrived",
        "body",
        "container_s",
        "deadline",
        "finished",
        "gone",
        "hit",
        "lines",
        "moves",
        "on_head",
        "on_part",
        "request",
        "sent",
        "target",
        "variant",
        "waited_s",
    )

    def __init__(
        self,
        target: str | None,
        lines: bytes,
        body: bytes | bytearray,
        arrived: float,
        deadline: float,
        finished: Callable[[Call, Answer | EndpointError], None],
        on_head: OnHead | None = None,
        on_part: OnPart | None = None,
    ) -> None:
        self.target = target
        #: Header lines for the container, each with CRLF.
        self.lines = lines
        self.body = body
        #: Times are of the monotonic clock.
        self.arrived = arrived
        self.deadline = deadline
        self.finished = finished
        self.on_head = on_head
        self.on_part = on_part
        self.variant = ""
        #: The request to the container while it is there.
        self.request: Request | None = None
        self.sent = 0.0
        #: Seconds in the container, and waiting for its model.
        self.container_s = 0.0
        self.waited_s = 0.0
        #: Whether its model was loaded when the call came to an instance.
        self.hit = True
        #: How often it went to another instance, or back to a model that had to be loaded again.
        self.moves = 0
        #: Whether its caller waits no more; what is in the container goes on.
        self.gone = False

    def end(self, outcome: Answer | EndpointError) -> None:
        """Tell the caller what came of it."""
        finished = self.finished
        # Who is told holds the call: nothing waits for the collector.
        self.finished = _nothing
        self.on_head = self.on_part = self.request = None
        self.body = b""
        finished(self, outcome)

    def leave(self) -> None:
        """Take note that the caller waits no more."""
        self.gone = True


def _nothing(_: Call, __: Answer | EndpointError) -> None:
    """Stand in for a caller that was told."""
