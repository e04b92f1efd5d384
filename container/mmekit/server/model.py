"""One loaded model as the server keeps it: its state, queue, copies and what was learned of it."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field
from enum import Enum

from mmekit.server.estimates import Subject
from mmekit.server.placement import Needs
from mmekit.server.queues import MAX_BATCH, Batching, ModelQueue
from mmekit.server.workers import Worker
from mmekit.worker.messages import Load

#: Stalls and crashes are remembered for this long.
MEMORY_S = 600.0

#: This many stalls within ``MEMORY_S`` earn a worker of one's own; as many crashes, quarantine.
OFFENCES = 3


class State(Enum):
    LOADING = "loading"
    READY = "ready"
    UNLOADING = "unloading"


@dataclass(frozen=True)
class Registration:
    """What a load asks for: ``POST /models`` (contract 1.3; MMS: RegisterModelRequest)."""

    name: str
    url: str
    handler: str | None = None
    batch_size: int = 1
    max_batch_delay_ms: int = 0
    initial_workers: int | None = None
    response_timeout_s: float | None = None
    #: X-Amzn-SageMaker-Target-Model, for logs only: it never chooses a model.
    target_model: str = ""


@dataclass(slots=True, eq=False)
class Model:
    """A registered model. ``workers`` hold it; ``reload`` runs while none does but requests wait."""

    registration: Registration
    queue: ModelQueue
    timeout_s: float
    min_copies: int
    state: State = State.LOADING
    loaded_at: float = field(default_factory=time.time)
    # Known once its folder was inspected
    load: Load | None = None
    subject: Subject | None = None
    needs: Needs = field(default_factory=lambda: Needs(own_code=False, size_bytes=0))
    fingerprint: str = ""
    shadows: frozenset[str] = frozenset()
    # Known once it was loaded
    batching: Batching = field(default_factory=Batching)
    cost_bytes: int = 0
    load_ms: float = 0.0
    # While it serves
    workers: list[Worker] = field(default_factory=list)
    reload: asyncio.Task[None] | None = None
    copying: asyncio.Task[None] | None = None
    window: asyncio.TimerHandle | None = None
    #: Calls that run now, over all copies.
    running: int = 0
    #: Usual time of a call: a slow-moving maximum, so that a steadily slow model is no stall.
    usual_s: float = 0.0
    backlog_since: float | None = None
    copies_needed_at: float = 0.0
    no_copy_until: float = 0.0
    stalls: deque[float] = field(default_factory=lambda: deque(maxlen=OFFENCES))
    crashes: deque[float] = field(default_factory=lambda: deque(maxlen=OFFENCES))
    own_until: float = 0.0
    quarantine: str | None = None
    #: Set while an unload waits for the last calls.
    drained: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def name(self) -> str:
        return self.registration.name

    @property
    def is_copied(self) -> bool:
        """Whether a further copy is being loaded."""
        return self.copying is not None and not self.copying.done()

    def loaded(self, batches: bool, cost_bytes: int, load_ms: float) -> None:
        """Note what the worker said: built-in handlers batch what waits, people's own as they asked."""
        self.cost_bytes = cost_bytes
        self.load_ms = load_ms
        size = self.registration.batch_size
        if not batches:
            self.batching = Batching()
        elif size > 1:
            self.batching = Batching(size, self.registration.max_batch_delay_ms / 1000)
        else:
            self.batching = Batching(MAX_BATCH)

    def learn(self, seconds: float) -> None:
        """Take a finished call's time into account: up at once, down by a hundredth a call."""
        self.usual_s = max(seconds, self.usual_s * 0.99)

    def offended(self, record: deque[float], now: float) -> bool:
        """Note a stall or a crash; return whether there were too many lately."""
        record.append(now)
        return len(record) == OFFENCES and now - record[0] <= MEMORY_S

    def resident(self, worker: Worker) -> None:
        self.workers.append(worker)
        worker.models.add(self.name)
        if self.queue:
            worker.waiting.add(self.name)

    def forget(self, worker: Worker) -> None:
        """The worker no longer holds this model, or is about to end."""
        if worker in self.workers:
            self.workers.remove(worker)
        worker.models.discard(self.name)
        worker.waiting.discard(self.name)
