"""What is sent to both engines, declared: requests in order, with the differences that are meant."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.support.wire import request

JSON = ("Content-Type", "application/json")

#: In paths and bodies: the folder with the models, which the engines share.
STORE = "@STORE@"


@dataclass(frozen=True)
class Differs:
    """A deliberate difference as one exchange shows it: its name in ``DIFFERENCES`` and mmekit's values.

    ``ours`` gives for every aspect that differs (see compare.py) what mmekit answers; ``...`` for
    whatever it is.
    """

    name: str
    ours: dict[str, Any]


@dataclass(frozen=True)
class Exchange:
    """One connection: bytes sent and replies read. ``until`` repeats it until both statuses are that.

    ``mms_timeout_s`` is the patience with MMS, which may never answer; mmekit always does, also where the
    machine stalls.
    """

    name: str
    sent: bytes
    methods: tuple[str, ...]
    on: str = "inference"
    differs: tuple[Differs, ...] = ()
    until: int = 0
    mms_timeout_s: float = 30

    def differing(self, name: str, **ours: Any) -> Exchange:
        """Name a deliberate difference and mmekit's values; ``__`` in a key stands for a space or dash."""
        aspects = {key.replace("__", " ").replace("_", "-"): value for key, value in ours.items()}
        return replace(self, differs=(*self.differs, Differs(name, aspects)))

    def waiting(self, until: int) -> Exchange:
        return replace(self, until=until)

    def at_most(self, timeout_s: float) -> Exchange:
        """Give up after a while, where MMS never answers."""
        return replace(self, mms_timeout_s=timeout_s)


@dataclass(frozen=True)
class Scenario:
    """Exchanges in order with both engines, each started with these settings."""

    name: str
    exchanges: tuple[Exchange, ...]
    #: With @STORE@, @HOME@ (a folder of the engine's own) and @PORT@ (a free one).
    properties: dict[str, str] = field(default_factory=dict)
    environ: dict[str, str] = field(default_factory=dict)
    #: Puts what the scenario needs into the store, beside copies of tests/differential/models.
    prepare: Callable[[Path], None] | None = None


def ask(
    name: str,
    method: str,
    path: str,
    body: bytes | str = b"",
    *headers: tuple[str, str],
    on: str = "inference",
) -> Exchange:
    data = body.encode() if isinstance(body, str) else body
    return Exchange(name, request(method, path, headers, data), (method,), on)


def get(name: str, path: str, *headers: tuple[str, str]) -> Exchange:
    return ask(name, "GET", path, b"", *headers)


def manage(name: str, method: str, path: str, body: bytes | str = b"", *headers: tuple[str, str]) -> Exchange:
    return ask(name, method, path, body, *headers, on="management")


def raw(name: str, sent: bytes, *methods: str, on: str = "inference") -> Exchange:
    """Bytes as they are, answered by a reply to each method."""
    return Exchange(name, sent, methods, on)


def invoke(model: str, body: bytes | str = b"", *headers: tuple[str, str], name: str = "") -> Exchange:
    return ask(name or f"invoke-{model}", "POST", f"/predictions/{model}", body, *headers)


def register(name: str, **parameters: Any) -> Exchange:
    """Register with parameters in a JSON body."""
    return manage(name, "POST", "/models", json.dumps(parameters), JSON)


def register_query(name: str, **parameters: Any) -> Exchange:
    return manage(name, "POST", f"/models?{urlencode(parameters)}")


def load(folder: str, handler: str = "service:handle", **parameters: Any) -> Exchange:
    """Register a folder of the store under its own name, with one worker."""
    values = {"model_name": folder, "url": folder, "handler": handler, "initial_workers": 1, **parameters}
    return register(f"load-{values['model_name']}", **values)


def unload(model: str) -> Exchange:
    return manage(f"unload-{model}", "DELETE", f"/models/{model}")


def scale(name: str, model: str, **parameters: Any) -> Exchange:
    return manage(name, "PUT", f"/models/{model}?{urlencode(parameters)}")


def describe(name: str, model: str) -> Exchange:
    return manage(name, "GET", f"/models/{model}")
