"""One container of an instance: its end, its stop, what it uses."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
import time
from typing import Any

import docker.errors

from mmekit.process import describe_exit
from mmekit_endpoint.fleet.launchers import Usage
from mmekit_endpoint.fleet.launchers.docker_cgroup import find_group
from mmekit_endpoint.fleet.launchers.docker_engine import ENGINE_ERRORS, DockerEngine, is_gone
from mmekit_endpoint.fleet.launchers.gpus import GpuUse, gpu_use
from mmekit_endpoint.fleet.launchers.waiting import in_own_thread

_log = logging.getLogger(__name__)

#: The exit code of a container that SIGKILL has ended.
_KILLED = 128 + signal.SIGKILL

#: Between two tries to wait for a container whose engine has hung up: it may be starting again.
_RETRY_S = 1.0
#: For what is left of the log after a container's end.
LAST_WORDS_S = 5.0
#: For the engine's word that memory was short: it may learn of that after the end (containerd issue 8180).
_OOM_S = 0.3
#: For the end after SIGKILL; an engine that hangs must not hold up the service's own end.
_KILL_TIMEOUT_S = 30.0


class RunningContainer:
    """A container that was started. ``log`` is done when all its output is in the instance's log."""

    def __init__(
        self,
        engine: DockerEngine,
        container: Any,
        address: tuple[str, int],
        models_path: str,
        resolved_image: str,
        memory_limit_bytes: int,
        gpus: int,
        stop_timeout_s: float,
        log: asyncio.Future[None],
    ) -> None:
        self.address = address
        self.models_path = models_path
        self.resolved_image: str | None = resolved_image
        self._engine = engine
        self._container = container
        self._memory_limit_bytes = memory_limit_bytes
        self._gpus = gpus
        self._stop_timeout_s = stop_timeout_s
        self._log_done = log
        self._group = find_group(container.id, container.attrs["State"]["Pid"])
        self._given_up = threading.Event()
        self._stopping: asyncio.Task[None] | None = None
        self._ended = asyncio.create_task(self._end())

    async def wait(self) -> str:
        """Return when the container has ended, with how."""
        return await asyncio.shield(self._ended)

    async def stop(self) -> None:
        """Send SIGTERM, SIGKILL after the time for that, and remove the container with its volumes."""
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._stop())
        await asyncio.shield(self._stopping)

    async def usage(self) -> Usage | None:
        """Return what the container uses, as ``docker stats`` counts it; None where it has ended."""
        if self._ended.done():
            return None
        try:
            return await self._engine.call(self._measure)
        except ENGINE_ERRORS as error:
            if not is_gone(error):
                _log.warning("The usage of container %s is not known: %s", self._container.name, error)
            return None

    def _measure(self) -> Usage | None:
        if self._group is not None:
            stats = self._group.stats()
        else:
            stats = self._container.client.api.stats(self._container.id, stream=False, one_shot=True)
        return usage_of(stats, self._memory_limit_bytes, gpu_use(self._gpus))

    async def _stop(self) -> None:
        try:
            await self._signal("SIGTERM")
            await asyncio.wait([self._ended], timeout=self._stop_timeout_s)
            if not self._ended.done():
                await self._signal("SIGKILL")
                await asyncio.wait([self._ended], timeout=_KILL_TIMEOUT_S)
            await self._engine.call(self._container.remove, v=True, force=True)
        except ENGINE_ERRORS as error:
            if not is_gone(error):
                _log.warning("Container %s may be left: %s", self._container.name, error)
        self._given_up.set()
        await asyncio.wait([self._ended], timeout=_KILL_TIMEOUT_S)

    async def _signal(self, name: str) -> None:
        if self._ended.done():
            return
        try:
            await self._engine.call(self._container.kill, signal=name)
        except docker.errors.APIError as error:
            if not is_gone(error):
                raise

    async def _end(self) -> str:
        how = await in_own_thread(self._wait_for_end, f"wait {self._container.name}")
        await asyncio.wait([self._log_done], timeout=LAST_WORDS_S)
        return how

    def _wait_for_end(self) -> str:
        """Runs in a thread of its own; engines that start again are waited for until ``stop``."""
        while True:
            try:
                self._container.wait()
                self._container.reload()
                state = self._container.attrs["State"]
                if state["ExitCode"] == _KILLED and not state.get("OOMKilled") and self._stopping is None:
                    time.sleep(_OOM_S)
                    self._container.reload()
                return describe_state(self._container.attrs["State"], self._memory_limit_bytes)
            except docker.errors.NotFound:
                return "was removed"
            except ENGINE_ERRORS as error:
                _log.info("The engine hung up while container %s ran: %s", self._container.name, error)
            if self._given_up.wait(_RETRY_S):
                return "was lost: its engine does not answer"


def describe_state(state: dict[str, Any], memory_limit_bytes: int) -> str:
    """Say in words how a container ended, from the engine's ``State``."""
    code = int(state["ExitCode"])
    how = describe_exit(code - 128 if code - 128 in set(signal.Signals) else code << 8)
    if state.get("OOMKilled"):
        how = how.partition(" (")[0]
        return f"{how}: out of memory, the limit is {memory_limit_bytes:,} bytes (OOMKilled)"
    return f"{how}: {error}" if (error := state.get("Error")) else how


def usage_of(stats: dict[str, Any], memory_limit_bytes: int, gpu: GpuUse | None = None) -> Usage | None:
    """Read one answer of the engine's stats; None where the container does not run.

    As ``docker stats`` does, page cache that can be given back is no use: ``total_inactive_file`` in
    cgroup v1, ``inactive_file`` in v2.
    """
    memory = stats.get("memory_stats") or {}
    if "usage" not in memory:
        return None
    counters = memory.get("stats") or {}
    cache = counters.get("total_inactive_file", counters.get("inactive_file", 0))
    cpu_ns = stats["cpu_stats"]["cpu_usage"]["total_usage"]
    return Usage(
        max(0, memory["usage"] - cache),
        memory_limit_bytes,
        cpu_ns / 1e9,
        gpu_percent=gpu.percent if gpu else None,
        gpu_memory_percent=gpu.memory_percent if gpu else None,
    )
