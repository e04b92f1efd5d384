"""The service's composition root: lock → launch → listen → serve → drain → stop."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import logging
import os
import shutil
import signal
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import IO, Any

from mmekit.errors import CannotListen
from mmekit.http.limits import BodyBudget, Limits
from mmekit.http.server import HttpServer
from mmekit.process import allow_descriptors
from mmekit_endpoint.api.admin import Admin
from mmekit_endpoint.api.asynchronous import AsyncRuntime
from mmekit_endpoint.api.control_process import ControlProcess
from mmekit_endpoint.api.front import Front
from mmekit_endpoint.api.proxy import Proxy
from mmekit_endpoint.api.runtime import Runtime
from mmekit_endpoint.api.signing import Verifier
from mmekit_endpoint.clients import Clients
from mmekit_endpoint.database import FILE_NAME, Database
from mmekit_endpoint.fleet.instance import Surroundings
from mmekit_endpoint.fleet.launchers.choice import choose
from mmekit_endpoint.fleet.reconciler import Reconciler
from mmekit_endpoint.fleet.sources import Sources
from mmekit_endpoint.folder_endpoint import folder_spec, put_endpoint
from mmekit_endpoint.settings import MIB, Settings
from mmekit_endpoint.telemetry.container_logs import ContainerLogs
from mmekit_endpoint.telemetry.events import EventLog
from mmekit_endpoint.telemetry.publisher import Publisher
from mmekit_endpoint.telemetry.statistics import Statistics

logger = logging.getLogger(__name__)

#: The largest request: one part of an upload to S3 (boto3 sends parts of 8 MiB, people more).
_MAX_BODY_BYTES = 1024 * MIB
#: All request bodies together; what is beyond waits.
_BODY_BUDGET_BYTES = 2048 * MIB
#: Two thousand callers may wait for one cold model.
_MAX_CONNECTIONS = 20_000

#: Between two looks for late calls, in seconds.
_TICK_S = 0.25
#: Looks between two that seek copies to unload.
_DECAY_TICKS = 4

#: How long answers may still be written when the service stops, in seconds.
_DRAIN_S = 5.0


#: Between two looks whether the endpoint of --models serves, in seconds.
_LOOK_S = 0.05


class PartFailed(Exception):
    """Raised when the service has stopped because a part of it failed."""


class StateInUse(Exception):
    """Raised when another service has the state folder."""


def run(settings: Settings, started: Callable[[str, str], None], settled: Callable[[str, str], None]) -> None:
    """Serve until SIGTERM or SIGINT; a second signal ends at once.

    ``started`` is called with the URL and the launcher's name, ``settled`` with the status of the endpoint of
    ``settings.models`` and the reason where it failed. Raises StateInUse, StateUnusable, CannotListen
    and LaunchFailed where the service cannot start, PartFailed where it could not go on.
    """
    import uvloop

    allow_descriptors()
    # Calls leave no cycles: what has been imported need not be looked through again and again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000)
    uvloop.run(Service(settings, started, settled).run())


class Service:
    """One service and all that it consists of."""

    def __init__(
        self, settings: Settings, started: Callable[[str, str], None], settled: Callable[[str, str], None]
    ) -> None:
        self._settings = settings
        self._started = started
        self._settled = settled
        self._failures: list[BaseException] = []

    async def run(self) -> None:
        """Start, serve until a signal, stop; whatever was started is ended in the reverse order."""
        settings = self._settings
        stopping = asyncio.Event()
        _catch_signals(stopping)
        async with AsyncExitStack() as stack:
            stack.enter_context(_locked(settings.state))
            stack.callback(_remove_temporary, settings)
            launcher = await choose(settings.launcher, settings.state, uuid.uuid4().hex, settings.program)
            stack.push_async_callback(launcher.close)
            for name in await launcher.clean():
                logger.warning("Removed %s, left by a service that was killed", name)
            shutil.rmtree(settings.state / "instances", ignore_errors=True)
            database = Database(settings.state / FILE_NAME)
            stack.callback(database.close)
            await asyncio.to_thread(database.resume)
            if settings.models is not None:
                name = settings.endpoint_name
                spec = folder_spec(name, settings.models, settings.image, settings.instance_type)
                put_endpoint(database, name, spec, settings.region)

            events = EventLog(settings.state / "events.jsonl")
            stack.callback(events.close)
            statistics = Statistics()
            control = ControlProcess(settings, launcher.name, events.add)
            clients = Clients(settings, control.address)
            surroundings = Surroundings(
                settings, launcher, Sources(clients.s3, settings.store_patience_s), events
            )
            reconciler = Reconciler(database, surroundings, statistics)
            proxy = Proxy(control.address, _MAX_BODY_BYTES)
            stack.callback(proxy.close)
            runtime = Runtime(settings, reconciler)
            asynchronous = AsyncRuntime(runtime, clients.s3)
            front = Front(
                runtime,
                asynchronous,
                Admin(reconciler, statistics, events),
                proxy,
                Verifier(settings.keys) if settings.keys else None,
            )
            http = HttpServer(front, _limits(), BodyBudget(_BODY_BUDGET_BYTES))
            try:
                await http.start(settings.host, settings.port)
            except OSError as error:
                raise CannotListen(
                    f"{settings.host}:{settings.port} cannot be listened on: {error.strerror or error}. Stop "
                    "what listens there, or choose another --port."
                ) from error
            await control.start()
            stack.push_async_callback(control.stop)
            publisher = Publisher(settings, statistics, reconciler.views, clients.of)
            logs = ContainerLogs(settings.state / "logs", reconciler.views, clients.of)
            async with self._beside(stopping, self._tick(reconciler), publisher.run(), logs.run()):
                async with self._beside(stopping, reconciler.run(), self._tell(reconciler)):
                    self._started(_url(http.addresses[0]), launcher.name)
                    await stopping.wait()
                http.stop_accepting()
                await asynchronous.stop()
                await reconciler.stop()
            await http.drain(_DRAIN_S)
            http.abort()
        if self._failures:
            raise PartFailed(f"The service has stopped because a part of it failed: {self._failures[0]!r}")

    @asynccontextmanager
    async def _beside(self, stopping: asyncio.Event, *work: Any) -> AsyncIterator[None]:
        """Run coroutines beside the block, until its end; one that fails ends the service."""

        def ended(task: asyncio.Future[None]) -> None:
            if not task.cancelled() and (error := task.exception()) is not None:
                logger.critical("A part of the service failed", exc_info=error)
                self._failures.append(error)
                stopping.set()

        tasks = [asyncio.ensure_future(coroutine) for coroutine in work]
        for task in tasks:
            task.add_done_callback(ended)
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _tell(self, reconciler: Reconciler) -> None:
        """Say when the endpoint of --models serves, or why it does not."""
        while self._settings.models is not None:
            row = reconciler.row(self._settings.endpoint_name)
            if row is not None and row.change is None:
                self._settled(row.status, row.failure_reason or "")
                return
            await asyncio.sleep(_LOOK_S)

    async def _tick(self, reconciler: Reconciler) -> None:
        """End late calls, and unload copies that are not needed any more."""
        ticks = 0
        while True:
            await asyncio.sleep(_TICK_S)
            ticks += 1
            now = time.monotonic()
            for endpoint in reconciler.fleets:
                for variant in endpoint.variants:
                    variant.tick(now)
                    if ticks % _DECAY_TICKS == 0:
                        variant.decay(now)


def _limits() -> Limits:
    return Limits(
        max_body_bytes=_MAX_BODY_BYTES,
        max_body_setting="nothing: upload in parts",
        max_connections=_MAX_CONNECTIONS,
        # A caller sends nothing while its model loads; only connections without a request are idle.
        keep_alive_timeout_s=120.0,
        max_headers=200,
    )


@contextlib.contextmanager
def _locked(state: Path) -> Any:  # an iterator, as contextmanager takes it
    """Hold the state folder for this service alone."""
    state.mkdir(parents=True, exist_ok=True)
    lock: IO[str] = (state / "lock").open("a+")
    with lock:
        if not _flock(lock):
            lock.seek(0)
            raise StateInUse(
                f"{state} is in use by another mmekit local (pid {lock.read().strip() or 'unknown'}). Stop "
                "it, or name another folder with --state."
            )
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _flock(lock: IO[str]) -> bool:
    """Lock a file; return whether that was possible. Another service may look at it for an instant."""
    for _ in range(10):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.01)
        else:
            return True
    return False


def _remove_temporary(settings: Settings) -> None:
    if settings.state_is_temporary:
        shutil.rmtree(settings.state, ignore_errors=True)


def _catch_signals(stopping: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()

    def stop() -> None:
        if stopping.is_set():
            os._exit(1)
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)


def _url(address: tuple[str, int] | str) -> str:
    assert isinstance(address, tuple)
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    return f"http://{host}:{address[1]}"
