"""One kept-alive HTTP/1.1 connection to a container: a request out, its answer back, one at a time.

An HTTP client library costs several times what the rest of an invocation does (aiohttp: about 200 µs a call,
this: about 15), and InvokeEndpoint's path through the service is meant to cost less than the container's own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import httptools

#: Bodies above this are written by themselves; joining smaller ones is cheaper than a second write.
_JOIN_BYTES = 64 * 1024


class Answer:
    """A container's answer, complete; of a streaming one the body has been given away in parts."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, headers: dict[bytes, bytes], body: bytes) -> None:
        self.status = status
        #: By name in lower case; the last of equal names.
        self.headers = headers
        self.body = body


class NoAnswer(Exception):
    """Raised, or handed over, when a container did not answer: unreachable, closed early, malformed, late."""


#: Called once with what came of a request.
Done = Callable[["Answer | NoAnswer"], None]
#: Called with the head of a streaming answer (its body is empty), then with each part.
OnHead = Callable[[Answer], None]
OnPart = Callable[[bytes], None]


class Request:
    """A request to a container. ``head`` is complete but for Content-Length and the empty line."""

    __slots__ = ("body", "connection", "done", "head", "is_head", "on_head", "on_part")

    def __init__(
        self,
        head: bytes,
        body: bytes | bytearray,
        done: Done,
        on_head: OnHead | None = None,
        on_part: OnPart | None = None,
    ) -> None:
        self.head = head
        self.body = body
        self.done = done
        self.on_head = on_head
        self.on_part = on_part
        self.connection: Connection | None = None
        #: Its answer has a head alone, whatever Content-Length that has (RFC 9112, 6.3).
        self.is_head = head.startswith(b"HEAD ")

    def end(self, outcome: Answer | NoAnswer) -> None:
        """Hand over what came of it."""
        done = self.done
        self._let_go()
        done(outcome)

    def _let_go(self) -> None:
        # Who is told holds the request: nothing waits for the collector.
        self.done = _nothing
        self.on_head = self.on_part = self.connection = None

    def cancel(self) -> None:
        """Give the request up: its connection is closed, nobody is told any more."""
        connection = self.connection
        self._let_go()
        if connection is not None:
            connection.abort()

    def pause(self) -> None:
        """Read no more of the answer until ``resume``: who takes its parts is slow."""
        if self.connection is not None:
            self.connection.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self.connection is not None:
            self.connection.resume_reading()


def _nothing(_: Answer | NoAnswer) -> None:
    """Stand in for a caller that is gone."""


class Connection(asyncio.Protocol):
    """The protocol of one connection; ``released`` is told when it is free again, ``lost`` when it ended."""

    __slots__ = (
        "__weakref__",
        "_body",
        "_has_head",
        "_headers",
        "_lost",
        "_max_bytes",
        "_parser",
        "_released",
        "_request",
        "_size",
        "_streams",
        "_transport",
        "free_since",
    )

    def __init__(
        self,
        max_bytes: int,
        released: Callable[[Connection], None],
        lost: Callable[[Connection, Request | None], None],
    ) -> None:
        # Per connection
        self._max_bytes = max_bytes
        self._released = released
        self._lost = lost
        self._transport: asyncio.Transport
        self._parser = httptools.HttpResponseParser(self)
        self.free_since = 0.0
        # Per request
        self._request: Request | None = None
        self._headers: dict[bytes, bytes] = {}
        self._has_head = False
        self._body: list[bytes] = []
        self._size = 0
        self._streams = False

    # --- the pool's side

    def send(self, request: Request) -> None:
        """Send a request; the connection must be free."""
        self._request = request
        request.connection = self
        body = request.body
        head = b"%bcontent-length: %d\r\n\r\n" % (request.head, len(body))
        if len(body) <= _JOIN_BYTES:
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            self._transport.write(body)

    @property
    def is_closing(self) -> bool:
        """Whether its end has been noticed."""
        return self._transport.is_closing()

    def abort(self) -> None:
        """Close the connection at once."""
        self._transport.abort()

    def pause_reading(self) -> None:
        """Stop taking bytes from the container."""
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Take bytes again."""
        if not self._transport.is_closing():
            self._transport.resume_reading()

    # --- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport (asyncio.Protocol)."""
        self._transport = transport  # type: ignore[assignment]  # a stream's transport is a Transport

    def data_received(self, data: bytes) -> None:
        """Feed the parser (asyncio.Protocol)."""
        if self._request is None:  # nobody asked: what comes cannot be an answer
            self._transport.abort()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(f"its answer is not HTTP/1.1 ({error})")

    def eof_received(self) -> bool:
        """End an answer that only the end of the connection ends (RFC 9112, 6.3)."""
        if self._has_head and not self._ends_itself():
            self.on_message_complete()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the pool (asyncio.Protocol)."""
        request, self._request = self._request, None
        self._lost(self, request)

    def _fail(self, reason: str) -> None:
        request, self._request = self._request, None
        self._transport.abort()
        if request is not None:
            request.end(NoAnswer(reason))

    # --- httptools' side

    def on_message_begin(self) -> None:
        """Begin an answer (httptools)."""
        self._headers = {}
        self._has_head = False
        self._body = []
        self._size = 0
        self._streams = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header (httptools)."""
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """Tell a streaming caller of the head (httptools)."""
        self._has_head = True
        request = self._request
        if request is None:
            return
        if request.is_head:
            # The parser would wait for a body. Another connection is the price; nothing frequent asks so.
            self._request = None
            self._transport.close()
            request.end(Answer(self._parser.get_status_code(), self._headers, b""))
        elif request.on_head is not None:
            status = self._parser.get_status_code()
            if 200 <= status < 300:  # what a failing model says is collected as always
                self._streams = True
                request.on_head(Answer(status, self._headers, b""))

    def on_body(self, data: bytes) -> None:
        """Take a part of the body (httptools)."""
        if self._streams:
            request = self._request
            if request is not None and request.on_part is not None:
                request.on_part(data)
            return
        self._size += len(data)
        if self._size <= self._max_bytes:
            self._body.append(data)
        elif self._request is not None:
            self._fail(f"its answer has more than {self._max_bytes} bytes")

    def on_message_complete(self) -> None:
        """Hand the answer over and become free (httptools)."""
        request = self._request
        if request is None:
            return
        status = self._parser.get_status_code()
        if 100 <= status < 200:
            return
        body = self._body
        answer = Answer(status, self._headers, body[0] if len(body) == 1 else b"".join(body))
        self._request = None
        self._body = []
        if self._parser.should_keep_alive() and self._ends_itself():
            # Free before the caller knows: its next request may use this connection.
            self._released(self)
        else:
            self._transport.close()
        request.end(answer)

    def _ends_itself(self) -> bool:
        headers = self._headers
        status = self._parser.get_status_code()
        return b"content-length" in headers or b"transfer-encoding" in headers or status in (204, 304)
