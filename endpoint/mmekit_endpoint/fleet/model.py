"""One target model on one instance: where it is, who uses it, who waits for it."""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from enum import Enum

from mmekit_endpoint.errors import EndpointError
from mmekit_endpoint.fleet.call import Call
from mmekit_endpoint.fleet.container import target_line
from mmekit_endpoint.fleet.views import ModelView


class State(Enum):
    """Where a model is."""

    ABSENT = "absent"
    DOWNLOADING = "downloading"
    ON_DISK = "on disk"
    LOADING = "loading"
    LOADED = "loaded"
    UNLOADING = "unloading"
    DELETING = "deleting"


#: State → those that may follow it.
_MOVES = {
    State.ABSENT: {State.DOWNLOADING},
    State.DOWNLOADING: {State.ON_DISK, State.ABSENT},
    State.ON_DISK: {State.LOADING, State.UNLOADING, State.DELETING},  # unloading: see Model.maybe_loaded
    State.LOADING: {State.LOADED, State.ON_DISK},
    State.LOADED: {State.UNLOADING, State.ON_DISK},  # on disk: the container has lost it
    State.UNLOADING: {State.ON_DISK},
    State.DELETING: {State.ABSENT},
}


def opaque_name(model_data_url: str, target: str) -> str:
    """Return what a container knows a target model by: 32 hex digits, as SageMaker's are.

    Triton takes no dashes (triton-inference-server/server: src/sagemaker_server.h).
    """
    return hashlib.sha256(f"{model_data_url}\0{target}".encode()).hexdigest()[:32]


class Failure:
    """Why a model could not be had, remembered until ``until`` (of the monotonic clock)."""

    __slots__ = ("error", "until")

    def __init__(self, error: EndpointError, until: float) -> None:
        self.error = error
        self.until = until


class Model:
    """A target model on an instance. Its instance changes it; nobody else."""

    __slots__ = (
        "disk_bytes",
        "failure",
        "head",
        "in_flight",
        "last_used",
        "last_used_time",
        "maybe_loaded",
        "name",
        "state",
        "target",
        "task",
        "waiting",
    )

    def __init__(self, target: str, name: str, state: State = State.ABSENT) -> None:
        self.target = target
        self.name = name
        self.state = state
        #: What it takes on disk, or will take when it has been unpacked.
        self.disk_bytes = 0
        self.in_flight = 0
        #: Calls that wait for the load, or for room among those in flight; oldest first.
        self.waiting: deque[Call] = deque()
        #: When the last call, or the load, ended, counted in such ends: the order of eviction.
        self.last_used = 0
        #: The same in seconds of the monotonic clock; None before the first load.
        self.last_used_time: float | None = None
        self.failure: Failure | None = None
        #: What is done with it now; whoever sets it alone changes the state until it ends.
        self.task: asyncio.Task[None] | None = None
        #: Whether a model that counts as on disk may be in memory: a load or unload had no answer.
        self.maybe_loaded = False
        #: First lines of each invocation.
        self.head = b""

    def to(self, state: State) -> None:
        """Change the state. Raises RuntimeError for a change that cannot be meant."""
        if state not in _MOVES[self.state]:
            raise RuntimeError(f"{self.target} cannot go from {self.state.value!r} to {state.value!r}.")
        self.state = state

    @property
    def pending(self) -> int:
        """Calls in flight and waiting."""
        return self.in_flight + len(self.waiting)

    @property
    def idle(self) -> bool:
        """Whether nobody uses it or waits for it."""
        return not self.in_flight and not self.waiting

    @property
    def at_rest(self) -> bool:
        """Whether it is idle and nothing is done with it: it may be taken out."""
        return self.task is None and not self.in_flight and not self.waiting

    @property
    def target_line(self) -> bytes:
        """The header line that names it."""
        return target_line(self.target)

    def view(self, now: float, clock: float) -> ModelView:
        """Return what can be seen; ``now`` is of the monotonic clock, ``clock`` the epoch's seconds of it."""
        failed = self.failure is not None and self.state in (State.ABSENT, State.ON_DISK)
        used = self.last_used_time
        return ModelView(
            target_model=self.target,
            model_name=self.name,
            state="failed" if failed else self.state.value,
            disk_bytes=self.disk_bytes,
            in_flight=self.in_flight,
            waiting=len(self.waiting),
            last_used=None if used is None else clock - (now - used),
            reason=self.failure.error.message if failed and self.failure is not None else None,
        )
