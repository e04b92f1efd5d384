"""The models on an instance's volume: fetched when they are wanted, deleted when the volume is full."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

from mmekit_endpoint.errors import ServiceUnavailable
from mmekit_endpoint.fleet.model import Model, State
from mmekit_endpoint.fleet.residents import victim_on_disk
from mmekit_endpoint.fleet.shelf import Shelf
from mmekit_endpoint.fleet.sources import DiskFull, Source
from mmekit_endpoint.fleet.volume import Volume


class Stopped(Exception):
    """Raised in a thread whose work nobody wants any more."""


class Storage:
    """Fetches and deletes, in threads.

    ``unload`` takes a model out of memory before it is deleted; ``deleted`` is told of each that is gone.
    """

    def __init__(
        self,
        shelf: Shelf,
        source: Source,
        volume: Volume,
        parallel: int,
        unload: Callable[[Model, str], Awaitable[None]],
        deleted: Callable[[Model], None],
    ) -> None:
        self._shelf = shelf
        self._source = source
        self._volume = volume
        self._unload = unload
        self._deleted = deleted
        self._threads = ThreadPoolExecutor(parallel, f"{shelf.instance}-volume")
        self._stopped = threading.Event()

    @property
    def used_bytes(self) -> int:
        """Bytes of all unpacked models."""
        return sum(model.disk_bytes for model in self._shelf.models.values())

    async def fetch(self, model: Model) -> None:
        """Download and unpack a model; others are deleted for it, the least recently used first.

        Raises ValidationError for an archive that is missing or cannot be used, ServiceUnavailable where the
        store does not answer or there is no room.
        """
        shelf = self._shelf
        model.state = State.DOWNLOADING
        begun = time.monotonic()
        unwanted = threading.Event()
        try:
            model.disk_bytes = await self._fetch(model, unwanted)
        finally:
            unwanted.set()
        model.state = State.ON_DISK
        seconds = time.monotonic() - begun
        shelf.statistics.downloaded(model.target, seconds * 1e6, model.disk_bytes)
        shelf.event("downloaded", f"{model.target}, {model.disk_bytes} bytes in {seconds:.2f} s", model)
        while self.used_bytes > self._volume.capacity_bytes:
            if not await self._make_room(model, "the volume is full"):
                break

    async def delete(self, model: Model, reason: str) -> None:
        """Delete a model that is on disk."""
        shelf = self._shelf
        model.state = State.DELETING
        try:
            await asyncio.get_running_loop().run_in_executor(self._threads, self._volume.delete, model.name)
        finally:
            model.state = State.ABSENT
            model.disk_bytes = 0
        shelf.statistics.evicted(model.target, "disk")
        shelf.event("deleted", f"{model.target}: {reason}", model)
        shelf.changed.set()
        self._deleted(model)

    def stop(self) -> None:
        """Let what runs in threads end soon."""
        self._stopped.set()

    async def close(self) -> None:
        """Wait for the threads."""
        self.stop()
        await asyncio.to_thread(self._threads.shutdown)

    async def _fetch(self, model: Model, unwanted: threading.Event) -> int:
        def check() -> None:
            if unwanted.is_set() or self._stopped.is_set():
                raise Stopped

        def fetch(limit_bytes: int) -> int:
            return self._volume.fetch(self._source, model.target, model.name, limit_bytes, check)

        while True:
            limit_bytes = self._volume.capacity_bytes - self._kept_bytes(model)
            try:
                return await asyncio.get_running_loop().run_in_executor(self._threads, fetch, limit_bytes)
            except DiskFull as error:
                if not await self._make_room(model, str(error)):
                    raise ServiceUnavailable(
                        f"{model.target} cannot be stored on {self._shelf.instance}: {error}, and no other "
                        "model can be deleted."
                    ) from error

    def _kept_bytes(self, model: Model) -> int:
        """Bytes of models that cannot be deleted now."""
        others = (other for other in self._shelf.models.values() if other is not model)
        return sum(other.disk_bytes for other in others if not other.idle or other.task is not None)

    async def _make_room(self, keep: Model, reason: str) -> bool:
        """Delete one model; return whether there was one to delete."""
        victim = victim_on_disk([model for model in self._shelf.models.values() if model.task is None], keep)
        if victim is None:
            return False
        if victim.state is State.LOADED:
            await self._unload(victim, reason)
        if victim.state is State.ON_DISK and victim.idle and victim.task is None:  # else it is called again
            await self.delete(victim, reason)
        return True
