"""Standard error of the server's process: what several threads write there stays whole."""

from __future__ import annotations

import os
import select
import threading


class Sink:
    """Writes lines to a descriptor, those of one call together and never mixed with another's."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()

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


#: A process has one.
STANDARD_ERROR = Sink(2)
