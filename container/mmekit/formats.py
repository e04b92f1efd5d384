"""Which framework a model's file belongs to: by its name, its first bytes, and what a pickle would import.

Nothing is unpickled and no framework is imported. A file that is named like a model's but is broken
still counts: its handler then says what is wrong with it.
"""

from __future__ import annotations

import bz2
import io
import lzma
import os
import pickletools
import zlib
from collections.abc import Iterator
from pathlib import Path

#: Import strings of the built-in handlers.
XGBOOST = "mmekit_handlers.xgboost:XGBoostHandler"
SKLEARN = "mmekit_handlers.sklearn:SklearnHandler"
PYTORCH = "mmekit_handlers.pytorch:PyTorchHandler"

#: What a built-in handler is for, and the framework that an image needs for it.
FRAMEWORKS = {
    XGBOOST: ("XGBoost", "xgboost"),
    SKLEARN: ("scikit-learn", "sklearn"),
    PYTORCH: ("PyTorch", "torch"),
}

#: For messages about folders in which nothing was recognised.
KNOWN_FILES = (
    "XGBoost (*.ubj, *.bst, *.model, xgboost-model*, a *.json with a learner, a pickle of xgboost classes), "
    "scikit-learn (*.joblib, *.pkl, *.pickle, *.skops), PyTorch (*.pt, *.pth, *.pt2, *.safetensors, *.bin)"
)

#: Bytes looked at, read and decompressed. A pickle names its first classes in the first hundreds.
_HEAD_BYTES = 256 * 1024
#: xgboost writes {"learner":…,"version":…}; some writers put the version first.
_LEARNER_WITHIN_BYTES = 64 * 1024

_SUFFIXES = {
    ".ubj": XGBOOST,
    ".bst": XGBOOST,
    ".skops": SKLEARN,
    ".pt": PYTORCH,
    ".pth": PYTORCH,
    ".pt2": PYTORCH,
    ".safetensors": PYTORCH,
}
_PICKLE_SUFFIXES = (".joblib", ".pkl", ".pickle", ".sav")
_ROOTS = {"xgboost": XGBOOST, "sklearn": SKLEARN, "torch": PYTORCH}
_ZIP = b"PK\x03\x04"
#: First bytes of a pickle of protocol 2 and up (PEP 307, PEP 3154).
_PICKLE = b"\x80"
#: Header of XGBoost's old binary format (xgboost: src/learner.cc).
_XGBOOST_BINARY = b"binf"


def runtime_of_file(path: Path) -> str | None:
    """Return the import string of the built-in handler for a file, or None when none is known to fit.

    Reads at most 256 KiB. Raises ``OSError`` when the file cannot be read.
    """
    name = path.name.casefold()
    suffix = os.path.splitext(name)[1]
    if known := _SUFFIXES.get(suffix):
        return known
    if name.startswith("xgboost-model"):
        return XGBOOST
    if suffix not in ("", ".json", ".model", ".bin", *_PICKLE_SUFFIXES):
        return None
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if suffix in _PICKLE_SUFFIXES:
        return PYTORCH if head.startswith(_ZIP) else _runtime_of_pickle(_decompress(head))
    sniffed = _runtime_of_bytes(head)
    if suffix == ".model":
        return sniffed or XGBOOST
    if suffix == ".bin":
        return sniffed or PYTORCH
    return sniffed


def _runtime_of_bytes(head: bytes) -> str | None:
    """Decide for files whose names say little: XGBoost's JSON and old binary format, pickles, torch's zip."""
    if head[:64].lstrip().startswith(b"{") and b'"learner"' in head[:_LEARNER_WITHIN_BYTES]:
        return XGBOOST
    if head.startswith(_XGBOOST_BINARY):
        return XGBOOST
    if head.startswith(_PICKLE):
        return _runtime_of_pickle(head)
    if head.startswith(_ZIP) and b"data.pkl" in head:
        return PYTORCH
    return None


def _runtime_of_pickle(head: bytes) -> str:
    """Return the handler of the first framework class that a pickle names; else scikit-learn's.

    scikit-learn's handler also serves estimators of other libraries that follow its interface.
    """
    for module in pickled_modules(head):
        if known := _ROOTS.get(module.partition(".")[0]):
            return known
    return SKLEARN


def _decompress(head: bytes) -> bytes:
    """Undo what joblib's ``compress=`` does, as far as the standard library can; at most 256 KiB come out.

    Magic bytes: joblib/compressor.py. lz4 needs a library that an image may not have.
    """
    try:
        if head.startswith(b"\x1f\x8b"):
            return zlib.decompressobj(wbits=31).decompress(head, _HEAD_BYTES)
        if head.startswith(b"x"):
            return zlib.decompressobj().decompress(head, _HEAD_BYTES)
        if head.startswith(b"BZ"):
            return bz2.BZ2Decompressor().decompress(head, _HEAD_BYTES)
        if head.startswith((b"\xfd7zXZ", b"\x5d\x00")):
            return lzma.LZMADecompressor().decompress(head, _HEAD_BYTES)
    except (zlib.error, OSError, lzma.LZMAError, EOFError):
        pass  # not compressed after all, or broken: its handler will say so
    return head


def pickled_modules(head: bytes) -> Iterator[str]:
    """Yield the modules that the beginning of a pickle would import, in order, without importing them.

    Stops quietly where the bytes end or are no pickle.
    """
    strings: list[str] = []
    memo: list[str | None] = []
    latest: str | None = None
    try:
        for opcode, argument, _ in pickletools.genops(io.BytesIO(head)):
            if opcode.name in ("GLOBAL", "INST"):
                yield str(argument).partition(" ")[0]
            elif opcode.name == "STACK_GLOBAL" and len(strings) >= 2:
                yield strings[-2]
            elif opcode.name == "MEMOIZE":  # STACK_GLOBAL came with it, in protocol 4
                memo.append(latest)
                continue
            latest = None
            if "UNICODE" in opcode.name:
                latest = str(argument)
            elif opcode.name in ("BINGET", "LONG_BINGET") and isinstance(argument, int):
                latest = memo[argument] if argument < len(memo) else None
            if latest is not None:
                strings.append(latest)
    except (ValueError, UnicodeDecodeError, IndexError):
        return
