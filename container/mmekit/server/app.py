"""The composition root of ``mmekit serve``: bind → start → serve → drain → stop."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import signal
from collections.abc import Mapping, Sequence

import uvloop

from mmekit import process
from mmekit.choice import ImageCode
from mmekit.config import Config, setting_of
from mmekit.errors import ConfigError, MmekitError
from mmekit.formats import FRAMEWORKS
from mmekit.http.limits import BodyBudget, Limits
from mmekit.http.server import HttpServer
from mmekit.logs import OutputCollector
from mmekit.server.capacity import CpuThrottle, cpus_available
from mmekit.server.choosing import WorkerChooser
from mmekit.server.dispatcher import Dispatcher
from mmekit.server.estimates import Estimator
from mmekit.server.fleet import Fleet
from mmekit.server.memory import Memory, Watchdog, check_reserve
from mmekit.server.model import Model, Registration
from mmekit.server.placement import Rule
from mmekit.server.registry import Registry
from mmekit.server.residency import Residency
from mmekit.server.routes import SINGLE_MODEL, Routes
from mmekit.server.usage import find_memory
from mmekit.server.watch import Watch

_log = logging.getLogger(__name__)

#: How long workers may take to leave once all requests are answered.
_CLOSE_TIMEOUT_S = 2.0


class Server:
    """One server: built from a Config, run once."""

    def __init__(self, config: Config, environ: Mapping[str, str]) -> None:
        self.config = config
        cpus = cpus_available()
        gpus = _gpus() if config.number_of_gpu is None else config.number_of_gpu
        source = find_memory(config.memory_limit_bytes, setting_of("memory_limit_bytes").names[0])
        reserve = check_reserve(config.memory_reserve_bytes, source.limit_bytes)
        models: dict[str, Model] = {}
        self.collector = OutputCollector()
        self.fleet = Fleet(_preloaded(config), _worker_environ(config, environ), self.collector, source)
        source.watch(os.getpid())
        self.dispatcher = Dispatcher(models)
        memory = Memory(source, reserve)
        rule = Rule(config.sharing, config.large_model_bytes, gpus)
        estimator = Estimator()
        chooser = WorkerChooser(config, self.fleet, self.dispatcher, estimator, rule, config.workers or cpus)
        self.residency = Residency(config, self.fleet, self.dispatcher, memory, estimator, chooser)
        image = ImageCode(config.handler, config.program, config.code_dir)
        self.registry = Registry(config, models, self.dispatcher, self.residency, image)
        throttle = CpuThrottle.find()
        self.watch = Watch(
            config,
            self.fleet,
            self.dispatcher,
            self.residency,
            memory,
            Watchdog(source, reserve),
            throttle,
            cpus,
        )
        limits = Limits(
            max_body_bytes=config.max_body_bytes,
            max_body_setting=config.max_body_setting,
            max_connections=config.max_connections,
        )
        self.http = HttpServer(
            Routes(self.registry, self.dispatcher, self.is_ready),
            limits,
            BodyBudget(config.body_budget_bytes),
        )
        self._stop = asyncio.Event()
        self._impatient = asyncio.Event()
        self._single_ready = config.multi_model

    def is_ready(self) -> bool:
        """What ``/ping`` answers: a worker can be had, and in single-model mode the model is loaded."""
        return self.fleet.ready and self._single_ready and not self._stop.is_set()

    async def run(self, received: Sequence[int]) -> int:
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
        await self.http.start(self.config.host, self.config.port)
        for address in self.http.addresses:
            _log.info(
                "Listening on %s.", address if isinstance(address, str) else f"{address[0]}:{address[1]}"
            )
        self.fleet.start()
        self.watch.start()
        code = 0
        if not self.config.multi_model:
            code = await self._load_single()
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
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self.fleet.reaped(pid, status)

    async def _load_single(self) -> int:
        """Load the model of single-model mode; without it there is nothing to serve."""
        load = asyncio.ensure_future(
            self.registry.load(Registration(name=SINGLE_MODEL, url=str(self.config.model_dir)))
        )
        stop = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait([load, stop], return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if not load.done():
            load.cancel()
            return 0
        try:
            load.result()
        except MmekitError as error:
            _log.critical("The model in %s cannot be loaded: %s", self.config.model_dir, error.message)
            return 1
        self._single_ready = True
        return 0

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
        self.http.abort()
        await self.fleet.close(0.0 if self._impatient.is_set() else _CLOSE_TIMEOUT_S)


def _worker_environ(config: Config, environ: Mapping[str, str]) -> dict[str, str]:
    """What template and workers see: the server's environment, one thread, no byte code written."""
    values = dict(environ)
    values["MMEKIT_WORKER_THREADS"] = str(config.threads)
    for name in process.THREAD_VARIABLES:
        values[name] = "1"
    values["PYTHONDONTWRITEBYTECODE"] = "1"
    values["PYTHONUNBUFFERED"] = "1"
    return values


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


def serve(config: Config, environ: Mapping[str, str], received: Sequence[int] = ()) -> int:
    """Run a server in this process until it is told to stop; return its exit code.

    ``received``: signals that came before there was an event loop.
    """

    async def main() -> int:
        try:
            return await Server(config, environ).run(received)
        finally:
            await _end_tasks()

    loop = uvloop.new_event_loop()
    try:
        return loop.run_until_complete(main())
    finally:
        loop.close()
