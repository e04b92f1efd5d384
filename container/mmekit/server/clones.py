"""Copies that are forked from a worker that holds the model already: ``preload_model`` (contract 2.5).

Such a copy shares the model's memory copy-on-write and runs no load. As in MMS, what the code opened while
it loaded is open in all of them.
"""

from __future__ import annotations

import logging

from mmekit.config import Config
from mmekit.errors import WorkerDied
from mmekit.server.choosing import WorkerChooser
from mmekit.server.estimates import Estimate
from mmekit.server.fleet import Fleet
from mmekit.server.model import Model
from mmekit.server.placement import Kind
from mmekit.server.workers import CannotClone, Worker

_log = logging.getLogger(__name__)

#: What a clone may write of its own until it answers, in bytes (measured: 1 to 3 MiB).
_CLONE_BYTES = 16 * 1024 * 1024
#: Page tables are copied: 8 bytes for each page of 4,096.
_PAGE_TABLE_SHARE = 512


class Clones:
    """Forks workers from those that hold a model."""

    def __init__(self, config: Config, fleet: Fleet, chooser: WorkerChooser) -> None:
        self.config = config
        self.fleet = fleet
        self.chooser = chooser

    def wanted(self, model: Model) -> bool:
        """Whether the next copy is to be forked from one that is there."""
        return model.preload and bool(model.workers)

    def estimate(self, model: Model) -> Estimate:
        """Return what a further copy needs."""
        need = _CLONE_BYTES + model.cost_bytes // _PAGE_TABLE_SHARE
        return Estimate(need, 0.0, "for a copy that shares the model", need)

    async def make(self, model: Model) -> Worker | None:
        """Return a further worker that holds the model; None, with a line in the log, when it must be loaded.

        Raises OutOfResources when no further worker is allowed.
        """
        self.chooser.check_own_room()
        try:
            source = _source(model)
            worker = await self.fleet.clone(source, model.name, self.config.load_timeout_s)
        except (CannotClone, WorkerDied) as error:
            _log.warning(
                "Model %s is loaded once more, not shared as preload_model asks: %s.",
                model.name,
                str(error).rstrip("."),
                extra={"model": model.name},
            )
            return None
        _log.info(
            "Worker %d was forked from worker %d, which holds %s.",
            worker.number,
            source.number,
            model.name,
            extra={"model": model.name},
        )
        return worker


def _source(model: Model) -> Worker:
    """Return the worker to fork, an idle one if there is. Raises CannotClone."""
    own = [worker for worker in model.workers if worker.kind is Kind.OWN and worker.alive]
    if not own:
        kinds = {worker.kind for worker in model.workers}
        raise CannotClone("its worker uses a GPU" if Kind.DEVICE in kinds else "its worker is a shared one")
    return next((worker for worker in own if worker.idle), own[0])
