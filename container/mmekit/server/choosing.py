"""Which worker a model is loaded into: an own one, a shared one, a device's; started where there is none."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

from mmekit.config import Config
from mmekit.errors import ModelLoadError, OutOfResources
from mmekit.server.capacity import descriptor_headroom, pids_headroom
from mmekit.server.dispatcher import Dispatcher
from mmekit.server.estimates import Estimator
from mmekit.server.fleet import Fleet
from mmekit.server.model import Model
from mmekit.server.placement import Candidate, Kind, Rule, pick_shared
from mmekit.server.workers import Worker

#: Processes and descriptors that a further worker must leave free.
_PROCESS_ROOM = 16
_DESCRIPTOR_ROOM = 64

#: Residents called within this time make a worker busy for slow loads.
_BUSY_S = 1.0


class WorkerChooser:
    """Finds the worker for a load, by the rules of ``placement``."""

    def __init__(
        self,
        config: Config,
        fleet: Fleet,
        dispatcher: Dispatcher,
        estimator: Estimator,
        rule: Rule,
        target: int,
    ) -> None:
        self.config = config
        self.fleet = fleet
        self.dispatcher = dispatcher
        self.estimator = estimator
        self.rule = rule
        #: How many shared workers there should be.
        self.target = target
        #: Loads that run in a worker or wait for it, by its number.
        self.loading: Counter[int] = Counter()
        #: A further shared worker is started for one load at a time; the others then find it.
        self._widening = asyncio.Lock()
        self._starting_device: dict[int, asyncio.Task[Worker]] = {}

    def _kind(self, model: Model) -> Kind:
        kind = self.rule.kind_for(model.needs)
        if kind is Kind.SHARED and model.own_until > time.monotonic() and self.rule.sharing == "auto":
            return Kind.OWN
        return kind

    async def worker_for(self, model: Model) -> Worker:
        """Return the worker that a model is to be loaded into; it may have to be started.

        Raises OutOfResources when processes, descriptors or memory are short.
        """
        kind = self._kind(model)
        if kind is Kind.DEVICE:
            return await self._device_worker(model)
        if kind is Kind.OWN:
            return await self._own_worker(model)
        return await self._shared_worker(model)

    async def _own_worker(self, model: Model) -> Worker:
        self.check_own_room()
        if model.shadows:
            await self.fleet.template.ready.wait()
        if model.shadows & self.fleet.template.imported:
            return await self.fleet.start_fresh(Kind.OWN)
        return await self.fleet.take(Kind.OWN)

    def check_own_room(self) -> None:
        """Raises OutOfResources when processes, descriptors or the setting allow no further worker."""
        own = self.fleet.count(Kind.OWN)
        cap = self.config.max_own_workers
        if cap == 0:
            raise ModelLoadError(
                "The model needs a worker of its own and none is allowed: MMEKIT_MAX_OWN_WORKERS=0."
            )
        if cap is not None and own >= cap:
            raise OutOfResources(
                f"{own} models have a worker of their own and no more are allowed "
                f"(MMEKIT_MAX_OWN_WORKERS={cap}). Unload one of them."
            )
        self._check_process_room()

    def _check_process_room(self) -> None:
        """Raises OutOfResources when the kernel's limits leave no room for a further worker."""
        processes, descriptors = pids_headroom(), descriptor_headroom()
        if (processes is not None and processes < _PROCESS_ROOM) or descriptors < _DESCRIPTOR_ROOM:
            raise OutOfResources(
                f"There are {len(self.fleet.workers)} workers; {processes} more processes and {descriptors} "
                f"more descriptors are allowed, and some must stay free. Unload models that have a worker of "
                f"their own."
            )

    async def _shared_worker(self, model: Model) -> Worker:
        """Return the worker for a small model; waits while the first ones are forked."""
        worker = self._pick_shared(model)
        if worker is None:
            async with self._widening:
                worker = self._pick_shared(model)
                if worker is None:
                    self._check_process_room()
                    worker = await self.fleet.take(Kind.SHARED)
        return worker

    def _pick_shared(self, model: Model) -> Worker | None:
        """Return the shared worker to load into; None means one more."""
        assert model.subject is not None
        estimate = self.estimator.estimate(model.subject)
        pool = self.fleet.of_kind(Kind.SHARED)
        candidates = [self._candidate(worker) for worker in pool if not model.is_bound_to(worker)]
        number = pick_shared(candidates, len(pool), self.target, estimate.load_ms)
        return next((worker for worker in pool if worker.number == number), None)

    def is_loading(self, worker: Worker) -> bool:
        """Whether loads run in a worker or wait for it."""
        return self.loading[worker.number] > 0

    def _candidate(self, worker: Worker) -> Candidate:
        queued = sum(
            len(self.dispatcher.models[n].queue) for n in worker.models if n in self.dispatcher.models
        )
        running = worker.job is not None
        busy = running or queued > 0 or time.monotonic() - worker.last_call_at < _BUSY_S
        waiting = queued + running + self.loading[worker.number]
        return Candidate(worker.number, len(worker.models), waiting, busy and bool(worker.models))

    async def _device_worker(self, model: Model) -> Worker:
        """Return the worker of the device with the fewest models; started on first need."""
        while True:
            by_gpu = {worker.gpu_id: worker for worker in self.fleet.of_kind(Kind.DEVICE)}
            missing = next((gpu for gpu in range(self.rule.gpus) if gpu not in by_gpu), None)
            if missing is not None:
                worker = await self._start_device(missing)
                if not model.is_bound_to(worker):
                    return worker
            elif free := [worker for worker in by_gpu.values() if not model.is_bound_to(worker)]:
                return min(free, key=lambda worker: len(worker.models))
            else:
                raise ModelLoadError(
                    f"Failed to start workers: all {self.rule.gpus} GPUs have model {model.name} already, "
                    f"and each has one worker."
                )

    async def _start_device(self, gpu: int) -> Worker:
        """Start a device's worker once, however many loads ask for it."""
        task = self._starting_device.get(gpu)
        if task is None:
            task = asyncio.get_running_loop().create_task(self.fleet.start_fresh(Kind.DEVICE, gpu))
            self._starting_device[gpu] = task
            task.add_done_callback(lambda _: self._starting_device.pop(gpu, None))
        return await asyncio.shield(task)
