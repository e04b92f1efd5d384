"""What happens by the clock: memory, deadlines, stalls, copies, the size of the pool.

One timer for everything: a tick costs a few µs when nothing is wrong.
"""

from __future__ import annotations

import asyncio
import logging
import time
from bisect import bisect_right
from collections import deque

from mmekit import process
from mmekit.config import Config
from mmekit.errors import OutOfResources
from mmekit.server.capacity import CpuThrottle
from mmekit.server.copies import Copies
from mmekit.server.dispatcher import Dispatcher
from mmekit.server.fleet import Fleet
from mmekit.server.memory import Memory, Watchdog
from mmekit.server.model import Model, State
from mmekit.server.placement import Demand, Kind, copies_wanted
from mmekit.server.residency import Residency
from mmekit.server.workers import Worker
from mmekit.worker.messages import Load

_log = logging.getLogger(__name__)

#: 10–20 ms hold even against a runaway allocator; 100 ms do not (hotpath study, section 7).
TICK_S = 0.01
_DEADLINES_EVERY = 5
_POOL_EVERY = 25
_THROTTLE_HISTORY = 6_000

#: A worker that does not load is only ended for memory when it is this far above its models' costs.
_EXCESS_BYTES = 32 * 1024 * 1024

#: Room for a spare worker and what a first model may need, so that it is not taken for a load at once.
_SPARE_BYTES = 32 * 1024 * 1024

#: A shared worker beyond the target is dissolved when none of its models was called or loaded for this long.
_POOL_IDLE_S = 60.0


class Watch:
    """Calls the rest of the server when time has come for something."""

    def __init__(
        self,
        config: Config,
        fleet: Fleet,
        dispatcher: Dispatcher,
        residency: Residency,
        copies: Copies,
        memory: Memory,
        watchdog: Watchdog,
        throttle: CpuThrottle,
        cpus: int,
    ) -> None:
        self.config = config
        self.fleet = fleet
        self.dispatcher = dispatcher
        self.residency = residency
        self.copies = copies
        self.memory = memory
        self.watchdog = watchdog
        self.throttle = throttle
        self.cpus = cpus
        self._ticks = 0
        #: When memory was last looked at.
        self._looked_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        #: When the cgroup had been throttled for how long; one entry a tick, for the last seconds.
        self._throttled: deque[tuple[float, int]] = deque(maxlen=_THROTTLE_HISTORY)
        self._cpu_at = (time.monotonic(), 0.0)

    def start(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def stop(self) -> None:
        if self._timer:
            self._timer.cancel()

    def _tick(self) -> None:
        try:
            self.tick(time.monotonic())
        except Exception:  # noqa: BLE001 - the clock must not stop
            _log.exception("The server's clock failed once.")
        finally:
            self.start()

    def tick(self, now: float) -> None:
        self._ticks += 1
        is_pool_tick = self._ticks % _POOL_EVERY == 0
        # Without a job nothing grows, stalls or comes due: an idle server should cost nothing.
        busy = any(worker.job for worker in self.fleet.workers.values())
        is_even_tick = self._ticks % 2 == 0
        if is_pool_tick or ((is_even_tick or self.watchdog.is_close) and (busy or self._has_run())):
            self._looked_at = now
            if self.watchdog.tick(now):
                self._save_memory()
        if is_pool_tick or (is_even_tick and busy):
            self._throttled.append((now, self.throttle.read() or 0))
        if busy:
            self._check_stalls(now)
        if self._ticks % _DEADLINES_EVERY == 0:
            self.dispatcher.check_deadlines(list(self.fleet.workers.values()), now)
        if is_pool_tick:
            self._check_copies(now)
            self._check_pool(now)

    # --- memory ------------------------------------------------------------------------------

    def _has_run(self) -> bool:
        """Whether anything ran since the last look: many short calls may all fall between two ticks."""
        looked_at = self._looked_at
        return any(
            worker.last_call_at >= looked_at or worker.last_load_at >= looked_at
            for worker in self.fleet.workers.values()
        )

    def _save_memory(self) -> None:
        """Usage is above the line: end the worker that took most of it, before the kernel takes one."""
        at = self.memory.statement()
        if at.limit_bytes - at.used_bytes > at.reserve_bytes * 3 // 4 and self.residency.free_idle():
            return  # just above the line, there is time for that
        victim = self._victim()
        if victim is None:
            return
        model = victim.job.model if victim.job else ""
        error = OutOfResources(
            f"Out of memory: {at.used_bytes >> 20} of {at.limit_bytes >> 20} MiB were used ({at.ceiling}, "
            f"reserve {at.reserve_bytes >> 20} MiB) when model {model or 'nobody'} needed more; its worker "
            f"was ended before the kernel would have ended one. Unload other models."
        )
        _log.error("%s", error, extra={"model": model})
        victim.end(error)

    def _victim(self) -> Worker | None:
        """A large load goes first, then what is furthest above its models' costs, then any load."""
        excess = {w: self._excess_bytes(w) for w in self.fleet.workers.values() if not w.retiring}
        by_excess = sorted(excess, key=lambda worker: excess[worker], reverse=True)
        loading = [w for w in by_excess if w.job and isinstance(w.job.message, Load)]
        large = [w for w in (*loading, *by_excess) if excess[w] >= _EXCESS_BYTES]
        return next(iter(large or loading), None)

    def _excess_bytes(self, worker: Worker) -> int:
        """What a worker uses beyond its start and the measured cost of its models: a load, a call, a leak."""
        costs = sum(model.cost_bytes for name in worker.models if (model := self.dispatcher.models.get(name)))
        # Memory shared with children or mapped without a file is nobody else's either.
        used = process.anonymous_bytes(worker.pid) + process.status_bytes("RssShmem", worker.pid)
        return used - worker.baseline_bytes - costs

    # --- stalls ------------------------------------------------------------------------------

    def _check_stalls(self, now: float) -> None:
        """One call that runs longer than its model usually does must not hold its neighbours."""
        for worker in self.fleet.of_kind(Kind.SHARED):
            job = worker.job
            if job is None or len(worker.models) + isinstance(job.message, Load) < 2:
                continue
            model = self.dispatcher.models.get(job.model)
            if model is None or now - job.started_at < self.config.stall_ms / 1000:
                continue
            running = now - job.started_at - self._throttled_since(worker)
            if running < max(self.config.stall_ms / 1000, 2 * model.usual_s):
                continue
            if self.dispatcher.waiting_behind(worker):
                if not self.residency.moving:  # one promotion at a time
                    self._stalled(worker, model, now)
                return

    def _stalled(self, worker: Worker, model: Model, now: float) -> None:
        if self.fleet.spare is None or not self.residency.move_neighbours(worker, model):
            return
        _log.warning(
            "Model %s holds worker %d longer than usual; its neighbours have moved.",
            model.name,
            worker.number,
            extra={"model": model.name},
        )
        self.dispatcher.statistics.stalls += 1
        if model.offended(model.stalls, now):
            self.residency.earn_own_worker(model)

    def _throttled_since(self, worker: Worker) -> float:
        """Seconds of this call in which the cgroup was not allowed to run: nobody's fault."""
        assert worker.job is not None
        index = bisect_right(self._throttled, (worker.job.started_at, 0))
        return (self._throttled[-1][1] - self._throttled[max(0, index - 1)][1]) / 1e9

    # --- copies and pool -----------------------------------------------------------------------

    def _check_copies(self, now: float) -> None:
        idle_cpus = self._idle_cpus(now)
        for model in list(self.dispatcher.models.values()):
            if model.state is not State.READY or not model.workers or model.is_copied:
                continue
            if not model.queue.drop_gone_heads():
                model.backlog_since = None  # it was answered, or its clients have left
            demand = Demand(
                copies=len(model.workers),
                min_copies=model.min_copies,
                backlog_s=now - model.backlog_since if model.backlog_since else 0.0,
                unneeded_s=now - model.copies_needed_at,
            )
            wanted = copies_wanted(demand, model.max_copies, idle_cpus)
            if wanted > demand.copies and now >= model.no_copy_until and not model.quarantine:
                self.copies.add(model)
                return  # the next look sees what this one did to the CPUs
            if wanted < demand.copies:
                self._drop_copy(model)

    def _drop_copy(self, model: Model) -> None:
        idle = [worker for worker in model.workers if worker.idle]
        if idle:
            self.residency.drop_copy(model, idle[-1], "idle")

    def _check_pool(self, now: float) -> None:
        for worker in self.fleet.of_kind(Kind.OWN):
            self._end_probation(worker, now)
        if self.fleet.spare is None and not self.memory.shortfall(_SPARE_BYTES):
            self.fleet.want_spare()
        shared = self.fleet.of_kind(Kind.SHARED)
        if len(shared) > self.residency.chooser.target:
            for worker in shared:
                used_at = max(worker.last_call_at, worker.last_load_at)
                if worker.idle and now - used_at > _POOL_IDLE_S and self.residency.may_dissolve(worker):
                    self.residency.dissolve(worker)
                    return

    def _end_probation(self, worker: Worker, now: float) -> None:
        """Models that were left alone in a worker after a stall share again when their time is over."""
        models = [self.dispatcher.models[name] for name in worker.models if name in self.dispatcher.models]
        if not models or not worker.idle or any(model.own_until >= now for model in models):
            return
        # More than one when loads waited there for the one that stalled.
        if all(self.residency.chooser.rule.kind_for(model.needs) is Kind.SHARED for model in models):
            self.residency.put_back(worker)

    def _idle_cpus(self, now: float) -> float:
        """CPUs that server and workers left unused since the last look."""
        used = process.cpu_seconds("self") + sum(
            process.cpu_seconds(worker.pid) for worker in self.fleet.workers.values() if worker.models
        )
        then, used_then = self._cpu_at
        self._cpu_at = (now, used)
        return self.cpus - max(0.0, used - used_then) / max(now - then, 0.001)
