"""An image: run as SageMaker runs it, on a published loopback port, with the models mounted."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

import docker.errors
from docker.types import Mount

from mmekit_toolkit.contract.subjects import (
    Form,
    ImageFacts,
    Launch,
    ModelsFolder,
    NotStarted,
    Running,
    Subject,
    memory,
)
from mmekit_toolkit.contract.subjects.waiting import wait_ready
from mmekit_toolkit.errors import NotFound
from mmekit_toolkit.images.engine import engine

#: Containers of the kit, for whoever has to remove them by hand.
LABEL = "mmekit.contract"
#: Where SageMaker puts models.
MODELS_PATH = "/opt/ml/models"

#: The port of a container that is not told another, and the one it is told.
_DEFAULT_PORT = 8080
_OTHER_PORT = 8086
#: As on a real multi-model endpoint (pytorch/serve#1028).
_SAFE_PORTS = "25000-25999"


class ImageSubject(Subject):
    """An image that the engine has. Raises NoEngine and NotFound."""

    form = Form.IMAGE

    def __init__(
        self, name: str, models: ModelsFolder, environment: Mapping[str, str], platform: str | None = None
    ) -> None:
        self.name = name
        self.models = ModelsFolder(models.here, MODELS_PATH)
        self._environment = {
            "SAGEMAKER_MULTI_MODEL": "true",
            "SAGEMAKER_SAFE_PORT_RANGE": _SAFE_PORTS,
            **environment,
        }
        self._platform = platform
        self._engine = engine()
        self.how_started = self._command_line(Launch())
        try:
            self._config = self._engine.images.get(name).attrs.get("Config") or {}
        except docker.errors.ImageNotFound as error:
            raise NotFound(
                f"the engine has no image {name}. Expected an image that was built or pulled (docker pull "
                f"{name}), a URL that begins with http:// or https://, or -- and a command."
            ) from error

    def image(self) -> ImageFacts:
        """Return what the image says of itself."""
        return ImageFacts(self._config.get("Labels") or {}, tuple(self._config.get("Entrypoint") or ()))

    def start(self, launch: Launch, timeout_s: float) -> Running:
        """Run the image with the argument serve. Raises NotStarted."""
        ports = [_DEFAULT_PORT]
        environment = dict(self._environment)
        if launch.port_from_variable:
            environment["SAGEMAKER_BIND_TO_PORT"] = str(_OTHER_PORT)
            ports.insert(0, _OTHER_PORT)
        container = self._engine.containers.create(
            self.name,
            ["serve"],
            environment=environment,
            labels={LABEL: self.name},
            mounts=[Mount(MODELS_PATH, str(self.models.here), "bind", read_only=launch.models_read_only)],
            ports={f"{port}/tcp": ("127.0.0.1",) for port in ports},
            mem_limit=launch.memory_limit_bytes,
            memswap_limit=launch.memory_limit_bytes,
            platform=self._platform,
        )
        running = _Container(container, self._command_line(launch))
        try:
            try:
                container.start()
            except docker.errors.APIError as error:
                raise NotStarted(f"the engine could not start it: {error.explanation or error}") from error
            running.base_url = wait_ready(running, lambda: running.published(ports), timeout_s)
        except BaseException:
            running.close()
            raise
        if launch.port_from_variable:
            running.port_honoured = running.base_url == running.published(ports)[0]
        return running

    def _command_line(self, launch: Launch) -> str:
        words = ["docker", "run", "--rm", "-p", "127.0.0.1::8080"]
        for name, value in self._environment.items():
            words += ["-e", f"{name}={value}"]
        if launch.port_from_variable:
            words += ["-p", f"127.0.0.1::{_OTHER_PORT}", "-e", f"SAGEMAKER_BIND_TO_PORT={_OTHER_PORT}"]
        if launch.memory_limit_bytes is not None:
            words += [f"--memory={launch.memory_limit_bytes}", f"--memory-swap={launch.memory_limit_bytes}"]
        if self._platform:
            words += ["--platform", self._platform]
        read_only = ":ro" if launch.models_read_only else ""
        return shlex.join([*words, "-v", f"{self.models.here}:{MODELS_PATH}{read_only}", self.name, "serve"])


class _Container(Running):
    def __init__(self, container: Any, how_started: str) -> None:  # Any: docker ships no types
        self.how_started = how_started
        self._container = container

    def published(self, ports: list[int]) -> list[str]:
        """Return the addresses of the container's ports here; none of one that has ended."""
        self._container.reload()
        found = [(self._container.ports.get(f"{port}/tcp") or [None])[0] for port in ports]
        return [f"http://127.0.0.1:{entry['HostPort']}" for entry in found if entry]

    def ended(self) -> str | None:
        try:
            self._container.reload()
        except docker.errors.NotFound:
            return "was removed by somebody else"
        state = self._container.attrs["State"]
        if state["Running"]:
            return None
        memory_was_short = ", killed for lack of memory" if state["OOMKilled"] else ""
        return f"ended with exit code {state['ExitCode']}{memory_was_short}"

    def last_lines(self, count: int = 30) -> tuple[str, ...]:
        try:
            log = self._container.logs(tail=count)
        except docker.errors.APIError:
            return ()  # it is removed, or is being removed: 404, 409
        return tuple(log.decode("utf-8", "replace").splitlines())

    def terminate(self) -> None:
        try:
            self._container.kill("SIGTERM")
        except docker.errors.APIError:
            if self.ended() is None:
                raise

    def memory_bytes(self) -> int | None:
        pid = self._container.attrs["State"]["Pid"]
        seen = memory.of_container(self._container.id, pid)
        if seen is not None:
            return seen
        # The engine is in a virtual machine, as Docker Desktop's is.
        stats = self._container.stats(stream=False, one_shot=True)
        return memory.anonymous(stats.get("memory_stats", {}).get("stats", {}))

    def room_bytes(self) -> int | None:
        return int(self._container.client.info()["MemTotal"]) // 2

    def close(self) -> None:
        try:
            self._container.remove(v=True, force=True)
        except docker.errors.NotFound:
            pass  # somebody else has removed it
