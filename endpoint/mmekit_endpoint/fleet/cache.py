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

    ``ready`` and ``failed`` tell of the end of what ``want`` began.
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
        parallel: int,
        ready: Callable[[Model], None],
        failed: Callable[[Model, EndpointError], None],
    ) -> None:
        self._shelf = shelf
        self._models = shelf.models
        self._model_data_url = model_data_url
        self._container = container
        self._memory = Memory(shelf, container, running, parallel)
        self._storage = Storage(shelf, source, volume, 2 * parallel, self._unload, self._came_back)
        self._ready = ready
        self._failed = failed
        self._tasks: set[asyncio.Task[None]] = set()
        self._uses = 0

    # --- what is there ---------------------------------------------------------------------------

    @property
    def models(self) -> list[Model]:
        """All models that are known."""
        return list(self._models.values())

    @property
    def disk_bytes(self) -> int:
        """Bytes of all unpacked models."""
        return self._storage.used_bytes

    def model(self, target: str) -> Model:
        """Return the model of that name, known so far or not."""
        model = self._models.get(target)
        if model is None:
            model = Model(target, opaque_name(self._model_data_url, target))
            model.head = self._container.head("POST", f"/models/{model.name}/invoke", model.target_line)
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

    def want(self, model: Model) -> None:
        """See to it that a model gets loaded."""
        if model.task is None and model.state in (State.ABSENT, State.ON_DISK):
            model.task = self._spawn(self._bring(model))

    def used(self, model: Model) -> None:
        """Take note that a call of a model has ended."""
        self._touch(model)
        if model.idle:
            self._shelf.changed.set()

    def lost(self, model: Model) -> None:
        """Take note that the container has a model no longer, though nobody unloaded it."""
        if model.state is State.LOADED:
            model.state = State.ON_DISK
            self._shelf.event("model_lost", f"{model.target} is gone from the container", model)
            self._shelf.changed.set()

    def drop(self, target: str, *, delete: bool) -> None:
        """Unload an idle model in the background, and delete it from disk if so asked."""
        model = self._models.get(target)
        if model is not None and model.task is None and model.idle and model.state is State.LOADED:
            model.task = self._spawn(self._drop(model, delete))

    async def unload_other(self, model: Model) -> bool:
        """Unload the least recently used idle model but this; return whether there was one (invoke: 507)."""
        # Not under the lock of loads: who holds that may wait for this very call to end.
        victim = victim_in_memory(self._models.values(), model)
        if victim is not None:
            await self._unload(victim, f"a call of {model.target} was answered with 507")
        return victim is not None

    def tidy(self, now: float) -> None:
        """Forget failures whose time is over, and models of which nothing is left."""
        for target, model in list(self._models.items()):
            if model.failure is not None and now >= model.failure.until:
                model.failure = None
            if model.state is State.ABSENT and model.failure is None and model.idle and model.task is None:
                del self._models[target]

    async def close(self) -> None:
        """End all work on models; calls that wait are told by the instance."""
        self._storage.stop()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._storage.close()

    # --- doing it ----------------------------------------------------------------------------------

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
            return shelf.model_error(0, f"{model.target} was still {model.state.value} after {limit_s:g} s")
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
        model.state = State.ON_DISK if model.disk_bytes else State.ABSENT
        shelf.statistics.load_failed(model.target)
        shelf.event("load_failed", error.message, model)
        memory_s = shelf.settings.failure_memory_s
        if model.state is State.ABSENT and error.status == 400:
            memory_s = min(_MISSING_MEMORY_S, memory_s)
        model.failure = Failure(error, time.monotonic() + memory_s)
        shelf.changed.set()
        self._failed(model, error)

    async def _drop(self, model: Model, delete: bool) -> None:
        try:
            reason = "models are not cached" if delete else "other instances serve it"
            await self._memory.unload(model, reason)
            if delete and model.idle:
                await self._storage.delete(model, reason)
        finally:
            model.task = None
            if model.waiting:
                self.want(model)

    async def _unload(self, model: Model, reason: str) -> None:
        await self._memory.unload(model, reason)
        self._came_back(model)

    def _came_back(self, model: Model) -> None:
        """Begin again for calls that came while a model was taken out."""
        if model.waiting:
            self.want(model)

    def _touch(self, model: Model) -> None:
        self._uses += 1
        model.last_used = self._uses
        model.last_used_time = time.monotonic()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
