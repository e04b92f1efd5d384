"""Sends requests at fixed times and reports how long each took from the time it was due.

Reads one JSON line of settings, then sends until a second line comes; see ``benchmarks.load.Probe``.
Many blocking connections take turns, so that one slow answer does not keep the next request from
leaving on time; a sleeping thread wakes within 0.1 ms of its time, an event loop within 1 ms.
"""

from __future__ import annotations

import gc
import json
import socket
import sys
import threading
import time
from typing import Any

#: Requests on the way at once; with one every 2 ms, an answer may take 128 ms before others are late.
_CONNECTIONS = 64


class Prober:
    """One run: what is sent when, and what came back."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._address = settings["host"], settings["port"]
        self._interval_s = settings["interval_s"]
        self._requests = [bytes.fromhex(text) for text in settings["requests"]]
        self._start = time.monotonic() + 0.1
        self.stopping = False
        self.answers: list[tuple[float, float]] = []
        self.errors: list[str] = []

    def run(self, turn: int) -> None:
        """Send every ``_CONNECTIONS``-th request, beginning with number ``turn``."""
        connection: socket.socket | None = None
        number = turn
        while True:
            due = self._start + number * self._interval_s
            time.sleep(max(0.0, due - time.monotonic()))
            if self.stopping:
                return
            try:
                if connection is None:
                    connection = socket.create_connection(self._address)
                connection.sendall(self._requests[number % len(self._requests)])
                status, body = _answer(connection)
            except OSError as error:
                self.errors.append(repr(error))
                connection = None
            else:
                self.answers.append((due, (time.monotonic() - due) * 1000))
                if not 200 <= status < 300:
                    self.errors.append(f"{status} {body[:200].decode(errors='replace')}")
            number += _CONNECTIONS


def _answer(connection: socket.socket) -> tuple[int, bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        data += _receive(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    while len(body) < _content_length(head):
        body += _receive(connection)
    return int(head.split(b" ", 2)[1]), body


def _receive(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise ConnectionResetError("the server closed the connection in the middle of an answer")
    return data


def _content_length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0


def main() -> None:
    """Probe until a line comes on standard input; print answers and errors as JSON."""
    prober = Prober(json.loads(sys.stdin.readline()))
    gc.disable()
    threads = [threading.Thread(target=prober.run, args=(turn,)) for turn in range(_CONNECTIONS)]
    for thread in threads:
        thread.start()
    sys.stdin.readline()
    prober.stopping = True
    for thread in threads:
        thread.join()
    print(json.dumps({"answers": prober.answers, "errors": prober.errors}))


if __name__ == "__main__":
    main()
