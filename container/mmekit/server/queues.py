"""The queue of one model: bounded, first in first out, taken in batches. Pure: the clock is passed in."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from mmekit.errors import MmekitError, ServiceUnavailable
from mmekit.worker.messages import Headers, Reply

#: Requests stacked in one call of a built-in handler, and their bytes together (hotpath study, 9).
MAX_BATCH = 64
MAX_BATCH_BYTES = 1024 * 1024


class Caller(Protocol):
    """Who asked: gets exactly one of answer, failure or a stream; all calls are on the event loop."""

    @property
    def gone(self) -> bool:
        """Whether nobody waits for the answer any more."""

    def answer(self, reply: Reply, body: bytes | bytearray | memoryview) -> None: ...

    def fail(self, error: MmekitError) -> None: ...

    def start_stream(
        self, status: int, headers: Headers, reason: str, on_drain: Callable[[], None]
    ) -> None: ...

    def part(self, body: bytes | bytearray) -> bool:
        """Pass a part on; False asks for a pause until ``on_drain`` is called."""

    def end_stream(self, error: MmekitError | None) -> None: ...


@dataclass(slots=True, eq=False)
class Pending:
    """One request on its way to a worker."""

    caller: Caller
    request_id: str
    headers: Headers
    body: bytes | bytearray
    query: str = ""
    enqueued_at: float = 0.0
    #: It shared a call that killed its worker: it runs once more, by itself.
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Batching:
    """How many waiting requests one call may take, and whether a lone one waits for company."""

    size: int = 1
    delay_s: float = 0.0


class ServerQueue:
    """Counts what waits for all models together."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.waiting = 0


@dataclass(slots=True)
class ModelQueue:
    """What waits for one model. ``shared`` bounds all queues of the server together."""

    model: str
    size: int
    shared: ServerQueue
    _waiting: deque[Pending] = field(default_factory=deque)

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def oldest_at(self) -> float:
        """When the head was put in; infinity when nothing waits."""
        return self._waiting[0].enqueued_at if self._waiting else float("inf")

    def push(self, pending: Pending, now: float) -> None:
        """Add a request. Raises ServiceUnavailable when this queue or the server's is full."""
        if len(self._waiting) >= self.size:
            self._drop_gone()
        if len(self._waiting) >= self.size:
            raise ServiceUnavailable(
                f"No worker is available to serve request for model: {self.model}. {self.size} requests "
                f"wait for it already. Consider increasing job queue size (SAGEMAKER_MODEL_JOB_QUEUE_SIZE)."
            )
        if self.shared.waiting >= self.shared.size:
            raise ServiceUnavailable(
                f"{self.shared.size} requests wait on this server already, for all models together "
                f"(MMEKIT_QUEUE_SIZE)."
            )
        pending.enqueued_at = now
        self._waiting.append(pending)
        self.shared.waiting += 1

    def push_back(self, pendings: list[Pending]) -> None:
        """Return requests that were taken but not run to the front, in their order."""
        self._waiting.extendleft(reversed(pendings))
        self.shared.waiting += len(pendings)

    def ready_at(self, batching: Batching) -> float:
        """When the next call may start: at once, or when the oldest has waited for its company."""
        if not self._waiting:
            return float("inf")
        if batching.delay_s <= 0 or len(self._waiting) >= batching.size or self._waiting[0].alone:
            return self._waiting[0].enqueued_at
        return self._waiting[0].enqueued_at + batching.delay_s

    def take(self, batching: Batching) -> list[Pending]:
        """Take the requests of one call: those whose clients are still there, within the limits."""
        taken: list[Pending] = []
        size = 0
        while self._waiting and len(taken) < batching.size:
            head = self._waiting[0]
            if head.caller.gone:
                self._drop_head()
                continue
            length = len(head.body)
            if taken and (head.alone or size + length > MAX_BATCH_BYTES):
                break
            self._drop_head()
            taken.append(head)
            size += length
            if head.alone:
                break
        return taken

    def drop_gone_heads(self) -> bool:
        """Drop those at the front whose clients have left; return whether anything waits then."""
        while self._waiting and self._waiting[0].caller.gone:
            self._drop_head()
        return bool(self._waiting)

    def expire(self, before: float) -> list[Pending]:
        """Take out those that were put in before this time: they have waited too long."""
        expired = []
        while self._waiting and self._waiting[0].enqueued_at < before:
            expired.append(self._drop_head())
        return expired

    def clear(self) -> list[Pending]:
        """Take out all that wait."""
        return self.expire(float("inf"))

    def _drop_gone(self) -> None:
        """Make room: drop all whose clients have left."""
        kept = deque(pending for pending in self._waiting if not pending.caller.gone)
        self.shared.waiting -= len(self._waiting) - len(kept)
        self._waiting = kept

    def _drop_head(self) -> Pending:
        self.shared.waiting -= 1
        return self._waiting.popleft()
