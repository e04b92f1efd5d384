"""One instance: a container with a volume and models, from its start to its end."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from mmekit_endpoint.definitions import VariantSpec
from mmekit_endpoint.errors import EndpointError, LaunchFailed, ServiceUnavailable
from mmekit_endpoint.fleet.cache import ModelCache
from mmekit_endpoint.fleet.call import Call
from mmekit_endpoint.fleet.calls import Calls
from mmekit_endpoint.fleet.connection import NoAnswer
from mmekit_endpoint.fleet.connections import Connections
from mmekit_endpoint.fleet.container import Container
from mmekit_endpoint.fleet.ending import Ending
from mmekit_endpoint.fleet.instance_types import instance_type, resources
from mmekit_endpoint.fleet.launchers import Launcher, Order, Running, Usage
from mmekit_endpoint.fleet.model import Model, State
from mmekit_endpoint.fleet.model_errors import ModelErrors
from mmekit_endpoint.fleet.shelf import Shelf
from mmekit_endpoint.fleet.sources import DiskFull, Source, Sources
from mmekit_endpoint.fleet.views import InstanceView
from mmekit_endpoint.fleet.volume import Volume
from mmekit_endpoint.settings import Settings
from mmekit_endpoint.telemetry.events import EventLog
from mmekit_endpoint.telemetry.statistics import VariantStatistics

#: Health checks that fail in a row before an instance is replaced.
_STRIKES = 3

#: Between two pings of a container that starts, and between two measurements of one that runs, in seconds.
_START_PERIOD_S = 0.1
_MEASURE_PERIOD_S = 2.0

#: Loads at the same time on one instance, at most.
_MAX_PARALLEL = 16


class Life(Enum):
    """How far an instance is."""

    STARTING = "starting"
    IN_SERVICE = "in service"
    UNHEALTHY = "unhealthy"
    STOPPING = "stopping"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all instances of a service share."""

    settings: Settings
    launcher: Launcher
    sources: Sources
    events: EventLog


class Instance:
    """An instance of a variant.

    ``ended`` is told when it is no longer fit for service; ``moved`` gets calls that it had taken and cannot
    serve any more. ``calls`` takes them after ``start``; ``cache`` is there then for a multi-model container.
    """

    cache: ModelCache

    def __init__(
        self,
        surroundings: Surroundings,
        endpoint_name: str,
        region: str,
        variant: VariantSpec,
        statistics: VariantStatistics,
        ended: Callable[[Instance], None],
        moved: Callable[[Call], None],
    ) -> None:
        self.id = f"i-{secrets.token_hex(9)[:17]}"
        self.life = Life.STARTING
        self.running: Running | None = None
        self._surroundings = surroundings
        self._settings = settings = surroundings.settings
        self._endpoint_name = endpoint_name
        self._variant = variant
        self._statistics = statistics
        self._ended = ended
        kind = instance_type(variant.instance_type)
        self._resources = resources(kind)
        volume_bytes = variant.volume_bytes or settings.volume_bytes or kind.volume_bytes
        self._volume = Volume(settings.state / "instances" / self.id, volume_bytes)
        self._log = settings.state / "logs" / endpoint_name / variant.name / f"{self.id}.log"
        self._ending = Ending()
        self._errors = ModelErrors(endpoint_name, region, f"{variant.name}/{self.id}", self._log)
        self._started = time.time()
        self._reason = ""  # why it is unhealthy
        # A model's answer may be as large as what a client may send: both have one limit at AWS.
        self._connections = Connections(settings.max_payload_bytes)
        self._container = Container()
        self.calls = Calls(
            settings, self._connections, self._container, self._errors, self._ending, statistics, moved
        )
        self._usage: Usage | None = None
        self._cpu_percent = 0.0
        self._tasks: set[asyncio.Task[None]] = set()

    # --- start -----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the container and wait until it is healthy. Raises LaunchFailed; nothing is left then."""
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def _start(self) -> None:
        spec = self._variant.container
        await asyncio.to_thread(self._prepare)
        if not spec.multi_model and spec.model_data_url:
            await self._fetch_single(spec.model_data_url)
        order = Order(
            instance_id=self.id,
            endpoint_name=self._endpoint_name,
            variant_name=self._variant.name,
            container=spec,
            resources=self._resources,
            folder=self._volume.folder,
            log=self._log,
        )
        running = self.running = await self._surroundings.launcher.launch(order)
        self._connections.reach(running.address)
        self._container.reach(running.address)
        self._spawn(self._watch(running))
        await self._wait_healthy()
        if spec.multi_model:
            # Making an S3 client takes a third of a second.
            source = await asyncio.to_thread(self._surroundings.sources.prefix, spec.model_data_url or "")
            self.cache = self.calls.cache = self._make_cache(running, source)
        else:
            self.calls.single = Model("", "", State.LOADED)
            self.calls.single.head = self._connections.head("POST", "/invocations")
        if self.life is not Life.STARTING:
            raise LaunchFailed(self._unfit(self._reason))
        self.life = Life.IN_SERVICE
        self._spawn(self._check_health())
        self._spawn(self._measure(running))
        where = f"{running.address[0]}:{running.address[1]}"
        self._event("instance_started", f"{self._variant.instance_type} at {where}")

    def _prepare(self) -> None:
        self._volume.prepare()
        self._log.parent.mkdir(parents=True, exist_ok=True)

    async def _fetch_single(self, url: str) -> None:
        """Put the archive of a single-model container where it expects it."""
        limit_s = self._variant.download_timeout_s or self._settings.load_timeout_s
        deadline = time.monotonic() + limit_s

        def check() -> None:
            if time.monotonic() > deadline or self.life is Life.STOPPING:
                raise ServiceUnavailable(f"The download of {url} took longer than {limit_s:g} s.")

        def fetch() -> None:
            source, key = self._surroundings.sources.archive(url)
            arrival = self._volume.arrival(source, key)
            arrival.download(check)
            arrival.measure(check)
            arrival.unpack(check)
            self._volume.place_single(arrival)

        try:
            await asyncio.to_thread(fetch)
        except (EndpointError, DiskFull) as error:
            raise LaunchFailed(str(error)) from error

    async def _wait_healthy(self) -> None:
        limit_s = self._variant.startup_timeout_s or self._settings.startup_timeout_s
        deadline = time.monotonic() + limit_s
        while True:
            if self.life is Life.UNHEALTHY:  # it has ended; `_watch` knows how
                raise LaunchFailed(self._unfit(self._reason))
            try:
                await self._ask()
                return
            except NoAnswer as error:
                if time.monotonic() > deadline and self.life is Life.STARTING:
                    raise LaunchFailed(self._unfit(f"after {limit_s:g} s: {error}")) from error
            await asyncio.sleep(_START_PERIOD_S)

    async def _ask(self) -> None:
        await self._container.ping()
        # The platform polls it beside /ping, and takes no container that lacks it (pytorch/serve#1028).
        if self._variant.container.multi_model:
            await self._container.check_models()

    def _unfit(self, reason: str) -> str:
        last = _last_line(self._log)
        return (
            f"The primary container for production variant {self._variant.name} did not pass the ping health "
            f"check. Please check CloudWatch logs for this endpoint. ({reason}"
            + (f"; its last line: {last}" if last else "")
            + f"; log: {self._log})"
        )

    def _make_cache(self, running: Running, source: Source) -> ModelCache:
        spec = self._variant.container
        shelf = Shelf(
            self._settings,
            self._endpoint_name,
            self._variant.name,
            self.id,
            self._statistics,
            self._surroundings.events,
            self._errors.of,
            self._ending,
        )
        # AWS: "Set MME model caching behavior": without a cache, downloads and loads are more parallel.
        parallel = max(2, self._resources.cpus) * (1 if spec.cache_models else 2)
        return ModelCache(
            shelf,
            model_data_url=spec.model_data_url or "",
            source=source,
            volume=self._volume,
            container=self._container,
            running=running,
            head=self._connections.head,
            parallel=min(parallel, _MAX_PARALLEL),
            keeps=spec.cache_models,
            ready=self.calls.pump,
            failed=self.calls.fail,
        )

    # --- service ---------------------------------------------------------------------------------

    async def _watch(self, running: Running) -> None:
        how = await running.wait()
        self._ending.set(how)
        self._give_up(f"the container {how}")

    async def _check_health(self) -> None:
        strikes = 0
        while self.life is Life.IN_SERVICE:
            await asyncio.sleep(self._settings.health_period_s)
            try:
                await self._ask()
                strikes = 0
            except NoAnswer as error:
                strikes += 1
                self._event("health_check_failed", f"{strikes} of {_STRIKES}: {error}")
                if strikes == _STRIKES:
                    self._give_up(str(error))

    def _give_up(self, reason: str) -> None:
        """Take the instance out of service for good."""
        before = self.life
        if before in (Life.STOPPING, Life.UNHEALTHY):
            return
        self.life = Life.UNHEALTHY
        self._reason = reason
        self._event("instance_unhealthy", reason)
        if before is Life.IN_SERVICE:
            self._ended(self)
            self.calls.release()

    async def _measure(self, running: Running) -> None:
        """Keep what the container uses, for views and metrics."""
        before: tuple[float, float] | None = None
        while self.life is Life.IN_SERVICE:
            usage = await running.usage()
            now = time.monotonic()
            if usage is not None:
                if before is not None and now > before[0]:
                    self._cpu_percent = 100 * max(0.0, usage.cpu_seconds - before[1]) / (now - before[0])
                before = (now, usage.cpu_seconds)
                self._usage = usage
            await asyncio.sleep(_MEASURE_PERIOD_S)

    def tick(self, now: float) -> None:
        """End late calls and tidy up; called a few times a second."""
        self.calls.expire(now)
        if self.calls.cache is not None:
            self.calls.cache.tidy(now)

    # --- end ---------------------------------------------------------------------------------------

    async def drain(self, timeout_s: float) -> None:
        """Wait until no call is here, for at most ``timeout_s``; it must get no new ones."""
        await self.calls.drain(timeout_s)

    async def stop(self) -> None:
        """End the container and delete the volume. Calls that it still has end with a ModelError."""
        self.life = Life.STOPPING
        self.calls.release()
        await self.calls.close()
        self._connections.close()
        self._container.close()
        ends: list[Awaitable[None]] = []
        if self.running is not None:
            ends.append(self.running.stop())
        if self.calls.cache is not None:
            ends.append(self.calls.cache.close())
        await asyncio.gather(*ends)
        current = asyncio.current_task()
        others = [task for task in self._tasks if task is not current]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.to_thread(self._volume.remove)
        self._event("instance_stopped", "")

    # --- what can be seen ----------------------------------------------------------------------------

    def view(self) -> InstanceView:
        """Return what can be seen of it."""
        now, clock = time.monotonic(), time.time()
        usage = self._usage
        models = self.calls.cache.models if self.calls.cache is not None else []
        return InstanceView(
            instance_id=self.id,
            state=self.life.value,
            address="{}:{}".format(*self.running.address) if self.running is not None else "",
            memory_bytes=usage.memory_bytes if usage else 0,
            memory_limit_bytes=usage.memory_limit_bytes if usage else self._resources.memory_bytes,
            disk_bytes=sum(model.disk_bytes for model in models),
            volume_bytes=self._volume.capacity_bytes,
            cpu_percent=round(self._cpu_percent, 1),
            in_flight=self.calls.in_flight,
            models=[model.view(now, clock) for model in models],
            log=str(self._log),
            started=self._started,
            gpu_percent=usage.gpu_percent if usage else None,
            gpu_memory_percent=usage.gpu_memory_percent if usage else None,
        )

    def _event(self, kind: str, text: str) -> None:
        self._surroundings.events.add(
            kind, text, endpoint=self._endpoint_name, variant=self._variant.name, instance=self.id
        )

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _last_line(log: Path) -> str:
    """Return the last line of a log that says something, cut; "" where there is none."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - 4096))
            lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    except OSError:
        return ""
    return lines[-1].strip()[:300] if lines else ""
