"""Between a command and AWS's stand-in: records what is asked, and answers in its place when told to."""

from __future__ import annotations

import http.client
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

#: Operations that change something.
_WRITES = re.compile("(Create|Put|Update|Delete|Register|Deregister|Add|Remove|Tag|Untag|Set)[A-Z]")
_HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "keep-alive"}


@dataclass
class Answer:
    """What is answered in place of the server, ``times`` times; None is for ever."""

    operation: str
    code: str
    message: str = "told to"
    status: int = 400
    times: int | None = 1


@dataclass
class Proxy:
    """A reverse proxy on a free port of loopback; a context manager."""

    upstream: str
    answers: list[Answer] = field(default_factory=list)
    #: Called with the operation before it is passed on; what it returns is answered instead.
    intercept: Callable[[str], bytes | None] = lambda operation: None
    #: Operations in the order in which they were asked for, S3's as ``HEAD /bucket``.
    seen: list[str] = field(default_factory=list)
    #: The last answer of each operation.
    last: dict[str, bytes] = field(default_factory=dict)

    def __enter__(self) -> Proxy:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                proxy._handle(self)

            do_GET = do_HEAD = do_PUT = do_DELETE = do_POST

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def writes(self) -> list[str]:
        """The operations that change something, in order."""
        return [operation for operation in self.seen if _WRITES.match(operation)]

    def _handle(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        operation = _operation(request, body)
        self.seen.append(operation)
        replaced = self.intercept(operation)
        if replaced is not None:
            _answer(request, 200, [], replaced)
            return
        for answer in self.answers:
            if answer.operation in (operation, "*") and answer.times != 0:
                if answer.times is not None:
                    answer.times -= 1
                error = json.dumps({"__type": answer.code, "message": answer.message}).encode()
                _answer(request, answer.status, [("Content-Type", "application/x-amz-json-1.1")], error)
                return
        self._pass_on(request, body, operation)

    def _pass_on(self, request: BaseHTTPRequestHandler, body: bytes, operation: str) -> None:
        connection = http.client.HTTPConnection(urlsplit(self.upstream).netloc, timeout=60)
        try:
            connection.request(request.command, request.path, body, dict(request.headers))
            response = connection.getresponse()
            content = response.read()
            headers = [(k, v) for k, v in response.getheaders() if k.lower() not in _HOP_BY_HOP]
        finally:
            connection.close()
        self.last[operation] = content
        length = response.getheader("Content-Length") if request.command == "HEAD" else None
        _answer(request, response.status, headers, content, length)


def _operation(request: BaseHTTPRequestHandler, body: bytes) -> str:
    if target := request.headers.get("X-Amz-Target"):
        return target.rpartition(".")[2]
    if "urlencoded" in request.headers.get("Content-Type", ""):
        return parse_qs(body.decode())["Action"][0]
    return f"{request.command} {urlsplit(request.path).path}"


def _answer(
    request: BaseHTTPRequestHandler,
    status: int,
    headers: list[tuple[str, str]],
    body: bytes,
    length: str | None = None,
) -> None:
    request.send_response(status)
    for name, value in headers:
        request.send_header(name, value)
    request.send_header("Content-Length", length or str(len(body)))
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(body)
