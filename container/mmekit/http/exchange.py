"""One request and its answer: what an application holds between the two."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Protocol

from mmekit.http.message import BODILESS, Request, Response, encode_head

#: Bodies and chunks above this are handed to the transport by themselves; joining smaller ones is cheaper
#: than a second write.
_JOIN_BYTES = 64 * 1024


#: Said also where HTTP/1.1 implies it, as MMS does. By whether the connection is kept.
_CONNECTION = (b"connection: close\r\n", b"connection: keep-alive\r\n")


class State(Enum):
    """How far the answer is."""

    WAITING = "waiting for the answer"
    STREAMING = "the answer has been started"
    ENDED = "the answer has been given"


_WAITING, _STREAMING, _ENDED = State.WAITING, State.STREAMING, State.ENDED


class Pulse:
    """What the server's tick renews and every answer reads."""

    __slots__ = ("closes_from", "lines", "now", "stopping")

    def __init__(self, closes_from: int) -> None:
        self.now = 0.0  #: seconds; counts only time in which the loop ran
        self.lines = b""  #: what every head has: "date: …" and the server's common headers, with CRLF
        self.stopping = False  #: answers say "connection: close"
        self.closes_from = closes_from  #: so do those of this status and above


class Channel(Protocol):
    """What an exchange needs of its connection."""

    pulse: Pulse
    writable: bool

    def write(self, data: bytes | bytearray) -> None: ...

    def exchange_ended(self, exchange: Exchange, keep_alive: bool) -> None: ...

    def exchange_aborted(self, exchange: Exchange, reset: bool) -> None: ...

    def exchange_admitted(self, exchange: Exchange) -> None: ...


class Exchange:
    """One request and its answer: ``respond`` once, or ``start``, ``write`` …, ``end``.

    Calls in the wrong order raise RuntimeError and name the state. When the client goes away before the
    answer has ended, ``closed`` turns true, ``on_close`` is called once, and later calls do nothing.
    ``on_drain`` is called when ``write`` has returned False and the transport takes more again.
    """

    # Most exchanges leave these as they are: class attributes cost nothing per request.
    closed = False
    on_close: Callable[[], None] | None = None
    on_drain: Callable[[], None] | None = None
    # The connection's notes: bytes reserved for the body, whether they were granted, "Expect: 100-continue".
    reserved = 0
    admitted = True
    expects_continue = False
    # Of an answer that streams:
    _chunked = False
    _mute = False
    _keep_alive = False

    def __init__(self, request: Request, channel: Channel) -> None:
        self.request = request
        self.last = not request.keep_alive  #: nothing after this request will be read
        self._channel = channel
        self._state = _WAITING

    @property
    def state(self) -> State:
        return self._state

    def respond(self, response: Response) -> None:
        """Send the whole answer; as ``answer``."""
        self.answer(response.status, response.headers, response.body, response.reason)

    def answer(
        self,
        status: int,
        headers: Sequence[tuple[bytes, bytes]],
        body: bytes | bytearray,
        reason: str | None = None,
        lines: bytes = b"",
        length: int | None = None,
    ) -> None:
        """Send the whole answer in one write; ``lines`` are further header lines, sent as they are.

        ``length`` is for answers to HEAD: what the body of the same GET would have (RFC 9110, 8.6).

        Raises ValueError for a head that cannot be sent; the exchange is then as before.
        """
        if self._state is not _WAITING or self.closed:
            self._refuse("respond()")
            return
        channel = self._channel
        pulse = channel.pulse
        keep_alive = not (self.last or pulse.stopping or status >= pulse.closes_from)
        bodiless = status in BODILESS
        if bodiless:
            own = b"%b%b%b" % (lines, pulse.lines, _CONNECTION[keep_alive])
        else:
            size = len(body) if length is None else length
            own = b"%b%b%bcontent-length: %d\r\n" % (lines, pulse.lines, _CONNECTION[keep_alive], size)
        head = encode_head(status, reason, headers, own)
        self._state = _ENDED
        if self.on_close is not None:
            self._let_go()
        if bodiless or self.request.method == "HEAD":
            channel.write(head)
        elif len(body) <= _JOIN_BYTES:
            channel.write(head + body)
        else:
            channel.write(head)
            channel.write(body)
        channel.exchange_ended(self, keep_alive)

    def start(
        self,
        status: int,
        headers: Sequence[tuple[bytes, bytes]] = (),
        reason: str | None = None,
        lines: bytes = b"",
        length: int | None = None,
    ) -> None:
        """Send the head of an answer that comes in parts.

        Without a ``length`` it is chunked, or ended by closing for HTTP/1.0 clients. With one, exactly so
        many bytes must be written before ``end``; who cannot keep that calls ``abort``. ``lines`` as in
        ``answer``.

        Raises ValueError for a head that cannot be sent; the exchange is then as before.
        """
        if self._state is not _WAITING or self.closed:
            self._refuse("start()")
            return
        pulse = self._channel.pulse
        chunked = status not in BODILESS and self.request.version != "1.0" and length is None
        closes = self.last or pulse.stopping or status >= pulse.closes_from
        keep_alive = not closes and (chunked or status in BODILESS or length is not None)
        own = lines + pulse.lines + _CONNECTION[keep_alive]
        if chunked:
            own += b"transfer-encoding: chunked\r\n"
        elif length is not None and status not in BODILESS:
            own += b"content-length: %d\r\n" % length
        head = encode_head(status, reason, headers, own)
        self._state = _STREAMING
        self._mute = status in BODILESS or self.request.method == "HEAD"
        self._chunked = chunked and not self._mute
        self._keep_alive = keep_alive
        self._channel.write(head)

    def write(self, chunk: bytes) -> bool:
        """Send a piece of the body. False: enough is buffered, go on when ``on_drain`` is called."""
        if self._state is not _STREAMING or self.closed:
            self._refuse("write()")
            return True
        channel = self._channel
        # An empty chunk would end the body.
        if self._mute or not chunk:
            return channel.writable
        if not self._chunked:
            channel.write(chunk)
        elif len(chunk) <= _JOIN_BYTES:
            channel.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        else:
            channel.write(b"%x\r\n" % len(chunk))
            channel.write(chunk)
            channel.write(b"\r\n")
        return channel.writable

    def end(self) -> None:
        """End the answer begun with ``start``."""
        if self._state is not _STREAMING or self.closed:
            self._refuse("end()")
            return
        self._state = _ENDED
        self._let_go()
        if self._chunked:
            self._channel.write(b"0\r\n\r\n")
        self._channel.exchange_ended(self, self._keep_alive)

    def abort(self) -> None:
        """Close the connection without ending the answer; the client sees that it is incomplete.

        A chunked body lacks its last chunk; one that only closing would end is reset. ``on_close`` is not
        called. Does nothing when the answer has ended.
        """
        if self._state is _ENDED or self.closed:
            return
        reset = self._state is _STREAMING and not self._chunked
        self._state = _ENDED
        self._let_go()
        self._channel.exchange_aborted(self, reset)

    def admit(self) -> None:
        """Take note that the budget has room for the body now (called by BodyBudget)."""
        self.admitted = True
        self._channel.exchange_admitted(self)

    def client_gone(self) -> None:
        """Take note that nobody waits for the answer any more (called by the connection)."""
        self.closed = True
        if self.on_close is not None:
            self.on_close()
        self._let_go()

    def _let_go(self) -> None:
        """Forget who is to be told: they hold the exchange, and with it the body, until a collection."""
        self.on_close = self.on_drain = None

    def _refuse(self, call: str) -> None:
        # A client that has gone is not the application's mistake; one answer too many is.
        if not self.closed:
            raise RuntimeError(f"{call} on {self.request.method} {self.request.path}: {self._state.value}.")


Application = Callable[[Exchange], None]
