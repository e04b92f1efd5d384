"""Models that lost their worker come back when they are next asked for, from the folder that was loaded."""

from __future__ import annotations

import asyncio
import logging

from mmekit import artifact
from mmekit.errors import MmekitError, ModelLoadError, OutOfResources
from mmekit.server.dispatcher import Dispatcher
from mmekit.server.model import Model, State
from mmekit.server.residency import DiedWhileLoading, Residency

_log = logging.getLogger(__name__)


class Reloads:
    """Loads models that no worker holds while requests wait for them; one load a model."""

    def __init__(self, residency: Residency, dispatcher: Dispatcher) -> None:
        self.residency = residency
        self.dispatcher = dispatcher
        dispatcher.reload = self.start

    def start(self, model: Model) -> None:
        """Bring a model back that no worker holds, because requests wait for it."""
        if not model.min_copies:
            self.dispatcher.fail_waiting(model, model.no_worker())
            return
        if model.is_filled or (model.reload and not model.reload.done()):
            return
        if model.state is State.LOADING:
            return
        model.reload = asyncio.get_running_loop().create_task(self._reload(model))

    async def _reload(self, model: Model) -> None:
        assert model.load is not None
        try:
            now_there = await asyncio.to_thread(artifact.fingerprint, model.load.path)
            if now_there != model.fingerprint:
                raise ModelLoadError(
                    f"its folder {model.load.path} has changed or gone since it was loaded. "
                    f"Unload it and load it again."
                )
            await self.residency.bring(model)
            self.dispatcher.statistics.reloads[200] += 1
        except MmekitError as error:
            self._failed(model, error)
        except Exception:
            self._failed(model, MmekitError("the server failed; its log has the cause."))
            raise

    def _failed(self, model: Model, error: MmekitError) -> None:
        failure = ModelLoadError(f"Model {model.name} {_why_away(model)}: {error.message}")
        if error.status == OutOfResources.status:
            failure.status, failure.type = OutOfResources.status, OutOfResources.type
        if not self.residency.fleet.closed:
            _log.error("%s", failure.message, extra={"model": model.name})
        self.dispatcher.statistics.reloads[failure.status] += 1
        model.reload = None  # a request that comes while these are answered starts another try
        if isinstance(error, DiedWhileLoading):
            self.dispatcher.offence(model, error)
        self.dispatcher.fail_waiting(model, failure)


def _why_away(model: Model) -> str:
    return "lost its worker and could not be loaded again" if model.was_loaded else "could not be loaded"
