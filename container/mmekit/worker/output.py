"""What people's code prints in a worker: ``sys.stdout`` and ``sys.stderr`` that tag lines with their origin.

The origin is the model, its target model and the request; it is put together when something is printed.

Each line goes out whole, as soon as it is complete, so that a crash right after loses nothing and
nothing is mixed in. ``mmekit.lines`` has the form and the parser.
"""

from __future__ import annotations

import io
import json
import math
import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from mmekit.lines import MAX_LINE, METRICS, pieces, tag
from mmekit.worker.messages import Call, header_text
from mmekit.worker.metrics import Metric

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


_TARGET_MODEL = b"x-amzn-sagemaker-target-model"


class Streams:
    """Both streams of a worker, and whose code is running."""

    def __init__(self, descriptor_out: int, descriptor_err: int) -> None:
        #: The model whose code runs; set by the worker's loop before each message. "" for the worker's own.
        self.model = ""
        #: The requests of the call that runs; set and taken back by the worker's loop.
        self.calls: Sequence[Call] = ()
        #: By model, the target model that it was loaded for.
        self.targets: dict[str, str] = {}
        self.out = TaggedText(TaggedLines(self, "stdout", descriptor_out), "<stdout>")
        self.err = TaggedText(TaggedLines(self, "stderr", descriptor_err), "<stderr>")

    def flush(self) -> None:
        """Send lines that have no end yet; called when a model's code has returned."""
        self.out.buffer.finish()
        self.err.buffer.finish()

    def report(self, metrics: Iterable[Metric]) -> None:
        """Send what a handler reported, a line a metric."""
        for metric in metrics:
            fields = [
                str(metric.name),
                _number(metric.value),
                str(metric.unit),
                [(str(dimension.name), str(dimension.value)) for dimension in metric.dimensions],
                metric.request_id,
            ]
            self.err.buffer.send(METRICS, json.dumps(fields).encode())

    def tags(self, stream: str) -> tuple[bytes, bytes]:
        """Return the tags of what is printed now."""
        return tag(self.model, stream, self._target(), [call.request_id for call in self.calls])

    def _target(self) -> str:
        for call in self.calls[:1]:
            for name, value in call.headers:
                if name.lower() == _TARGET_MODEL:
                    return header_text(value)
        return self.targets.get(self.model, "")


class TaggedLines(io.RawIOBase):
    """The byte stream below ``sys.stdout`` or ``sys.stderr``: collects lines and sends them tagged."""

    def __init__(self, streams: Streams, name: str, descriptor: int) -> None:
        self._streams = streams
        self._name = name
        self._descriptor = descriptor
        self._model: str | None = None
        self._calls: Sequence[Call] = ()
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
        streams = self._streams
        if self._model != streams.model or self._calls is not streams.calls:
            self._model, self._calls = streams.model, streams.calls
            self._tags = streams.tags(self._name)
        for line in lines:
            shown = line.rstrip(b"\r").rpartition(b"\r")[2]  # as a terminal would show it
            for piece in pieces(self._tags, shown[: MAX_LINE + 1]):
                self._write_whole(piece)

    def send(self, stream: str, line: bytes) -> None:
        """Send a line of another stream."""
        for piece in pieces(self._streams.tags(stream), line[: MAX_LINE + 1]):
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
    line_buffering = True

    def __init__(self, lines: TaggedLines, name: str) -> None:
        self.buffer = lines
        self.name = name

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


def _number(value: object) -> float | str:
    """Return a value as JSON can have it; what people report may be any object, an array's item for one."""
    if isinstance(value, int | float) and math.isfinite(value):
        return value
    try:
        number = float(value)  # type: ignore[arg-type]  # raises for what is none
        return number if math.isfinite(number) and not isinstance(value, str) else str(value)
    except Exception:  # noqa: BLE001 - people's classes
        return str(value)
