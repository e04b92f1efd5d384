"""Takes requests from the queues of models to workers, and answers back; one call a worker.

The model whose oldest request has waited longest goes next. What a call's end means for others
(a crash, a deadline, a stall) is decided here; where models go then is the registry's business.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence

from mmekit.errors import (
    MmekitError,
    ModelNotFound,
    PredictionTimeout,
    ServiceUnavailable,
    WorkerDied,
)
from mmekit.server.model import MEMORY_S, Model, State
from mmekit.server.queues import Caller, Pending
from mmekit.server.statistics import Statistics
from mmekit.server.workers import Body, Job, Worker
from mmekit.worker.messages import (
    Answer,
    Call,
    Failure,
    Headers,
    Invoke,
    Message,
    Part,
    StreamEnd,
    StreamStart,
    split,
)

_log = logging.getLogger(__name__)


# Reading a member of an enum costs several times as much as reading a global.
_READY, _UNLOADING = State.READY, State.UNLOADING


class AnsweredError(MmekitError):
    """Carries a worker's ``Failure`` to the caller with its own status and type."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.status = failure.status
        self.type = failure.type


class Dispatcher:
    """Runs calls. ``models`` is the registry's own mapping: names to ready and other models."""

    def __init__(self, models: Mapping[str, Model], statistics: Statistics) -> None:
        self.models = models
        self.statistics = statistics
        #: Set by the registry: bring a model that no worker holds back.
        self.reload: Callable[[Model], None] = lambda model: None

    # --- from the routes -----------------------------------------------------------------------

    def invoke(
        self,
        name: str,
        caller: Caller,
        request_id: str,
        headers: Headers,
        body: bytes | bytearray,
        query: str,
        now: float,
    ) -> None:
        """Queue a request that came ``now``; its caller is answered later, or at once when a worker is idle.

        ``query`` is the raw query string where it is an input of the handler.

        Raises ModelNotFound when the model is not loaded, ServiceUnavailable when too many wait
        or it is quarantined.
        """
        model = self.models.get(name)
        if model is None or model.state is not _READY:
            raise _not_loaded(name, model)
        if model.quarantine:
            raise ServiceUnavailable(model.quarantine, None)
        pending = Pending(caller, request_id, headers, body, query)
        if not model.queue and (worker := _free_worker(model)):
            self._run(model, worker, [pending], now)
        else:
            model.queue.push(pending, now)
            self.kick(model)

    def kick(self, model: Model) -> None:
        """Start a call of this model on an idle worker that holds it, or let it wait for one."""
        idle = None
        for worker in model.workers:
            worker.waiting.add(model.name)
            if idle is None and worker.job is None and worker.idle:
                idle = worker
        if idle is not None:
            self.next(idle)
        elif not model.workers and model.queue:
            self.reload(model)

    # --- choosing --------------------------------------------------------------------------------

    def next(self, worker: Worker) -> None:
        """Give an idle worker the model whose oldest request has waited longest."""
        if not worker.waiting or worker.job is not None or worker.retiring:
            return
        now = time.monotonic()
        chosen: Model | None = None
        chosen_at = float("inf")
        for name in tuple(worker.waiting):
            model = self.models.get(name)
            if model is None or not model.queue.drop_gone_heads():
                worker.waiting.discard(name)  # another copy took its requests, or their clients have left
                if model is not None:
                    self._drained(model)
                continue
            ready_at = model.queue.ready_at(model.batching)
            if ready_at > now:
                self._wait_for_company(model, ready_at - now)
            elif ready_at < chosen_at:
                chosen, chosen_at = model, ready_at
        if chosen is not None:
            self._take(chosen, worker, now)

    def _wait_for_company(self, model: Model, delay_s: float) -> None:
        """MMS's max_batch_delay, asked for by the model: come back when its window closes."""
        if model.window is None:
            model.window = asyncio.get_running_loop().call_later(delay_s, self._window_closed, model)

    def _window_closed(self, model: Model) -> None:
        model.window = None
        self.kick(model)

    def _take(self, model: Model, worker: Worker, now: float) -> None:
        batch = model.queue.take(model.batching)
        if not model.queue:
            worker.waiting.discard(model.name)
        if model.queue:
            model.backlog_since = model.backlog_since or now
            model.copies_needed_at = now
        else:
            model.backlog_since = None
        self._run(model, worker, batch, now)

    def _run(self, model: Model, worker: Worker, batch: list[Pending], now: float) -> None:
        model.running += 1
        worker.last_call_at = now
        queued = self.statistics.of(model.name).queued
        calls, bodies = [], []
        for each in batch:
            queued.observe(now - each.enqueued_at if each.enqueued_at else 0.0)
            calls.append(Call(each.request_id, each.headers, len(each.body), each.query))
            bodies.append(each.body)
        message = Invoke(model.name, calls, batch[0].alone)
        worker.run(_Run(self, model, worker, batch, message, bodies))

    # --- ends of calls ---------------------------------------------------------------------------

    def finished(self, model: Model, run: _Run) -> None:
        """A call came to its end (from its run)."""
        model.running -= 1
        run.worker.last_call_at = now = time.monotonic()
        model.learn(now - run.started_at)
        self._drained(model)

    def lost(self, model: Model, batch: list[Pending], error: MmekitError) -> None:
        """The worker ended during this call: answer one request, run several again, each alone."""
        model.running -= 1
        if len(batch) > 1 and isinstance(error, WorkerDied):
            model.own_until = time.monotonic() + MEMORY_S  # one of them may well do it again
            for pending in batch:
                pending.alone = True
            model.queue.push_back(batch)
            self.kick(model)
        else:
            if isinstance(error, WorkerDied | PredictionTimeout):
                self.offence(model, error)
            for pending in batch:
                pending.caller.fail(error)
        self._drained(model)

    def offence(self, model: Model, error: MmekitError) -> None:
        """Note that a model ended its worker; too often, and it is quarantined."""
        now = time.monotonic()
        model.own_until = now + MEMORY_S  # neighbours are not to pay for the next time
        if model.offended(model.crashes, now):
            model.quarantine = (
                f"Model {model.name} ended its worker {len(model.crashes)} times within ten minutes and is "
                f"quarantined; the last time: {error.message} Unload it and load it again to try once more."
            )
            _log.error("%s", model.quarantine, extra={"model": model.name})
            self.statistics.quarantines += 1
            self.fail_waiting(model, ServiceUnavailable(model.quarantine, None))

    def fail_waiting(self, model: Model, error: MmekitError) -> None:
        """Answer all that wait for a model with one error."""
        for pending in model.queue.clear():
            pending.caller.fail(error)
        self._drained(model)

    def _drained(self, model: Model) -> None:
        if model.state is _UNLOADING and not model.running and not model.queue:
            model.drained.set()

    # --- time --------------------------------------------------------------------------------------

    def check_deadlines(self, workers: list[Worker], now: float) -> None:
        """End workers whose call outlived its deadline; answer requests that waited too long."""
        for worker in workers:
            job = worker.job
            if job is None or worker.retiring:
                continue
            if worker.stream_paused:
                if worker.paused_for(now) > job.timeout_s:
                    job.on_unread()
            elif now - job.started_at > job.timeout_s:
                _log.error("Worker %d is ended: %s took over %g s.", worker.number, job.model, job.timeout_s)
                worker.end(_too_slow(job))
        for model in list(self.models.values()):
            if model.queue and now - model.queue.oldest_at > model.timeout_s:
                for pending in model.queue.expire(now - model.timeout_s):
                    pending.caller.fail(
                        PredictionTimeout(
                            f"Model {model.name}: the request waited {model.timeout_s:g} s and no worker "
                            f"came free ({model.timeout_setting})."
                        )
                    )
                self._drained(model)

    def waiting_behind(self, worker: Worker) -> list[Model]:
        """Return the other models whose requests only this worker can take."""
        running = worker.job.model if worker.job else ""
        others = [self.models[name] for name in worker.waiting if name != running and name in self.models]
        return [model for model in others if model.queue and model.workers == [worker]]


class _Run(Job):
    """One call on its way: passes frames to its callers."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        model: Model,
        worker: Worker,
        batch: list[Pending],
        message: Invoke,
        bodies: Sequence[Body],
    ) -> None:
        super().__init__(message, bodies, model.timeout_s)
        self.dispatcher = dispatcher
        self.called = model
        self.worker = worker
        self.batch = batch
        self.streaming = False
        #: The client took too long: what still comes is dropped.
        self.cut = False

    def on_message(self, message: Message, body: bytes | bytearray) -> None:
        if isinstance(message, Answer):
            self.dispatcher.finished(self.called, self)
            self._answer(message, body)
            return
        caller = self.batch[0].caller
        if isinstance(message, StreamStart):
            self.streaming = True
            caller.start_stream(message.status, message.headers, message.reason, self.worker.resume_stream)
        elif isinstance(message, Part):
            self._part(caller, body)
        elif isinstance(message, StreamEnd):
            self.dispatcher.finished(self.called, self)
            error = AnsweredError(message.failure) if message.failure else None
            if self.cut:
                return
            if self.streaming or error is None:
                caller.end_stream(error)
            else:
                caller.fail(error)

    def _answer(self, message: Answer, body: bytes | bytearray) -> None:
        replies = message.replies
        pieces: Sequence[Body] = (body,)
        if len(replies) > 1:
            pieces = split(memoryview(body), [reply.length for reply in replies])
        for pending, reply, piece in zip(self.batch, replies, pieces, strict=True):
            if reply.failure is None:
                pending.caller.answer(reply, piece)
            else:
                pending.caller.fail(AnsweredError(reply.failure))

    def _part(self, caller: Caller, body: bytes | bytearray) -> None:
        if caller.gone or self.cut:
            self.worker.cancel_stream()
        elif not caller.part(body):
            self.worker.pause_stream()

    def on_unread(self) -> None:
        """Cut a client that does not read; the worker is free when it has come to its next part."""
        self.cut = True
        self.batch[0].caller.end_stream(
            PredictionTimeout(f"The client read nothing for {self.timeout_s:g} s.")
        )
        self.worker.cancel_stream()
        self.worker.resume_stream()

    def on_lost(self, error: MmekitError) -> None:
        if self.streaming:
            self.dispatcher.lost(self.called, [], error)
            if not self.cut:
                self.batch[0].caller.end_stream(error)
        else:
            self.dispatcher.lost(self.called, self.batch, error)


def _free_worker(model: Model) -> Worker | None:
    """Return a worker that can run a call of this model at once, when nobody else waits for it."""
    if model.batching.delay_s:
        return None
    for worker in model.workers:
        if worker.job is None and not worker.waiting and not worker.control and not worker.retiring:
            return worker
    return None


def _not_loaded(name: str, model: Model | None) -> ModelNotFound:
    if model is None:
        return ModelNotFound(f"Model not found: {name}")
    return ModelNotFound(f"Model not found: {name} (it is {model.state.value} at the moment)")


def _too_slow(job: Job) -> MmekitError:
    if isinstance(job, _Run):
        return PredictionTimeout(
            f"Model {job.model} did not answer within {job.timeout_s:g} s and its worker was replaced "
            f"({job.called.timeout_setting})."
        )
    return PredictionTimeout(
        f"Model {job.model}: its load did not end within {job.timeout_s:g} s and its worker was replaced "
        f"(MMEKIT_LOAD_TIMEOUT_SECONDS)."
    )
