"""One loaded model as the server keeps it: its state, queue, copies and what was learned of it."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol
from urllib.parse import quote

from mmekit.config import setting_of
from mmekit.errors import BadRequest, ServiceUnavailable
from mmekit.needs import Subject
from mmekit.server.placement import Needs
from mmekit.server.queues import MAX_BATCH, Batching, ModelQueue
from mmekit.server.workers import Worker
from mmekit.worker.messages import Load

#: A name must fit into a request line: Limits.max_target_bytes less the rest of the path.
_MAX_NAME_BYTES = 8000

#: Stalls and crashes are remembered for this long.
MEMORY_S = 600.0

#: This many stalls within ``MEMORY_S`` earn a worker of one's own; as many crashes, quarantine.
OFFENCES = 3


#: A copy in place of one that was lost waits for no longer than this.
_MOST_WAIT_S = 60.0


class State(Enum):
    LOADING = "loading"
    READY = "ready"
    UNLOADING = "unloading"


@dataclass(frozen=True)
class Registration:
    """What a load asks for: ``POST /models`` (contract 1.3; MMS: RegisterModelRequest)."""

    #: Empty: the manifest says it.
    name: str
    url: str
    handler: str | None = None
    #: One of ``archive.manifest.RUNTIMES``; None: the manifest says it.
    runtime: str | None = None
    batch_size: int = 1
    max_batch_delay_ms: int = 0
    #: Workers that are to hold the model; None: as the settings say.
    initial_workers: int | None = None
    #: Whether further copies are forked from a worker that holds the model; None: as the settings say.
    preload: bool | None = None
    #: Whether the answer waits for them.
    synchronous: bool = True
    response_timeout_s: float | None = None
    #: X-Amzn-SageMaker-Target-Model, for logs only: it never chooses a model.
    target_model: str = ""


@dataclass(frozen=True)
class Scaling:
    """What ``PUT /models/{name}`` asks for (contract 2.6)."""

    min_workers: int
    max_workers: int
    synchronous: bool = False


def check_name(name: str) -> None:
    """Raise BadRequest for a model's name that no request could address."""
    if (size := len(quote(name, safe=""))) > _MAX_NAME_BYTES:
        raise BadRequest(
            f"Parameter model_name has {size} bytes in a path (percent-encoded); at most {_MAX_NAME_BYTES} "
            f"can be addressed."
        )


@dataclass(frozen=True)
class Facts:
    """What a model's manifest says of it, for those who ask (MMS: DescribeModelResponse)."""

    version: str | None = None
    engine: str | None = None
    runtime: str = "python"


class Folder(Protocol):
    """Where a model's files are; ``close`` deletes what was unpacked for it."""

    @property
    def path(self) -> str: ...

    def close(self) -> None: ...


@dataclass(slots=True, eq=False)
class Model:
    """A registered model. ``workers`` hold it; ``reload`` runs while none does but requests wait.

    At least ``min_copies`` workers hold it and at most ``max_copies``; while it is hot, as many as it
    needs. Without ``min_copies`` none does, whatever the other is.
    """

    registration: Registration
    queue: ModelQueue
    timeout_s: float
    min_copies: int
    max_copies: int
    at_startup: bool = False
    #: Further copies are forked from a worker that holds it, where that is possible.
    preload: bool = False
    state: State = State.LOADING
    loaded_at: float = field(default_factory=time.time)
    # Known once its folder was inspected
    folder: Folder | None = None
    facts: Facts = field(default_factory=Facts)
    load: Load | None = None
    subject: Subject | None = None
    needs: Needs = field(default_factory=lambda: Needs(own_code=False, size_bytes=0))
    fingerprint: str = ""
    shadows: frozenset[str] = frozenset()
    # Known once it was loaded
    batching: Batching = field(default_factory=Batching)
    cost_bytes: int = 0
    load_ms: float = 0.0
    was_loaded: bool = False
    # While it serves
    workers: list[Worker] = field(default_factory=list)
    #: Workers that it is being taken out of; they may be at their last call.
    leaving: dict[Worker, asyncio.Task[None]] = field(default_factory=dict)
    #: Workers that it is being loaded into.
    coming: set[Worker] = field(default_factory=set)
    reload: asyncio.Task[None] | None = None
    copying: asyncio.Task[None] | None = None
    #: Runs while workers are brought up that were asked for; who asked last waits for ``scaling``.
    filling: asyncio.Task[None] | None = None
    scaling: asyncio.Future[bool] | None = None
    window: asyncio.TimerHandle | None = None
    #: Calls that run now, over all copies.
    running: int = 0
    #: Usual time of a call: a slow-moving maximum, so that a steadily slow model is no stall.
    usual_s: float = 0.0
    backlog_since: float | None = None
    copies_needed_at: float = 0.0
    no_copy_until: float = 0.0
    #: Workers that held it and ended unasked, lately, and when the last of them did.
    lost_workers: int = 0
    lost_at: float = 0.0
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
    def timeout_setting(self) -> str:
        """What sets ``timeout_s``, for those who meet it."""
        if self.registration.response_timeout_s is not None:
            return "the response_timeout that it was registered with"
        declared = setting_of("invoke_timeout_s")
        return f"{declared.names[0]}, or {declared.keys[0][0]} in config.properties"

    @property
    def is_filled(self) -> bool:
        """Whether the copies that were asked for are being loaded."""
        return self.filling is not None and not self.filling.done()

    @property
    def is_copied(self) -> bool:
        """Whether a further copy is being loaded."""
        return self.is_filled or (self.copying is not None and not self.copying.done())

    def loads(self) -> list[asyncio.Task[None]]:
        """Return what runs to bring it into workers."""
        tasks = (self.reload, self.copying, self.filling)
        return [task for task in tasks if task is not None and not task.done()]

    @property
    def copies_allowed(self) -> int:
        """How many workers may hold it now."""
        return self.max_copies if self.min_copies else 0

    def no_worker(self) -> ServiceUnavailable:
        """Return the error of a request while nothing is to hold the model."""
        return ServiceUnavailable(
            f"No worker is available to serve request for model: {self.name}. It has been registered "
            f"without workers, or was scaled to none. Ask for some: PUT /models/NAME?min_worker=1.",
            None,
        )

    def loaded(self, batches: bool, cost_bytes: int, load_ms: float) -> None:
        """Note what the worker said: built-in handlers batch what waits, people's own as they asked."""
        self.was_loaded = True
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

    def is_bound_to(self, worker: Worker) -> bool:
        """Whether a worker holds it or is about to: a process holds a model once."""
        return worker in self.workers or worker in self.coming

    def lost(self, now: float) -> None:
        """Note that a worker which held it ended unasked: each further copy waits twice as long."""
        self.lost_workers = self.lost_workers + 1 if now - self.lost_at <= MEMORY_S else 1
        self.lost_at = now
        self.no_copy_until = max(self.no_copy_until, now + min(_MOST_WAIT_S, 0.125 * 2**self.lost_workers))

    def resident(self, worker: Worker) -> None:
        assert worker not in self.workers, f"worker {worker.number} holds {self.name} already"
        self.workers.append(worker)
        worker.models.add(self.name)
        if self.queue:
            worker.waiting.add(self.name)

    def left(self, worker: Worker, task: asyncio.Task[None]) -> None:
        """The model has been taken out of a worker by this task."""
        if self.leaving.get(worker) is task:
            del self.leaving[worker]

    def forget(self, worker: Worker) -> None:
        """The worker no longer holds this model, or is about to end."""
        if worker in self.workers:
            self.workers.remove(worker)
        worker.models.discard(self.name)
        worker.waiting.discard(self.name)
