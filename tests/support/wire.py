"""HTTP/1.1 by hand: what a server writes to a socket, byte for byte, without a client's opinion."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterable
from dataclasses import dataclass, field

#: Statuses whose answers have no body.
_NO_BODY = {100, 204, 304}


@dataclass
class Reply:
    """One response. ``status`` is 0 where the connection was closed without one, or none came in time."""

    status: int = 0
    reason: str = ""
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    #: Whether the server closed the connection afterwards.
    closed: bool = False
    #: Whether nothing came until the time was up.
    hung: bool = False

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name), None)


def request(method: str, path: str, headers: Iterable[tuple[str, str]] = (), body: bytes = b"") -> bytes:
    """Return the bytes of a request, with Host and, for a body, Content-Length unless it is chunked."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    lines += [f"{name}: {value}" for name, value in headers]
    names = {name.lower() for name, _ in headers}
    if body and not names & {"content-length", "transfer-encoding"}:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def chunked(*parts: bytes) -> bytes:
    """Return a chunked body."""
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (*parts, b""))


def connect(address: str, timeout_s: float) -> socket.socket:
    """Open a connection to ``http://host:port``, ``https://host:port`` or ``unix:/path``."""
    scheme, _, rest = address.partition(":")
    if scheme == "unix":
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(timeout_s)
        try:
            connection.connect(rest)
        except OSError:
            connection.close()
            raise
        return connection
    host, _, port = rest.removeprefix("//").rpartition(":")
    connection = socket.create_connection((host, int(port)), timeout_s)
    if scheme == "https":
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        connection = context.wrap_socket(connection)
    return connection


def talk(address: str, sent: bytes, methods: Iterable[str], timeout_s: float = 30) -> list[Reply]:
    """Send bytes on a connection of their own and read one reply for each of ``methods``.

    The last reply says whether the server closed the connection; that is waited for only where its
    header ``connection`` says so.
    """
    replies = []
    try:
        with contextlib.closing(connect(address, timeout_s)) as connection:
            # A server that refuses early may close before all is sent.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(sent)
            reader = _Reader(connection)
            for method in methods:
                replies.append(reader.reply(method))
            if replies[-1].header("connection") == "close":
                replies[-1].closed = reader.at_end()
    except TimeoutError:
        replies.append(Reply(hung=True))
    except ConnectionError:
        replies.append(Reply(closed=True))
    return replies


class _Reader:
    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = b""

    def reply(self, method: str) -> Reply:
        head = self._until(b"\r\n\r\n")
        if head is None:
            return Reply(closed=True)
        first, *lines = head.decode("latin-1").split("\r\n")
        _, status, reason = (first + "  ").split(" ", 2)
        headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        reply = Reply(int(status), reason.rstrip(), headers)
        length = reply.header("content-length")
        if method == "HEAD" or reply.status in _NO_BODY:
            return reply
        if length is not None:
            reply.body = self._exactly(int(length))
        elif reply.header("transfer-encoding") == "chunked":
            while size := int(self._until(b"\r\n") or b"0", 16):
                reply.body += self._exactly(size)
                self._exactly(2)
            self._until(b"\r\n")
        else:
            while self._more():
                pass
            reply.body, self._buffer, reply.closed = self._buffer, b"", True
        return reply

    def at_end(self) -> bool:
        try:
            return not self._more()
        except ConnectionResetError:
            return True

    def _more(self) -> bool:
        data = self._connection.recv(65536)
        self._buffer += data
        return bool(data)

    def _until(self, mark: bytes) -> bytes | None:
        while mark not in self._buffer:
            if not self._more():
                return None
        found, _, self._buffer = self._buffer.partition(mark)
        return found

    def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            if not self._more():
                break
        found, self._buffer = self._buffer[:size], self._buffer[size:]
        return found
