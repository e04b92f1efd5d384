"""A container's output, followed line by line into the instance's log."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from docker.utils.socket import frames_iter

_log = logging.getLogger(__name__)

#: A longer line is cut: what prints without end must not fill the memory.
MAX_LINE_BYTES = 1024 * 1024


class Output:
    """What a container writes, from its start on: (stream, bytes), 1 is standard output, 2 standard error.

    ``attach`` of the docker SDK has no way to hang up that closes the connection, so this has its own.
    """

    def __init__(self, client: Any, container_id: str) -> None:
        self._socket = client.api.attach_socket(container_id, {"stdout": 1, "stderr": 1, "stream": 1})

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        return iter(frames_iter(self._socket, tty=False))

    def close(self) -> None:
        """Hang up."""
        getattr(self._socket, "_sock", self._socket).close()
        self._socket.close()


def follow(output: Output, log: Path) -> None:
    """Append the output to the log until it ends, then hang up."""
    try:
        with closing(output), open(log, "ab") as file:
            for lines in whole_lines(output):
                file.write(lines)
                file.flush()
    except OSError as error:
        _log.warning("What the container writes no longer reaches %s: %s", log, error)


def whole_lines(output: Iterable[tuple[int, bytes]]) -> Iterator[bytes]:
    """Return the output so that no line of one stream is cut by one of the other."""
    begun: dict[int, bytes] = {}
    for stream, chunk in output:
        lines, newline, rest = (begun.get(stream, b"") + chunk).rpartition(b"\n")
        if len(rest) > MAX_LINE_BYTES:
            lines, newline, rest = lines + newline + rest, b"\n", b""
        begun[stream] = rest
        if newline:
            yield lines + newline
    for rest in begun.values():
        if rest:
            yield rest + b"\n"
