"""The composition root of ``mmekit serve``: bind → start → serve → drain → stop."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import uvloop

from mmekit import process
from mmekit.archive.store import ModelStore
from mmekit.choice import ImageCode
from mmekit.config import Config, setting_of
from mmekit.errors import ConfigError
from mmekit.formats import FRAMEWORKS
from mmekit.logs import OutputCollector
from mmekit.server.access import AccessLog
from mmekit.server.capacity import CpuThrottle, cpus_available
from mmekit.server.choosing import WorkerChooser
from mmekit.server.connectors import Connectors
from mmekit.server.copies import Copies
from mmekit.server.dispatcher import Dispatcher
from mmekit.server.estimates import Estimator
from mmekit.server.fleet import Fleet
from mmekit.server.host import HostMetrics
from mmekit.server.memory import Memory, Watchdog, check_reserve
from mmekit.server.model import Model
from mmekit.server.placement import Rule
from mmekit.server.prometheus import Exposition
from mmekit.server.registry import Registry
from mmekit.server.reloads import Reloads
from mmekit.server.residency import Residency
from mmekit.server.routes import Routes
from mmekit.server.session import Manners
from mmekit.server.startup import Startup
from mmekit.server.statistics import Statistics
from mmekit.server.usage import find_memory
from mmekit.server.watch import Watch
from mmekit.settings import settings_of
from mmekit.sink import STANDARD_ERROR

_log = logging.getLogger(__name__)

#: How long workers may take to leave once all requests are answered.
_CLOSE_TIMEOUT_S = 2.0

#: How long what they wrote last is read for, in seconds; what models have started may hold their pipes open.
_OUTPUT_TIMEOUT_S = 0.5


class Server:
    """One server: built from a Config, run once."""

    def __init__(self, config: Config, environ: Mapping[str, str]) -> None:
        self.config = config
        cpus = cpus_available()
        gpus = _gpus() if config.number_of_gpu is None else config.number_of_gpu
        if config.max_gpus is not None:
            gpus = min(gpus, config.max_gpus)
        source = find_memory(config.memory_limit_bytes, setting_of("memory_limit_bytes").names[0])
        reserve = check_reserve(config.memory_reserve_bytes, source.limit_bytes)
        models: dict[str, Model] = {}
        self.statistics = Statistics(config.metrics_models)
        self.collector = OutputCollector()
        self.fleet = Fleet(
            _preloaded(config), _worker_environ(config, environ), self.collector, source, self.statistics
        )
        source.watch(os.getpid())
        self.dispatcher = Dispatcher(models, self.statistics)
        memory = Memory(source, reserve)
        rule = Rule(config.sharing, config.large_model_bytes, gpus)
        estimator = Estimator()
        chooser = WorkerChooser(config, self.fleet, self.dispatcher, estimator, rule, config.workers or cpus)
        self.residency = Residency(config, self.fleet, self.dispatcher, memory, estimator, chooser)
        Reloads(self.residency, self.dispatcher)
        image = ImageCode(config.handler, config.program, config.code_dir, config.mms_mode)
        copies = Copies(self.residency, self.dispatcher)
        # The one model of single-model mode is not looked up in a store.
        root = Path("/") if config.single_model else config.model_store
        self.store = ModelStore(
            root,
            config.allow_model_urls,
            config.max_unpacked_bytes,
            download_timeout_s=config.load_timeout_s,
        )
        self.registry = Registry(config, models, self.dispatcher, self.residency, copies, self.store, image)
        self.startup = Startup(config, self.registry, gpus or cpus)
        throttle = CpuThrottle.find()
        self.watch = Watch(
            config,
            self.fleet,
            self.dispatcher,
            self.residency,
            copies,
            memory,
            Watchdog(source, reserve),
            throttle,
            cpus,
        )
        self.access = _access_log(config, models)
        manners = Manners(self.statistics, self.access, _cors(config))
        exposition = Exposition(
            self.statistics, models, self.fleet, memory, self.access, lambda: self.http.connections
        )
        routes = Routes(self.registry, self.dispatcher, self.is_ready, manners, exposition)
        self.http = Connectors(config, routes)
        self.host = HostMetrics(source, config.metric_time_interval_s)
        self._stop = asyncio.Event()
        self._impatient = asyncio.Event()

    def is_ready(self) -> bool:
        """What ``/ping`` answers: a worker can be had, and the models of the start are loaded."""
        return self.fleet.ready and self.startup.done and not self._stop.is_set()

    async def run(self, received: Sequence[int], on_listening: Callable[[], None]) -> int:
        """Serve until SIGTERM or SIGINT; return the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled)
        # uvloop keeps SIGCHLD for its own subprocesses, which we have none of.
        previous = signal.signal(signal.SIGCHLD, lambda *_: loop.call_soon_threadsafe(self._reap))
        for _ in received:
            self._signalled()
        process.become_subreaper()
        process.allow_descriptors()
        self.collector.start()
        if self.access is not None:
            self.access.start()
        if self.config.metric_time_interval_s:
            self.host.start()
        await self.http.start()
        for address in self.http.addresses:
            _log.info("Listening on %s.", address)
        on_listening()
        self.fleet.start()
        self.watch.start()
        code = await self._start_models()
        if code == 0:
            await self._stop.wait()
        await self._drain()
        signal.signal(signal.SIGCHLD, previous)
        return code

    def _signalled(self) -> None:
        """The first signal stops in order, the second at once."""
        if self._stop.is_set():
            self._impatient.set()
        self._stop.set()

    def _reap(self) -> None:
        """Collect all children that ended: workers, the template, and orphans of models' code."""
        for pid, status in process.reap():
            self.fleet.reaped(pid, status)

    async def _start_models(self) -> int:
        """Load the models that are to be there from the start; return the exit code."""
        startup = asyncio.ensure_future(self.startup.run())
        stop = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait([startup, stop], return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if not startup.done():
            startup.cancel()
            return 0
        try:
            return 0 if startup.result() else 1
        except Exception:  # noqa: BLE001 - what has been started is to be ended in order
            _log.critical("The server failed at its start.", exc_info=True)
            return 1

    async def _drain(self) -> None:
        """Stop accepting, answer what is in flight, end workers, close."""
        _log.info("Stopping: requests in flight have %g s.", self.config.stop_timeout_s)
        self.registry.stopping = True
        self.http.stop_accepting()
        drain = asyncio.ensure_future(self.http.drain(self.config.stop_timeout_s))
        impatient = asyncio.ensure_future(self._impatient.wait())
        await asyncio.wait([drain, impatient], return_when=asyncio.FIRST_COMPLETED)
        drain.cancel()
        impatient.cancel()
        self.watch.stop()
        self.host.stop()
        self.http.abort()
        await self.fleet.close(0.0 if self._impatient.is_set() else _CLOSE_TIMEOUT_S)
        self.collector.close(_OUTPUT_TIMEOUT_S)
        self.store.close()  # not in a thread: nothing is served any more
        if self.access is not None:
            self.access.close(STANDARD_ERROR.last_wait_s())


def _worker_environ(config: Config, environ: Mapping[str, str]) -> dict[str, str]:
    """What template and workers see: the environment less the blacklist, one thread, no byte code."""
    hidden = config.blacklist_env_vars
    values = {name: text for name, text in environ.items() if not (hidden and hidden.fullmatch(name))}
    for declared in settings_of(Config).values():
        if declared.secret:
            for name in (*declared.names, *("MMS_" + key.upper() for key, _ in declared.keys)):
                values.pop(name, None)
    values["MMEKIT_WORKER_THREADS"] = str(config.threads)
    values["MMEKIT_WORKER_LOG_LEVEL"] = str(config.log_level)
    for name in process.THREAD_VARIABLES:
        values[name] = "1"
    values["PYTHONDONTWRITEBYTECODE"] = "1"
    values["PYTHONUNBUFFERED"] = "1"
    values["MMEKIT_LOG_FORMAT"] = config.log_format
    return values


def _access_log(config: Config, models: Mapping[str, Model]) -> AccessLog | None:
    """Its lines are of level INFO, those of pings and polls DEBUG."""
    if not config.access_log or config.log_level > logging.INFO:
        return None
    verbose = config.log_level <= logging.DEBUG
    return AccessLog(STANDARD_ERROR, models, config.log_format, verbose)


def _cors(config: Config) -> tuple[tuple[bytes, bytes], ...]:
    """Return the headers that let pages of other origins call the server."""
    values = {
        b"access-control-allow-origin": config.cors_allowed_origin,
        b"access-control-allow-methods": config.cors_allowed_methods,
        b"access-control-allow-headers": config.cors_allowed_headers,
    }
    return tuple((name, value.encode()) for name, value in values.items() if value is not None)


def _preloaded(config: Config) -> list[str]:
    """Return the modules that the template imports (MMEKIT_PRELOAD). Raises ConfigError."""
    modules: list[str] = []
    for name in (part.strip() for part in config.preload.split(",")):
        if name == "auto":
            modules += [
                runtime.partition(":")[0]
                for runtime, (_, package) in FRAMEWORKS.items()
                if importlib.util.find_spec(package)
            ]
        elif name and name != "none":
            if not all(part.isidentifier() for part in name.split(".")):
                raise ConfigError(f"MMEKIT_PRELOAD has {name!r}, which is not a module's name.")
            modules.append(name)
    return list(dict.fromkeys(modules))


def _gpus() -> int:
    """Count the GPUs this container sees, without a library of theirs."""
    if os.environ.get("NVIDIA_VISIBLE_DEVICES") in ("", "none", "void"):
        return 0
    names = os.listdir("/dev") if os.path.isdir("/dev") else []
    return sum(name.startswith("nvidia") and name[6:].isdigit() for name in names)


async def _end_tasks() -> None:
    """Loads that outlived the stop end here."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def serve(
    config: Config,
    environ: Mapping[str, str],
    received: Sequence[int] = (),
    on_listening: Callable[[], None] = lambda: None,
) -> int:
    """Run a server in this process until it is told to stop; return its exit code.

    ``received``: signals that came before there was an event loop. ``on_listening`` is called once
    connections are accepted.
    """

    async def main() -> int:
        try:
            return await Server(config, environ).run(received, on_listening)
        finally:
            await _end_tasks()

    loop = uvloop.new_event_loop()
    try:
        return loop.run_until_complete(main())
    finally:
        loop.close()
