r"""The form in which a worker's output reaches the server: lines that carry whose they are.

A tagged line is ``\x01 model \x02 target \x02 request \x02 stream \x02 text \n``, written at once and at
most ``PIPE_BUF`` long, so that processes sharing the pipe do not mix within a line (pipe(7)). What C
code writes has no tag.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import quote, unquote

#: A tagged line is never longer (pipe(7): writes up to PIPE_BUF are atomic; 4096 on Linux).
PIPE_BUF = 4096
#: Longer lines are cut, in bytes.
MAX_LINE = 8192

#: The stream of what handlers report to ``context.metrics``, a JSON text a metric.
METRICS = "metrics"

_START = b"\x01"
_SEPARATOR = b"\x02"
#: After the stream's name: the line goes on in the next one.
_CONTINUED = b"+"
_CUT = f" … [line cut after {MAX_LINE} bytes]"
# Longer ones are cut in the tag: they take their share of PIPE_BUF.
_MAX_NAME = 1024
_MAX_TARGET = 512
_MAX_REQUESTS = 32

#: Lines of a pipe that may go on at a time: what has no end must not fill the server's memory.
_MAX_BEGUN = 32
_UNFINISHED = " … [the line's end did not come]"


class Line(NamedTuple):
    """One line of output; model and stream are None for what was written past Python.

    ``request_id`` has the ids of all requests of a batch, with commas.
    """

    model: str | None
    stream: str | None
    text: str
    target: str = ""
    request_id: str = ""


def tag(model: str, stream: str, target: str = "", request_ids: Sequence[str] = ()) -> tuple[bytes, bytes]:
    """Return what goes before the text of a line, and before a piece of it that goes on in the next."""
    more = ["…"] if len(request_ids) > _MAX_REQUESTS else []
    fields = [
        _quoted(model, _MAX_NAME),
        _quoted(target, _MAX_TARGET),
        _quoted(",".join([*request_ids[:_MAX_REQUESTS], *more]), 40 * _MAX_REQUESTS),
        stream.encode(),
    ]
    start = _START + _SEPARATOR.join(fields)
    return start + _SEPARATOR, start + _CONTINUED + _SEPARATOR


def _quoted(text: str, size: int) -> bytes:
    # Names are opaque strings, so they may hold the very bytes that divide the fields.
    return quote(text, "/,", errors="surrogatepass").encode()[:size]


def pieces(tags: tuple[bytes, bytes], line: bytes) -> list[bytes]:
    """Return the writes for one line without its end, each at most ``PIPE_BUF``."""
    last, continued = tags
    room = PIPE_BUF - len(continued) - 1
    starts = range(0, max(len(line), 1), room)
    return [
        (continued if start + room < len(line) else last) + line[start : start + room] + b"\n"
        for start in starts
    ]


class LevelFormatter(logging.Formatter):
    """Puts the level in front of each line of a record: the server reads it line by line."""

    def format(self, record: logging.LogRecord) -> str:
        text = f"{record.levelname} {super().format(record)}"
        return text.replace("\n", f"\n{record.levelname} ")


class LineParser:
    """Turns what came through a worker's pipe into lines; holds what is not complete yet."""

    def __init__(self) -> None:
        self._rest = b""
        #: The untagged line that is being read is over its limit and already given out.
        self._skipping = False
        #: Pieces of lines that go on, by the fields of their tag; the one that waits longest is first.
        self._begun: dict[tuple[bytes, ...], bytes] = {}

    def feed(self, data: bytes) -> list[Line]:
        """Take bytes as they came; return the lines that they complete, in order."""
        lines = []
        *complete, self._rest = (self._rest + data).split(b"\n")
        for raw in complete:
            if self._skipping:
                self._skipping = False
            elif (line := self._line(raw)) is not None:
                lines.append(line)
        if self._skipping:
            self._rest = b""
        elif len(self._rest) > MAX_LINE + PIPE_BUF:
            lines.append(Line(None, None, _text(self._rest)))
            self._rest = b""
            self._skipping = True
        return lines

    def close(self) -> list[Line]:
        """Return what a worker left without an end of line when it ended."""
        rest, self._rest = self._rest, b""
        lines = [line] if rest and (line := self._line(rest)) else []
        lines += [_tagged(tags, text) for tags, text in self._begun.items()]
        self._begun.clear()
        return lines

    def _line(self, raw: bytes) -> Line | None:
        fields = raw[1:].split(_SEPARATOR, 4) if raw.startswith(_START) else []
        if len(fields) != 5:
            return Line(None, None, _text(raw))
        *tags, stream, text = fields
        key = (*tags, stream.removesuffix(_CONTINUED))
        text = self._begun.pop(key, b"") + text
        if stream.endswith(_CONTINUED):
            self._begun[key] = text[: MAX_LINE + 1]
            if len(self._begun) <= _MAX_BEGUN:
                return None
            oldest = next(iter(self._begun))
            line = _tagged(oldest, self._begun.pop(oldest))
            return line._replace(text=line.text + _UNFINISHED)
        return _tagged(key, text)


def _tagged(tags: tuple[bytes, ...], text: bytes) -> Line:
    model, target, request_id, stream = tags
    return Line(
        _name(model), stream.decode("utf-8", "replace"), _text(text), _name(target), _name(request_id)
    )


def _name(model: bytes) -> str:
    return unquote(model.decode("ascii", "replace"))


def _text(raw: bytes) -> str:
    text = raw[:MAX_LINE].decode("utf-8", "replace")
    return text + _CUT if len(raw) > MAX_LINE else text
