"""The calls of one instance: those that wait for their model, those in the container, and how they end."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from mmekit_endpoint.errors import EndpointError, ModelNotReady, ServiceUnavailable
from mmekit_endpoint.fleet.cache import ModelCache
from mmekit_endpoint.fleet.call import Call
from mmekit_endpoint.fleet.connection import Answer, NoAnswer, Request
from mmekit_endpoint.fleet.connections import Connections
from mmekit_endpoint.fleet.container import Container
from mmekit_endpoint.fleet.ending import Ending
from mmekit_endpoint.fleet.model import Model, State
from mmekit_endpoint.fleet.model_errors import ModelErrors
from mmekit_endpoint.settings import Settings
from mmekit_endpoint.telemetry.statistics import VariantStatistics

#: How often a call goes on after its instance ended, or after its container had lost the model.
_MAX_MOVES = 1


class Calls:
    """Takes calls for a container's models. ``moved`` gets those that another instance may serve.

    ``cache`` has the models of a multi-model container, ``single`` is the one of a single-model container.
    ``ending`` knows how the container ended, for the errors of what it had.
    """

    def __init__(
        self,
        settings: Settings,
        connections: Connections,
        container: Container,
        errors: ModelErrors,
        ending: Ending,
        statistics: VariantStatistics,
        moved: Callable[[Call], None],
    ) -> None:
        self.cache: ModelCache | None = None
        self.single: Model | None = None
        self._connections = connections
        self._container = container
        self._errors = errors
        self._ending = ending
        self._statistics = statistics
        self._moved = moved
        self._max_in_flight = settings.max_in_flight
        #: Calls that the container has, or whose answers are looked at; models have those that wait.
        self._sent: set[Call] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def in_flight(self) -> int:
        """How many calls are with the container."""
        return len(self._sent)

    @property
    def models(self) -> list[Model]:
        """All models that calls may be with."""
        if self.single is not None:
            return [self.single]
        return self.cache.models if self.cache is not None else []

    def invoke(self, call: Call) -> None:
        """Take a call; its ``finished`` is called now or later."""
        model = self._model(call)
        if model.state is State.LOADED:
            if model.in_flight < self._max_in_flight and not model.waiting:
                self._send(model, call)
            else:
                model.waiting.append(call)
            return
        call.hit = False
        failure = model.failure
        if failure is not None:
            if time.monotonic() < failure.until:
                self._finish(call, failure.error)
                return
            model.failure = None
        model.waiting.append(call)
        if self.cache is not None:
            self.cache.want(model)

    def pump(self, model: Model) -> None:
        """Send what waits for a loaded model, as much as may be in flight."""
        while model.waiting and model.in_flight < self._max_in_flight and model.state is State.LOADED:
            self._send(model, model.waiting.popleft())

    def fail(self, model: Model, error: EndpointError) -> None:
        """End all calls that wait for a model."""
        waiting, model.waiting = model.waiting, deque()
        for call in waiting:
            self._finish(call, error)

    def release(self) -> None:
        """Hand over all calls that the container has not got yet."""
        self._closed = True
        for model in self.models:
            if self._ending.how and model.task is not None and model.maybe_loaded:
                # It may have died of that: the next instance must not, too.
                reason = f"{model.target} was not loaded: the container {self._ending.how}"
                self.fail(model, self._errors.of(0, reason))
            waiting, model.waiting = model.waiting, deque()
            for call in waiting:
                call.moves += 1
                if call.moves > _MAX_MOVES:
                    self._finish(
                        call, ServiceUnavailable("Two instances ended before they came to this call.")
                    )
                else:
                    self._moved(call)

    def expire(self, now: float) -> None:
        """End the calls whose time is over."""
        for call in [call for call in self._sent if now >= call.deadline]:
            self._time_out(call)
        for model in self.models:
            late = [call for call in model.waiting if call.gone or now >= call.deadline]
            if late:
                ended = set(late)
                model.waiting = deque(call for call in model.waiting if call not in ended)
                for call in late:
                    self._finish(call, self._too_late(model, call))

    async def drain(self, timeout_s: float) -> None:
        """Wait until no call is here, for at most ``timeout_s``."""
        deadline = time.monotonic() + timeout_s
        # Calls end by the thousand a second elsewhere: looking is cheaper than being told of each.
        while time.monotonic() < deadline and (self._sent or any(model.waiting for model in self.models)):
            await asyncio.sleep(0.02)

    async def close(self) -> None:
        """End what is done for calls in the background, and the calls."""
        self._closed = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for call in [call for call in self._sent if call.request is None]:
            self._conclude(self._model(call), call, self._stopped(), 0)

    # --- to the container and back -----------------------------------------------------------------

    def _model(self, call: Call) -> Model:
        if self.single is not None:
            return self.single
        assert self.cache is not None
        assert call.target is not None
        return self.cache.model(call.target)

    def _send(self, model: Model, call: Call) -> None:
        model.in_flight += 1
        call.sent = now = time.monotonic()
        if not call.hit:
            call.waited_s = now - call.arrived
        self._sent.add(call)
        request = call.request = Request(
            model.head + call.lines,
            call.body,
            lambda outcome: self._answered(model, call, outcome),
            call.on_head,
            call.on_part,
        )
        self._connections.send(request)

    def _answered(self, model: Model, call: Call, outcome: Answer | NoAnswer) -> None:
        call.container_s += time.monotonic() - call.sent
        call.request = None
        if isinstance(outcome, NoAnswer):
            if self._closed:
                self._conclude(model, call, self._stopped(), 0)
            else:
                self._spawn(self._silence(model, call, outcome))
        elif 200 <= outcome.status < 300:
            self._conclude(model, call, outcome, outcome.status)
        elif outcome.status in (404, 507) and self.cache is not None and not self._closed:
            self._spawn(self._second_thought(self.cache, model, call, outcome))
        else:
            self._conclude(model, call, self._refused(outcome), outcome.status)

    async def _silence(self, model: Model, call: Call, outcome: NoAnswer) -> None:
        reason = await self._ending.explain(outcome)
        self._conclude(model, call, self._errors.of(0, reason), 0)

    def _refused(self, answer: Answer) -> EndpointError:
        return self._errors.of(answer.status, answer.body.decode(errors="replace"))

    def _stopped(self) -> EndpointError:
        how = self._ending.how
        return self._errors.of(
            0, f"the container {how}" if how else "the instance was stopped before the answer"
        )

    async def _second_thought(self, cache: ModelCache, model: Model, call: Call, answer: Answer) -> None:
        """Find out whether 404 or 507 is the model's own answer or the container's, and act on it.

        AWS: mms-container-apis: 404 when not loaded; 507 from invoke on GPU containers unloads others.
        """
        again = False
        try:
            if answer.status == 507:
                again = await cache.unload_other(model, call.sent)
            elif call.moves < _MAX_MOVES:
                call.moves += 1
                again = (await self._container.describe(model.name, model.target)).status == 404
                if again:
                    cache.lost(model)
        except NoAnswer:
            pass  # what the container said first is the answer
        if call not in self._sent:  # its time was over meanwhile
            return
        if not again or self._closed or call.gone:
            self._conclude(model, call, self._refused(answer), answer.status)
            return
        self._sent.discard(call)
        model.in_flight -= 1
        model.waiting.appendleft(call)
        if model.state is State.LOADED:
            self.pump(model)
        else:
            cache.want(model)

    def _time_out(self, call: Call) -> None:
        if call.request is not None:
            self._connections.forget(call.request)
            call.request = None
            call.container_s += time.monotonic() - call.sent
        error = self._errors.timed_out(f"it had {call.container_s:.1f} s")
        self._conclude(self._model(call), call, error, 0)

    def _too_late(self, model: Model, call: Call) -> EndpointError:
        if model.state is State.LOADED:
            return self._errors.timed_out(f"{model.in_flight} calls were before it")
        return ModelNotReady(
            f"Model {model.target} is not ready: after {call.deadline - call.arrived:g} s it is "
            f"{model.state.value}. That goes on; try again."
        )

    def _conclude(self, model: Model, call: Call, outcome: Answer | EndpointError, status: int) -> None:
        """End a call that was sent; what comes of it later is ignored."""
        if call not in self._sent:
            return
        self._sent.discard(call)
        model.in_flight -= 1
        self._finish(call, outcome, status)
        if model.waiting:
            self.pump(model)
        if self.cache is not None:
            self.cache.used(model)

    def _finish(self, call: Call, outcome: Answer | EndpointError, status: int | None = None) -> None:
        statistics = self._statistics
        if status is None:
            status = outcome.status
        now = time.monotonic()
        if not call.hit:
            statistics.waited(call.target, (call.waited_s or now - call.arrived) * 1e6)
        statistics.invocation(
            call.target,
            status,
            call.container_s * 1e6,
            (now - call.arrived - call.container_s) * 1e6,
            call.hit if self.single is None else None,
        )
        call.end(outcome)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
