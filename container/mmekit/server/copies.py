"""How many workers hold a model: as many as were asked for, and more while it is hot.

Facts: MMS wlm/ModelManager.updateModel, wlm/WorkLoadManager.modelChanged.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from mmekit.errors import MmekitError, ModelLoadError, ModelNotFound
from mmekit.server.dispatcher import Dispatcher
from mmekit.server.model import OFFENCES, Model, State
from mmekit.server.residency import DiedWhileLoading, Residency

_log = logging.getLogger(__name__)

#: A copy that could not be loaded is tried again after this long.
_AGAIN_S = 10.0


class Copies:
    """Brings models into more workers and into fewer."""

    def __init__(self, residency: Residency, dispatcher: Dispatcher) -> None:
        self.residency = residency
        self.dispatcher = dispatcher

    async def scale(self, model: Model, minimum: int, maximum: int) -> bool:
        """Have ``minimum`` to ``maximum`` workers hold a ready model from now on, and wait for that.

        Returns True when that many do and the others have let go of it; False when another call
        took over meanwhile. Raises ModelLoadError and its like, OutOfResources, when a worker cannot
        be had: those that are there stay, and as many are asked for. ModelNotFound: it was unloaded.
        """
        scaling = self.ask(model, minimum, maximum)
        while not scaling.done():
            tasks = [*model.loads(), *model.leaving.values()]
            if not tasks:
                return len(model.workers) >= model.min_copies  # one of them may have ended already
            waited_for: list[asyncio.Future[Any]] = [scaling, *tasks]
            await asyncio.wait(waited_for, return_when=asyncio.FIRST_COMPLETED)
        return scaling.result()

    def ask(self, model: Model, minimum: int, maximum: int) -> asyncio.Future[bool]:
        """Start what ``scale`` waits for. Without a minimum nothing holds the model, whatever the maximum.

        Requests that wait are answered with an error then; a call that runs comes to its end.
        """
        if model.scaling and not model.scaling.done():
            model.scaling.set_result(False)
        model.min_copies, model.max_copies = minimum, maximum
        self.bound(model)
        model.scaling = asyncio.get_running_loop().create_future()
        model.scaling.add_done_callback(lambda scaling: scaling.cancelled() or scaling.exception())
        self.residency.trim(model)
        if not minimum:
            self.dispatcher.fail_waiting(model, model.no_worker())
        if len(model.workers) < model.min_copies and not model.is_filled:
            model.filling = asyncio.get_running_loop().create_task(self._fill(model))
        return model.scaling

    def bound(self, model: Model) -> None:
        """Ask for no more workers than there can be, when the model's folder is known: a GPU has one."""
        most = self.residency.chooser.rule.most_copies(model.needs)
        if most is None:
            return
        if most < model.min_copies:
            _log.info(
                "Model %s gets %d of %d workers: it lives on a GPU, and each of them has one worker.",
                model.name,
                most,
                model.min_copies,
                extra={"model": model.name},
            )
        model.min_copies, model.max_copies = min(model.min_copies, most), min(model.max_copies, most)

    def forget(self, model: Model) -> None:
        """The model is being unloaded: tell those who wait for its workers."""
        if model.scaling and not model.scaling.done():
            model.scaling.set_exception(
                ModelNotFound(f"Model not found: {model.name} (it was unloaded meanwhile)")
            )

    async def fill(self, model: Model) -> None:
        """Load a model until as many workers hold it as were asked for, or it is being unloaded.

        Raises what ``Residency.bring`` does; ModelLoadError when workers end as fast as they come.
        """
        lost_before = model.lost_workers
        while len(model.workers) < model.min_copies and model.state is not State.UNLOADING:
            if others := [task for task in model.loads() if task is not model.filling]:
                await asyncio.wait(others)
            elif model.lost_workers - lost_before >= OFFENCES:
                raise ModelLoadError(
                    f"Failed to start workers: {model.name} was loaded, but {OFFENCES} of its workers ended "
                    f"before {model.min_copies} held it; the log says how. See what it starts at its load."
                )
            else:
                await self.residency.bring(model)

    async def _fill(self, model: Model) -> None:
        try:
            await self.fill(model)
        except MmekitError as error:
            self._failed(model, error)
        except Exception:
            self._failed(model, MmekitError("The server failed; its log has the cause."))
            raise

    def _failed(self, model: Model, error: MmekitError) -> None:
        model.filling = None  # a request that comes while others are answered starts another try
        if len(model.workers) < model.min_copies and model.state is State.READY:
            if not self.residency.fleet.closed:
                _log.warning(
                    "Model %s has %d of %d workers: %s",
                    model.name,
                    len(model.workers),
                    model.min_copies,
                    error.message,
                    extra={"model": model.name},
                )
            model.min_copies = max(1, len(model.workers))
            if model.scaling and not model.scaling.done():
                model.scaling.set_exception(error)
        if not model.workers:
            if isinstance(error, DiedWhileLoading):
                self.dispatcher.offence(model, error)
            self.dispatcher.fail_waiting(model, error)

    def add(self, model: Model) -> None:
        """Load a hot model into one more worker, in the background."""
        if not model.is_copied:
            model.copying = asyncio.get_running_loop().create_task(self._add(model))

    async def _add(self, model: Model) -> None:
        try:
            await self.residency.bring(model)
            self.dispatcher.statistics.copies_added += 1
            _log.info(
                "Model %s has %d copies now.", model.name, len(model.workers), extra={"model": model.name}
            )
        except Exception as error:
            model.no_copy_until = time.monotonic() + _AGAIN_S
            if not isinstance(error, MmekitError):
                raise
            _log.info("No further copy of %s: %s", model.name, error, extra={"model": model.name})
