"""Downloads an archive over http or https; urllib is slow to import, so this module is imported late."""

from __future__ import annotations

import http.client
import socket
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from mmekit.archive.unpack import cannot_write
from mmekit.errors import DownloadModelError, ModelNotFound

_CHUNK_BYTES = 256 * 1024


def download(
    url: str, target: Path, max_bytes: int, deadline: float, silence_s: float, check: Callable[[], None]
) -> None:
    """Write what a url answers with to ``target``, a new file. Redirects within http(s) are followed.

    Raises DownloadModelError for an answer other than 200, a connection that fails, ends early or stands
    still for ``silence_s``, a download that has not ended at ``deadline`` (of ``time.monotonic``), or more
    than ``max_bytes``; ModelNotFound for a url that is none; what ``check`` raises, which is called with
    each part that comes.
    """
    with _Deadline(deadline) as end:
        try:
            _download(url, target, max_bytes, silence_s, check, end)
        except DownloadModelError as error:
            if end.passed:
                raise _timeout(url) from error
            raise
        if end.passed:  # a body of unknown length may have ended by it
            raise _timeout(url)


def _download(
    url: str, target: Path, max_bytes: int, silence_s: float, check: Callable[[], None], end: _Deadline
) -> None:
    received = 0
    try:
        with _opener(end).open(url, timeout=silence_s) as response:
            if response.status != 200:
                raise _failed(url, f", code: {response.status}")
            expected = response.length  # None when it is not said
            if expected is not None and expected > max_bytes:
                raise _too_large(url, max_bytes)
            with _Target(url, target) as out:
                while chunk := response.read1(_CHUNK_BYTES):
                    received += len(chunk)
                    if received > max_bytes:
                        raise _too_large(url, max_bytes)
                    check()
                    out.write(chunk)
            if expected is not None and received < expected:
                raise _failed(url, f" (the connection ended after {received} of {expected} bytes)")
    except HTTPError as error:
        error.close()
        raise _failed(url, f", code: {error.code}") from error
    except TimeoutError as error:
        raise _timeout(url) from error
    except URLError as error:
        if isinstance(error.reason, TimeoutError):
            raise _timeout(url) from error
        raise _failed(url, f" ({error.reason})") from error
    except (http.client.InvalidURL, ValueError) as error:
        raise ModelNotFound(f"Invalid model url: {url!r:.500} ({error}).") from error
    except (http.client.HTTPException, OSError) as error:
        raise _failed(url, f" ({str(error) or type(error).__name__})") from error


class _Target:
    """The file on this side: its errors are the disk's, not the connection's."""

    def __init__(self, url: str, path: Path) -> None:
        self._url = url
        self._path = path
        self._written = 0

    def __enter__(self) -> _Target:
        try:
            self._file = self._path.open("xb", buffering=0)
        except OSError as error:
            raise cannot_write(f"{self._url:.500}", self._path.parent, 0, error) from error
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[self._file.write(view) :]
        except OSError as error:
            raise cannot_write(f"{self._url:.500}", self._path.parent, self._written, error) from error
        self._written += len(data)


class _Deadline:
    """Ends the connections of a download when its time is over, also while they wait for a head.

    A timeout of a socket begins anew with each byte, so a server that sends few could hold it for ever.
    """

    def __init__(self, deadline: float) -> None:
        self.passed = False
        self._sockets: list[socket.socket] = []
        self._timer = threading.Timer(max(0.0, deadline - time.monotonic()), self._end)
        self._timer.daemon = True

    def __enter__(self) -> _Deadline:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def add(self, connection: socket.socket) -> None:
        self._sockets.append(connection)
        if self.passed:
            _shut_down(connection)

    def _end(self) -> None:
        self.passed = True
        for connection in self._sockets.copy():
            _shut_down(connection)


def _shut_down(connection: socket.socket) -> None:
    try:
        # Not SSLSocket's own, which changes the object that another thread reads from.
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
    except OSError:
        pass  # it has ended already


def _opener(end: _Deadline) -> urllib.request.OpenerDirector:
    """Return an opener of http and https alone; urllib's own also opens ftp, file and data."""

    class Bounded:
        """Tells ``end`` of each socket that http.client makes, with TLS or without."""

        _sock: socket.socket | None = None

        @property
        def sock(self) -> socket.socket | None:
            return self._sock

        @sock.setter
        def sock(self, connection: socket.socket | None) -> None:
            self._sock = connection
            if connection is not None:
                end.add(connection)

    class Http(Bounded, http.client.HTTPConnection):
        pass

    class Https(Bounded, http.client.HTTPSConnection):
        pass

    class HttpHandler(urllib.request.HTTPHandler):
        def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(Http, _with_a_port(request))

    class HttpsHandler(urllib.request.HTTPSHandler):
        def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(Https, _with_a_port(request))

    class RedirectHandler(urllib.request.HTTPRedirectHandler):
        def redirect_request(
            self,
            request: urllib.request.Request,
            response: IO[bytes],
            code: int,
            message: str,
            headers: http.client.HTTPMessage,
            url: str,
        ) -> urllib.request.Request | None:
            response.close()  # urllib would read all of its body into memory
            return super().redirect_request(request, response, code, message, headers, url)

    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        HttpHandler,
        HttpsHandler,
        urllib.request.HTTPDefaultErrorHandler,
        RedirectHandler,
        urllib.request.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    return opener


def _with_a_port(request: urllib.request.Request) -> urllib.request.Request:
    """Raises ValueError when a url's port is none: the resolver would take 99999 for another one."""
    _ = urlsplit(request.full_url).port
    return request


def _timeout(url: str) -> DownloadModelError:
    return DownloadModelError(f"Download model timeout: {url:.500}")


def _failed(url: str, reason: str) -> DownloadModelError:
    return DownloadModelError(f"Failed to download model from: {url:.500}{reason}")


def _too_large(url: str, max_bytes: int) -> DownloadModelError:
    return _failed(
        url, f" (it has more than {max_bytes} bytes; raise MMEKIT_MAX_UNPACKED_BYTES if that is meant)"
    )
