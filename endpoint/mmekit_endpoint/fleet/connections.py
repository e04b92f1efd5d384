"""Connections to one HTTP server: kept while they are used, as many as are needed up to a limit."""

from __future__ import annotations

import asyncio
import time
from collections import deque

from mmekit_endpoint.fleet.connection import Answer, Connection, NoAnswer, Request

#: A connection that was free for longer is not used again, in seconds. Servers close kept connections after
#: two seconds and more, and a request that meets the end of its connection cannot be sent again: it may have
#: been run.
_MAX_IDLE_S = 1.0


class Connections:
    """The way to one server. Belongs to the event loop it is used in; ``reach`` comes first."""

    def __init__(self, max_answer_bytes: int, max_connections: int = 512) -> None:
        self._address = ("", 0)
        self._host = b""
        self._max_answer_bytes = max_answer_bytes
        self._max_connections = max_connections
        self._free: list[Connection] = []
        self._open: set[Connection] = set()
        self._connecting = 0
        self._waiting: deque[Request] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def reach(self, address: tuple[str, int]) -> None:
        """Take note of where the server listens."""
        self._address = address
        self._host = b"%b:%d" % (address[0].encode(), address[1])

    def head(self, method: str, path: str, lines: bytes = b"") -> bytes:
        """Return a request's head, without Content-Length and the empty line; ``lines`` end with CRLF."""
        return b"%b %b HTTP/1.1\r\nhost: %b\r\n%b" % (method.encode(), path.encode(), self._host, lines)

    def send(self, request: Request) -> None:
        """Send a request over a free connection, a new one, or the next that becomes free."""
        if self._free:
            connection = self._free.pop()
            if not connection.is_closing and time.monotonic() - connection.free_since < _MAX_IDLE_S:
                connection.send(request)
                return
            # The rest were free for longer still.
            for old in [connection, *self._free]:
                old.abort()
            self._free.clear()
        self._waiting.append(request)
        self._grow()

    def _grow(self) -> None:
        """Open connections for what waits, as many as are allowed."""
        while (
            self._connecting < len(self._waiting)
            and len(self._open) + self._connecting < self._max_connections
        ):
            self._connecting += 1
            task = asyncio.get_running_loop().create_task(self._connect())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def forget(self, request: Request) -> None:
        """Cancel a request, sent or not."""
        if request.connection is None:
            try:
                self._waiting.remove(request)
            except ValueError:
                pass  # it has ended
        request.cancel()

    def close(self) -> None:
        """Close all connections; requests without an answer end with NoAnswer."""
        self._closed = True
        for task in list(self._tasks):
            task.cancel()
        while self._waiting:
            self._waiting.popleft().end(NoAnswer("the instance is being stopped"))
        for connection in list(self._open):
            connection.abort()

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(
                lambda: Connection(self._max_answer_bytes, self._released, self._lost), *self._address
            )
        except OSError as error:
            self._connecting -= 1
            if self._waiting:
                self._waiting.popleft().end(
                    NoAnswer(f"nothing listens on its port ({error.strerror or error})")
                )
            return
        self._connecting -= 1
        self._open.add(connection)
        self._released(connection)

    def _released(self, connection: Connection) -> None:
        if self._waiting:
            connection.send(self._waiting.popleft())
        elif self._closed:
            connection.abort()
        else:
            connection.free_since = time.monotonic()
            self._free.append(connection)

    def _lost(self, connection: Connection, request: Request | None) -> None:
        self._open.discard(connection)
        if connection in self._free:
            self._free.remove(connection)
        if not self._closed:
            self._grow()
        if request is not None:
            request.end(NoAnswer("it closed the connection before its answer was complete"))

    async def ask(
        self, method: str, path: str, body: bytes = b"", lines: bytes = b"", timeout_s: float = 60.0
    ) -> Answer:
        """Send a request and wait for its answer. Raises NoAnswer, also after ``timeout_s``."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def done(outcome: Answer | NoAnswer) -> None:
            if future.done():
                return
            if isinstance(outcome, NoAnswer):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

        request = Request(self.head(method, path, lines), body, done)
        self.send(request)
        try:
            return await asyncio.wait_for(future, timeout_s)
        except asyncio.TimeoutError:
            raise NoAnswer(f"it did not answer {method} {path} within {timeout_s:g} s") from None
        finally:
            if not future.done() or future.cancelled():
                self.forget(request)
