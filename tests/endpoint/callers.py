"""Thousands of callers of one model at once: a selector over plain sockets in one thread."""

from __future__ import annotations

import selectors
import socket
import time
from collections import Counter
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from tests.endpoint.service import Service


class Callers:
    """Opens ``number`` connections, each with one invocation; a context manager that closes them."""

    def __init__(self, url: str, endpoint: str, target: str, number: int) -> None:
        parts = urlsplit(url)
        self._endpoint = endpoint
        self._selector = selectors.DefaultSelector()
        request = (
            f"POST /endpoints/{endpoint}/invocations HTTP/1.1\r\nHost: {parts.netloc}\r\n"
            f"X-Amzn-SageMaker-Target-Model: {target}\r\nContent-Length: 1\r\n\r\n1"
        ).encode()
        self._sockets: list[socket.socket] = []
        for _ in range(number):
            client = socket.create_connection((parts.hostname or "", parts.port or 0), timeout=30)
            client.sendall(request)
            self._sockets.append(client)
            self._selector.register(client, selectors.EVENT_READ)

    def __enter__(self) -> Callers:
        return self

    def __exit__(self, *_: object) -> None:
        self._selector.close()
        for client in self._sockets:
            client.close()

    def waiting(self, service: Service) -> int:
        """How many calls the service shows as waiting for a model."""
        return sum(
            model["waiting"] for instance in service.instances(self._endpoint) for model in instance["models"]
        )

    def answers(self, timeout_s: float) -> dict[int, int]:
        """Wait for all answers; return status → how many."""
        statuses: Counter[int] = Counter()
        left = len(self._sockets)
        deadline = time.monotonic() + timeout_s
        while left:
            assert time.monotonic() < deadline, f"{left} callers have no answer; so far: {dict(statuses)}"
            for key, _ in self._selector.select(1):
                client = self._sockets[self._sockets.index(key.fileobj)]  # type: ignore[arg-type]
                head = client.recv(65536)
                statuses[int(head.split(b" ", 2)[1])] += 1
                self._selector.unregister(client)
                left -= 1
        return dict(statuses)
