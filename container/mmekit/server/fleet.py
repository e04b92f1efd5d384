"""All workers: the spare that is kept ready, who shares and who does not, what ended which."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import signal
import socket
import sys
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping

from mmekit.errors import MmekitError, OutOfResources, ServiceUnavailable, WorkerDied
from mmekit.server.placement import Kind
from mmekit.server.statistics import Statistics
from mmekit.server.template import MemoryReadings, OutputCollector, Template, UnsafeFork, spawn
from mmekit.server.workers import Worker

_log = logging.getLogger(__name__)

#: A worker that cannot take calls by then is given up.
_START_TIMEOUT_S = 120.0

_KILLED_FOR_MEMORY = (
    "Worker died. The kernel killed its process because the container had no memory left. "
    "Unload other models."
)


class Fleet:
    """Every worker of the server; keeps one spare forked and ready."""

    def __init__(
        self,
        modules: list[str],
        environ: Mapping[str, str],
        collector: OutputCollector,
        readings: MemoryReadings,
        statistics: Statistics,
    ) -> None:
        self.statistics = statistics
        self.environ = environ
        self.readings = readings
        self.collector = collector
        self.template = Template(modules, environ, collector, readings, self._template_restarted)
        self.workers: dict[int, Worker] = {}
        self.spare: Worker | None = None
        #: Set by the composition root.
        self.on_idle: Callable[[Worker], None] = lambda worker: None
        self.on_exit: Callable[[Worker, MmekitError], None] = lambda worker, reason: None
        self._numbers = itertools.count(1)
        #: Workers that are not in ``workers`` yet, because their process is being made.
        self._coming: Counter[Kind] = Counter()
        #: Ends of children that no worker is known for: the template's, orphans', and very early ones.
        self._unclaimed: deque[tuple[int, int]] = deque(maxlen=256)
        self._oom_kills = readings.oom_kills()
        self._refilling: asyncio.Task[None] | None = None
        self._wants_spare = True
        self._came_up = False
        #: The server is stopping.
        self.closed = False

    # --- start and stop ---------------------------------------------------------------------

    def start(self) -> None:
        self.template.start()
        self._refill()

    @property
    def ready(self) -> bool:
        """Whether a worker can be had: the template is warm, and a worker has come up before."""
        has_worker = any(worker.alive for worker in self.workers.values())
        return self._came_up and (self.template.ready.is_set() or has_worker)

    async def close(self, timeout_s: float) -> None:
        """End all workers: those between calls leave by themselves, the rest is killed in the end."""
        self.closed = True
        if self._refilling:
            self._refilling.cancel()
        self.template.close()
        workers = list(self.workers.values())
        for worker in workers:
            worker.retire()
        if workers:
            await asyncio.wait([worker.exited for worker in workers], timeout=timeout_s)
        for worker in workers:
            if not worker.exited.done():
                worker.end(WorkerDied("The server is stopping."))
        await asyncio.gather(*(asyncio.wait([w.exited], timeout=1) for w in workers))

    def reaped(self, pid: int, wait_status: int) -> None:
        """A child has ended: tell the worker that it was (from the reaper)."""
        for worker in self.workers.values():
            if worker.pid == pid:
                if not worker.retiring and self._killed_for_memory(wait_status):
                    worker.end(OutOfResources(_KILLED_FOR_MEMORY))
                worker.reaped(wait_status)
                return
        self._unclaimed.append((pid, wait_status))

    def _started(self, worker: Worker) -> None:
        """A worker has said its pid; it may have ended, and been reaped, before that was read."""
        for pid, wait_status in list(self._unclaimed):
            if pid == worker.pid:
                self._unclaimed.remove((pid, wait_status))
                self.reaped(pid, wait_status)

    def _killed_for_memory(self, wait_status: int) -> bool:
        """Whether the kernel's own count explains this end; each kill explains one."""
        if not os.WIFSIGNALED(wait_status) or os.WTERMSIG(wait_status) != signal.SIGKILL:
            return False
        if self.readings.oom_kills() <= self._oom_kills:
            return False
        self._oom_kills += 1
        return True

    # --- workers ------------------------------------------------------------------------------

    def count(self, kind: Kind) -> int:
        """Return how many workers of a kind there are or will be in a moment."""
        return len(self.of_kind(kind)) + self._coming[kind]

    def of_kind(self, kind: Kind) -> list[Worker]:
        return [worker for worker in self.workers.values() if worker.kind is kind and worker.alive]

    async def take(self, kind: Kind) -> Worker:
        """Return a worker for this purpose: the spare when it is ready, else one forked now.

        Raises OutOfResources when no process can be had.
        """
        self._wants_spare = True
        worker = self.take_spare(kind)
        if worker is None:
            worker = await self.fork(kind)
        return worker

    def take_spare(self, kind: Kind) -> Worker | None:
        """Return the spare for this purpose and fork another in the background; None if not ready."""
        spare, self.spare = self.spare, None
        if spare is not None:
            spare.kind = kind
        self._refill()
        return spare

    def want_spare(self) -> None:
        """Fork a spare again, after memory was short or a fork failed."""
        self._wants_spare = True
        self._refill()

    def release_spare(self) -> int:
        """End the spare, because memory is short; return about how many bytes that frees."""
        spare, self.spare = self.spare, None
        self._wants_spare = False
        if spare is not None:
            spare.retire()
            self.statistics.spares_released += 1
        elif self._refilling is None or self._refilling.done():
            return 0  # one that is on its way is retired when it comes
        return 4 * 1024 * 1024

    async def fork(self, kind: Kind) -> Worker:
        """Fork a worker from the template. Raises OutOfResources, WorkerDied."""
        for attempt in range(3):
            try:
                return await self._start(kind, "fork", self.template.fork)
            except UnsafeFork as error:
                _log.error(
                    "%s: forking it would not be safe, so this worker is a fresh process, slower to start "
                    "and larger. Leave the module that starts a thread at its import out of MMEKIT_PRELOAD.",
                    error,
                )
                return await self.start_fresh(kind)
            except WorkerDied as error:
                if attempt == 2 or self.closed:
                    raise
                _log.warning("A worker could not be forked (%s); trying again.", error)
        raise AssertionError("unreachable")

    async def start_fresh(self, kind: Kind, gpu_id: int | None = None) -> Worker:
        """Start a worker that shares nothing with the template: for a GPU, or for shadowing code."""
        worker = await self._start(kind, "fresh", self._exec)
        worker.gpu_id = gpu_id
        return worker

    async def clone(self, source: Worker, model: str, timeout_s: float) -> Worker:
        """Fork a worker from one that holds a model, and nothing else; it holds the model too.

        Raises CannotClone when that one refuses or is busy for long; OutOfResources, WorkerDied.
        """

        async def fork(number: int, channel: socket.socket, log_write: int) -> None:
            await source.clone(model, number, channel, log_write, timeout_s)

        worker = await self._start(Kind.OWN, "clone", fork)
        worker.family, worker.baseline_bytes = source.family, source.baseline_bytes
        return worker

    async def _start(
        self, kind: Kind, start: str, make: Callable[[int, socket.socket, int], Awaitable[int | None]]
    ) -> Worker:
        """Start a worker; ``make`` makes the process with its number, its channel and its log pipe.

        It returns the process id, or None when the worker will say it. ``start`` names it for statistics.
        """
        if self.closed:
            raise ServiceUnavailable("The server is stopping.", None)
        number = next(self._numbers)
        try:
            ours, theirs = socket.socketpair()
            log_read, log_write = os.pipe()
        except OSError as error:
            raise OutOfResources(f"No further worker can be connected: {error.strerror}.") from None
        worker = Worker(number, kind, self._started, self._idle, self._exited)
        self._coming[kind] += 1
        with ours, theirs:
            try:
                worker.pid = await make(number, theirs, log_write) or 0
            except BaseException:
                os.close(log_read)
                raise
            finally:
                os.close(log_write)
                self._coming[kind] -= 1
            self.workers[number] = worker
            self.collector.add(log_read, number)
            try:
                await asyncio.get_running_loop().create_unix_connection(lambda: worker, sock=ours.dup())
            except BaseException as error:
                self.workers.pop(number)  # it finds its channel closed and leaves
                if isinstance(error, OSError):
                    raise OutOfResources(f"No further worker can be connected: {error.strerror}.") from None
                raise
        try:
            await asyncio.wait_for(asyncio.shield(worker.started), _START_TIMEOUT_S)
        except asyncio.TimeoutError:
            worker.end(WorkerDied("The worker did not come up in time."))
            raise WorkerDied(f"A new worker did not answer within {_START_TIMEOUT_S:.0f} s.") from None
        except asyncio.CancelledError:
            worker.end(WorkerDied("Nobody waits for this worker any more."))
            raise
        if not worker.alive:
            raise WorkerDied("A new worker ended as soon as it had come up.")
        self._came_up = True
        self.statistics.worker_starts[start] += 1
        worker.shared_bytes = 0 if start == "fresh" else worker.baseline_bytes
        self.readings.watch(worker.pid, worker.shared_bytes)
        return worker

    async def _exec(self, _number: int, channel: socket.socket, log_write: int) -> int:
        command = [sys.executable, "-m", "mmekit.worker.main", str(channel.fileno()), str(log_write)]
        try:
            return spawn(command, self.environ, (channel.fileno(), log_write), log_write)
        except OSError as error:
            raise OutOfResources(f"No further worker process can be started: {error.strerror}.") from None

    def _idle(self, worker: Worker) -> None:
        self.on_idle(worker)

    def _exited(self, worker: Worker, reason: MmekitError) -> None:
        self.readings.forget(worker.pid)
        self.statistics.worker_ended(reason, worker.retiring)
        self.workers.pop(worker.number, None)
        self._pass_on(worker)
        if worker is self.spare:
            self.spare = None
            self._wants_spare = False  # what ended this one may end the next: the clock asks again
        self.on_exit(worker, reason)

    def _pass_on(self, worker: Worker) -> None:
        """What its clones share with a worker that has ended counts with one of them from now on."""
        heir = next((other for other in self.workers.values() if other.family == worker.family), None)
        if heir and heir.shared_bytes > worker.shared_bytes:
            heir.shared_bytes = worker.shared_bytes
            self.readings.watch(heir.pid, heir.shared_bytes)

    def _template_restarted(self) -> None:
        self.statistics.template_restarts += 1
        self._refill()

    def _refill(self) -> None:
        if self.closed or self.spare or not self._wants_spare:
            return
        if self._refilling and not self._refilling.done():
            return
        self._refilling = asyncio.get_running_loop().create_task(self._fork_spare())

    async def _fork_spare(self) -> None:
        try:
            spare = await self.fork(Kind.SPARE)
        except MmekitError as error:
            _log.warning("No spare worker: %s", error)
            self._wants_spare = False
            return
        if self._wants_spare:
            self.spare = spare
        else:  # memory became short meanwhile
            spare.retire()
