"""One client's connection: bytes in, exchanges to the application, answers out, in order.

Reading and answering are two machines. `Phase` says what is read next. Requests that are complete wait in a
queue (more than one only when a client pipelines), and the application holds at most one exchange at a time.
Reading pauses while requests queue, and while the body at hand waits for its share of the budget.

A client that closes its sending side while it waits for an answer counts as gone, as in nginx.
"""

from __future__ import annotations

import asyncio
import logging
import select
import socket
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import cast

import httptools

from mmekit.errors import RequestTimeout, ServiceUnavailable
from mmekit.http.exchange import Application, Exchange, Pulse, State
from mmekit.http.limits import BodyBudget, Limits
from mmekit.http.message import Request, Response, encode_head, error_response, json_error, split_target
from mmekit.http.refusals import (
    Refusal,
    bad_message,
    bad_version,
    body_size,
    check_head_size,
    expects_continue,
    head_too_large,
    no_proxy,
    target_too_long,
    too_large,
)

logger = logging.getLogger(__name__)

#: Connections beyond ``max_connections`` that are told so at one time; others are closed without a word.
_MAX_TOLD_FULL = 64

#: Linux alone has POLLRDHUP. Elsewhere a client that leaves during a pause is noticed by POLLHUP, later.
_HANG_UP = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR


class Phase(Enum):
    """What is read next."""

    IDLE = "the first byte of a request"
    HEAD = "the rest of a head"
    BODY = "the rest of a body"
    DONE = "nothing: the last request is complete, or was refused"
    LINGER = "what a refused client still sends, to drop it"
    CLOSED = "nothing: the connection is closed or closing"


# Reading a member of an enum costs several times as much as reading a global.
_IDLE, _HEAD, _BODY = Phase.IDLE, Phase.HEAD, Phase.BODY
_DONE, _LINGER, _CLOSED = Phase.DONE, Phase.LINGER, Phase.CLOSED


@dataclass(slots=True)
class Shared:
    """What all connections of a server have in common."""

    app: Application
    limits: Limits
    budget: BodyBudget
    pulse: Pulse
    on_refused: Callable[[Request, int], None] | None = None
    refused_lines: bytes = b""
    connections: set[Connection] = field(default_factory=set)
    emptied: asyncio.Event = field(default_factory=asyncio.Event)


class Connection(asyncio.Protocol):
    """The protocol of one connection. Made by `mmekit.http.server.HttpServer`."""

    # Attributes of an object without a dict are the fastest to reach; there are too many for key sharing.
    __slots__ = (
        "__weakref__",
        "_advancing",
        "_body",
        "_budget",
        "_exchange",
        "_feeding",
        "_head_bytes",
        "_headers",
        "_incoming",
        "_limits",
        "_lingered",
        "_lingering_since",
        "_parser",
        "_paused",
        "_peer",
        "_phase",
        "_queue",
        "_received",
        "_sent",
        "_sent_at",
        "_shared",
        "_since",
        "_transport",
        "_url",
        "_written",
        "pulse",
        "writable",
    )

    def __init__(self, shared: Shared) -> None:
        # Per connection
        self.pulse = shared.pulse
        self.writable = True
        self._shared = shared
        self._limits = shared.limits
        self._budget = shared.budget
        self._transport: asyncio.Transport
        self._parser = httptools.HttpRequestParser(self)
        self._peer = ""
        self._phase = _IDLE
        self._paused = False
        self._since = shared.pulse.now  # when the phase began, or the client last did something
        self._lingering_since = 0.0
        self._lingered = 0
        self._written = 0
        self._sent = 0
        self._sent_at = 0.0
        # The answering side: what is complete, and what the application holds
        self._queue: deque[Exchange | Response] = deque()
        self._exchange: Exchange | None = None
        self._advancing = False
        # Per request that is being read
        self._incoming: Exchange | None = None
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: bytes | bytearray = b""
        self._received = False  # whether this read brought a piece of the body
        self._head_bytes = 0  # of a head in earlier reads; in a body: of chunk sizes, extensions and trailers
        self._feeding = 0

    # --- asyncio.Protocol ------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Both loops have set TCP_NODELAY. uvloop's transports are no subclasses of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        self._peer = _peer_name(transport)
        shared = self._shared
        connections = shared.connections
        connections.add(self)
        shared.emptied.clear()
        limit = shared.limits.max_connections
        if len(connections) > limit + _MAX_TOLD_FULL:
            self._transport.abort()
        elif len(connections) > limit:
            message = f"The server has {limit} open connections, its limit; try again in a moment."
            self._refuse(error_response(ServiceUnavailable(message)))

    def data_received(self, data: bytes) -> None:
        phase = self._phase
        if phase is _DONE or phase is _LINGER or phase is _CLOSED:
            self._drop(len(data))
            return
        self._feeding = len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            self._stop_parsing(error)
        if self._queue:
            self._advance()
        phase = self._phase
        if phase is _HEAD or phase is _BODY:
            self._after_part(len(data))
        if self._queue or self._incoming is not None or self._paused:
            self._update_reading()

    def eof_received(self) -> None:
        # Returning nothing closes the transport, once what is written has been sent.
        self._leave()

    def connection_lost(self, exc: Exception | None) -> None:
        shared = self._shared
        shared.connections.discard(self)
        if not shared.connections:
            shared.emptied.set()
        self._leave()
        # The parser holds this object's methods: without this only the collector would free the two.
        del self._parser

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True
        exchange = self._exchange
        if exchange is not None and exchange.on_drain is not None:
            exchange.on_drain()
        if self._queue:
            self._go_on()

    # --- httptools -------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._phase is not _IDLE:
            raise Refusal(Response(400))  # data after the last request; nobody reads this answer
        self._phase = _HEAD
        self._since = self.pulse.now
        self._url = b""
        self._headers = []
        self._body = b""
        self._head_bytes = 0

    def on_url(self, url: bytes) -> None:
        self._url = self._url + url if self._url else url

    def on_header(self, name: bytes, value: bytes) -> None:
        # Trailers come here too, after the head's list has been taken: they are dropped.
        # llhttp leaves white space at the end of values in place.
        self._headers.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        parser = self._parser
        method = parser.get_method()
        if parser.should_upgrade():
            if method != b"CONNECT":
                return  # see _ignore_upgrade
            raise Refusal(no_proxy())
        limits = self._limits
        headers = self._headers
        self._headers = []  # for trailers
        if self._head_bytes + self._feeding > limits.max_target_bytes or len(headers) > limits.max_headers:
            check_head_size(self._url, headers, limits)
        path, query = split_target(self._url.decode("latin-1"))
        request = Request(
            method.decode(), path, query, headers, b"", "1.1", parser.should_keep_alive(), self._peer
        )
        # Asking the parser costs more, and no other version keeps a connection that is not asked to stay.
        if not request.keep_alive or b"connection" in request.first:
            self._check_version(request)
        self._phase = _BODY
        self._head_bytes = 0
        size = body_size(request, limits)
        self._incoming = exchange = Exchange(request, self)
        if size:
            if b"expect" in request.first:
                exchange.expects_continue = expects_continue(request)
            exchange.reserved = size
            exchange.admitted = self._budget.reserve(size, exchange)

    def on_body(self, piece: bytes) -> None:
        body = self._body
        if not body:
            self._body = piece
        else:
            if isinstance(body, bytes):
                self._body = body = bytearray(body)
            body += piece
        self._received = True
        limits = self._limits
        if len(self._body) > limits.max_body_bytes:
            # Only a chunked body comes this far.
            raise Refusal(too_large(f"{len(self._body)} bytes or more", limits))

    def on_message_complete(self) -> None:
        exchange = self._incoming
        if exchange is None:
            return  # see _ignore_upgrade
        if self._headers:
            check_head_size(b"", self._headers, self._limits)  # trailers
        self._incoming = None
        body = exchange.request.body = self._body
        self._body = b""
        self._queue.append(exchange)
        if len(self._queue) >= self._limits.max_pipelined:
            exchange.last = True
        self._phase = _DONE if exchange.last else _IDLE
        if exchange.reserved > len(body):
            reserved, exchange.reserved = exchange.reserved, len(body)
            self._budget.shrink(exchange, reserved, len(body))

    # --- reading ---------------------------------------------------------------------------------

    def _check_version(self, request: Request) -> None:
        request.version = self._parser.get_http_version()
        if request.version not in ("1.1", "1.0"):
            raise Refusal(bad_version(request.version))

    def _after_part(self, size: int) -> None:
        """Count the part of a request that this read brought, and send 100 Continue where it is due."""
        limits = self._limits
        if self._phase is _HEAD:
            self._head_bytes += size
            if len(self._url) > limits.max_target_bytes:
                self._refuse(target_too_long(limits))
            elif self._head_bytes > limits.max_head_bytes:
                self._refuse(head_too_large(limits))
            return
        self._since = self.pulse.now
        # Chunk extensions and trailers have no limit in llhttp (in Node that was CVE-2024-22019).
        self._head_bytes = 0 if self._received else self._head_bytes + size
        self._received = False
        if self._head_bytes > limits.max_head_bytes:
            self._refuse(head_too_large(limits))
        else:
            self._continue()

    def _continue(self) -> None:
        exchange = self._incoming
        if exchange is None or not exchange.expects_continue or not exchange.admitted:
            return
        # It must not come between the pieces of an earlier answer.
        if self._exchange is None and not self._queue:
            exchange.expects_continue = False
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Go on in HTTP/1.1 with a request that offers another protocol (RFC 9110, 7.8).

        llhttp ends the message with its head then and would read its body as the next request, so the head is
        parsed again without the offer.
        """
        parser = self._parser
        fields = [b"%b: %b\r\n" % field for field in self._headers if field[0].lower() != b"upgrade"]
        line = b"%b %b HTTP/%b\r\n" % (parser.get_method(), self._url, parser.get_http_version().encode())
        self._parser = httptools.HttpRequestParser(self)
        self._phase = _IDLE
        self.data_received(b"%b%b\r\n" % (line, b"".join(fields)))
        self.data_received(rest)

    def _stop_parsing(self, error: httptools.HttpParserError) -> None:
        cause = error.__context__
        if self._phase is _DONE or self._phase is _CLOSED:
            return  # data after the last request
        if isinstance(cause, Refusal):
            self._refuse(cause.response)
        elif isinstance(error, httptools.HttpParserCallbackError):
            raise error
        else:
            self._refuse(bad_message(str(error)))

    def _refuse(self, response: Response) -> None:
        """Answer what is being read with ``response``, when its turn comes, and read no more."""
        self._phase = _DONE
        self._drop_incoming()
        self._queue.append(response)
        self._advance()

    def _update_reading(self) -> None:
        if self._phase is _LINGER or self._phase is _CLOSED:
            return
        incoming = self._incoming
        pause = bool(self._queue) or (incoming is not None and not incoming.admitted)
        if pause is not self._paused:
            self._paused = pause
            if pause:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    # --- answering -------------------------------------------------------------------------------

    def _go_on(self) -> None:
        self._advance()
        self._continue()
        self._update_reading()

    def _advance(self) -> None:
        """Hand complete requests to the application, one at a time."""
        if self._advancing:
            return
        self._advancing = True
        try:
            queue = self._queue
            while queue and self._exchange is None and self.writable:
                item = queue[0]
                if isinstance(item, Response):
                    self._close_with(item)
                elif item.admitted:
                    queue.popleft()
                    self._exchange = item
                    try:
                        self._shared.app(item)
                    except Exception as error:  # noqa: BLE001 - the border between one request and the server
                        self._app_failed(item, error)
                else:
                    break
        finally:
            self._advancing = False

    def _app_failed(self, exchange: Exchange, error: Exception) -> None:
        request = exchange.request
        logger.error("%s %s: the application raised.", request.method, request.path, exc_info=error)
        if exchange.state is State.WAITING:
            exchange.respond(json_error(500, "InternalServerException", f"{type(error).__name__}: {error}"))
        else:
            exchange.abort()

    def write(self, data: bytes | bytearray) -> None:
        """Send bytes of the current answer (called by the exchange)."""
        self._written += len(data)
        self._transport.write(data)

    def exchange_ended(self, exchange: Exchange, keep_alive: bool) -> None:
        """Go on with the next request, or close (called by the exchange)."""
        self._exchange = None
        self._since = self.pulse.now
        if not keep_alive:
            # Requests that get no answer would turn the close into a reset that may eat the last answer.
            unread = self._queue or (exchange.request.keep_alive and exchange.last)
            self._linger() if unread else self._close()
        elif not self._advancing and (self._queue or self._incoming is not None or self._paused):
            self._go_on()
        if exchange.reserved:
            self._budget.release(exchange.reserved)

    def exchange_aborted(self, exchange: Exchange, reset: bool) -> None:
        """Close in the middle of an answer, by a reset where only that shows it (called by the exchange)."""
        self._exchange = None
        if reset:
            # A close with a linger time of zero sends RST.
            sock = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()
        self._close()
        if exchange.reserved:
            self._budget.release(exchange.reserved)

    def exchange_admitted(self, exchange: Exchange) -> None:
        """Go on with a request whose body has its share of the budget now (called by the exchange)."""
        self._since = self.pulse.now
        self._go_on()

    # --- closing ---------------------------------------------------------------------------------

    def _close_with(self, response: Response) -> None:
        lines = self.pulse.lines + self._shared.refused_lines
        own = b"%bconnection: close\r\ncontent-length: %d\r\n" % (lines, len(response.body))
        self.write(encode_head(response.status, response.reason, response.headers, own) + response.body)
        if self._shared.on_refused is not None:
            self._shared.on_refused(self._refused(), response.status)
        self._linger()

    def _refused(self) -> Request:
        """Return what came of the request that was refused; method and path are "-" where they did not."""
        if not self._url:
            return Request("-", "-", peer=self._peer)
        path, query = split_target(self._url.decode("latin-1"))
        return Request(self._parser.get_method().decode(), path, query, peer=self._peer)

    def _linger(self) -> None:
        """Close after what is written, but read on for a while.

        A close with unread data makes the kernel send RST, which may overtake the answer (RFC 9112, 9.6).
        """
        self._drop_requests()
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        self._phase = _LINGER
        self._since = self._lingering_since = self.pulse.now
        if self._transport.can_write_eof():  # not over TLS
            self._transport.write_eof()

    def _drop(self, size: int) -> None:
        if self._phase is not _LINGER:
            return
        self._since = self.pulse.now
        self._lingered += size
        if self._lingered > self._limits.linger_bytes:
            self._close()

    def _close(self) -> None:
        """Close once what is written has been sent."""
        self._phase = _CLOSED
        self._transport.close()
        self._drop_requests()

    def _leave(self) -> None:
        """Let go of everything: the client has gone."""
        self._phase = _CLOSED
        self._drop_requests()
        exchange = self._exchange
        if exchange is not None:
            self._exchange = None
            if exchange.reserved:
                self._budget.release(exchange.reserved)
            exchange.client_gone()

    def _drop_requests(self) -> None:
        self._drop_incoming()
        queue = self._queue
        while queue:
            item = queue.popleft()
            if isinstance(item, Exchange):
                self._give_back(item)

    def _drop_incoming(self) -> None:
        exchange = self._incoming
        if exchange is not None:
            self._incoming = None
            self._body = b""
            self._give_back(exchange)

    def _give_back(self, exchange: Exchange) -> None:
        if not exchange.admitted:
            self._budget.cancel(exchange)
        elif exchange.reserved:
            self._budget.release(exchange.reserved)

    def close_if_idle(self) -> None:
        """Close a connection that has no request (called when the server stops accepting)."""
        if self._phase is _IDLE and self._exchange is None and not self._queue:
            self._close()

    def abort(self) -> None:
        """Cut the connection, whatever it does."""
        self._transport.abort()

    # --- timeouts --------------------------------------------------------------------------------

    def check(self) -> None:
        """End what takes too long (called at each tick)."""
        now = self.pulse.now
        limits = self._limits
        if self._is_sending(now):
            if now - self._sent_at > limits.write_timeout_s:
                self._transport.abort()
            return
        waits_for_client = self._exchange is None and not self._queue and not self._paused
        if self._paused and self._client_hung_up():
            self._transport.abort()
        elif self._phase is _LINGER:
            if (
                now - self._since > limits.linger_timeout_s
                or now - self._lingering_since > limits.read_timeout_s
            ):
                self._close()
        elif waits_for_client:
            self._check_client(now - self._since)

    def _check_client(self, waited_s: float) -> None:
        limits = self._limits
        if self._phase is _IDLE:
            if waited_s > limits.keep_alive_timeout_s or self.pulse.stopping:
                self._close()
        elif waited_s > limits.read_timeout_s:
            part = "head" if self._phase is _HEAD else "body"
            self._refuse(error_response(RequestTimeout(
                f"The rest of the request's {part} did not come within {limits.read_timeout_s:g} s."
            )))  # fmt: skip

    def _is_sending(self, now: float) -> bool:
        """Whether the client has yet to take bytes; notes when it last took some."""
        waiting = self._transport.get_write_buffer_size()
        sent = self._written - waiting
        if sent != self._sent or not waiting:
            self._sent = sent
            self._sent_at = now
        return waiting > 0

    def _client_hung_up(self) -> bool:
        # While reading is paused neither event loop looks at the socket.
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket").fileno(), _HANG_UP)
        return bool(poll.poll(0))


def _peer_name(transport: asyncio.BaseTransport) -> str:
    address = transport.get_extra_info("peername")
    if address is None:
        return ""
    if not isinstance(address, tuple):
        return "unix"  # such clients have no name
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
