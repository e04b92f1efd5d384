"""Loads a model for real, in a server of its own on a socket of its own, and measures load and calls."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmekit.archive.sample import Sample
from mmekit_toolkit.archive.findings import Finding, Level, about
from mmekit_toolkit.archive.report import Loaded
from mmekit_toolkit.errors import ToolkitError

#: The frameworks' imports come first: PyTorch's take seconds.
_START_TIMEOUT_S = 120
#: As SageMaker waits for a load (MMEKIT_LOAD_TIMEOUT_SECONDS is 350).
_LOAD_TIMEOUT_S = 360
_CALL_TIMEOUT_S = 70
_STOP_TIMEOUT_S = 30
_POLL_S = 0.05
_NAME = "trial"
_LOG_LINES = 10


def load(folder: Path, sample: Sample | None) -> tuple[Loaded | None, list[Finding]]:
    """Load a model's folder, call it twice with its sample, and unload it.

    Runs the model's code. What the server answers to a load or a call that fails is a fault. Raises
    ToolkitError when no server starts.
    """
    with _server() as path:
        started = time.monotonic()
        body = json.dumps({"model_name": _NAME, "url": str(folder.resolve())})
        status, answer, _ = _ask(path, "POST", "/models", body.encode(), "application/json", _LOAD_TIMEOUT_S)
        load_ms = (time.monotonic() - started) * 1000
        if status != 200:
            text = f"the server did not load it ({status}): {_message(answer)}"
            return None, [about(Level.FAULT, "trial", text.replace(str(folder.resolve()), folder.name))]
        loaded = Loaded(load_ms, _memory(path))
        if sample is None:
            return loaded, []
        return loaded, _call(path, sample, loaded)


def _call(path: str, sample: Sample, loaded: Loaded) -> list[Finding]:
    times = []
    for _ in range(2):
        begun = time.monotonic()
        url = f"/models/{_NAME}/invoke"
        status, answer, kind = _ask(
            path, "POST", url, sample.body, sample.content_type, _CALL_TIMEOUT_S, sample.accept
        )
        times.append((time.monotonic() - begun) * 1000)
        loaded.answer_status, loaded.answer_type = status, kind
        if status >= 400:
            text = f"the model answered its sample with {status}: {_message(answer)}"
            return [about(Level.FAULT, "trial", text)]
    loaded.first_call_ms, loaded.second_call_ms = times
    return []


def _memory(path: str) -> int | None:
    """Return what the model took in its worker, as the server measured it."""
    status, answer, _ = _ask(path, "GET", f"/models/{_NAME}", b"", None, _CALL_TIMEOUT_S)
    try:
        workers = json.loads(answer)["workers"] if status == 200 else []
        return max((int(worker["memoryUsage"]) for worker in workers), default=None)
    except (ValueError, KeyError, TypeError):
        return None


def _message(answer: bytes) -> str:
    try:
        return str(json.loads(answer)["message"])
    except (ValueError, KeyError, TypeError):
        return answer[:1000].decode("utf-8", "replace")


# --- the server ----------------------------------------------------------------------------


@contextmanager
def _server() -> Iterator[str]:
    """Yield the path of the socket that a server listens on; it is stopped at the end."""
    with tempfile.TemporaryDirectory(prefix="mmekit-trial-") as folder:
        path = os.path.join(folder, "socket")
        log = Path(folder) / "log"
        environ = {
            **os.environ,
            "SAGEMAKER_MULTI_MODEL": "true",
            "MMEKIT_INFERENCE_ADDRESS": f"unix:{path}",
            "MMEKIT_MANAGEMENT_ADDRESS": f"unix:{path}",
            "MMEKIT_MODEL_STORE": "/",
            "MMEKIT_LOAD_MODELS": "",
            "MMEKIT_ACCESS_LOG": "false",
        }
        command = [sys.executable, "-c", "from mmekit.cli import main; main()", "serve"]
        with log.open("wb") as out:
            process = subprocess.Popen(
                command, env=environ, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )
        try:
            _wait(process, path, log)
            yield path
        finally:
            _stop(process)


def _wait(process: subprocess.Popen[bytes], path: str, log: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if _ask(path, "GET", "/ping", b"", None, 5)[0] == 200:
                return
        except OSError:
            pass
        time.sleep(_POLL_S)  # for a process that starts there is nothing else to wait for
    lines = log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
    raise ToolkitError("no server could be started to load the model. Its last lines: " + " | ".join(lines))


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _ask(
    path: str,
    method: str,
    target: str,
    body: bytes,
    content_type: str | None,
    timeout_s: float,
    accept: str | None = None,
) -> tuple[int, bytes, str | None]:
    """Return status, body and content type of an answer. Raises OSError, also for what is no HTTP."""
    headers = {"Content-Type": content_type, "Accept": accept}
    connection = _UnixConnection(path, timeout_s)
    try:
        known = {name: value for name, value in headers.items() if value}
        connection.request(method, target, body, known)
        with connection.getresponse() as answer:
            return answer.status, answer.read(), answer.getheader("Content-Type")
    except http.client.HTTPException as error:
        raise ConnectionError(f"the server broke off its answer ({error!r})") from error
    finally:
        connection.close()


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        connected: Any = socket.socket(socket.AF_UNIX)  # Any: typeshed has the attribute as a TCP socket
        connected.settimeout(self.timeout)
        connected.connect(self._path)
        self.sock = connected
