"""A watch that stands still while this machine does: a server that seems to be slow then is not."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

#: Between two beats, in seconds, and what a longer pause counts as: nothing ran in the rest of it.
_BEAT_S, _PAUSE_S = 0.05, 0.15


class Watch:
    """Counts the seconds in which this process could run, while its block does; calls ``late`` at a limit."""

    def __init__(self, limit_s: float = math.inf, late: Callable[[], None] = lambda: None) -> None:
        self._limit_s = limit_s
        self._late = late
        self._counting = threading.Lock()
        self._over = threading.Event()
        self._began = self._last = time.monotonic()
        self._lived_s = 0.0

    def __enter__(self) -> Watch:
        threading.Thread(target=self._beat, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    @property
    def lived_s(self) -> float:
        """Seconds since it was made, without those in which this machine stood still."""
        with self._counting:
            now = time.monotonic()
            self._lived_s += min(now - self._last, _PAUSE_S)
            self._last = now
            return self._lived_s

    @property
    def lost_s(self) -> float:
        """Seconds in which this machine stood still."""
        return max(0.0, time.monotonic() - self._began - self.lived_s)

    def _beat(self) -> None:
        while (left_s := self._limit_s - self.lived_s) > 0:
            if self._over.wait(min(_BEAT_S, left_s)):
                return
        self._late()
