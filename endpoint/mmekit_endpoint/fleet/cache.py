"""The models of one instance: brought in when they are wanted, taken out to make room."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any

from mmekit_endpoint.errors import EndpointError, InternalFailure, ServiceUnavailable
from mmekit_endpoint.fleet.connection import NoAnswer
from mmekit_endpoint.fleet.container import Container
from mmekit_endpoint.fleet.launchers import Running
from mmekit_endpoint.fleet.memory import Memory
from mmekit_endpoint.fleet.model import Failure, Model, State, opaque_name
from mmekit_endpoint.fleet.residents import victim_in_memory
from mmekit_endpoint.fleet.shelf import Shelf
from mmekit_endpoint.fleet.sources import Source
from mmekit_endpoint.fleet.storage import Stopped, Storage
from mmekit_endpoint.fleet.volume import Volume

logger = logging.getLogger(__name__)

#: A missing archive is looked for again after this, in seconds: people upload and call at once.
_MISSING_MEMORY_S = 1.0


class ModelCache:
    """Target models by name and what becomes of each. One download and load is shared by all who wait.

    ``ready`` and ``failed`` tell of the end of what ``want`` began. Without ``keeps`` (AWS: "Set MME model
    caching behavior") a model that nobody uses leaves memory and disk at once. A model's own task does all
    that is done with it, so that nobody else's timeout cuts it short.
    """

    def __init__(
        self,
        shelf: Shelf,
        *,
        model_data_url: str,
        source: Source,
        volume: Volume,
        container: Container,
        running: Running,
        head: Callable[[str, str, bytes], bytes],
        parallel: int,
        keeps: bool,
        ready: Callable[[Model], None],
        failed: Callable[[Model, EndpointError], None],
    ) -> None:
        self._shelf = shelf
        self._models = shelf.models
        self._model_data_url = model_data_url
        self._head = head
        self._keeps = keeps
        self._memory = Memory(shelf, container, running, parallel, self._unload)
        self._storage = Storage(shelf, source, volume, 2 * parallel, self._delete)
        self._ready = ready
        self._failed = failed
        self._tasks: set[asyncio.Task[None]] = set()
        #: The unload that calls answered with 507 wait for.
        self._freeing: asyncio.Task[None] | None = None
        #: When the last of those unloads ended, by the monotonic clock.
        self._freed_at = 0.0
        self._uses = 0
        self._closed = False

    # --- what is there ---------------------------------------------------------------------------

    @property
    def models(self) -> list[Model]:
        """All models that are known."""
        return list(self._models.values())

    def model(self, target: str) -> Model:
        """Return the model of that name, known so far or not."""
        model = self._models.get(target)
        if model is None:
            model = Model(target, opaque_name(self._model_data_url, target))
            model.head = self._head("POST", f"/models/{model.name}/invoke", model.target_line)
            self._models[target] = model
        return model

    def is_loaded(self, target: str) -> bool:
        """Say whether a model is in the container's memory and takes calls."""
        model = self._models.get(target)
        return model is not None and model.state is State.LOADED

    def is_coming(self, target: str) -> bool:
        """Say whether something is under way with a model."""
        model = self._models.get(target)
        return model is not None and model.task is not None

    def holds(self, target: str) -> bool:
        """Say whether a model is here in some form: on its way, on disk or in memory."""
        model = self._models.get(target)
        return model is not None and (model.task is not None or model.state is not State.ABSENT)

    def pending(self, target: str) -> int:
        """Return how many calls of a model are in flight or wait."""
        model = self._models.get(target)
        return model.pending if model is not None else 0

    def idle_since(self, target: str) -> float | None:
        """Return when a model was used or loaded last, by the monotonic clock; None while it is in use."""
        model = self._models.get(target)
        return model.last_used_time if model is not None and model.idle else None

    # --- what is to be done ----------------------------------------------------------------------

    def want(self, model: Model) -> bool:
        """See to it that a model gets loaded; return whether that was begun now."""
        if model.task is not None or model.state not in (State.ABSENT, State.ON_DISK) or self._closed:
            return False
        model.task = self._spawn(self._bring(model))
        return True

    def used(self, model: Model) -> None:
        """Take note that a call of a model has ended."""
        self._touch(model)
        if model.idle:
            self._shelf.changed.set()
            self._rest(model)

    def lost(self, model: Model) -> None:
        """Take note that the container has a model no longer, though nobody unloaded it."""
        if model.state is State.LOADED:
            model.to(State.ON_DISK)
            self._shelf.event("model_lost", f"{model.target} is gone from the container", model)
            self._shelf.changed.set()

    def drop(self, target: str) -> None:
        """Unload a copy of a model that is at rest; its files stay."""
        model = self._models.get(target)
        if model is not None and model.at_rest and model.state is State.LOADED:
            self._take_out(model, "other instances serve it", delete=False)

    async def unload_other(self, model: Model, sent: float) -> bool:
        """Make room for a call that was answered with 507; return whether it is worth another try.

        One model is unloaded at a time, the least recently used; who comes meanwhile waits for that. A call
        that was ``sent`` before it ended (of the monotonic clock) may have been refused before it, too.
        """
        if self._freeing is None:
            if sent < self._freed_at:
                return True
            victim = victim_in_memory(self._models.values(), model)
            if victim is None:
                leaving = [m.task for m in self.models if m.state is State.UNLOADING and m.task is not None]
                if not leaving:
                    return False
                self._freeing = leaving[0]
            else:
                self._freeing = self._take_out(
                    victim, f"a call of {model.target} was answered with 507", delete=False
                )
            self._freeing.add_done_callback(self._freed)
        await asyncio.shield(self._freeing)
        return True

    def tidy(self, now: float) -> None:
        """Forget failures whose time is over, and models of which nothing is left."""
        for target, model in list(self._models.items()):
            if model.failure is not None and now >= model.failure.until:
                model.failure = None
            if model.state is State.ABSENT and model.failure is None and model.at_rest:
                del self._models[target]

    async def close(self) -> None:
        """End all work on models; calls that wait are told by the instance."""
        self._closed = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._storage.close()

    # --- bringing in -------------------------------------------------------------------------------

    async def _bring(self, model: Model) -> None:
        try:
            await asyncio.wait_for(self._bring_in(model), self._shelf.settings.load_timeout_s)
        except Exception as raised:  # noqa: BLE001 - the border of a task: callers wait for an answer
            self._give_up(model, await self._explained(model, raised))
        else:
            model.task = None
            self._touch(model)
            self._ready(model)
        self._shelf.changed.set()
        self._rest(model)

    async def _bring_in(self, model: Model) -> None:
        model.failure = None
        if model.state is State.ABSENT:
            await self._storage.fetch(model)
        await self._memory.load(model)

    async def _explained(self, model: Model, raised: Exception) -> EndpointError:
        shelf = self._shelf
        if isinstance(raised, EndpointError):
            return raised
        if isinstance(raised, asyncio.TimeoutError):
            limit_s = shelf.settings.load_timeout_s
            at = "loading" if model.state is State.ON_DISK else "downloading"
            return shelf.model_error(0, f"{model.target} was still {at} after {limit_s:g} s")
        if isinstance(raised, NoAnswer):
            reason = await shelf.ending.explain(raised)
            return shelf.model_error(0, f"{model.target} was not loaded: {reason}")
        if isinstance(raised, Stopped):
            return ServiceUnavailable("The instance is being stopped; call again.")
        logger.error("Bringing %s in failed", model.target, exc_info=raised)
        return InternalFailure(f"{model.target} could not be brought in: {raised!r}")

    def _give_up(self, model: Model, error: EndpointError) -> None:
        shelf = self._shelf
        model.task = None
        shelf.statistics.load_failed(model.target)
        shelf.event("load_failed", error.message, model)
        memory_s = shelf.settings.failure_memory_s
        if model.state is State.ABSENT and error.status == 400:
            memory_s = min(_MISSING_MEMORY_S, memory_s)
        model.failure = Failure(error, time.monotonic() + memory_s)
        self._failed(model, error)

    # --- taking out --------------------------------------------------------------------------------

    def _rest(self, model: Model) -> None:
        """Take out a model that nobody uses, where models are not kept."""
        if not self._keeps and model.at_rest and model.state in (State.LOADED, State.ON_DISK):
            self._take_out(model, "models are not cached", delete=True)

    async def _unload(self, model: Model, reason: str) -> None:
        await asyncio.shield(self._take_out(model, reason, delete=False))

    async def _delete(self, model: Model, reason: str) -> None:
        await asyncio.shield(self._take_out(model, reason, delete=True))

    def _take_out(self, model: Model, reason: str, *, delete: bool) -> asyncio.Task[None]:
        """Begin to unload a model that is at rest, and to delete it from disk if so asked."""
        # At once: a call that comes before the task's first step must wait.
        if model.state is State.LOADED or model.maybe_loaded:
            model.to(State.UNLOADING)
        task = model.task = self._spawn(self._leave(model, reason, delete))
        return task

    async def _leave(self, model: Model, reason: str, delete: bool) -> None:
        try:
            if model.state is State.UNLOADING:
                await self._memory.unload(model, reason)
            if delete and not model.waiting:  # else it was called meanwhile
                await self._storage.delete(model, reason)
        finally:
            model.task = None
            self._shelf.changed.set()
            if model.waiting:
                self.want(model)

    def _freed(self, _: asyncio.Task[None]) -> None:
        self._freeing = None
        self._freed_at = time.monotonic()

    def _touch(self, model: Model) -> None:
        self._uses += 1
        model.last_used = self._uses
        model.last_used_time = time.monotonic()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
