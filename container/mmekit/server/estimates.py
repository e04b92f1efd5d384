"""How much memory and time a load will need: what this archive needed before, else what its kind did.

A kind is a runtime with a file suffix. For each, memory is taken as ``base + ratio × file bytes``.
Loads of small files teach the base, those of large ones the ratio; both jump up at once and come
down slowly, so an estimate is a bound more often than a mean. The first guesses are measured
figures (XGBoost, scikit-learn, PyTorch on CPU; a process forked from a warm template).
Pure: nothing here reads a file or a clock, except ``sizes_by_suffix``.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

MIB = 1024 * 1024

#: What a forked worker takes before its first model, in bytes (measured 5 to 8.5 MiB with page tables).
WORKER_BYTES = 9 * MIB
#: A load whose time nobody knows, in ms: far above what may run beside busy residents.
UNKNOWN_LOAD_MS = 1000.0

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
#: Suffixes that tell kinds of model files apart; all others are one kind, so kinds stay few.
_DATA_SUFFIXES = frozenset(
    {".json", ".ubj", ".bst", ".model", ".pkl", ".pickle", ".joblib", ".skops", ".npy", ".npz"}
    | {".pt", ".pth", ".pt2", ".bin", ".safetensors", ".onnx"}
)
#: Suffixes of code and notes: no model data.
_CODE_SUFFIXES = frozenset((".py", ".pyc", ".txt", ".md", ".mf", ".cfg", ".ini", ".toml", ".yaml", ".yml"))


@dataclass(frozen=True, slots=True)
class Subject:
    """What is to be loaded, as far as its needs can depend on it.

    ``runtime`` is the import string of the built-in handler or None; ``sizes`` the bytes of the
    folder's files by suffix (``sizes_by_suffix``).
    """

    url: str
    runtime: str | None
    own_code: bool
    sizes: tuple[tuple[str, int], ...]

    @property
    def data_bytes(self) -> int:
        """Bytes of all model files."""
        return sum(size for _, size in self.sizes)

    @property
    def kind(self) -> tuple[str, str]:
        """Runtime and the suffix that most of the bytes have."""
        largest = max(((size, suffix) for suffix, size in self.sizes), default=(0, ""))
        return ("own code" if self.own_code else self.runtime or "image's handler", largest[1])


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


def sizes_by_suffix(path: str) -> tuple[tuple[str, int], ...]:
    """Add up the model files of a folder by suffix; code and notes are left out.

    Blocks, so it belongs off the event loop. Files that vanish meanwhile count as nothing.
    """
    sizes: dict[str, int] = {}
    for name, size in _files(path):
        suffix = os.path.splitext(name)[1].lower()
        if suffix not in _CODE_SUFFIXES:
            key = suffix if suffix in _DATA_SUFFIXES else ""
            sizes[key] = sizes.get(key, 0) + size
    return tuple(sorted(sizes.items()))


def _files(path: str) -> Iterator[tuple[str, int]]:
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                yield name, os.stat(os.path.join(folder, name)).st_size
            except OSError:
                continue


# --- what is known -----------------------------------------------------------------------------


@dataclass(slots=True)
class _Kind:
    """What loads of one kind need: memory ``base + ratio × bytes``, time ``base + rate × MiB``."""

    base_bytes: float
    ratio: float
    base_ms: float
    ms_per_mib: float
    loads: int = 0

    def memory(self, size: int) -> float:
        return self.base_bytes + self.ratio * size

    def time_ms(self, size: int) -> float:
        return self.base_ms + self.ms_per_mib * size / MIB

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


#: First guesses of bytes needed per byte of file, whoever reads it: JSON is parsed into a tree of
#: ten times its size, safetensors are mapped one to one, other files and their objects make two.
_FIRST_RATIO = {".json": 10.0, ".safetensors": 1.0}
_OTHER_RATIO = 2.0
#: First guesses of ms and ms per MiB of file, by framework and suffix ("*": any other).
_FIRST_MS = {
    ("xgboost", ".json"): (2.0, 55.0),
    ("xgboost", "*"): (2.0, 10.0),
    ("sklearn", "*"): (2.0, 10.0),
    ("pytorch", ".safetensors"): (4.0, 0.1),
    ("pytorch", "*"): (14.0, 4.0),
}
_UNKNOWN_MS = (UNKNOWN_LOAD_MS, 10.0)


def _first_guess(runtime: str, suffix: str) -> _Kind:
    framework = runtime.partition(":")[0].rpartition(".")[2]
    known = _FIRST_MS.get((framework, "*"), _UNKNOWN_MS)
    base_ms, ms_per_mib = _FIRST_MS.get((framework, suffix), known)
    return _Kind(8.0 * MIB, _FIRST_RATIO.get(suffix, _OTHER_RATIO), base_ms, ms_per_mib)


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
        kind = self._kinds.get(subject.kind) or _first_guess(*subject.kind)
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
        kind = self._kinds.setdefault(subject.kind, _first_guess(*subject.kind))
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
    least = int(_first_guess(*subject.kind).memory(size))
    origin = f"learned from {kind.loads} load{'' if kind.loads == 1 else 's'} of {name}"
    memory = int(kind.memory(size) * _MARGIN) + _MARGIN_BYTES
    return Estimate(memory, load_ms, origin, min(least, memory))
