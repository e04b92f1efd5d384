"""A TCP proxy whose connections break off, or hang, when many bytes have gone up."""

from __future__ import annotations

import contextlib
import socket
import threading
from urllib.parse import urlsplit

_BLOCK_BYTES = 64 * 1024


class CuttingProxy:
    """Forwards to a server; a context manager.

    The first ``times`` connections that send more than ``after_bytes`` are cut. All bytes together beyond
    ``hang_after_bytes`` wait until they are released.
    """

    def __init__(
        self, url: str, *, after_bytes: int = 0, times: int = 0, hang_after_bytes: int | None = None
    ) -> None:
        self.cut = 0
        self.hanging = False
        self._target = (str(urlsplit(url).hostname), int(urlsplit(url).port or 80))
        self._after_bytes = after_bytes
        self._times = times
        self._hang_after_bytes = hang_after_bytes
        self._sent = 0
        self._lock = threading.Lock()
        self._released = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> CuttingProxy:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._released.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            self._end(connection)
        for thread in self._threads:
            thread.join(10)

    def release_soon(self) -> None:
        """Let go on what hangs, a moment after the caller has gone on."""
        threading.Timer(0.3, self._released.set).start()

    def _start(self, function: object, *arguments: object) -> None:
        thread = threading.Thread(target=function, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._target)
            self._open += [client, server]
            self._start(self._up, client, server)
            self._start(self._forward, server, client)

    def _up(self, client: socket.socket, server: socket.socket) -> None:
        sent = 0
        with contextlib.suppress(OSError):
            while block := client.recv(_BLOCK_BYTES):
                sent += len(block)
                if self._is_to_be_cut(sent):
                    break
                self._wait(len(block))
                server.sendall(block)
        self._end(server)
        self._end(client)

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while block := source.recv(_BLOCK_BYTES):
                target.sendall(block)
        self._end(target)
        self._end(source)

    def _is_to_be_cut(self, sent: int) -> bool:
        with self._lock:
            if self.cut >= self._times or sent <= self._after_bytes:
                return False
            self.cut += 1
            return True

    def _wait(self, count: int) -> None:
        with self._lock:
            self._sent += count
            beyond = self._hang_after_bytes is not None and self._sent > self._hang_after_bytes
        if beyond and not self._released.is_set():
            self.hanging = True
            self._released.wait(60)

    @staticmethod
    def _end(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        connection.close()
