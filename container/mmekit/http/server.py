"""Listeners, and a server's life: start, serve, stop accepting, drain, abort. One tick keeps all timeouts."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import Callable, Sequence

from mmekit.http.connection import Connection, Shared
from mmekit.http.exchange import Application, Pulse
from mmekit.http.limits import BodyBudget, Limits
from mmekit.http.message import Request
from mmekit.http.unix import UnixSocket

#: Connections that the kernel holds until they are accepted; it has a limit of its own (net.core.somaxconn,
#: 4096 on Linux). uvicorn and gunicorn: 2048.
BACKLOG = 2048

#: Memory for request bodies where the caller gives no budget.
DEFAULT_BUDGET_BYTES = 256 * 1024 * 1024


class HttpServer:
    """An HTTP/1.1 server in the running event loop, uvloop's or asyncio's own.

    ``app`` is called in the loop with each complete request and must not block; it answers then or later,
    through the exchange. ``budget`` may be shared with other servers. ``common`` headers are in every answer;
    answers with a status from ``closes_from`` on end their connection. ``on_refused`` is told of requests
    that were answered before ``app`` saw them: what came of the request, and the status; those answers have
    the headers ``refused`` as well.
    """

    def __init__(
        self,
        app: Application,
        limits: Limits | None = None,
        budget: BodyBudget | None = None,
        *,
        common: Sequence[tuple[bytes, bytes]] = (),
        refused: Sequence[tuple[bytes, bytes]] = (),
        closes_from: int = 1000,
        on_refused: Callable[[Request, int], None] | None = None,
    ) -> None:
        self.limits = limits if limits is not None else Limits()
        self.budget = budget if budget is not None else BodyBudget(DEFAULT_BUDGET_BYTES)
        pulse = Pulse(closes_from)
        self._shared = Shared(app, self.limits, self.budget, pulse, on_refused, refused_lines=_lines(refused))
        self._common = _lines(common)
        self._listeners: list[asyncio.AbstractServer] = []
        self._addresses: list[tuple[str, int] | str] = []
        self._unix_sockets: list[UnixSocket] = []
        self._ticker: asyncio.TimerHandle | None = None
        self._ticked_at = 0.0

    @property
    def addresses(self) -> list[tuple[str, int] | str]:
        """Where the server listens: (host, port) or a path; where port 0 was asked for, the one it got."""
        return list(self._addresses)

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._shared.connections)

    async def start(
        self,
        host: str | None = None,
        port: int = 0,
        *,
        sock: socket.socket | None = None,
        path: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Listen on host and port, on a bound socket, or on a Unix socket's path; may be called for several.

        ``tls`` is for host and port. Raises OSError where the address cannot be had.
        """
        loop = asyncio.get_running_loop()
        if path is not None:
            unix = UnixSocket(path)
            self._unix_sockets.append(unix)
            listener = await loop.create_unix_server(self._connect, sock=unix.sock, backlog=BACKLOG)
        elif sock is not None and sock.family == socket.AF_UNIX:
            listener = await loop.create_unix_server(self._connect, sock=sock, backlog=BACKLOG)
        elif sock is not None:
            listener = await loop.create_server(self._connect, sock=sock, backlog=BACKLOG)
        elif tls is None:
            listener = await loop.create_server(self._connect, host, port, backlog=BACKLOG)
        else:
            listener = await self._start_tls(host, port, tls)
        self._listeners.append(listener)
        for bound in listener.sockets:
            name = bound.getsockname()
            self._addresses.append(name if isinstance(name, str) else (name[0], name[1]))
        if self._ticker is None:
            self._ticked_at = loop.time()
            self._tick(loop)

    async def _start_tls(self, host: str | None, port: int, tls: ssl.SSLContext) -> asyncio.Server:
        limits = self.limits
        loop = asyncio.get_running_loop()
        return await loop.create_server(
            self._connect,
            host,
            port,
            backlog=BACKLOG,
            ssl=tls,
            ssl_handshake_timeout=limits.read_timeout_s,
            # Clients answer the end of a TLS connection when they next read, which may be never.
            ssl_shutdown_timeout=limits.linger_timeout_s,
        )

    def stop_accepting(self) -> None:
        """Close the listeners and idle connections; answers in flight end with ``Connection: close``."""
        self._shared.pulse.stopping = True
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
        for unix in self._unix_sockets:
            unix.remove()
        self._unix_sockets.clear()
        for connection in list(self._shared.connections):
            connection.close_if_idle()

    async def drain(self, timeout_s: float) -> bool:
        """Wait until every connection has ended, for at most ``timeout_s``; return whether they have."""
        shared = self._shared
        if shared.connections:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(shared.emptied.wait(), timeout_s)
        return not shared.connections

    def abort(self) -> None:
        """Cut every connection, answered or not; ``drain`` then returns in the next turns of the loop."""
        self.stop_accepting()
        if self._ticker is not None:
            self._ticker.cancel()
            self._ticker = None
        for connection in list(self._shared.connections):
            connection.abort()

    def _connect(self) -> Connection:
        return Connection(self._shared)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        pulse = self._shared.pulse
        if pulse.stopping and not self._shared.connections:
            self._ticker = None
            return
        tick_s = self.limits.tick_s
        # When the loop or the machine stood still it was not the clients who were slow.
        now = loop.time()
        pulse.now += min(now - self._ticked_at, 2 * tick_s)
        self._ticked_at = now
        # IMF-fixdate (RFC 9110, 5.6.7); a process that never calls setlocale has English names here.
        date = time.strftime("date: %a, %d %b %Y %H:%M:%S GMT\r\n", time.gmtime())
        pulse.lines = date.encode() + self._common
        for connection in list(self._shared.connections):
            connection.check()
        self._ticker = loop.call_later(tick_s, self._tick, loop)


def _lines(headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    return b"".join(b"%b: %b\r\n" % header for header in headers)
