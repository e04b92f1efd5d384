"""What SageMaker does around the container, in small: unpack archives, start it, call it over HTTP."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import subprocess
import sysconfig
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def pack(folder: Path) -> Path:
    """Make ``model.tar.gz`` of a folder's files, with the files at its top."""
    archive = folder.with_suffix(".tar.gz")
    with tarfile.open(archive, "w:gz") as tar:
        for file in sorted(folder.iterdir()):
            tar.add(file, file.name)
    return archive


def unpack(archive: Path, models: Path) -> tuple[str, Path]:
    """Unpack an archive to ``models/{name}/model`` under an opaque name, as the platform does."""
    name = hashlib.sha256(archive.name.encode()).hexdigest()[:32]
    folder = models / name / "model"
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return name, folder


class Container:
    """A running server, and the contract's calls."""

    def __init__(self, port: int, pid: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.pid = pid

    def call(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, str, bytes]:
        """Make a request; return status, content type and body."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(self.url + path, body, sent, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.headers.get("content-type", ""), answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers.get("content-type", ""), error.read()

    def load(self, name: str, folder: Path) -> float:
        """Load a model; return how many milliseconds that took."""
        body = json.dumps({"model_name": name, "url": str(folder)}).encode()
        started = time.perf_counter()
        status, _, answer = self.call("POST", "/models", body, Content_Type="application/json")
        if status != 200:
            raise SystemExit(f"Loading {folder} answered {status}: {answer.decode()}")
        return (time.perf_counter() - started) * 1000

    def invoke(self, name: str, body: bytes, content_type: str, accept: str) -> bytes:
        """Call a model."""
        path = f"/models/{name}/invoke"
        status, _, answer = self.call("POST", path, body, Content_Type=content_type, Accept=accept)
        if status != 200:
            raise SystemExit(f"{path} answered {status}: {answer.decode()}")
        return answer

    def models(self) -> list[str]:
        """The names of the loaded models."""
        _, _, answer = self.call("GET", "/models")
        return [model["modelName"] for model in json.loads(answer)["models"]]

    def describe(self, name: str) -> Any:
        """What the server says of one model."""
        return json.loads(self.call("GET", f"/models/{name}")[2])


@contextlib.contextmanager
def container(log: Path) -> Iterator[Container]:
    """Run the installed command ``mmekit serve`` as SageMaker runs the image, on a free port of loopback."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    environ = {**os.environ, "SAGEMAKER_MULTI_MODEL": "true", "SAGEMAKER_BIND_TO_PORT": str(port)}
    command = [Path(sysconfig.get_path("scripts")) / "mmekit", "serve", "--host", "127.0.0.1"]
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL, stderr=output)
        server = Container(port, process.pid)
        try:
            _wait_for_ping(server, process, log)
            yield server
        finally:
            process.terminate()
            if process.wait(30):
                raise SystemExit(f"The server ended with {process.returncode}:\n{log.read_text()}")


def _wait_for_ping(server: Container, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if server.call("GET", "/ping")[0] == 200:
                return
        if process.poll() is not None:
            raise SystemExit(f"The server did not start:\n{log.read_text()}")
        time.sleep(0.05)
    raise SystemExit(f"The server does not answer /ping:\n{log.read_text()}")
