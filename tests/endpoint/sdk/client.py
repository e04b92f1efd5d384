"""Surroundings of a client that knows the service by AWS_ENDPOINT_URL alone."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer

from tests.endpoint.service import Service

#: The service verifies signatures, so the clients' are known to be right.
KEY = ("--key", "any=any")


class Outside(ThreadingTCPServer):
    """A proxy for https that lets nothing through and keeps what was asked for; a context manager."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Refuse)
        self.asked: set[str] = set()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,))

    def __enter__(self) -> Outside:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Refuse(StreamRequestHandler):
    server: Outside

    def handle(self) -> None:
        words = self.rfile.readline(8192).split()
        self.server.asked.add(words[1].decode() if len(words) > 1 else repr(words))
        self.wfile.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


def environ(service: Service, outside: Outside, home: Path) -> dict[str, str]:
    """Return all variables of a client; HOME is empty, so it has no settings of this machine."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "AWS_ENDPOINT_URL": service.url,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "any",
        "AWS_SECRET_ACCESS_KEY": "any",
        "HTTPS_PROXY": outside.url,
    }
