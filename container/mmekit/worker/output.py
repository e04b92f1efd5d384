"""What people's code prints in a worker: ``sys.stdout`` and ``sys.stderr`` that tag lines with their model.

Each line goes out whole, as soon as it is complete, so that a crash right after loses nothing and
nothing is mixed in. ``mmekit.lines`` has the form and the parser.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from mmekit.lines import MAX_LINE, pieces, tag

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class Streams:
    """Both streams of a worker, and whose code is running."""

    def __init__(self, descriptor_out: int, descriptor_err: int) -> None:
        #: The model whose code runs; set by the worker's loop before each message. "" for the worker's own.
        self.model = ""
        self.out = TaggedText(TaggedLines(self, "stdout", descriptor_out))
        self.err = TaggedText(TaggedLines(self, "stderr", descriptor_err))

    def flush(self) -> None:
        """Send lines that have no end yet; called when a model's code has returned."""
        self.out.buffer.finish()
        self.err.buffer.finish()


class TaggedLines(io.RawIOBase):
    """The byte stream below ``sys.stdout`` or ``sys.stderr``: collects lines and sends them tagged."""

    def __init__(self, streams: Streams, name: str, descriptor: int) -> None:
        self._streams = streams
        self._name = name
        self._descriptor = descriptor
        self._model: str | None = None
        self._tags = (b"", b"")
        self._partial = bytearray()

    def write(self, data: ReadableBuffer, /) -> int:
        """Take bytes; lines that they complete are sent before this returns."""
        given = bytes(data)
        *complete, rest = given.split(b"\n")
        if complete:
            self._partial += complete[0]
            self._send([bytes(self._partial), *complete[1:]])
            self._partial.clear()
        self._partial += rest
        self._shorten()
        return len(given)

    def finish(self) -> None:
        """Send the line that has no end yet."""
        if self._partial:
            self._send([bytes(self._partial)])
            self._partial.clear()

    def flush(self) -> None:
        """Do nothing: complete lines are out, the rest waits for its end or for ``finish``."""

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return False

    def fileno(self) -> int:
        """Return the pipe's descriptor; what is written there by others is not tagged."""
        return self._descriptor

    def _shorten(self) -> None:
        """Keep a line without an end small: a progress bar overwrites itself, more than the limit is cut."""
        if len(self._partial) > MAX_LINE:
            last = self._partial.rstrip(b"\r").rfind(b"\r")
            del self._partial[: last + 1]
            del self._partial[MAX_LINE + 1 :]

    def _send(self, lines: Iterable[bytes]) -> None:
        if self._model != self._streams.model:
            self._model = self._streams.model
            self._tags = tag(self._model, self._name)
        for line in lines:
            shown = line.rstrip(b"\r").rpartition(b"\r")[2]  # as a terminal would show it
            for piece in pieces(self._tags, shown[: MAX_LINE + 1]):
                self._write_whole(piece)

    def _write_whole(self, piece: bytes) -> None:
        try:
            while piece:
                piece = piece[os.write(self._descriptor, piece) :]
        except OSError:
            pass  # the server has gone, and this process with it


class TaggedText(io.TextIOBase):
    """``sys.stdout`` or ``sys.stderr`` of a worker."""

    #: As for a text stream of its own; what cannot be encoded is escaped, never an error.
    encoding = "utf-8"
    errors = "backslashreplace"
    mode = "w"

    def __init__(self, lines: TaggedLines) -> None:
        self.buffer = lines

    def write(self, text: str, /) -> int:
        self.buffer.write(text.encode("utf-8", "backslashreplace"))
        return len(text)

    def flush(self) -> None:
        """Do nothing: complete lines are out already."""

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return False

    def fileno(self) -> int:
        return self.buffer.fileno()

    def reconfigure(self, **_: object) -> None:
        """Accept what people call on a text stream; the form is given."""


def install(descriptor_out: int = 1, descriptor_err: int = 2) -> Streams:
    """Replace ``sys.stdout`` and ``sys.stderr``; return what the worker's loop steers them with."""
    streams = Streams(descriptor_out, descriptor_err)
    sys.stdout = sys.__stdout__ = streams.out  # type: ignore[assignment, misc]  # a text stream all the same
    sys.stderr = sys.__stderr__ = streams.err  # type: ignore[assignment, misc]
    return streams
