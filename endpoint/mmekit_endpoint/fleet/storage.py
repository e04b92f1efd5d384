"""The models on an instance's volume: fetched when they are wanted, deleted when the volume is full."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from mmekit_endpoint.errors import ServiceUnavailable
from mmekit_endpoint.fleet.model import Model, State
from mmekit_endpoint.fleet.residents import victim_on_disk
from mmekit_endpoint.fleet.shelf import Shelf
from mmekit_endpoint.fleet.sources import DiskFull, Source
from mmekit_endpoint.fleet.volume import Volume

T = TypeVar("T")

#: How long a stop waits for threads that wait for a store, in seconds.
_LAST_S = 3.0


class Stopped(Exception):
    """Raised in a thread whose work nobody wants any more."""


class Storage:
    """Fetches and deletes, in threads. ``take_out`` deletes a model for another, from memory too.

    Used are the bytes of models that are unpacked or being unpacked; archives that are downloaded now are not
    counted.
    """

    def __init__(
        self,
        shelf: Shelf,
        source: Source,
        volume: Volume,
        parallel: int,
        take_out: Callable[[Model, str], Awaitable[None]],
    ) -> None:
        self._shelf = shelf
        self._source = source
        self._volume = volume
        self._take_out = take_out
        self._arriving = ThreadPoolExecutor(parallel, f"{shelf.instance}-arriving")
        #: Not behind downloads that hang.
        self._leaving = ThreadPoolExecutor(1, f"{shelf.instance}-leaving")
        self._stopped = threading.Event()

    @property
    def used_bytes(self) -> int:
        """Bytes of all models."""
        return sum(model.disk_bytes for model in self._shelf.models.values())

    async def fetch(self, model: Model) -> None:
        """Download and unpack a model; others are deleted for it, the least recently used first.

        Raises ValidationError for an archive that is missing or cannot be used, ServiceUnavailable where the
        store does not answer or there is no room; it is absent then.
        """
        shelf = self._shelf
        begun = time.monotonic()
        model.to(State.DOWNLOADING)
        try:
            await self._fetch(model)
        except BaseException:
            model.disk_bytes = 0
            model.to(State.ABSENT)
            raise
        model.to(State.ON_DISK)
        seconds = time.monotonic() - begun
        shelf.statistics.downloaded(model.target, seconds * 1e6, model.disk_bytes)
        shelf.event("downloaded", f"{model.target}, {model.disk_bytes} bytes in {seconds:.2f} s", model)

    async def delete(self, model: Model, reason: str) -> None:
        """Delete a model that is on disk."""
        shelf = self._shelf
        model.to(State.DELETING)
        try:
            await asyncio.get_running_loop().run_in_executor(self._leaving, self._volume.delete, model.name)
        finally:
            model.disk_bytes = 0
            model.to(State.ABSENT)
        shelf.statistics.evicted(model.target, "disk")
        shelf.event("deleted", f"{model.target}: {reason}", model)

    async def close(self) -> None:
        """Let what runs in threads end, and wait for that a moment."""
        self._stopped.set()
        pools = (self._arriving, self._leaving)
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(
                asyncio.gather(*(asyncio.to_thread(pool.shutdown, cancel_futures=True) for pool in pools)),
                _LAST_S,
            )

    async def _fetch(self, model: Model) -> None:
        unwanted = threading.Event()
        arrival = self._volume.arrival(self._source, model.target)
        last: Future[object] | None = None

        def check() -> None:
            if unwanted.is_set() or self._stopped.is_set():
                raise Stopped

        async def run(step: Callable[[Callable[[], None]], T]) -> T:
            """Run a step in a thread; while the disk is full, delete models and run it again."""
            nonlocal last
            while True:
                future = self._arriving.submit(step, check)
                last = future  # type: ignore[assignment]  # its result does not matter there
                try:
                    return await asyncio.wrap_future(future)
                except DiskFull as error:
                    victim = victim_on_disk(self._shelf.models.values(), model)
                    if victim is None:
                        raise ServiceUnavailable(
                            f"{model.target} cannot be stored on {self._shelf.instance}: {error}, and no "
                            "other model can be deleted."
                        ) from error
                    await self._take_out(victim, str(error))

        try:
            await run(arrival.download)
            await self._reserve(model, await run(arrival.measure))
            await run(arrival.unpack)
            self._volume.place(arrival, model.name)
        finally:
            unwanted.set()
            if last is not None:
                # A thread that nobody waits for any more may still write: what it leaves goes after it.
                last.add_done_callback(lambda _: self._discard(arrival.remove))

    def _discard(self, remove: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # after the end all of the volume is removed
            self._leaving.submit(remove)

    async def _reserve(self, model: Model, need_bytes: int) -> None:
        """Wait until a model has room, deleting others, and give it that."""
        shelf = self._shelf
        while True:
            shelf.changed.clear()
            if self.used_bytes + need_bytes <= self._volume.capacity_bytes:
                model.disk_bytes = need_bytes
                return
            victim = victim_on_disk(shelf.models.values(), model)
            if victim is not None:
                await self._take_out(victim, f"the volume is full, {model.target} needs {need_bytes} bytes")
            else:
                await shelf.changed.wait()
