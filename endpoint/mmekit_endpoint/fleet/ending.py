"""How a container ended: what its callers are told in place of a broken connection."""

from __future__ import annotations

import asyncio
import contextlib

from mmekit_endpoint.fleet.connection import NoAnswer

#: From the end of a connection to the notice that its process has ended: so many waits of so many seconds.
#: One alone would be over at once where the machine stood still.
_WAITS, _WAIT_S = 10, 0.05


class Ending:
    """Known once the container has ended; until then nobody has an explanation."""

    def __init__(self) -> None:
        self._known = asyncio.Event()
        #: How it ended; "" while it runs.
        self.how = ""

    def set(self, how: str) -> None:
        """Take note of how the container ended, such as "exited with code 3"."""
        self.how = how
        self._known.set()

    async def explain(self, silence: NoAnswer) -> str:
        """Say why there is no answer. A dying process closes its connections before its end is known."""
        for _ in range(_WAITS):
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._known.wait(), _WAIT_S)
                return f"the container {self.how}"
        return f"the container did not answer: {silence}"
