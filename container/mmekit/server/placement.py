"""Which worker gets a model, and which models get another copy; pure decisions over plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """What a worker is for."""

    SHARED = "shared"
    OWN = "own"
    DEVICE = "device"
    SPARE = "spare"


#: Loads that take longer would be felt by the neighbours: they never run beside busy residents.
SLOW_LOAD_MS = 10.0

#: Shared workers may outnumber the target by this factor: spares that joined the pool after slow loads.
POOL_GROWTH = 4


@dataclass(frozen=True)
class Needs:
    """What placement has to know of a model."""

    own_code: bool
    size_bytes: int
    uses_device: bool = False


@dataclass(frozen=True)
class Rule:
    """The sharing rule: settings ``MMEKIT_SHARING``, ``MMEKIT_LARGE_MODEL_BYTES``, number of GPUs."""

    sharing: str
    large_model_bytes: int
    gpus: int = 0

    def most_copies(self, needs: Needs) -> int | None:
        """Return how many workers can hold a model: a device has one. None: as many as are wanted."""
        return self.gpus if self.kind_for(needs) is Kind.DEVICE else None

    def kind_for(self, needs: Needs) -> Kind:
        """A model shares a worker unless it brings code or is large.

        On a GPU the device's worker is shared by all that use the device, own code included: a
        CUDA context costs hundreds of MiB.
        """
        if self.gpus and needs.uses_device:
            return Kind.DEVICE
        if self.sharing == "always":
            return Kind.SHARED
        if self.sharing == "never" or needs.own_code:
            return Kind.OWN
        return Kind.OWN if needs.size_bytes >= self.large_model_bytes else Kind.SHARED


@dataclass(frozen=True)
class Candidate:
    """A shared worker as placement sees it."""

    number: int
    models: int
    #: Requests that wait for it, the running call included.
    queued: int
    #: It has residents that were called in the last second.
    busy: bool


def pick_shared(candidates: Sequence[Candidate], pool_size: int, target: int, load_ms: float) -> int | None:
    """Return the number of the shared worker to load into; None means the spare, which joins the pool.

    ``candidates`` are those of the ``pool_size`` shared workers that do not hold the model yet;
    ``target`` is how many there should be. A quick load goes to the worker with the shortest queue
    and the fewest models; a slow one only to a worker whose residents are idle.
    """
    if pool_size < target:
        return None
    fitting = [c for c in candidates if load_ms <= SLOW_LOAD_MS or not c.busy]
    if not fitting and (pool_size < target * POOL_GROWTH or not candidates):
        return None
    return min(fitting or candidates, key=lambda c: (c.queued, c.models, c.number)).number


@dataclass(frozen=True)
class Demand:
    """A hot model as the copy rule sees it."""

    copies: int
    min_copies: int
    #: Seconds since each call left requests behind; 0 when none does.
    backlog_s: float
    #: Seconds since more than one copy was last needed.
    unneeded_s: float


#: A backlog that lasts this long earns a copy; one that is not needed for this long is dropped.
COPY_AFTER_S = 0.5
DROP_AFTER_S = 60.0


def copies_wanted(demand: Demand, max_copies: int, idle_cpus: float) -> int:
    """Return how many copies a model should have: one more, one fewer, or as many as it has."""
    if demand.copies < demand.min_copies:
        return demand.copies + 1
    if demand.backlog_s >= COPY_AFTER_S and demand.copies < max_copies and idle_cpus >= 0.5:
        return demand.copies + 1
    if demand.copies > demand.min_copies and demand.unneeded_s >= DROP_AFTER_S:
        return demand.copies - 1
    return demand.copies
