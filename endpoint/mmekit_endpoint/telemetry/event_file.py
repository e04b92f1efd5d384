"""The file behind the events: JSON lines, appended by a thread, of bounded size."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from queue import Empty, SimpleQueue

import msgspec

logger = logging.getLogger(__name__)

#: From this size on the file becomes NAME.1, and what was NAME.1 goes.
MAX_BYTES = 8 * 1024 * 1024

#: Where the last event of a file is looked for.
_TAIL_BYTES = 256 * 1024


class _Line(msgspec.Struct):
    sequence: int


class EventFile:
    """Appends lines to a file. Its thread starts with the first of them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: SimpleQueue[bytes | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._failed = False

    def last_sequence(self) -> int:
        """Return the sequence of the last event in the file, or in the one before; 0 where there is none."""
        return _last_sequence(self._path) or _last_sequence(self._before) or 0

    def write(self, line: bytes) -> None:
        """Take a line; it does not wait."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="events", daemon=True)
            self._thread.start()
        self._lines.put(line)

    def close(self) -> None:
        """Wait until all lines are written."""
        if self._thread is not None:
            self._lines.put(None)
            self._thread.join()

    @property
    def _before(self) -> Path:
        return self._path.with_name(self._path.name + ".1")

    # --- in the thread

    def _run(self) -> None:
        begun = _begin_of_line(self._path)
        while True:
            lines = self._next()
            kept = [line for line in lines if line is not None]
            try:
                self._append(begun + b"".join(kept))
                begun = b""
            except OSError as error:
                if not self._failed:
                    logger.warning("Events cannot be written to %s: %s", self._path, error)
                self._failed = True
            if len(kept) < len(lines):
                return

    def _next(self) -> list[bytes | None]:
        """Return all lines that are there; waits for one."""
        lines = [self._lines.get()]
        try:
            while lines[-1] is not None:
                lines.append(self._lines.get_nowait())
        except Empty:
            pass
        return lines

    def _append(self, data: bytes) -> None:
        with self._path.open("ab") as file:
            file.write(data)
            size = file.tell()
        if size >= MAX_BYTES:
            self._path.replace(self._before)


def _last_sequence(path: Path) -> int | None:
    for line in reversed(_tail(path).splitlines()):
        try:
            return msgspec.json.decode(line, type=_Line).sequence
        except msgspec.DecodeError:  # cut when a service was killed, or at the tail's begin
            continue
    return None


def _begin_of_line(path: Path) -> bytes:
    """Return what a new line begins with: a line end where the file's last has none."""
    tail = _tail(path)
    return b"\n" if tail and not tail.endswith(b"\n") else b""


def _tail(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            return file.read()
    except OSError:
        return b""
