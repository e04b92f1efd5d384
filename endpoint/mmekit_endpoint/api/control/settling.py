"""Waiting for the fleet: a change is answered when it is done, if that takes seconds.

AWS answers at once, and its clients' waiters look again after 30 s. Here an endpoint is often in service
after a few seconds; an answer that comes then lets a waiter's first look be its last.
"""

from __future__ import annotations

import threading
import time

from mmekit_endpoint.database import Database

#: Between two looks at the database, in seconds.
_PERIOD_S = 0.02


class Settling:
    """Waits for changes of endpoints to end.

    At most ``limit`` requests wait at the same time, so that others always find a free thread; those beyond
    are answered at once.
    """

    def __init__(self, database: Database, timeout_s: float, limit: int) -> None:
        self._database = database
        self._timeout_s = timeout_s
        self._free = threading.BoundedSemaphore(limit)

    def wait(self, name: str) -> None:
        """Return when nothing is being done to the endpoint any more, or when the time is over."""
        if not self._free.acquire(blocking=False):
            return
        try:
            deadline = time.monotonic() + self._timeout_s
            while time.monotonic() < deadline:
                row = self._database.endpoint(name)
                if row is None or row.change is None:
                    return
                time.sleep(_PERIOD_S)  # SQLite tells no other process of a change
        finally:
            self._free.release()
