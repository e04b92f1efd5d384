"""The bytes of a pickle, read within a time and never kept: large contents are passed over."""

from __future__ import annotations

import io
import time
from typing import IO

#: Passed over at once.
_CHUNK_BYTES = 1024 * 1024
#: Kept of each end of a content; XGBoost's version and parameters lie there.
_KEPT_BYTES = 64 * 1024
_MAX_LINE_BYTES = 64 * 1024


class OutOfTime(Exception):
    """Raised when a file takes longer than it may."""


class Source:
    """A stream that may be read until a time of ``time.monotonic``.

    All methods raise EOFError where the stream ends too early, and OutOfTime.
    """

    def __init__(self, file: IO[bytes], deadline: float, can_seek: bool = False) -> None:
        self._file = file
        self._deadline = deadline
        self._can_seek = can_seek

    def check_time(self) -> None:
        if time.monotonic() > self._deadline:
            raise OutOfTime

    def read(self, size: int) -> bytes:
        """Return exactly so many bytes, which must be few."""
        data = self._file.read(size)
        if len(data) < size:
            raise EOFError
        return data

    def line(self) -> bytes:
        """Return a line without its end."""
        data = self._file.readline(_MAX_LINE_BYTES)
        if not data.endswith(b"\n"):
            raise EOFError
        return data[:-1]

    def ends(self, size: int) -> tuple[bytes, bytes]:
        """Pass over so many bytes; return the first and the last of them."""
        head = self.read(min(size, _KEPT_BYTES))
        if size <= 2 * _KEPT_BYTES:
            return head, self.read(size - len(head))
        self.skip(size - 2 * _KEPT_BYTES)
        return head, self.read(_KEPT_BYTES)

    def skip(self, size: int) -> None:
        """Pass over so many bytes."""
        if size > _CHUNK_BYTES and self._can_seek:
            # One byte less, which is read: positions beyond the end can be sought.
            self._file.seek(size - 1, io.SEEK_CUR)
            size = 1
        while size:
            self.check_time()
            size -= len(self.read(min(size, _CHUNK_BYTES)))
