"""The models in a container's memory: loaded on request, unloaded when another needs the room."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from mmekit_endpoint.fleet.connection import Answer, NoAnswer
from mmekit_endpoint.fleet.container import Container
from mmekit_endpoint.fleet.launchers import Running
from mmekit_endpoint.fleet.model import Model, State
from mmekit_endpoint.fleet.residents import may_free_memory, phantom, victim_in_memory
from mmekit_endpoint.fleet.shelf import Shelf

#: Answers of a load that say the model is there: 409 is "already loaded" (AWS: mms-container-apis).
_LOADED = frozenset({200, 201, 202, 204, 409})

#: Answers of an unload after which the model is not there.
_GONE = frozenset({200, 202, 204, 404})


class Memory:
    """Loads and unloads; at most ``parallel`` loads at a time. ``take_out`` unloads a model for another."""

    def __init__(
        self,
        shelf: Shelf,
        container: Container,
        running: Running,
        parallel: int,
        take_out: Callable[[Model, str], Awaitable[None]],
    ) -> None:
        self._shelf = shelf
        self._container = container
        self._running = running
        self._take_out = take_out
        self._timeout_s = shelf.settings.load_timeout_s
        self._loads = asyncio.Semaphore(parallel)
        self._measuring = asyncio.Lock()
        #: Held while room is made for one model and taken by it: two must not take it from each other.
        self._evicting = asyncio.Lock()
        #: Models whose load was answered with 507, until it ends.
        self._refused: set[Model] = set()

    async def load(self, model: Model) -> None:
        """Load a model that is on disk; others leave for it, one at a time, as long as that helps.

        Raises NoAnswer, and ModelError for an answer that says it is not loaded; it is on disk then.
        """
        async with self._loads:
            await self._relieve(model)
            model.to(State.LOADING)
            # Until an answer says so: who gives up now does not know.
            model.maybe_loaded = True
            try:
                answer = await self._post(model)
                if answer.status == 507:
                    answer = await self._insist(model, answer)
                model.maybe_loaded = False
                if answer.status in _LOADED:
                    model.to(State.LOADED)
            finally:
                if model.state is State.LOADING:
                    model.to(State.ON_DISK)
        if answer.status not in _LOADED:
            raise self._shelf.model_error(answer.status, answer.body.decode(errors="replace"))

    async def unload(self, model: Model, reason: str) -> None:
        """Unload a model that is being unloaded; it is on disk then."""
        shelf = self._shelf
        begun = time.monotonic()
        # Until an answer says otherwise it may still be there, and must be able to leave once more.
        model.maybe_loaded = True
        trouble = ""
        try:
            answer = await self._container.unload(model.name, model.target, self._timeout_s)
            model.maybe_loaded = answer.status not in _GONE
            if model.maybe_loaded:
                trouble = f" (the container answered {answer.status})"
        except NoAnswer as error:
            trouble = f" (the container did not answer: {error})"
        finally:
            model.to(State.ON_DISK)
        shelf.statistics.unloaded(model.target, (time.monotonic() - begun) * 1e6)
        shelf.statistics.evicted(model.target, "memory")
        shelf.event("unloaded", f"{model.target}: {reason}{trouble}", model)

    async def _insist(self, model: Model, answer: Answer) -> Answer:
        """Unload others, one at a time, until a load that was refused is not any more."""
        reason = f"the load of {model.target} was answered with 507"
        tried: set[Model] = set()
        self._refused.add(model)
        self._shelf.changed.set()  # who waits for this one to be loaded must not
        try:
            async with self._evicting:
                while answer.status == 507:
                    victim = await self._victim(model, tried)
                    if victim is not None:
                        await self._take_out(victim, reason)
                    answer = await self._post(model)
                    if victim is None:
                        break
        finally:
            self._refused.discard(model)
        return answer

    async def _victim(self, model: Model, tried: set[Model]) -> Model | None:
        """Return what to unload for ``model``; waits while all that is loaded is in use."""
        shelf = self._shelf
        while True:
            shelf.changed.clear()
            models = list(shelf.models.values())
            victim = victim_in_memory(models, model)
            if victim is not None:
                return victim
            victim = phantom(models, tried | {model})
            if victim is not None:
                tried.add(victim)
                return victim
            if not may_free_memory(models, model, self._refused):
                return None
            await shelf.changed.wait()

    async def _relieve(self, model: Model) -> None:
        """Unload one model where memory is nearly used up (AWS: "when memory utilization is high")."""
        async with self._measuring:  # one after the other: what one load unloads may do for the next
            usage = await self._running.usage()
            if usage is None or not usage.memory_limit_bytes:
                return
            percent = 100 * usage.memory_bytes / usage.memory_limit_bytes
            if percent < self._shelf.settings.memory_percent:
                return
            victim = victim_in_memory(self._shelf.models.values(), model)
            if victim is not None:
                await self._take_out(victim, f"memory is {percent:.0f} % used")

    async def _post(self, model: Model) -> Answer:
        shelf = self._shelf
        begun = time.monotonic()
        url = f"{self._running.models_path}/{model.name}/model"
        answer = await self._container.load(model.name, url, model.target, self._timeout_s)
        seconds = time.monotonic() - begun
        if answer.status in _LOADED:
            shelf.statistics.loaded(model.target, seconds * 1e6)
            shelf.event("loaded", f"{model.target} in {seconds:.3f} s", model)
        return answer
