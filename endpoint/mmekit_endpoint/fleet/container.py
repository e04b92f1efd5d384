"""A container as the platform speaks to it: connections to its port, and the calls of its contract.

AWS: "Custom Containers Contract for Multi-Model Endpoints" (mms-container-apis).
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque

from mmekit_endpoint.fleet.connection import Answer, Connection, NoAnswer, Request

#: AWS: "Custom Inference Code with Hosting Services": 200 within 2 s.
PING_TIMEOUT_S = 2.0

#: A connection that was free for longer is not used again, in seconds. Servers close kept connections after
#: two seconds and more, and a request that meets the end of its connection cannot be sent again: it may have
#: been run.
_MAX_IDLE_S = 1.0

TARGET_HEADER = b"x-amzn-sagemaker-target-model"


class Container:
    """The HTTP side of one container. Belongs to the event loop it is used in; ``reach`` comes first."""

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
        """Take note of where the container listens."""
        self._address = address
        self._host = b"%b:%d" % (address[0].encode(), address[1])

    def head(self, method: str, path: str, lines: bytes = b"") -> bytes:
        """Return a request's head, without Content-Length and the empty line; ``lines`` end with CRLF."""
        return b"%b %b HTTP/1.1\r\nhost: %b\r\n%b" % (method.encode(), path.encode(), self._host, lines)

    def send(self, request: Request) -> None:
        """Send a request over a free connection, a new one, or the next that becomes free."""
        if self._free:
            connection = self._free.pop()
            if time.monotonic() - connection.free_since < _MAX_IDLE_S:
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
            self._waiting.popleft().done(NoAnswer("the instance is being stopped"))
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
                self._waiting.popleft().done(
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
        if request is not None:
            request.connection = None
            request.done(NoAnswer("it closed the connection before its answer was complete"))
        elif not self._closed:
            self._grow()

    # --- calls of the contract ---------------------------------------------------------------

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

    async def ping(self) -> None:
        """GET /ping. Raises NoAnswer with what came instead of 200 within 2 s."""
        answer = await self.ask("GET", "/ping", timeout_s=PING_TIMEOUT_S)
        if answer.status != 200:
            raise NoAnswer(f"GET /ping was answered with {answer.status}{_quoted(answer)}, expected 200")

    async def check_models(self) -> None:
        """GET /models. Raises NoAnswer with what came instead of a list within 2 s."""
        answer = await self.ask("GET", "/models", timeout_s=PING_TIMEOUT_S)
        if answer.status != 200:
            raise NoAnswer(f"GET /models was answered with {answer.status}{_quoted(answer)}, expected 200")
        try:
            listed = json.loads(answer.body)["models"]
        except (ValueError, TypeError, KeyError):
            listed = None
        # What is in the list is not looked at: Triton has {} for each model (src/sagemaker_server.cc).
        if not isinstance(listed, list):
            raise NoAnswer(
                'GET /models was not answered with {"models": [{"modelName": …, "modelUrl": …}]}'
                f"{_quoted(answer)}"
            )

    async def load(self, name: str, url: str, target: str, timeout_s: float) -> Answer:
        """POST /models. Raises NoAnswer."""
        body = json.dumps({"model_name": name, "url": url}).encode()
        lines = b"content-type: application/json\r\n" + target_line(target)
        return await self.ask("POST", "/models", body, lines, timeout_s)

    async def describe(self, name: str, target: str) -> Answer:
        """GET /models/NAME: 404 says that it is not loaded. Raises NoAnswer."""
        return await self.ask("GET", f"/models/{name}", lines=target_line(target), timeout_s=PING_TIMEOUT_S)

    async def unload(self, name: str, target: str, timeout_s: float) -> Answer:
        """DELETE /models/NAME; when it returns the memory is free. Raises NoAnswer."""
        return await self.ask("DELETE", f"/models/{name}", lines=target_line(target), timeout_s=timeout_s)


def target_line(target: str) -> bytes:
    """Return the header line that names the target model: Triton wants it on load, unload and invoke."""
    return b"%b: %b\r\n" % (TARGET_HEADER, target.encode())


def _quoted(answer: Answer) -> str:
    text = answer.body[:200].decode(errors="replace").strip()
    return f" ({text!r})" if text else ""
