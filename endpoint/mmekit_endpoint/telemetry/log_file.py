"""An instance's log on disk: read as it grows, and kept small.

Its writers have it open, for appending. So it is not renamed when it is large: it is copied to NAME.1 and cut
to nothing. What is written between the copy's end and the cut, a few microseconds, is lost; what was written
faster than it could be read is left out of CloudWatch, with a mark, and is in NAME.1.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from mmekit_endpoint.telemetry.log_lines import Lines

#: From this size on a log becomes NAME.1; an instance's logs take twice that.
MAX_BYTES = 64 * 1024 * 1024

#: What is read at once, so that no instance makes the others wait.
MAX_READ_BYTES = 2 * 1024 * 1024


class LogFile:
    """Reads one log from its begin on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._lines = Lines()

    def read(self, now: float, *, at_end: bool = False) -> list[str]:
        """Return the lines that came since the last time; ``at_end`` no more will come. Raises OSError."""
        size = self._path.stat().st_size
        if size < self._offset:  # somebody has cut it
            self._offset = 0
        lines: list[str] = []
        if size > self._offset:
            lines += self._lines.feed(self._read(self._path), now)
        if size >= MAX_BYTES:
            lines += self._turn_over(now)
        return lines + self._lines.flush(now, at_end=at_end)

    def _read(self, path: Path) -> bytes:
        with path.open("rb") as file:
            file.seek(self._offset)
            data = file.read(MAX_READ_BYTES)
        self._offset += len(data)
        return data

    def _turn_over(self, now: float) -> list[str]:
        before = self._path.with_name(self._path.name + ".1")
        size = _copy_and_cut(self._path, before)
        lines = self._lines.feed(self._read(before), now)
        if skipped := size - self._offset:
            lines += self._lines.flush(now, at_end=True)
            lines.append(
                f"[mmekit: {skipped} bytes came too fast and are left out here; they are in {before}]"
            )
        self._offset = 0
        return lines


def _copy_and_cut(path: Path, copy: Path) -> int:
    """Return how many bytes were copied."""
    with path.open("rb") as source, copy.open("wb") as target:
        # Once more for what came while it copied: that is little, and so the gap before the cut is small.
        shutil.copyfileobj(source, target, 1024 * 1024)
        shutil.copyfileobj(source, target, 1024 * 1024)
        os.truncate(path, 0)
        return target.tell()
