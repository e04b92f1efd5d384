"""Who may take how much memory: the ledger of loads in progress and loaded models, and the watchdog.

Free is limit − used − reserve − what loads in progress were granted. A grant counts whole until
the load is settled, because how much of it shows in the reading already is not known; a settled
model counts by the reading alone, its cost is kept for the books. So a load is admitted too late
at worst, never too early.

This module decides and counts. The registry gives back idle copies and the spare first
(``shortfall``), answers 507 and ends workers.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from mmekit.config import setting_of
from mmekit.errors import ConfigError, OutOfResources
from mmekit.server.usage import Reading

MIB = 1024 * 1024

#: What a worker's data may grow beyond its grant, in bytes: stacks of threads and arenas of the
#: allocator count in VmData though they are hardly touched.
_DATA_SLACK_BYTES = 32 * MIB
#: What calls may take after a load, in bytes, however little is free.
_LEAST_ALLOWANCE_BYTES = 64 * MIB
#: How long the memory of a worker that was ended may take to come back, in seconds.
_GRACE_S = 0.25


class Source(Protocol):
    """Where readings come from: ``usage.MemorySource``."""

    @property
    def limit_bytes(self) -> int: ...

    def usage(self) -> Reading: ...

    def used(self) -> Reading: ...


class GrantState(Enum):
    """Held while the load runs, settled when the model is loaded, released when it is gone."""

    HELD = "held"
    SETTLED = "settled"
    RELEASED = "released"


@dataclass(eq=False, slots=True)
class Grant:
    """Memory for one model in one worker; only ``Memory`` changes it."""

    model: str
    granted_bytes: int
    state: GrantState = GrantState.HELD
    cost_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Statement:
    """The ledger at one moment, in bytes; ``ceiling`` names what sets the limit."""

    ceiling: str
    limit_bytes: int
    used_bytes: int
    held_bytes: int
    loads: int
    reserve_bytes: int
    models_bytes: int

    @property
    def free_bytes(self) -> int:
        """What a load could be granted now."""
        return max(0, self.free_without_loads_bytes - self.held_bytes)

    @property
    def free_without_loads_bytes(self) -> int:
        """What could be granted if no load were in progress."""
        return self.limit_bytes - self.used_bytes - self.reserve_bytes

    @property
    def free_when_empty_bytes(self) -> int:
        """What could be granted if every loaded model were unloaded as well."""
        return self.free_without_loads_bytes + self.models_bytes


def default_reserve(limit_bytes: int) -> int:
    """Return a sixteenth of the limit between 64 and 128 MiB, but never above an eighth.

    A runaway load grew by 33 MiB at most between two looks 20 ms apart; 64 MiB held against it.
    """
    return min(max(limit_bytes // 16, 64 * MIB), 128 * MIB, limit_bytes // 8)


def check_reserve(reserve_bytes: int | None, limit_bytes: int) -> int:
    """Return the reserve to keep; raises ConfigError when it leaves nothing of the limit."""
    if reserve_bytes is None:
        return default_reserve(limit_bytes)
    if reserve_bytes >= limit_bytes:
        name = setting_of("memory_reserve_bytes").names[0]
        raise ConfigError(
            f"{name}={reserve_bytes} cannot be used: the memory limit is {limit_bytes} bytes "
            f"({_mib(limit_bytes)}), expected a smaller reserve."
        )
    return reserve_bytes


class Memory:
    """The ledger: every grant from its admission to its release."""

    def __init__(self, source: Source, reserve_bytes: int) -> None:
        self.reserve_bytes = reserve_bytes
        self._source = source
        self._held: set[Grant] = set()
        self._settled: set[Grant] = set()
        self._models_bytes = 0

    # --- reading -----------------------------------------------------------------------------

    def statement(self) -> Statement:
        """Return the numbers as they are now; costs one exact reading."""
        reading = self._source.used()
        return Statement(
            ceiling=reading.ceiling,
            limit_bytes=reading.limit_bytes,
            used_bytes=reading.used_bytes,
            held_bytes=sum(grant.granted_bytes for grant in self._held),
            loads=len(self._held),
            reserve_bytes=self.reserve_bytes,
            models_bytes=self._models_bytes,
        )

    def costs(self) -> dict[str, int]:
        """Return the measured cost of each loaded model in bytes, its copies together."""
        costs: dict[str, int] = {}
        for grant in self._settled:
            costs[grant.model] = costs.get(grant.model, 0) + grant.cost_bytes
        return costs

    def shortfall(self, need_bytes: int) -> int:
        """Return how many bytes are missing for a load: what idle copies and the spare should give back."""
        return max(0, need_bytes - self.statement().free_bytes)

    def fits_after_loads(self, need_bytes: int) -> bool:
        """Tell whether only grants of loads in progress are in the way: waiting for them may do."""
        return need_bytes <= self.statement().free_without_loads_bytes

    # --- the life of a grant -------------------------------------------------------------------

    def admit(self, model: str, need_bytes: int, origin: str) -> Grant:
        """Grant ``need_bytes`` to a load; ``origin`` says where the figure comes from.

        Raises OutOfResources with the numbers when less is free.
        """
        statement = self.statement()
        if need_bytes > statement.free_bytes:
            raise OutOfResources(_refusal(model, need_bytes, origin, statement))
        grant = Grant(model, need_bytes)
        self._held.add(grant)
        return grant

    def enlarge(self, grant: Grant) -> None:
        """Give a load that ran out of its grant all that is free, for a second try.

        Call it when the failed load has given its memory back. Raises OutOfResources when nothing
        more is free; the grant stays as it was.
        """
        self._expect_held(grant, "enlarge")
        statement = self.statement()
        if not statement.free_bytes:
            need = grant.granted_bytes
            origin = "which its load has exceeded"
            raise OutOfResources(_refusal(grant.model, need, origin, statement, "more than "))
        grant.granted_bytes += statement.free_bytes

    def settle(self, grant: Grant, cost_bytes: int) -> None:
        """End a load that succeeded: from now on the reading shows what it takes."""
        self._expect_held(grant, "settle")
        self._held.remove(grant)
        self._settled.add(grant)
        grant.state = GrantState.SETTLED
        grant.cost_bytes = cost_bytes
        self._models_bytes += cost_bytes

    def release(self, grant: Grant) -> None:
        """Forget a grant: its load has failed, or the model is unloaded or its worker gone."""
        if grant.state is GrantState.RELEASED:
            raise RuntimeError(f"release: the grant of {grant.model!r} is released already")
        self._held.discard(grant)
        self._settled.discard(grant)
        self._models_bytes -= grant.cost_bytes
        grant.state = GrantState.RELEASED
        grant.cost_bytes = 0

    def pass_on(self, grant: Grant, heir: Grant) -> None:
        """A copy goes whose memory another shares: that is the other's cost from now on.

        Both are settled; release ``grant`` afterwards.
        """
        more = max(0, grant.cost_bytes - heir.cost_bytes)
        heir.cost_bytes += more
        self._models_bytes += more

    def _expect_held(self, grant: Grant, call: str) -> None:
        if grant.state is not GrantState.HELD:
            raise RuntimeError(f"{call}: the grant of {grant.model!r} is {grant.state.value}, not held")


def _mib(count: int) -> str:
    return f"{count / MIB:.1f} MiB"


def _refusal(model: str, need_bytes: int, origin: str, at: Statement, more: str = "about ") -> str:
    loads = f"{at.loads} load" + ("" if at.loads == 1 else "s")
    limit = setting_of("memory_limit_bytes").names[0]
    if need_bytes <= at.free_without_loads_bytes:
        advice = "Try again when the loads in progress have ended, or unload other models."
    elif need_bytes <= at.free_when_empty_bytes:
        advice = "Unload other models and try again."
    else:
        advice = (
            f"Unloading every other model would free {_mib(at.models_bytes)}, which is not enough: "
            f"give the container more memory ({limit}, or its cgroup's limit)."
        )
    return (
        f"Model {model!r} needs {more}{_mib(need_bytes)} of memory ({origin}), but "
        f"{_mib(at.free_bytes)} are free: limit {_mib(at.limit_bytes)} ({at.ceiling}), "
        f"used {_mib(at.used_bytes)}, held for {loads} in progress {_mib(at.held_bytes)}, "
        f"reserve {_mib(at.reserve_bytes)}. {advice}"
    )


# --- limits that the kernel holds ------------------------------------------------------------


def load_data_bytes(granted_bytes: int, file_bytes: int, slack_bytes: int = _DATA_SLACK_BYTES) -> int:
    """Return how far a worker's VmData may grow during a load: ``messages.Load.grant_bytes``.

    Never less than the model's files: torch and safetensors map weights private and writable, and
    such pages count in VmData before they take any memory (measured: + 64 MiB for a file of 64).
    """
    return max(granted_bytes, file_bytes) + slack_bytes


def call_data_bytes(at: Statement) -> int:
    """Return how far a worker's VmData may grow after a load: the standing allowance.

    The limit less the reserve, whatever is used just now: the watchdog guards the sum, this one a
    call that asks for more than there can ever be, which gets a MemoryError.
    """
    return max(at.limit_bytes - at.reserve_bytes, _LEAST_ALLOWANCE_BYTES)


# --- the watchdog ------------------------------------------------------------------------------


class Watchdog:
    """Looks every 10 to 20 ms while loads and calls run, and says when one of them must be ended now.

    The line is limit − reserve. The quick reading counts page cache, so it is above the line for
    good in a container that has read much; only then the exact one is taken.
    """

    def __init__(self, source: Source, reserve_bytes: int) -> None:
        #: Less than twice the reserve was free at the last look: the next should come soon.
        self.is_close = False
        self._source = source
        self._reserve_bytes = reserve_bytes
        # The last time a worker was to be ended, and the use at that time.
        self._ended_s: float | None = None
        self._ended_used_bytes = 0

    def tick(self, now_s: float) -> bool:
        """Return True when a loading worker must be ended; its memory then gets time to come back.

        Within that time a further worker is asked for only when use has still grown by a quarter
        of the reserve.
        """
        close_bytes = 2 * self._reserve_bytes
        if self._source.usage().free_bytes >= close_bytes:
            self.is_close = False
            self._ended_s = None
            return False
        reading = self._source.used()
        self.is_close = reading.free_bytes < close_bytes
        if reading.free_bytes >= self._reserve_bytes:
            self._ended_s = None
            return False
        if self._waits(reading, now_s):
            return False
        self._ended_s = now_s
        self._ended_used_bytes = reading.used_bytes
        return True

    def _waits(self, reading: Reading, now_s: float) -> bool:
        if self._ended_s is None or now_s >= self._ended_s + _GRACE_S:
            return False
        return reading.used_bytes < self._ended_used_bytes + self._reserve_bytes // 4
