"""A small container for tests of the endpoint: the contract of multi-model endpoints, without models.

Run as ``PROGRAM serve``. It listens on SAGEMAKER_BIND_TO_PORT (8080) of MMEKIT_HOST (127.0.0.1) and answers
an invocation with JSON that tells what arrived (``Container.echo``). A single model is in ``model/`` of
SAGEMAKER_BASE_DIR (/opt/ml).

Variables of the container's Environment make it fail; a file of the name in brackets in a model's folder does
so for this model alone and wins:

STUB_JOURNAL=FILE         append each request on its arrival as a line of JSON
STUB_CAPACITY=N           loading a model answers 507 while N are loaded
STUB_PAGE=N               GET /models gives N models a page (100)
STUB_LOAD_S=S             [load_s] seconds that loading takes
STUB_LOAD_UNTIL=FILE      [load_until] loading takes until that file is there
STUB_LOAD=…               [load_status] loading answers this status; "rubbish": no HTTP; "hang": nothing
STUB_INVOKE_S=S           [invoke_s] seconds that an invocation takes
STUB_INVOKE_UNTIL=FILE    [invoke_until] an invocation takes until that file is there
STUB_INVOKE=…             [invoke_status] invoking answers this status; "rubbish" and "hang" as above
STUB_INVOKE_507=N         the first N invocations made while other models are loaded too answer 507
STUB_UNLOAD_S=S           [unload_s] seconds that unloading takes
STUB_UNLOAD_UNTIL=FILE    [unload_until] unloading takes until that file is there
STUB_DIE_ON=load|invoke   [dies] exits with code 3 in this call
STUB_PING=…               "never": answers 503; "slow": after 30 s; "dies": exits with code 3
STUB_MODELS=404|rubbish   GET /models answers 404, or 200 with what is not JSON

What a test told to fail does not change what is loaded: after STUB_LOAD=409 an invocation still gets 404.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from types import FrameType
from typing import Any, NoReturn
from urllib.parse import parse_qs, unquote, urlsplit

BASE = Path(os.environ.get("SAGEMAKER_BASE_DIR", "/opt/ml"))
TARGET = "x-amzn-sagemaker-target-model"
ATTRIBUTES = "x-amzn-sagemaker-custom-attributes"


class Answered(Exception):
    """Raised to end a request with this answer. A body that is not bytes is sent as JSON."""

    def __init__(self, status: int, body: Any = b"") -> None:
        super().__init__(status)
        self.status = status
        self.body = body


class Rubbish(Exception):
    """Raised to answer with what is not HTTP."""


class Container:
    """What is loaded, and the calls of the contract; shared by all threads."""

    def __init__(self) -> None:
        self.models: dict[str, str] = {}  #: name → url
        self.lock = threading.Lock()
        self.refusals = int(os.environ.get("STUB_INVOKE_507", "0"))

    # --- how it was told to behave ------------------------------------------------------------

    def told(self, variable: str, file: str = "", folder: str | None = None) -> str:
        """Return what a model's file says, else the variable; "" for neither."""
        if folder is not None and file and (path := Path(folder, file)).is_file():
            return path.read_text().strip()
        return os.environ.get(variable, "")

    def behave(self, call: str, folder: str) -> None:
        """Wait, die or answer as told for "load" or "invoke"."""
        if self.told("STUB_DIE_ON", "dies", folder) == call:
            os._exit(3)
        self.wait(call, folder)
        order = self.told(f"STUB_{call.upper()}", f"{call}_status", folder)
        if order == "hang":
            threading.Event().wait()
        elif order == "rubbish":
            raise Rubbish
        elif order:
            raise self.failed(int(order), f"the stub was told to answer {order} to {call}")

    def wait(self, call: str, folder: str) -> None:
        time.sleep(float(self.told(f"STUB_{call.upper()}_S", f"{call}_s", folder) or 0))
        if until := self.told(f"STUB_{call.upper()}_UNTIL", f"{call}_until", folder):
            while not Path(until).exists():
                time.sleep(0.01)

    def failed(self, status: int, message: str) -> Answered:
        return Answered(status, {"code": status, "type": "StubException", "message": message})

    # --- the contract -----------------------------------------------------------------------

    def ping(self) -> None:
        match self.told("STUB_PING"):
            case "never":
                raise self.failed(503, "the stub was told to be never ready")
            case "slow":
                time.sleep(30)
            case "dies":
                os._exit(3)

    def list_models(self, token: str) -> dict[str, Any]:
        match self.told("STUB_MODELS"):
            case "404":
                raise self.failed(404, "the stub was told to have no /models")
            case "rubbish":
                raise Answered(200, b"this is not JSON")
        size, start = int(os.environ.get("STUB_PAGE", "100")), int(token or 0)
        with self.lock:
            names = list(self.models)
        page: dict[str, Any] = {"models": [self.entry(name) for name in names[start : start + size]]}
        if start + size < len(names):
            page["nextPageToken"] = str(start + size)
        return page

    def entry(self, name: str) -> dict[str, str]:
        return {"modelName": name, "modelUrl": self.models.get(name, "")}

    def load(self, name: str, url: str, target: str | None) -> None:
        self.behave("load", url)
        with self.lock:
            if name in self.models:
                raise self.failed(409, f"model {name} is loaded already")
            if len(self.models) >= int(os.environ.get("STUB_CAPACITY") or sys.maxsize):
                raise self.failed(507, f"no memory: {len(self.models)} models are loaded")
            if not Path(url).is_dir():
                raise self.failed(404, f"there is no folder {url}")
            self.models[name] = url

    def unload(self, name: str, target: str | None) -> None:
        self.wait("unload", self.url_of(name))
        with self.lock:
            if self.models.pop(name, None) is None:
                raise self.failed(404, f"model {name} is not loaded")

    def invoke(self, name: str, headers: dict[str, str], body: bytes) -> dict[str, Any]:
        url = self.url_of(name)
        self.behave("invoke", url)
        with self.lock:
            if self.refusals and len(self.models) > 1:
                self.refusals -= 1
                raise self.failed(507, "no memory to invoke with other models loaded")
        return self.echo(name, url, headers, body)

    def url_of(self, name: str) -> str:
        with self.lock:
            if name in self.models:
                return self.models[name]
        raise self.failed(404, f"model {name} is not loaded")

    def invocations(self, headers: dict[str, str], body: bytes) -> dict[str, Any]:
        """Answer for the model in ``model/`` of a single-model endpoint."""
        url = str(BASE / "model")
        self.behave("invoke", url)
        return self.echo(None, url, headers, body)

    def echo(self, name: str | None, url: str, headers: dict[str, str], body: bytes) -> dict[str, Any]:
        value = Path(url, "value")
        return {
            "model": name,
            "url": url,
            "target": headers.get(TARGET),
            "value": value.read_text().strip() if value.is_file() else None,
            "pid": os.getpid(),
            "headers": headers,
            "body": body[:1000].decode(errors="replace"),
            "body_bytes": len(body),
        }


class Handler(BaseHTTPRequestHandler):
    """Reads requests and writes answers. Subclasses may answer more or otherwise."""

    container: Container
    protocol_version = "HTTP/1.1"
    # One write per answer, without waiting for the other side's ACK.
    wbufsize = 1 << 16
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.seen = {name.lower(): value for name, value in self.headers.items()}
        self.write_journal()
        try:
            answer = self.answer()
            self.send(200, b"" if answer is None else answer)
        except Answered as early:
            self.send(early.status, early.body)
        except Rubbish:
            self.wfile.write(b"this is not HTTP\r\n\r\n")
            self.close_connection = True

    do_POST = do_PUT = do_DELETE = do_GET

    def answer(self) -> Any:
        """Return the body of a 200 (bytes, or what is sent as JSON; None: empty), or raise Answered."""
        container, parts = self.container, urlsplit(self.path)
        segments = [unquote(segment) for segment in parts.path.strip("/").split("/")]
        match self.command, *segments:
            case "GET", "ping":
                return container.ping()
            case "GET", "models":
                return container.list_models(parse_qs(parts.query).get("next_page_token", [""])[0])
            case "POST", "models":
                order = json.loads(self.body)
                return container.load(order["model_name"], order["url"], self.seen.get(TARGET))
            case "GET", "models", name:
                container.url_of(name)
                return container.entry(name)
            case "DELETE", "models", name:
                return container.unload(name, self.seen.get(TARGET))
            case "POST", "models", name, "invoke":
                return container.invoke(name, self.seen, self.body)
            case "POST", "invocations":
                return container.invocations(self.seen, self.body)
        raise container.failed(404, f"there is no {self.command} {self.path}")

    def send(self, status: int, body: Any) -> None:
        self.send_response(status)
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
            self.send_header("Content-Type", "application/json")
        if ATTRIBUTES in self.seen:
            self.send_header("X-Amzn-SageMaker-Custom-Attributes", self.seen[ATTRIBUTES])
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def write_journal(self) -> None:
        if journal := os.environ.get("STUB_JOURNAL"):
            entry = {
                "time": time.monotonic(),
                "pid": os.getpid(),
                "method": self.command,
                "path": self.path,
                "target": self.seen.get(TARGET),
                "body_bytes": len(self.body),
            }
            # One write to a file opened for appending: lines of several containers do not mix.
            with open(journal, "ab", buffering=0) as file:
                file.write(json.dumps(entry).encode() + b"\n")

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        print(f"{self.command} {self.path} {code}", flush=True)


class Server(ThreadingHTTPServer):
    """Listens; its threads do not keep the process alive."""

    daemon_threads = True
    request_queue_size = 256

    def server_bind(self) -> None:
        """Bind without asking the resolver for this machine's name, as HTTPServer does."""
        TCPServer.server_bind(self)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Be quiet about clients that have gone."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


def serve(container: Container, handler: type[Handler] = Handler) -> None:
    """Serve until SIGTERM."""
    if sys.argv[1:] != ["serve"]:
        sys.exit(f"usage: {sys.argv[0]} serve")
    signal.signal(signal.SIGTERM, _leave)
    handler.container = container
    port = int(os.environ.get("SAGEMAKER_BIND_TO_PORT", "8080"))
    with Server((os.environ.get("MMEKIT_HOST", "127.0.0.1"), port), handler) as server:
        print(f"Listening on port {server.server_address[1]}.", flush=True)
        server.serve_forever(poll_interval=3600)


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    print("Stopping.", flush=True)
    sys.exit(0)
