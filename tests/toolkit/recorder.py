"""An HTTP proxy in front of an AWS that keeps each call: which service, which operation, with what."""

from __future__ import annotations

import http.client
import json
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

_SCOPE = re.compile(r"Credential=[^/]+/\d+/[^/]+/(?P<service>[^/]+)/aws4_request")
_HOP_BY_HOP = {"connection", "transfer-encoding", "keep-alive"}


@dataclass(frozen=True)
class Call:
    """A request as it was signed; ``service`` is the signing name, ``runtime`` for InvokeEndpoint."""

    service: str
    operation: str
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def parameters(self) -> dict[str, Any]:
        """The members of JSON and query requests."""
        if self.body.startswith(b"{"):
            found: dict[str, Any] = json.loads(self.body)
            return found
        return dict(parse_qsl(self.body.decode(errors="replace"))) if self.operation else {}

    @property
    def endpoint_of_tags(self) -> str:
        """The endpoint whose resources a test deletes; EC2's requests do not name it."""
        return "churn"

    def xml_texts(self, element: str) -> list[str]:
        return re.findall(rf"<{element}>([^<]*)</{element}>", self.body.decode())


class Recorder:
    """Forwards to an address; a context manager."""

    def __init__(self, url: str) -> None:
        self.calls: list[Call] = []
        recorder, target = self, urlsplit(url)

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _forward(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = dict(self.headers.items())
                if call := _call(self.command, self.path, headers, body):
                    recorder.calls.append(call)
                connection = http.client.HTTPConnection(str(target.hostname), target.port, timeout=120)
                sent = {k: v for k, v in headers.items() if k.lower() != "expect"}
                connection.request(self.command, self.path, body, sent)
                answer = connection.getresponse()
                content = answer.read()
                connection.close()
                self.send_response_only(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in _HOP_BY_HOP and not (
                        name.lower() == "content-length" and self.command != "HEAD"
                    ):
                        self.send_header(name, value)
                if self.command != "HEAD":
                    self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _forward

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Recorder:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


def _call(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Call | None:
    """Return what a request calls, None for one that is not signed, such as a look at a local endpoint."""
    scope = _SCOPE.search(headers.get("Authorization", ""))
    if scope is None:
        return None
    service = scope["service"]
    operation = headers.get("X-Amz-Target", "").rpartition(".")[2]
    if not operation and service in ("ec2", "iam", "sts"):
        operation = dict(parse_qsl(body.decode()))["Action"]
    if path.startswith("/endpoints/"):
        service, operation = "runtime", "InvokeEndpoint"
    return Call(service, operation, method, path, headers, body)
