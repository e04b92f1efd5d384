"""An S3-like store that can be down, or break off in the middle: HEAD and GET with ranges, path-style."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FlakyStore:
    """Serves ``objects`` (BUCKET/KEY → content). The first GET of each waits and breaks off."""

    def __init__(
        self, objects: Mapping[str, bytes], break_after: int | None = None, hang_first_s: float = 0
    ) -> None:
        self.down = False
        self.ranges: list[str] = []
        store = self
        broken: set[str] = set()
        hung: set[str] = set()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                self._answer(send_body=False)

            def do_GET(self) -> None:
                self._answer(send_body=True)

            def _answer(self, send_body: bool) -> None:
                if store.down:
                    self.send_error(503, "Service Unavailable")
                    return
                data = objects.get(self.path.lstrip("/").partition("?")[0])
                if data is None:
                    self.send_error(404, "Not Found")
                    return
                start = 0
                if wanted := self.headers.get("Range"):
                    store.ranges.append(wanted)
                    start = int(wanted.removeprefix("bytes=").rstrip("-"))
                self.send_response(206 if start else 200)
                self.send_header("Content-Length", str(len(data) - start))
                if start:
                    self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
                self.send_header("ETag", f'"{hashlib.md5(data).hexdigest()}"')
                self.end_headers()
                if not send_body:
                    return
                if hang_first_s and self.path not in hung:
                    hung.add(self.path)
                    time.sleep(hang_first_s)
                if break_after is not None and self.path not in broken:
                    broken.add(self.path)
                    self.wfile.write(data[start : start + break_after])
                    self.wfile.flush()
                    self.connection.shutdown(socket.SHUT_RDWR)
                    self.close_connection = True
                    return
                self.wfile.write(data[start:])

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> FlakyStore:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
