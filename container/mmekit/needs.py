"""What a load needs before one was measured: memory and time by kind and size of the model's files.

A kind is a runtime with a file suffix. For each, memory is taken as ``base + ratio × file bytes``. The
guesses are measured figures (XGBoost, scikit-learn, PyTorch on CPU; a process forked from a warm
template). ``server.estimates`` learns better ones. Pure, except ``sizes_by_suffix``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

MIB = 1024 * 1024

#: What a forked worker takes before its first model, in bytes (measured 5 to 8.5 MiB with page tables).
WORKER_BYTES = 9 * MIB
#: A load whose time nobody knows, in ms: far above what may run beside busy residents.
UNKNOWN_LOAD_MS = 1000.0

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


@dataclass(slots=True)
class Need:
    """What loads of one kind need: memory ``base + ratio × bytes``, time ``base + rate × MiB``."""

    base_bytes: float
    ratio: float
    base_ms: float
    ms_per_mib: float

    def memory(self, size: int) -> float:
        return self.base_bytes + self.ratio * size

    def time_ms(self, size: int) -> float:
        return self.base_ms + self.ms_per_mib * size / MIB


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


def first_guess(runtime: str, suffix: str) -> Need:
    """Return what a load of one kind (``Subject.kind``) is first taken to need."""
    framework = runtime.partition(":")[0].rpartition(".")[2]
    known = _FIRST_MS.get((framework, "*"), _UNKNOWN_MS)
    base_ms, ms_per_mib = _FIRST_MS.get((framework, suffix), known)
    return Need(8.0 * MIB, _FIRST_RATIO.get(suffix, _OTHER_RATIO), base_ms, ms_per_mib)
