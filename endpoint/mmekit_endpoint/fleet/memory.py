"""The models in a container's memory: loaded on request, unloaded when another needs the room."""

from __future__ import annotations

import asyncio
import time

from mmekit_endpoint.fleet.connection import Answer, NoAnswer
from mmekit_endpoint.fleet.container import Container
from mmekit_endpoint.fleet.launchers import Running
from mmekit_endpoint.fleet.model import Model, State
from mmekit_endpoint.fleet.residents import may_free_memory, victim_in_memory
from mmekit_endpoint.fleet.shelf import Shelf

#: Answers of a load that say the model is there: 409 is "already loaded" (AWS: mms-container-apis).
_LOADED = frozenset({200, 201, 202, 204, 409})

#: Answers of an unload after which the model is not there.
_GONE = frozenset({200, 202, 204, 404})


class Memory:
    """Loads and unloads; at most ``parallel`` loads at a time."""

    def __init__(self, shelf: Shelf, container: Container, running: Running, parallel: int) -> None:
        self._shelf = shelf
        self._container = container
        self._running = running
        self._timeout_s = shelf.settings.load_timeout_s
        self._loads = asyncio.Semaphore(parallel)
        #: Held while room is made for one model and taken by it: two must not take it from each other.
        self._evicting = asyncio.Lock()

    async def load(self, model: Model) -> None:
        """Load a model that is on disk; others leave for it, one at a time, as long as that helps.

        Raises NoAnswer, and ModelError for an answer that says it is not loaded.
        """
        async with self._loads:
            await self._relieve(model)
            model.state = State.LOADING
            answer = await self._post(model)
            if answer.status == 507:
                async with self._evicting:
                    while answer.status == 507:
                        victim = await self._victim(model)
                        if victim is None:
                            break
                        await self.unload(victim, f"the load of {model.target} was answered with 507")
                        answer = await self._post(model)
        if answer.status not in _LOADED:
            raise self._shelf.model_error(answer.status, answer.body.decode(errors="replace"))
        model.state = State.LOADED

    async def unload(self, model: Model, reason: str) -> None:
        """Unload a model; it stays on disk.

        That is so after trouble, too: a later load is answered with 409 at worst, while a model that cannot
        be unloaded would be chosen as victim again and again.
        """
        shelf = self._shelf
        model.state = State.UNLOADING
        begun = time.monotonic()
        try:
            answer = await self._container.unload(model.name, model.target, self._timeout_s)
            trouble = "" if answer.status in _GONE else f" (the container answered {answer.status})"
        except NoAnswer as error:
            trouble = f" (the container did not answer: {error})"
        finally:
            model.state = State.ON_DISK
        shelf.statistics.unloaded(model.target, (time.monotonic() - begun) * 1e6)
        shelf.statistics.evicted(model.target, "memory")
        shelf.event("unloaded", f"{model.target}: {reason}{trouble}", model)
        shelf.changed.set()

    async def _relieve(self, model: Model) -> None:
        """Unload one model where memory is nearly used up (AWS: "when memory utilization is high")."""
        usage = await self._running.usage()
        if usage is None or not usage.memory_limit_bytes:
            return
        percent = 100 * usage.memory_bytes / usage.memory_limit_bytes
        if percent < self._shelf.settings.memory_percent:
            return
        async with self._evicting:
            victim = victim_in_memory(self._shelf.models.values(), model)
            if victim is not None:
                await self.unload(victim, f"memory is {percent:.0f} % used")

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

    async def _victim(self, model: Model) -> Model | None:
        """Return what to unload for ``model``; waits while all that is loaded is in use."""
        shelf = self._shelf
        while True:
            shelf.changed.clear()
            victim = victim_in_memory(shelf.models.values(), model)
            if victim is not None or not may_free_memory(shelf.models.values(), model):
                return victim
            await shelf.changed.wait()
