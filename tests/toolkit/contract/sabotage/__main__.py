"""Runs a container: HTTP in front of it, SIGTERM behind."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from urllib.parse import parse_qsl, urlsplit

from .all import SABOTAGES
from .container import Answer, Container, Cut, Refused, Request


class Handler(BaseHTTPRequestHandler):
    """Reads requests and writes answers."""

    container: Container
    protocol_version = "HTTP/1.1"
    # One write per answer, without waiting for the other side's ACK.
    wbufsize = 1 << 16
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        try:
            answer = self.container.answer(self.read())
        except Refused as refused:
            answer = refused.answer
        except Cut:
            self.close_connection = True
            return
        self.write(answer)

    do_POST = do_DELETE = do_PUT = do_GET

    def read(self) -> Request:
        length = int(self.headers.get("Content-Length") or 0)
        try:
            self.container.admit(self.command, self.path, length)
        except Refused:
            self.close_connection = True  # the body is not read
            raise
        parts = urlsplit(self.path)
        return Request(
            self.command,
            parts.path.strip("/").split("/"),
            dict(parse_qsl(parts.query)),
            {name.lower(): value for name, value in self.headers.items()},
            self.rfile.read(length),
        )

    def write(self, answer: Answer) -> None:
        body = answer.encoded()
        self.send_response(answer.status)
        headers = {"Content-Type": "application/json", **answer.headers}
        for name, value in headers.items():
            self.send_header(name, value)
        declared = len(body) if answer.declared_bytes is None else answer.declared_bytes
        self.send_header("Content-Length", str(declared))
        self.end_headers()
        self.wfile.write(body[: answer.cut_after])
        if answer.cut_after is not None:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Say nothing: callers see the answers."""


#: How long a port that others have is waited for: less than the kit waits for /ping.
FREE_AFTER_S = 20


class Server(ThreadingHTTPServer):
    """Takes as many connections at once as a platform may open."""

    request_queue_size = 512

    def server_bind(self) -> None:
        # Another run of the tests may have a fixed port, for some seconds.
        until = time.monotonic() + FREE_AFTER_S
        while True:
            try:
                return TCPServer.server_bind(self)  # HTTPServer's looks the host's name up
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)

    def handle_error(self, *_: object) -> None:
        """Say nothing: callers may leave at any time."""


def chosen() -> Container:
    name = os.environ.get("SABOTAGE")
    if not name:
        return Container()
    if name not in SABOTAGES:
        sys.exit(f"SABOTAGE={name}: expected one of {', '.join(SABOTAGES)}")
    return SABOTAGES[name].cls()


def main() -> None:
    container = chosen()
    if sys.argv[1:] != ["serve"]:
        sys.exit(f"expected the single argument serve; came {sys.argv[1:]}")
    signalled = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: signalled.set())
    Handler.container = container
    server = Server(("0.0.0.0", container.port(dict(os.environ))), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    container.wait(signalled)


main()
