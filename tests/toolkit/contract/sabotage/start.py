"""Broken starts, ends and health checks."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

from .container import Answer, Container, Model, Refused
from .registry import breaks

#: Longer than the platform waits for /ping, which is 2 s.
SLOW_S = 3


@breaks("starts-with-serve")
class DoesNotKnowServe(Container):
    """Ends at once with the argument ``serve``."""

    def port(self, environ: dict[str, str]) -> int:
        sys.exit("usage: server --start; unknown argument serve")


@breaks("port-from-variable")
class IgnoresThePortVariable(Container):
    """Listens on 8080, whatever the platform says."""

    def port(self, environ: dict[str, str]) -> int:
        return 8080


@breaks("sigterm")
class IgnoresSigterm(Container):
    """Goes on after SIGTERM."""

    def wait(self, signalled: threading.Event) -> None:
        threading.Event().wait()


@breaks("sigterm")
class IgnoresSigtermWhileModelsAreLoaded(Container):
    """Ends on SIGTERM only when the last model has been unloaded."""

    def wait(self, signalled: threading.Event) -> None:
        signalled.wait()
        while self.models:
            time.sleep(0.05)


@breaks("models-read-only")
class WritesBytecodeBesideTheModel(Container):
    """Leaves a ``__pycache__`` in the model's folder, and cannot do without."""

    def load(self, name: str, url: str, headers: dict[str, str]) -> Answer:
        answer = super().load(name, url, headers)
        try:
            cache = Path(url, "__pycache__")
            cache.mkdir(exist_ok=True)
            (cache / "service.cpython-311.pyc").write_bytes(os.urandom(16))
        except OSError as error:
            self.unload(name)
            raise Refused(500, str(error)) from error
        return answer


@breaks("models-read-only")
class KeepsARequestLogInTheModelFolder(Container):
    """Writes into the model's folder when it is invoked."""

    def invoke(self, name: str, headers: dict[str, str], body: bytes) -> Answer:
        try:
            with Path(self.loaded(name).url, "requests.log").open("a") as log:
                log.write("invoked\n")
        except OSError as error:
            raise Refused(500, str(error)) from error
        return super().invoke(name, headers, body)


@breaks("ping-without-models")
class UnhealthyWithoutModels(Container):
    """Answers /ping with 503 while no model is loaded."""

    def ping(self) -> Answer:
        if not self.models:
            raise Refused(503, "no model is loaded")
        return super().ping()


@breaks("ping-idle")
class PingIsSlow(Container):
    """Needs 3 s for every /ping."""

    def ping(self) -> Answer:
        time.sleep(SLOW_S)
        return super().ping()


class _Busy(Container):
    """Knows whether a load or an invocation is under way."""

    def __init__(self) -> None:
        super().__init__()
        self.running = 0
        self.counting = threading.Lock()

    def count(self, change: int) -> None:
        with self.counting:
            self.running += change

    def load(self, name: str, url: str, headers: dict[str, str]) -> Answer:
        self.count(1)
        try:
            return super().load(name, url, headers)
        finally:
            self.count(-1)

    def invoke(self, name: str, headers: dict[str, str], body: bytes) -> Answer:
        self.count(1)
        try:
            return super().invoke(name, headers, body)
        finally:
            self.count(-1)


@breaks("ping-under-load")
class PingIsSlowUnderLoad(_Busy):
    """Needs 3 s for /ping while a load or an invocation runs."""

    def ping(self) -> Answer:
        if self.running:
            time.sleep(SLOW_S)
        return super().ping()


@breaks("ping-under-load")
class UnhealthyUnderLoad(_Busy):
    """Answers /ping with 503 while a load or an invocation runs."""

    def ping(self) -> Answer:
        if self.running:
            raise Refused(503, "busy")
        return super().ping()


@breaks("ping-under-load")
class PingWaitsForModels(Container):
    """Answers /ping only when no invocation runs, as a server with a single worker does."""

    def __init__(self) -> None:
        super().__init__()
        self.worker = threading.Lock()

    def ping(self) -> Answer:
        with self.worker:
            return super().ping()

    def invoke(self, name: str, headers: dict[str, str], body: bytes) -> Answer:
        model: Model = self.loaded(name)
        with self.worker:
            return model.answer(headers, body)
