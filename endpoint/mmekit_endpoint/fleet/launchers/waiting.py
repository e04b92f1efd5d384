"""What asyncio lacks for launchers: waits in threads of their own, and starts that leave nothing behind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def in_own_thread(function: Callable[[], T], name: str) -> asyncio.Future[T]:
    """Run what may take as long as a container lives; return the future of its result.

    A pool would be used up by such waits, and the interpreter would wait for the pool at its exit. These
    threads are daemons: they end with the process.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.done():  # cancelled
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]  # without an error it is a T

    def run() -> None:
        result: T | None = None
        error: BaseException | None = None
        try:
            result = function()
        except Exception as caught:  # noqa: BLE001  # handed to whoever awaits the future
            error = caught
        try:
            loop.call_soon_threadsafe(settle, result, error)
        except RuntimeError:
            pass  # the loop is closed: nobody waits any more

    threading.Thread(target=run, name=name, daemon=True).start()
    return future


async def finished_or_undone(starting: Coroutine[Any, Any, T], undo: Callable[[T], Awaitable[None]]) -> T:
    """Return what ``starting`` does; where the caller is cancelled, let it finish and undo it first."""
    task = asyncio.create_task(starting)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if not task.cancelled() and task.exception() is None:
            await undo(task.result())
        raise
