"""Blocking calls that may take long, in threads that neither other calls nor the process's end wait for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from mmekit.errors import OutOfResources

P = ParamSpec("P")
T = TypeVar("T")


class Threads:
    """Runs at most ``most`` calls at once, each in a thread of its own; the others wait for their turn."""

    def __init__(self, most: int) -> None:
        self._free = asyncio.Semaphore(most)

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return or raise what a call does. Cancelling this leaves the call alone; its result is lost.

        Raises OutOfResources when the kernel allows no further thread.
        """
        await self._free.acquire()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def done(result: T | None, error: BaseException | None) -> None:
            self._free.release()
            if future.done():
                return  # it was cancelled
            if error is None:
                future.set_result(result)  # type: ignore[arg-type]  # None is a T then
            else:
                future.set_exception(error)

        def work() -> None:
            result, error = None, None
            try:
                result = call(*args, **kwargs)
            except BaseException as raised:  # noqa: BLE001 - it belongs to the caller
                error = raised
            try:
                loop.call_soon_threadsafe(done, result, error)
            except RuntimeError:
                pass  # the server has stopped meanwhile

        try:
            threading.Thread(target=work, daemon=True).start()
        except RuntimeError as error:
            self._free.release()
            raise OutOfResources(f"No further thread can be had: {error}.") from None
        return await future
