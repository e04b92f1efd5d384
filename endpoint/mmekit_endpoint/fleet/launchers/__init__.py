"""How an instance's container is run: with a container engine, or as a process of this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mmekit_endpoint.definitions import ContainerSpec

#: SageMaker sends SIGKILL so long after SIGTERM (AWS: your-algorithms-inference-code).
STOP_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Resources:
    """What an instance type offers a container, after this machine's own limits."""

    cpus: int
    memory_bytes: int
    gpus: int


@dataclass(frozen=True, slots=True)
class Order:
    """One container to run.

    ``folder`` exists and belongs to the instance; in it ``models/`` (MultiModel) is what the container sees
    as /opt/ml/models, ``model/`` (SingleModel) as /opt/ml/model. Standard output and error are appended to
    ``log``.
    """

    instance_id: str
    endpoint_name: str
    variant_name: str
    container: ContainerSpec
    resources: Resources
    folder: Path
    log: Path


@dataclass(frozen=True, slots=True)
class Usage:
    """What a container uses now. ``cpu_seconds`` counts up since its start."""

    memory_bytes: int
    memory_limit_bytes: int
    cpu_seconds: float
    #: Percent of one GPU, summed over GPUs; None without.
    gpu_percent: float | None = None
    gpu_memory_percent: float | None = None


class Running(Protocol):
    """A container that was started; it may end at any time."""

    #: Where its HTTP port can be reached: host, port.
    address: tuple[str, int]
    #: What the container sees ``folder/models`` as, without a slash at the end.
    models_path: str
    #: The image by digest, where an engine knows it.
    resolved_image: str | None

    async def wait(self) -> str:
        """Return when the container has ended, with how: "exited with code 3", "was killed by SIGKILL …"."""
        ...

    async def stop(self) -> None:
        """SIGTERM, SIGKILL after 30 s, then remove what is left. Returns at the end; may be called twice."""
        ...

    async def usage(self) -> Usage | None:
        """Return what the container uses; None where it has ended."""
        ...


class Launcher(Protocol):
    """Starts containers."""

    #: "docker" or "process"
    name: str

    async def launch(self, order: Order) -> Running:
        """Start a container with ``serve``. Raises LaunchFailed with a reason for people."""
        ...

    async def clean(self) -> list[str]:
        """End and remove what a service of the same state folder that was killed left; return their names."""
        ...

    async def close(self) -> None:
        """Let go of connections and threads; containers must have been stopped."""
        ...
