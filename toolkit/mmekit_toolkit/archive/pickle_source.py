"""The bytes of a pickle, read within limits of time and memory: large contents are passed over."""

from __future__ import annotations

import io
import time
from typing import IO

#: Passed over at once.
_CHUNK_BYTES = 1024 * 1024
#: Kept of each end of a content; XGBoost's version and parameters lie there.
_KEPT_BYTES = 64 * 1024
#: Lines that are no names: in protocol 0 an array is one.
_MAX_LINE_BYTES = 4096
#: What may be kept of all files together; a vocabulary of a million words takes half of it.
_MAX_KEPT_BYTES = 512 * 1024 * 1024
#: What an opcode, or its argument, may keep beside its bytes: an object and a place in stack or memo.
_OBJECT_BYTES = 64


class OverLimit(Exception):
    """Raised when files take more time or memory than they may; says which."""


class Limits:
    """What looking into files may take in all: seconds from now on, and bytes that are kept."""

    def __init__(self, timeout_s: float, kept_bytes: int = _MAX_KEPT_BYTES) -> None:
        self._deadline = time.monotonic() + timeout_s
        self._left_bytes = kept_bytes

    def check_time(self) -> None:
        if time.monotonic() > self._deadline:
            raise OverLimit("it takes too long to be read to its end")

    def keep(self, size: int) -> None:
        """Count bytes that are kept."""
        self._left_bytes -= size
        if self._left_bytes < 0:
            raise OverLimit("it takes too much memory to be read to its end")


class Source:
    """A stream that may be read within limits.

    All methods raise EOFError where the stream ends too early, and OverLimit.
    """

    def __init__(self, file: IO[bytes], limits: Limits, can_seek: bool = False) -> None:
        self._file = file
        self._limits = limits
        self._can_seek = can_seek
        self.check_time = limits.check_time

    def read(self, size: int) -> bytes:
        """Return exactly so many bytes, which must be few."""
        self._limits.keep(size + _OBJECT_BYTES)
        return self._read(size)

    def _read(self, size: int) -> bytes:
        data = self._file.read(size)
        if len(data) < size:
            raise EOFError
        return data

    def line(self) -> bytes | None:
        """Return a line without its end; None for a long one, which is passed over."""
        data = self._file.readline(_MAX_LINE_BYTES)
        self._limits.keep(len(data) + _OBJECT_BYTES)
        if len(data) == _MAX_LINE_BYTES and not data.endswith(b"\n"):
            while len(data) == _MAX_LINE_BYTES and not data.endswith(b"\n"):
                self.check_time()
                data = self._file.readline(_MAX_LINE_BYTES)
            if not data.endswith(b"\n"):
                raise EOFError
            return None
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
            size -= len(self._read(min(size, _CHUNK_BYTES)))
