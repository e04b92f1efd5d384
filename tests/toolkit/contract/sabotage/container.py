"""A container that keeps the contract in full, for the kit's probe model.

It plays the probe model by reading the same files (``mmekit_toolkit/contract/probe/__init__.py``) and never
runs code of a folder. Memory is real: ``hold-mib`` is filled, counted against the control group's limit, and
given back before an unload is answered.
"""

from __future__ import annotations

import json
import mmap
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

MIB = 1 << 20
PAGE = 100
ATTRIBUTES = "x-amzn-sagemaker-custom-attributes"
TARGET = "x-amzn-sagemaker-target-model"

#: What the process itself needs below a memory limit.
RESERVE_BYTES = 64 * MIB


@dataclass
class Answer:
    """What is sent back; a body that is not bytes is sent as JSON."""

    status: int
    body: Any = b""
    headers: dict[str, str] = field(default_factory=dict)
    #: So many bytes of the body are sent, then the connection is closed.
    cut_after: int | None = None
    #: What Content-Length says is another number than the body has.
    declared_bytes: int | None = None

    def encoded(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


class Refused(Exception):
    """Raised to end a request with an answer that is not 2xx."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.answer = Answer(status, {"code": status, "message": message})


class Cut(Exception):
    """Raised to close the connection in place of an answer."""


@dataclass
class Request:
    """One request; header names are in lower case."""

    method: str
    segments: list[str]
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    def order(self) -> tuple[str, str]:
        """Return a load's model name and url."""
        try:
            order = json.loads(self.body)
            return str(order["model_name"]), str(order["url"])
        except (ValueError, KeyError, TypeError):
            raise Refused(400, "expected JSON with model_name and url") from None


class Model:
    """A folder as the probe model reads it."""

    def __init__(self, name: str, url: str) -> None:
        self.name = name
        self.url = url
        self.folder = Path(url)
        self.identity = self._read("identity", "")
        self.hold_bytes = int(self._read("hold-mib", "0")) * MIB
        self.held: mmap.mmap | None = None

    def _read(self, name: str, default: str) -> str:
        path = self.folder / name
        return path.read_text().strip() if path.is_file() else default

    def load(self) -> None:
        """Take the memory. Raises Refused for a broken model."""
        if not self.folder.is_dir():
            raise Refused(404, f"there is no folder {self.url}")
        if broken := self._read("broken", ""):
            raise Refused(500, f"the model says: {broken}")
        if self.hold_bytes:
            # Private, so that it counts as the process's own.
            self.held = mmap.mmap(-1, self.hold_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            for _ in range(self.hold_bytes // MIB):
                self.held.write(b"\xa5" * MIB)

    def free(self) -> None:
        if self.held is not None:
            self.held.close()
            self.held = None

    def entry(self) -> dict[str, Any]:
        return {"modelName": self.name, "modelUrl": self.url}

    def answer(self, headers: dict[str, str], body: bytes) -> Answer:
        """Do as the probe model's handler does."""
        more = {ATTRIBUTES: headers[ATTRIBUTES]} if ATTRIBUTES in headers else {}
        wish = self._wish(body)
        if wish.get("probe") == "answer":
            return Answer(
                200, b"a" * int(wish["bytes"]), {"Content-Type": "application/octet-stream", **more}
            )
        if "probe" not in wish:
            content_type = headers.get("content-type", "application/octet-stream")
            return Answer(200, body, {"Content-Type": content_type, **more})
        time.sleep(float(wish.get("seconds", 0)))
        facts = {"identity": self.identity, "headers": headers, "body_bytes": len(body)}
        return Answer(200, facts, {"Content-Type": "application/json", **more})

    def _wish(self, body: bytes) -> dict[str, Any]:
        if not body.startswith(b'{"probe"'):
            return {}
        try:
            return dict(json.loads(body))
        except ValueError:
            return {}


class Container:
    """The calls of the contract; shared by all threads."""

    def __init__(self) -> None:
        self.models: dict[str, Model] = {}
        #: What is neither there nor gone.
        self.loading: dict[str, Model] = {}
        self.unloading: dict[str, Model] = {}
        self.lock = threading.Lock()
        self.budget_bytes = _memory_limit() - RESERVE_BYTES

    # --- life --------------------------------------------------------------------------------

    def port(self, environ: dict[str, str]) -> int:
        return int(environ.get("SAGEMAKER_BIND_TO_PORT", "8080"))

    def admit(self, method: str, path: str, length: int) -> None:
        """Refuse a request before its body is read."""

    def wait(self, signalled: threading.Event) -> None:
        """Return when the process is to end."""
        signalled.wait()

    # --- routes --------------------------------------------------------------------------------

    def answer(self, request: Request) -> Answer:
        match request.method, request.segments:
            case "GET", ["ping"]:
                return self.ping()
            case "GET", ["models"]:
                return self.list_models(request.query.get("next_page_token", ""))
            case "POST", ["models"]:
                return self.load(*request.order(), request.headers)
            case "GET", ["models", name]:
                return self.get(unquote(name))
            case "DELETE", ["models", name]:
                return self.unload(unquote(name))
            case "POST", ["models", name, "invoke"]:
                return self.invoke(unquote(name), request.headers, request.body)
        raise Refused(404, "no such route")

    def ping(self) -> Answer:
        return Answer(200)

    def list_models(self, token: str) -> Answer:
        start = int(token or 0)
        with self.lock:
            entries = [self.models[name].entry() for name in sorted(self.models)]
        page: dict[str, Any] = {"models": entries[start : start + PAGE]}
        if start + PAGE < len(entries):
            page["nextPageToken"] = str(start + PAGE)
        return Answer(200, page)

    def load(self, name: str, url: str, headers: dict[str, str]) -> Answer:
        model = Model(name, url)
        with self.lock:
            if name in self.models or name in self.loading or name in self.unloading:
                raise self.conflict(name)
            self.make_room(model)
            self.loading[name] = model
        try:
            self.start(model)
        except Refused:
            with self.lock:
                del self.loading[name]
            raise
        with self.lock:
            self.models[name] = self.loading.pop(name)
        return Answer(200, {"status": f"{name} is loaded"})

    def conflict(self, name: str) -> Refused:
        return Refused(409, f"model {name} is loaded already")

    def start(self, model: Model) -> None:
        model.load()

    def make_room(self, model: Model) -> None:
        """Refuse a model that does not fit beside the others; called with the lock held."""
        there = [*self.models.values(), *self.loading.values(), *self.unloading.values()]
        held = sum(other.hold_bytes for other in there)
        if held + model.hold_bytes > self.budget_bytes:
            raise Refused(507, f"{model.name} does not fit: {held // MIB} MiB are held by others")

    def get(self, name: str) -> Answer:
        return Answer(200, self.loaded(name).entry())

    def loaded(self, name: str) -> Model:
        with self.lock:
            if name in self.models:
                return self.models[name]
        raise Refused(404, f"model {name} is not loaded")

    def unload(self, name: str) -> Answer:
        with self.lock:
            model = self.models.pop(name, None)
            if model is None:
                raise Refused(404, f"model {name} is not loaded")
            self.unloading[name] = model
        self.release(model)
        with self.lock:
            del self.unloading[name]
        return Answer(200, {"status": f"{name} is unloaded"})

    def release(self, model: Model) -> None:
        model.free()

    def invoke(self, name: str, headers: dict[str, str], body: bytes) -> Answer:
        return self.loaded(name).answer(headers, body)


def _memory_limit() -> int:
    """Return the control group's limit in bytes (v2, v1), a very large number where there is none."""
    for file in ("memory.max", "memory/memory.limit_in_bytes"):
        path = Path("/sys/fs/cgroup", file)
        if path.is_file() and (text := path.read_text().strip()) != "max":
            return int(text)
    return 1 << 60
