"""The servers that are compared, behind one interface; each is started as people start it."""

from __future__ import annotations

import http.client
import json
import random
import socket
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import quote

from benchmarks import environments
from benchmarks.environments import Installations
from benchmarks.load import Target
from benchmarks.models import Model
from benchmarks.processes import ProcessGroup, command_line

if TYPE_CHECKING:
    from typing import Self  # Python 3.11

_START_TIMEOUT_S = 120


class ServerFailed(Exception):
    """Raised when a server does not do what the benchmark needs of it."""


class Server:
    """One running server. Subclasses say how it is started; all speak SageMaker's routes."""

    name: ClassVar[str]

    def __init__(
        self, installations: Installations, folder: Path, environ: dict[str, str] | None = None
    ) -> None:
        self._installations = installations
        self._folder = folder
        self._environ = environ or {}
        self.port = _free_port()
        self.ready_s = 0.0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        raise NotImplementedError

    def environ(self) -> dict[str, str]:
        """Environment of the server; threads as AWS's XGBoost image sets them, the same for all."""
        return {
            **environments.clean_environ(),
            "PYTHONPATH": str(environments.PROGRAMS),
            "OMP_NUM_THREADS": "1",
            **self._environ,
        }

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        self.processes = ProcessGroup.start(self.name, self.command(), self.environ(), self._folder)
        try:
            self._wait_until_ready()
        except BaseException:
            self.processes.stop()
            raise
        self.ready_s = time.monotonic() - started
        return self

    def __exit__(self, *_: object) -> None:
        self.processes.stop()

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while True:
            self.processes.check()
            try:
                if self.request("GET", "/ping", timeout_s=5)[0] == 200:
                    return
            except (OSError, http.client.HTTPException):
                pass
            if time.monotonic() > deadline:
                raise ServerFailed(f"{self.name} did not answer /ping within {_START_TIMEOUT_S} s")
            time.sleep(0.005)

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        timeout_s: float = 120,
    ) -> tuple[int, bytes]:
        """Send one request on a connection of its own; return status and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def load(self, model: Model) -> float:
        """Load a model; return milliseconds until the answer. Raises ``ServerFailed`` unless 200."""
        settings = {"model_name": model.name, "url": str(model.folder)}
        if model.handler is not None:
            settings["handler"] = model.handler
        body = json.dumps(settings).encode()
        started = time.monotonic()
        status, answer = self.request("POST", "/models", body, {"Content-Type": "application/json"})
        took_ms = (time.monotonic() - started) * 1000
        if status != 200:
            raise ServerFailed(f"{self.name}: load of {model.name} answered {status}: {answer[:500]!r}")
        return took_ms

    def unload(self, model: Model) -> None:
        status, answer = self.request("DELETE", f"/models/{model.name}")
        if status != 200:
            raise ServerFailed(f"{self.name}: unload of {model.name} answered {status}: {answer[:500]!r}")

    def check(self, model: Model) -> float:
        """Invoke once and compare with the framework's own answer; return milliseconds."""
        started = time.monotonic()
        status, answer = self.request("POST", invoke_path(model.name), model.body, model.headers)
        took_ms = (time.monotonic() - started) * 1000
        try:
            value = float(answer.decode().strip().strip("[]"))
        except ValueError:
            value = float("nan")
        if status != 200 or not abs(value - model.expected) <= 1e-4 * max(1.0, abs(model.expected)):
            raise ServerFailed(
                f"{self.name}: {model.name} answered {status} {answer[:300]!r}, expected {model.expected}"
            )
        return took_ms

    def front_pids(self) -> set[int]:
        """Processes that speak HTTP; the others hold models."""
        return {self.processes.pid}


class Native(Server):
    """``mmekit serve`` from the normal install."""

    name = "mmekit"

    def command(self) -> list[str]:
        return [str(self._installations.native / "mmekit"), "serve"]

    def environ(self) -> dict[str, str]:
        return {
            **super().environ(),
            "SAGEMAKER_MULTI_MODEL": "true",
            "SAGEMAKER_BIND_TO_PORT": str(self.port),
            "SAGEMAKER_BASE_DIR": str(self._folder),
        }

    def workers_of(self, model: Model) -> set[str]:
        """Return the ids of the workers that hold a model."""
        _, answer = self.request("GET", f"/models/{model.name}")
        return {worker["id"] for worker in json.loads(answer)["workers"]}

    def template_pid(self) -> int:
        """Return the process that workers are forked from; workers have its command line too."""
        pids = [pid for pid in self.processes.pids() if "mmekit.worker.template" in command_line(pid)]
        if not pids:
            raise ServerFailed("mmekit has no template process")
        return min(pids)


class Inline(Server):
    """The same handlers inside one HTTP process: the in-process limit."""

    name = "inline"

    def command(self) -> list[str]:
        python = self._installations.native / "python"
        return [str(python), str(environments.PROGRAMS / "inline_server.py"), str(self.port)]


class MultiModelServer(Server):
    """AWS's Java server with the settings and the steps of AWS's images."""

    name = "mms"
    handler: ClassVar[str] = "aws_handler_service.py"

    def command(self) -> list[str]:
        config = self._folder / "config.properties"
        config.write_text(_MMS_CONFIG.format(port=self.port, handler=environments.PROGRAMS / self.handler))
        assert self._installations.mms is not None
        server = self._installations.mms / "multi-model-server"
        return [str(server), "--start", "--foreground", "--mms-config", str(config)]

    def environ(self) -> dict[str, str]:
        # Its sockets and its pid file go to the temporary folder: one folder a server.
        folder = self._folder / "tmp"
        folder.mkdir(exist_ok=True)
        return {**super().environ(), "TEMP": str(folder), "TMPDIR": str(folder)}

    def load(self, model: Model) -> float:
        if model.handler is not None:
            module, _, function = model.handler.partition(":")
            path = environments.PROGRAMS / f"{module}.py"
            model = replace(model, handler=f"{path}:{function}")
        return super().load(model)

    def front_pids(self) -> set[int]:
        return {pid for pid in self.processes.pids() if "model_service_worker" not in command_line(pid)}


class LeanMultiModelServer(MultiModelServer):
    """The same server with the shortest handler there can be: what it costs by itself."""

    name = "mms-lean"
    handler = "mms_handler.py"


#: AWS: sagemaker-xgboost-container docker/*/resources/mms/config.properties.tmp and serving_mms.py.
_MMS_CONFIG = """\
model_store=/
load_models=
inference_address=http://0.0.0.0:{port}
management_address=http://0.0.0.0:{port}
default_workers_per_model=1
default_service_handler={handler}:handle
job_queue_size=100
max_request_size=6291456
decode_input_request=false
preload_model=true
"""

SERVERS: dict[str, type[Server]] = {
    server.name: server for server in (Native, Inline, MultiModelServer, LeanMultiModelServer)
}


def invoke_path(model: str) -> str:
    return f"/models/{quote(model, safe='')}/invoke"


def invoke_target(model: Model, weight: float = 1.0) -> Target:
    """The request that asks a model for its prediction."""
    return Target("POST", invoke_path(model.name), model.headers, model.body, weight)


def _free_port() -> int:
    """Return a free port below the ephemeral ones: MMS refuses ports above 49151."""
    for port in random.sample(range(20000, 30000), 100):
        with socket.socket() as probe:
            try:
                probe.bind(("0.0.0.0", port))
            except OSError:
                continue
            return port
    raise ServerFailed("no free port from 20000 to 29999")
