"""A real server in a thread of its own, on either event loop, and a client that speaks in raw bytes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import uvloop

from mmekit.http import Application, BodyBudget, Exchange, HttpServer, Limits, Response

T = TypeVar("T")

#: Seconds after which a test that waits gives up.
PATIENCE_S = 15.0

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "uvloop": uvloop.new_event_loop,
    "asyncio": asyncio.new_event_loop,
}


def answer_ok(exchange: Exchange) -> None:
    exchange.respond(Response(200, [(b"content-type", b"text/plain")], b"hello world"))


def until(condition: Callable[[], Any], what: str = "the condition") -> None:
    """Poll with a deadline."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come true within {PATIENCE_S} s"
        time.sleep(0.005)


class RunningServer:
    """The server under test. What touches it goes through ``run``, into its loop."""

    def __init__(
        self,
        new_loop: Callable[[], asyncio.AbstractEventLoop],
        app: Application,
        limits: Limits,
        budget: BodyBudget | None,
    ) -> None:
        self.errors: list[dict[str, Any]] = []
        self.loop = new_loop()
        self.loop.set_exception_handler(lambda _, context: self.errors.append(context))
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()
        self.server = self.run(lambda: HttpServer(app, limits, budget))
        self.wait(self.server.start("127.0.0.1", 0))
        self.address = self.server.addresses[0]

    def run(self, function: Callable[[], T]) -> T:
        """Call ``function`` in the loop and return its result; what was ready in the loop has then run."""

        async def call() -> T:
            return function()

        return self.wait(call())

    def wait(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(PATIENCE_S)

    def connect(self, receive_buffer: int | None = None) -> Client:
        sock = socket.socket()
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            sock.connect(self.address)
        except OSError:
            sock.close()
            raise
        return Client(sock)

    def stop(self) -> None:
        """End everything; nothing may be left over, and nothing may have failed unseen."""
        self.run(self.server.abort)
        drained = self.wait(self.server.drain(PATIENCE_S))
        tasks = self.run(lambda: len(asyncio.all_tasks(self.loop)))
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(PATIENCE_S)
        self.loop.close()
        assert drained
        assert tasks == 1, "only the call that counts them"
        assert self.server.budget.used_bytes == 0
        assert self.server.budget.waiting == 0
        assert self.errors == []


@dataclass
class Answer:
    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return dict(self.headers).get(name)

    @property
    def error(self) -> dict[str, Any]:
        assert self.header("content-type") == "application/json"
        content = json.loads(self.body)
        assert content["code"] == self.status
        return content


class Closed(Exception):
    """Raised when the connection ended where an answer was due; ``so_far`` is what came of it."""

    def __init__(self, so_far: bytes) -> None:
        super().__init__(so_far)
        self.so_far = so_far


class Client:
    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sock.settimeout(PATIENCE_S)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.sock.close()

    def send(self, data: bytes | str) -> None:
        self.sock.sendall(data.encode("latin-1") if isinstance(data, str) else data)

    def get(self, path: str = "/a", headers: str = "") -> None:
        self.send(f"GET {path} HTTP/1.1\r\nHost: a\r\n{headers}\r\n")

    def post(self, body: bytes, path: str = "/a", headers: str = "") -> None:
        self.send(f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n{headers}\r\n")
        self.send(body)

    def more(self) -> bool:
        data = self.sock.recv(65536)
        self.buffer += data
        return bool(data)

    def line(self) -> bytes:
        while b"\r\n" not in self.buffer:
            if not self.more():
                raise Closed(self.buffer)
        line, _, self.buffer = self.buffer.partition(b"\r\n")
        return line

    def exactly(self, size: int) -> bytes:
        while len(self.buffer) < size:
            if not self.more():
                raise Closed(self.buffer)
        data, self.buffer = self.buffer[:size], self.buffer[size:]
        return data

    def head(self) -> Answer:
        version, status, reason = self.line().decode("latin-1").split(" ", 2)
        assert version == "HTTP/1.1"
        headers = []
        while line := self.line().decode("latin-1"):
            name, _, value = line.partition(": ")
            headers.append((name.lower(), value))
        return Answer(int(status), reason, headers, b"")

    def answer(self, head_only: bool = False) -> Answer:
        """Read one answer, framed by its own headers; by the end of the connection where there are none."""
        answer = self.head()
        if head_only or answer.status in (100, 204, 304):
            return answer
        if answer.header("transfer-encoding") == "chunked":
            while size := int(self.line(), 16):
                answer.body += self.exactly(size)
                assert self.line() == b""
            assert self.line() == b""
        elif (length := answer.header("content-length")) is not None:
            answer.body = self.exactly(int(length))
        else:
            answer.body = self.rest()
        return answer

    def rest(self) -> bytes:
        """Read to the end of the connection."""
        while self.more():
            pass
        data, self.buffer = self.buffer, b""
        return data

    def is_closed(self) -> bool:
        """Wait for the end of the connection; no byte may come before it."""
        with contextlib.suppress(ConnectionResetError):
            return self.rest() == b""
        return True

    def is_quiet(self, for_s: float = 0.1) -> bool:
        """Whether nothing comes for a moment, neither bytes nor the end."""
        self.sock.settimeout(for_s)
        try:
            if not self.buffer:
                self.more()
            return False
        except TimeoutError:
            return True
        finally:
            self.sock.settimeout(PATIENCE_S)


class Holding:
    """An application that keeps its exchanges until the test answers them."""

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []
        self.closed: list[str] = []

    def __call__(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)
        exchange.on_close = lambda: self.closed.append(exchange.request.path)

    def wait_for(self, count: int) -> None:
        until(lambda: len(self.exchanges) >= count, f"{count} exchanges")

    @property
    def paths(self) -> list[str]:
        return [exchange.request.path for exchange in self.exchanges]


Serve = Callable[..., RunningServer]


@contextlib.contextmanager
def serving(loop: str) -> Iterator[Serve]:
    servers: list[RunningServer] = []

    def serve(app: Application = answer_ok, budget: BodyBudget | None = None, **limits: Any) -> RunningServer:
        servers.append(RunningServer(LOOPS[loop], app, Limits(**limits), budget))
        return servers[-1]

    try:
        yield serve
    finally:
        for server in servers:
            server.stop()
