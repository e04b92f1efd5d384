"""Brings models into workers and takes them out: admission to memory, copies, moves.

Order of a load: the worker, its turn, admission, the handler in the worker, the measured cost into
the ledger.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Coroutine
from typing import Any

import msgspec

from mmekit import process
from mmekit.config import Config
from mmekit.errors import (
    MmekitError,
    ModelLoadError,
    NotStarted,
    OutOfResources,
    ServiceUnavailable,
    WorkerDied,
)
from mmekit.server.choosing import WorkerChooser
from mmekit.server.clones import Clones
from mmekit.server.dispatcher import AnsweredError, Dispatcher
from mmekit.server.estimates import Estimate, Estimator
from mmekit.server.fleet import Fleet
from mmekit.server.memory import Grant, GrantState, Memory, call_data_bytes, load_data_bytes
from mmekit.server.model import MEMORY_S, Model, State
from mmekit.server.placement import Kind
from mmekit.server.workers import Worker
from mmekit.worker.messages import Loaded, LoadFailed, Message, Unload

_log = logging.getLogger(__name__)

#: An unload is quick; a worker that needs longer than a running call may take is ended.
_UNLOAD_TIMEOUT_S = 350.0

#: A load that waits behind others is taken elsewhere when they end its worker, so often.
_TRIES = 3


class DiedWhileLoading(ModelLoadError):
    """Raised when a model's load ends the process it runs in."""


class Residency:
    """Knows which worker holds which model; the only one who loads and unloads in workers."""

    def __init__(
        self,
        config: Config,
        fleet: Fleet,
        dispatcher: Dispatcher,
        memory: Memory,
        estimator: Estimator,
        chooser: WorkerChooser,
    ) -> None:
        self.config = config
        self.fleet = fleet
        self.dispatcher = dispatcher
        self.memory = memory
        self.estimator = estimator
        self.chooser = chooser
        self.clones = Clones(config, fleet, chooser)
        #: Loads into one shared worker come one by one: each is admitted when it is its turn.
        self._turns: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._grants: dict[tuple[str, int], Grant] = {}
        self._settled = asyncio.Event()
        self._moving: list[Model] = []
        self._background: set[asyncio.Task[None]] = set()
        fleet.on_exit = self.on_exit
        fleet.on_idle = dispatcher.next

    # --- loads -------------------------------------------------------------------------------

    async def bring(self, model: Model) -> None:
        """Load a model into one more worker.

        Raises ModelLoadError and its like when its code or files fail, OutOfResources when
        something is short that other models hold.
        """
        started_at = time.monotonic()
        for _ in range(_TRIES - 1):
            try:
                worker = await self._bring(model)
                break
            except NotStarted as error:
                _log.info("%s is loaded elsewhere: %s", model.name, error, extra={"model": model.name})
        else:
            worker = await self._bring(model)
        self.dispatcher.statistics.load_seconds.observe(time.monotonic() - started_at)
        model.resident(worker)
        self.dispatcher.next(worker)
        self.trim(model)  # fewer may be asked for than when this began

    async def _bring(self, model: Model) -> Worker:
        """Load a model into a worker. Raises NotStarted when that ended for a reason of its own."""
        if self.clones.wanted(model) and (clone := await self._clone(model)):
            return clone
        worker = await self.chooser.worker_for(model)
        model.coming.add(worker)
        self.chooser.loading[worker.number] += 1
        try:
            async with self._turns[worker.number]:
                await self._load(model, worker)
        except BaseException:
            if worker.kind is Kind.OWN and not worker.models and self.chooser.loading[worker.number] <= 1:
                worker.end(WorkerDied("The load in this worker failed."))
                await asyncio.wait([worker.exited], timeout=1.0)  # a failed load leaves no trace
            raise
        finally:
            model.coming.discard(worker)
            if worker.number in self.chooser.loading:
                self.chooser.loading[worker.number] -= 1
        self._check_alive(model, worker)
        return worker

    def _check_alive(self, model: Model, worker: Worker) -> None:
        """Raises NotStarted when the worker ended as soon as it held the model."""
        if not worker.alive:
            self._release(model.name, worker)
            raise NotStarted("Worker died after this load.")

    async def _clone(self, model: Model) -> Worker | None:
        """Fork a worker from one that holds the model. None: it must be loaded."""
        grant = await self._admit(model, self.clones.estimate(model))
        worker = None
        try:
            if (worker := await self.clones.make(model)) is None:
                return None
            self.memory.settle(grant, await asyncio.to_thread(process.private_bytes, worker.pid))
        except asyncio.CancelledError:
            if worker is not None:
                worker.end(WorkerDied("Nobody waits for this copy any more."))
            raise
        finally:
            if grant.state is GrantState.HELD:
                self.memory.release(grant)
            self._settled.set()
        self._grants[model.name, worker.number] = grant
        self._check_alive(model, worker)
        return worker

    async def _load(self, model: Model, worker: Worker) -> None:
        assert model.subject is not None
        estimate = self.estimator.estimate(model.subject)
        grant = await self._admit(model, estimate)
        try:
            reply = await self._ask(model, worker, grant)
            if isinstance(reply, LoadFailed) and reply.out_of_grant:
                reply = await self._once_more(model, worker, grant, reply)
            if isinstance(reply, LoadFailed):
                raise AnsweredError(reply.failure)
        except BaseException as error:
            self.memory.release(grant)
            is_507 = isinstance(error, MmekitError) and error.status == OutOfResources.status
            if is_507 and not self._others_loaded(model):
                raise ModelLoadError(str(error)) from None  # as in _admit
            raise
        finally:
            self._settled.set()
        assert isinstance(reply, Loaded)
        self.memory.settle(grant, reply.cost_bytes)
        self._grants[model.name, worker.number] = grant
        self.estimator.loaded(model.subject, reply.peak_bytes, reply.load_ms)
        worker.last_load_at = time.monotonic()
        model.loaded(reply.batches, reply.cost_bytes, reply.load_ms)

    async def _ask(self, model: Model, worker: Worker, grant: Grant) -> Message:
        assert model.load is not None
        assert model.subject is not None
        is_alone = worker.kind is Kind.OWN and model.needs.own_code
        message = msgspec.structs.replace(model.load, gpu_id=worker.gpu_id, chdir=is_alone)
        if worker.kind is not Kind.DEVICE:  # CUDA reserves address space
            at = self.memory.statement()
            bound = grant.granted_bytes
            if _is_peoples_code(model):
                # What it imports and which threads it starts, nobody knows; a library that is
                # refused memory while it is imported ends its process, or is broken for a second try.
                bound += at.free_bytes
            message = msgspec.structs.replace(
                message,
                grant_bytes=load_data_bytes(bound, model.subject.data_bytes),
                standing_bytes=call_data_bytes(at),
            )
        try:
            return await worker.call(message, self.config.load_timeout_s)
        except NotStarted:
            raise
        except WorkerDied as error:
            if self.fleet.closed:
                raise ServiceUnavailable("The server is stopping and loads no more models.", None) from None
            if worker.retiring:
                raise NotStarted(f"Worker died while it loaded this: {error.message}") from None
            raise DiedWhileLoading(
                f"Failed to start workers: {model.name} ended its worker while it was loaded. {error.message}"
            ) from None

    async def _once_more(self, model: Model, worker: Worker, grant: Grant, failed: LoadFailed) -> Message:
        """The load hit its grant: when memory is free, try once with all of it."""
        assert model.subject is not None
        self.estimator.ran_out(model.subject, failed.peak_bytes)
        if _is_peoples_code(model):
            return failed  # it had all that is free
        try:
            self.memory.enlarge(grant)
        except OutOfResources as error:
            raise OutOfResources(f"{failed.failure.message} {error.message}") from None
        return await self._ask(model, worker, grant)

    async def _admit(self, model: Model, estimate: Estimate) -> Grant:
        """Reserve memory: idle copies and the spare go first, loads in progress are waited for.

        What other models of its kind needed is no proof: when only that does not fit, the load gets
        what is free, and the kernel holds it to that.
        """
        while True:
            try:
                return self.memory.admit(model.name, estimate.memory_bytes, estimate.origin)
            except OutOfResources as error:
                if self.free_idle():
                    await asyncio.sleep(0.01)  # a retiring process needs a moment to give its memory back
                elif self.memory.statement().loads and self.memory.fits_after_loads(estimate.memory_bytes):
                    self._settled.clear()
                    await self._settled.wait()
                elif (free_bytes := self.memory.statement().free_bytes) >= estimate.least_bytes:
                    return self.memory.admit(model.name, free_bytes, "all that is free")
                elif not self._others_loaded(model):
                    raise ModelLoadError(error.message) from None  # 507 would ask to unload what is not there
                else:
                    raise

    def _others_loaded(self, model: Model) -> bool:
        return any(other is not model for other in self.dispatcher.models.values())

    def free_idle(self) -> bool:
        """Drop one idle copy, or the spare. Returns whether there was something to drop."""
        for model in self.dispatcher.models.values():
            if model.state is State.READY and len(model.workers) > model.min_copies:
                idle = [worker for worker in model.workers if worker.idle]
                if idle:
                    self.drop_copy(model, idle[0], "memory")
                    return True
        return self.fleet.release_spare() > 0

    # --- unloads -------------------------------------------------------------------------------

    async def remove(self, model: Model) -> None:
        """Take a model out of all its workers; returns when their memory is given back."""
        # A load that a worker has begun cannot be called back: it is waited for and taken out again.
        if tasks := [*model.loads(), *model.leaving.values()]:
            await asyncio.wait(tasks)
        if model.window:
            model.window.cancel()
        for worker in list(model.workers):
            model.forget(worker)
            await self._take_out(model.name, worker)

    async def _take_out(self, name: str, worker: Worker) -> None:
        """Free a model's memory in a worker that no longer serves it; a call that runs there ends first."""
        try:
            if worker.job or worker.kind is not Kind.OWN or not self._is_empty(worker):
                await worker.call(Unload(name), _UNLOAD_TIMEOUT_S)
            if worker.kind is Kind.OWN and self._is_empty(worker):
                await self._end_process(worker)
                return
        except MmekitError:
            return  # it ended: its memory is free
        finally:
            self._release(name, worker)
        if self._is_empty(worker) and worker.idle and self._is_surplus(worker):
            worker.retire()

    def _is_empty(self, worker: Worker) -> bool:
        return not worker.models and not self.chooser.is_loading(worker)

    def _is_surplus(self, worker: Worker) -> bool:
        return worker.kind is Kind.SHARED and len(self.fleet.of_kind(Kind.SHARED)) > self.chooser.target

    async def _end_process(self, worker: Worker) -> None:
        worker.retire()
        try:
            await asyncio.wait_for(asyncio.shield(worker.exited), 1.0)
        except asyncio.TimeoutError:
            worker.end(WorkerDied("Its model was unloaded."))
            await worker.exited

    async def end_calls(self, model: Model, error: MmekitError) -> None:
        """Answer all requests of a model with an error, and end its loads and the workers busy with it."""
        self.dispatcher.fail_waiting(model, error)
        busy = [
            worker for worker in self.fleet.workers.values() if worker.job and worker.job.model == model.name
        ]
        for worker in busy:
            worker.end(error)
        for task in model.loads():
            task.cancel()  # at once: what waits for its turn must not begin now
        if busy:
            await asyncio.wait([worker.exited for worker in busy])

    # --- copies, moves --------------------------------------------------------------------------

    def drop_copy(self, model: Model, worker: Worker, reason: str) -> None:
        """Take a copy out that is no longer needed, in the background; ``reason`` is for statistics."""
        self.dispatcher.statistics.copies_dropped[reason] += 1
        model.forget(worker)
        task = self.in_background(self._take_out(model.name, worker))
        model.leaving[worker] = task
        task.add_done_callback(lambda _: model.left(worker, task))

    def trim(self, model: Model) -> None:
        """Take copies out that are too many: idle ones first, the others after their call."""
        surplus = max(0, len(model.workers) - model.copies_allowed)
        newest_first = reversed(model.workers)
        for worker in sorted(newest_first, key=lambda worker: not worker.idle)[:surplus]:
            self.drop_copy(model, worker, "scaled")

    def move_neighbours(self, worker: Worker, slow: Model) -> bool:
        """A call of ``slow`` stalls its worker: the other models leave it for the spare.

        Those with waiting requests are loaded there now, the others when they are next called.
        Returns False when no spare is ready or memory is short: then they wait.
        """
        waiting = self.dispatcher.waiting_behind(worker)
        if self.memory.shortfall(sum(model.cost_bytes for model in waiting)):
            return False
        if self.fleet.take_spare(Kind.SHARED) is None:
            return False
        for name in list(worker.models):
            model = self.dispatcher.models.get(name)
            if model is None or model is slow:
                continue
            model.forget(worker)
            self.in_background(self._take_out(name, worker))
        worker.kind = Kind.OWN
        for model in waiting:
            self.dispatcher.reload(model)
        self._moving = waiting
        return True

    @property
    def moving(self) -> bool:
        """Whether models that left a stalled worker are still being loaded elsewhere."""
        return any(model.reload and not model.reload.done() for model in self._moving)

    def put_back(self, worker: Worker) -> None:
        """A worker that a slow model had for itself joins the shared ones again."""
        worker.kind = Kind.SHARED

    def may_dissolve(self, worker: Worker) -> bool:
        """Whether no load runs there and no model counts on this worker for its copies."""
        models = [self.dispatcher.models[name] for name in worker.models if name in self.dispatcher.models]
        return not self.chooser.is_loading(worker) and all(
            model.min_copies == 1 or len(model.workers) > model.min_copies for model in models
        )

    def dissolve(self, worker: Worker) -> None:
        """End a shared worker that is one too many; its models come back when they are called."""
        for name in list(worker.models):
            if model := self.dispatcher.models.get(name):
                model.forget(worker)
            self._release(name, worker)
        worker.retire()

    def _release(self, name: str, worker: Worker) -> None:
        if grant := self._grants.pop((name, worker.number), None):
            if heir := self._heir(name, worker):
                self.memory.pass_on(grant, heir)
            self.memory.release(grant)

    def _heir(self, name: str, worker: Worker) -> Grant | None:
        """Return the grant of another copy that shares memory with this worker's."""
        model = self.dispatcher.models.get(name)
        others = model.workers if model else []
        same = (other for other in others if other.family == worker.family and other is not worker)
        return next((grant for other in same if (grant := self._grants.get((name, other.number)))), None)

    def on_exit(self, worker: Worker, reason: MmekitError) -> None:
        """A worker has ended: its models lost a home; those with requests get another at once."""
        self._turns.pop(worker.number, None)
        self.chooser.loading.pop(worker.number, None)
        if worker.models and not self.fleet.closed:
            _log.warning("Worker %d (process %d) has ended: %s", worker.number, worker.pid, reason.message)
        if worker.kind is Kind.SHARED and worker.models:
            self.fleet.take_spare(Kind.SHARED)
        lost = [self.dispatcher.models[name] for name in worker.models if name in self.dispatcher.models]
        for model in lost:
            model.forget(worker)
            self._release(model.name, worker)
            if not worker.retiring:
                model.lost(time.monotonic())
        if len(lost) == 1 and worker.ended_itself and not self.fleet.closed:
            self.dispatcher.offence(lost[0], reason)
        for model in lost:
            if not model.workers and model.queue:
                self.dispatcher.reload(model)

    def earn_own_worker(self, model: Model) -> None:
        """Keep a model that misbehaves away from others for a while."""
        model.own_until = time.monotonic() + MEMORY_S

    def in_background(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task


def _is_peoples_code(model: Model) -> bool:
    """Whether anything but a built-in handler runs in this load."""
    return model.load is not None and bool(model.load.handler or model.load.program)
