#!/usr/bin/env python3
"""The stub with an /invocations whose answer comes in chunks.

The request's body says how, as JSON:

    {"pieces": ["one", "two"], "pause_s": 0.1, "status": 200, "breaks": false}

``pause_s`` is waited before each piece; with ``breaks`` the connection is closed in place of the last chunk.
"""

from __future__ import annotations

import json
import time
from typing import Any

from stub import Container, Handler, serve


class Streaming(Handler):
    """Streams for /invocations; answers all else as the stub."""

    def do_POST(self) -> None:
        if self.path != "/invocations":
            return super().do_POST()
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.seen = {name.lower(): value for name, value in self.headers.items()}
        self.write_journal()
        self.stream(json.loads(self.body))
        return None

    def stream(self, order: dict[str, Any]) -> None:
        self.send_response(order.get("status", 200))
        self.send_header("Content-Type", "text/plain")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in order["pieces"]:
            time.sleep(order.get("pause_s", 0))
            data = piece.encode()
            self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
            self.wfile.flush()
        if order.get("breaks"):
            self.close_connection = True
        else:
            self.wfile.write(b"0\r\n\r\n")


if __name__ == "__main__":
    serve(Container(), Streaming)
