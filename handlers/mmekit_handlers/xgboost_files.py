"""XGBoost models on disk: which files of a folder are models, and reading each, whatever wrote it.

What a file is shows in its bytes, not its name, as in AWS's container: that calls every model
``xgboost-model``, be it a pickle or one of XGBoost's own three formats. Unpickling runs what the
pickle says; so does AWS's container, and so does loading a model with code of its own.
"""

from __future__ import annotations

import bz2
import io
import logging
import lzma
import math
import os
import pickle
import re
import warnings
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import xgboost as xgb

from mmekit.errors import InvalidModel, ModelLoadError
from mmekit_handlers.base import is_out_of_memory
from mmekit_handlers.xgboost_version import (
    LEGACY_NAMES,
    check_base_score,
    dotted,
    find_version,
    ours,
    versions,
)

logger = logging.getLogger(__name__)

#: Suffixes and names of what people put beside a model and AWS's container stumbles over.
_BESIDE_SUFFIXES = re.compile(
    r"\.(cfg|csv|gz|html|ini|ipynb|libsvm|log|md|mf|npy|npz|parquet|png|py|pyc|rst|sh|svg"
    r"|tar|toml|tsv|txt|xml|yaml|yml|zip)$",
    re.IGNORECASE,
)
_BESIDE_NAMES = re.compile(r"(licen[cs]e|readme|notice|changelog|manifest|metadata)\b", re.IGNORECASE)

_PICKLE_SUFFIXES = (".pkl", ".pickle", ".joblib")
#: First bytes of what joblib's ``compress=`` writes (joblib: compressor.py), and what undoes it.
_COMPRESSED = {
    b"\x1f\x8b": lambda raw: zlib.decompress(raw, wbits=31),
    b"\x78": zlib.decompress,
    b"BZh": bz2.decompress,
    b"\xfd7zXZ": lzma.decompress,
    b"\x5d\x00": lzma.decompress,
}
#: "[12:00:00] /workspace/src/learner.cc:1: " in front of XGBoost's messages; a stack trace follows.
_XGBOOST_PREFIX = re.compile(r"^\[\d\d:\d\d:\d\d\] (?:\w+: )?(?:\S+: )?")
#: Memory in bytes that is surely enough to read a damaged file's honest part.
_PROBE_FLOOR_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class LoadedBooster:
    """A booster, the file it came from, and the value that stands for missing (scikit-learn wrappers)."""

    booster: xgb.Booster
    file: str
    missing: float = math.nan


def load_boosters(model_dir: str, ensemble: bool = True, threads: int = 1) -> list[LoadedBooster]:
    """Load every model file of a folder, by name; only the first without ``ensemble``.

    Raises ``InvalidModel`` when there is none, ``ModelLoadError`` for a file that cannot be read.
    """
    paths, others = _model_files(model_dir)
    if not paths:
        found = f"; found {', '.join(others[:10])}" if others else ""
        raise InvalidModel(
            f"no XGBoost model file in {model_dir}{found}. "
            "Expected .ubj, .json, .bst, .model, .pkl or a file named xgboost-model"
        )
    # Reading trees is parallel too, and a booster that is not there yet cannot be told how many threads.
    with xgb.config_context(nthread=threads):
        return [_load(path) for path in (paths if ensemble else paths[:1])]


def as_booster(model: Any, file: str = "model_fn") -> LoadedBooster:
    """Return the booster that an object of xgboost's is or holds; raises ``ModelLoadError``."""
    if isinstance(model, xgb.Booster):
        return LoadedBooster(model, file)
    get_booster = getattr(model, "get_booster", None)
    if get_booster is None:
        raise ModelLoadError(
            f"{file} holds a {_type_name(model)}; expected an xgboost.Booster or one of xgboost's "
            "scikit-learn classes. Serve anything else with the model's own code (code/inference.py)"
        )
    try:
        booster = get_booster()
    except Exception as error:  # NotFittedError is scikit-learn's, which may not be there
        raise ModelLoadError(f"{file} holds a {_type_name(model)} that cannot be used: {error}") from error
    missing = getattr(model, "missing", None)
    return LoadedBooster(booster, file, math.nan if missing is None else float(missing))


def explain(error: BaseException) -> str:
    """Return XGBoost's message without time, source file and C++ stack."""
    text = str(error).strip()
    return _XGBOOST_PREFIX.sub("", text.splitlines()[0]) if text else type(error).__name__


def _model_files(model_dir: str) -> tuple[list[str], list[str]]:
    """Return paths of models and names of other files, both in order of name."""
    paths, others = [], []
    with os.scandir(model_dir) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if not entry.is_file():
                continue
            if entry.name.startswith(".") or _is_beside(entry):
                others.append(entry.name)
            else:
                paths.append(entry.path)
    if paths and others:
        logger.info("not models, so read over: %s", ", ".join(others[:10]))
    return paths, others


def _is_beside(entry: os.DirEntry[str]) -> bool:
    if _BESIDE_SUFFIXES.search(entry.name) or _BESIDE_NAMES.match(entry.name):
        return True
    if not entry.name.lower().endswith(".json"):
        return False
    with open(entry.path, "rb") as file:
        text = file.read()
    # Of JSON files only those with a learner are models; what begins like one is a broken one.
    return b'"learner"' not in text and text.lstrip()[:1] == b"{" and text.rstrip()[-1:] == b"}"


def _load(path: str) -> LoadedBooster:
    name = os.path.basename(path)
    try:
        raw = _contents(path)
    except OSError as error:
        raise ModelLoadError(f"{name} cannot be read: {error}") from error
    if not raw:
        raise ModelLoadError(f"{name} is empty; expected an XGBoost model")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loaded = _from_pickle(raw, name) if _is_pickle(raw, name) else _from_xgboost(raw, name)
    for warning in caught:
        logger.info("%s: %s", name, explain(Warning(warning.message)))
    return loaded


def _contents(path: str) -> bytearray:
    """Read a file into what ``Booster.load_model`` takes without another copy."""
    with open(path, "rb", buffering=0) as file:
        raw = bytearray(os.fstat(file.fileno()).st_size)
        view, length = memoryview(raw), 0
        while length < len(raw) and (count := file.readinto(view[length:])):
            length += count
        view.release()
    return raw[:length] if length < len(raw) else raw


def _is_pickle(raw: bytearray, name: str) -> bool:
    if raw.startswith(b"\x80") or name.lower().endswith(_PICKLE_SUFFIXES):
        return True
    # Protocols 0 and 1 have no magic: a class or a tuple comes first, a full stop last.
    return raw.startswith((b"c", b"(")) and raw.rstrip().endswith(b".")


def _from_pickle(raw: bytearray, name: str) -> LoadedBooster:
    plain = _decompressed(raw, name)
    check_base_score(plain, name)
    failure: Exception
    try:
        return as_booster(_unpickle(raw, plain), name)
    except (MemoryError, ModelLoadError):
        raise
    except Exception as error:  # noqa: BLE001 - unpickling runs anything and raises anything
        failure = error
    if is_out_of_memory(failure) and _memory_is_short(len(raw)):
        raise failure
    raise ModelLoadError(_cannot_unpickle(failure, plain, name))


def _unpickle(raw: bytearray, plain: bytes | bytearray) -> Any:
    """Unpickle; joblib is asked for what it compressed and for arrays that it put between."""
    if plain is not raw:
        import joblib

        return joblib.load(io.BytesIO(raw))
    try:
        return pickle.loads(raw)
    except (pickle.UnpicklingError, EOFError, KeyError, UnicodeDecodeError):
        if b"joblib.numpy_pickle" not in raw:
            raise
    import joblib

    return joblib.load(io.BytesIO(raw))


def _decompressed(raw: bytearray, name: str) -> bytes | bytearray:
    for magic, decompress in _COMPRESSED.items():
        if raw.startswith(magic):
            try:
                return decompress(raw)
            except (zlib.error, OSError, lzma.LZMAError, EOFError) as error:
                raise ModelLoadError(f"{name} is compressed and damaged: {error}") from error
    return raw


def _cannot_unpickle(error: Exception, plain: bytes | bytearray, name: str) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"{name} is a pickle that needs the module {error.name}, which is not installed here"
    return (
        f"{name} cannot be unpickled: {type(error).__name__}: {explain(error)}. {versions(plain)}. "
        "Pickles are tied to the version that wrote them: load it there, "
        "save it with save_model('model.ubj') and put that file in its place"
    )


def _from_xgboost(raw: bytearray, name: str) -> LoadedBooster:
    if not raw[:64].lstrip().startswith(b"{") and not LEGACY_NAMES.match(raw):
        raise ModelLoadError(
            f"{name} is not a model that XGBoost can read: it begins with {bytes(raw[:12])!r}; expected "
            "XGBoost's UBJSON, JSON or old binary format, or a pickle"
        )
    check_base_score(raw, name)
    try:
        return LoadedBooster(xgb.Booster(model_file=raw), name)
    except xgb.core.XGBoostError as error:
        failure = error
    # A damaged length makes XGBoost ask for terabytes: no shortage, and unloading others would not help.
    if is_out_of_memory(failure) and _memory_is_short(len(raw)):
        raise failure
    raise ModelLoadError(_cannot_read(failure, raw, name))


def _cannot_read(error: Exception, raw: bytearray, name: str) -> str:
    why = "a length in it is impossible" if is_out_of_memory(error) else explain(error)
    version = find_version(raw)
    if version is not None and version <= ours():
        return f"{name} cannot be read: {why}. {versions(raw)}, which reads such files; this one is damaged"
    writer = "the version that wrote it" if version is None else f"XGBoost {dotted(version)}"
    return (
        f"{name} cannot be read: {why}. {versions(raw)}. Unless it is damaged, load it with {writer} and "
        "save it again: booster.save_model('model.json') or .ubj"
    )


def _memory_is_short(file_bytes: int) -> bool:
    """Say whether even what an honest file of this size needs is not to be had."""
    try:
        np.empty(max(_PROBE_FLOOR_BYTES, 32 * file_bytes), np.uint8)
    except MemoryError:
        return True
    return False


def _type_name(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"
