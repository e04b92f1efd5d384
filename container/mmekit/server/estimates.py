"""How much memory and time a load will need: what this archive needed before, else what its kind did.

A kind is a runtime with a file suffix. For each, memory is taken as ``base + ratio × file bytes``.
Loads of small files teach the base, those of large ones the ratio; both jump up at once and come
down slowly, so an estimate is a bound more often than a mean. The first guesses are those of ``needs``.
Pure: nothing here reads a file or a clock.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import astuple, dataclass

from mmekit.needs import MIB, UNKNOWN_LOAD_MS, Need, Subject, first_guess

#: Archives that are remembered one by one.
_MAX_ARCHIVES = 4096
#: Model files of up to this teach the base of their kind, larger ones the ratio; bytes.
_SMALL_BYTES = MIB
#: An estimate from measured loads is raised by this factor and this many bytes.
_MARGIN = 1.25
_MARGIN_BYTES = MIB
#: Each lower measurement takes this share of the way down; a higher load time half the way up.
_FALL = 0.1
_RISE_MS = 0.5


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a load may need at its peak, how long it may take, and where the memory figure comes from.

    ``least_bytes`` is below that where the figure comes from other archives of its kind: a load may
    be tried with as little.
    """

    memory_bytes: int
    load_ms: float
    origin: str
    least_bytes: int


# --- what is known -----------------------------------------------------------------------------


@dataclass(slots=True)
class _Kind(Need):
    """What loads of one kind needed."""

    loads: int = 0

    @classmethod
    def unknown(cls, kind: tuple[str, str]) -> _Kind:
        """Return what is known before the first load."""
        return cls(*astuple(first_guess(*kind)))

    def learn(self, size: int, peak: int, load_ms: float) -> None:
        self.loads += 1
        mib = size / MIB
        if size <= _SMALL_BYTES:
            self.base_bytes = _envelope(self.base_bytes, max(0.0, peak - self.ratio * size))
            self.base_ms = _average(self.base_ms, max(0.0, load_ms - self.ms_per_mib * mib))
        else:
            self.ratio = _envelope(self.ratio, max(0.0, peak - self.base_bytes) / size)
            self.ms_per_mib = _average(self.ms_per_mib, max(0.0, load_ms - self.base_ms) / mib)


def _envelope(known: float, measured: float) -> float:
    return measured if measured > known else known + _FALL * (measured - known)


def _average(known: float, measured: float) -> float:
    return known + (_RISE_MS if measured > known else _FALL) * (measured - known)


@dataclass(slots=True)
class _Archive:
    """What one archive needed; ``load_ms`` is None while no load of it has succeeded."""

    peak_bytes: float
    load_ms: float | None = None

    def learn(self, peak: int, load_ms: float) -> None:
        if self.load_ms is None:
            self.peak_bytes, self.load_ms = peak, load_ms
        else:
            self.peak_bytes = _envelope(self.peak_bytes, peak)
            self.load_ms = _average(self.load_ms, load_ms)


class Estimator:
    """Learns from loads what the next will need; remembers the archives used last."""

    def __init__(self, max_archives: int = _MAX_ARCHIVES) -> None:
        self._max_archives = max_archives
        self._archives: OrderedDict[Subject, _Archive] = OrderedDict()
        self._kinds: dict[tuple[str, str], _Kind] = {}

    def estimate(self, subject: Subject) -> Estimate:
        """Return what a load of this archive may need."""
        kind = self._kinds.get(subject.kind) or _Kind.unknown(subject.kind)
        general = _general(kind, subject)
        archive = self._archives.get(subject)
        if archive is None:
            return general
        self._archives.move_to_end(subject)
        if archive.load_ms is not None:
            memory = int(archive.peak_bytes * _MARGIN) + _MARGIN_BYTES
            return Estimate(memory, archive.load_ms, "measured when it was loaded before", memory)
        if archive.peak_bytes <= general.memory_bytes:
            return general
        origin = "reached when its last load ran out of memory"
        return Estimate(int(archive.peak_bytes), general.load_ms, origin, int(archive.peak_bytes))

    def loaded(self, subject: Subject, peak_bytes: int, load_ms: float) -> None:
        """Learn from a load that succeeded: the most memory it took on the way, and its time."""
        self._archive(subject).learn(peak_bytes, load_ms)
        kind = self._kinds.setdefault(subject.kind, _Kind.unknown(subject.kind))
        kind.learn(subject.data_bytes, peak_bytes, load_ms)

    def ran_out(self, subject: Subject, peak_bytes: int) -> None:
        """Learn from a load that failed for memory: the next is not tried with less than it reached.

        Not with more either: the reason may have been another, and the same memory must do for
        another try.
        """
        archive = self._archive(subject)
        archive.peak_bytes = max(archive.peak_bytes, peak_bytes)

    def _archive(self, subject: Subject) -> _Archive:
        archive = self._archives.setdefault(subject, _Archive(0))
        self._archives.move_to_end(subject)
        if len(self._archives) > self._max_archives:
            self._archives.popitem(last=False)
        return archive


def _general(kind: _Kind, subject: Subject) -> Estimate:
    size = subject.data_bytes
    load_ms = UNKNOWN_LOAD_MS if subject.own_code else kind.time_ms(size)
    name = " ".join(part for part in (*subject.kind, "files") if part)
    if not kind.loads:
        origin = f"first guess for {name}: {kind.ratio:g} × file + {kind.base_bytes / MIB:g} MiB"
        return Estimate(int(kind.memory(size)), load_ms, origin, int(kind.memory(size)))
    least = int(first_guess(*subject.kind).memory(size))
    origin = f"learned from {kind.loads} load{'' if kind.loads == 1 else 's'} of {name}"
    memory = int(kind.memory(size) * _MARGIN) + _MARGIN_BYTES
    return Estimate(memory, load_ms, origin, min(least, memory))
