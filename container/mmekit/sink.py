"""Standard error of the server's process: what several threads write there stays whole."""

from __future__ import annotations

import os
import select
import threading
import time

#: How long the end of the process waits for a slow reader, in seconds, and at least for what came last.
_LAST_WAIT_S = 2.0
_LEAST_WAIT_S = 0.2


class Sink:
    """Writes lines to a descriptor, those of one call together and never mixed with another's."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()
        self._deadline: float | None = None

    def write(self, text: str) -> None:
        """Write lines with their ends; waits while nobody reads. What cannot be encoded is escaped."""
        data = memoryview(text.encode("utf-8", "backslashreplace"))
        with self._lock:
            while data:
                try:
                    data = data[os.write(self._descriptor, data) :]
                except BlockingIOError:  # whoever shares the descriptor has made it so
                    select.select([], [self._descriptor], [])
                except OSError:
                    return  # nobody will read it

    def last_wait_s(self) -> float:
        """Return how long the end of the process may wait for the next of those who write here.

        The first call starts the time; all share it.
        """
        now = time.monotonic()
        if self._deadline is None:
            self._deadline = now + _LAST_WAIT_S
        return max(self._deadline - now, _LEAST_WAIT_S)


#: A process has one.
STANDARD_ERROR = Sink(2)
