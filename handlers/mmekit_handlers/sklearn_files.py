"""Finds and reads a scikit-learn model's file: joblib, pickle or skops.

Pickles run code when they are read: a model's file is trusted as the model's own code is. skops
files do not, and are read with skops' own list of trusted types.
"""

from __future__ import annotations

import bz2
import gzip
import logging
import lzma
import mmap
import pickle
import re
import warnings
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmekit.errors import InvalidModel, ModelLoadError
from mmekit_handlers.base import is_out_of_memory

SUFFIXES = (".joblib", ".pkl", ".pickle", ".skops", ".sav")

#: How the name of joblib's array placeholder stands in a pickle (joblib: numpy_pickle.py).
_JOBLIB_ARRAY = b"NumpyArrayWrapper"
#: A pickle of protocol 2 and up starts so (PEP 307).
_PICKLE = b"\x80"
#: joblib hands lz4 to a library of its own.
_LZ4 = b"\x04\x22\x4d\x18"
_GIT_LFS = b"version https://git-lfs"
#: At most so much of a compressed file is searched for a version, in bytes.
_SEARCHED_BYTES = 64 << 20

_VERSION_KEY = b"_sklearn_version"
# What follows the key in pickle protocols 0 to 5 (opcodes that memoize and announce a string stand
# between key and value), and in skops' schema.json.
_VERSION_IN_PICKLE = re.compile(
    rb"(?:\x94|q.|r.{4}|\np\d+\n)?(?:\x8c.|X.{4}|V)(\d+\.[\w.]+?)[\x94qr\n]", re.DOTALL
)
_VERSION_IN_SKOPS = re.compile(rb'": \{[^}]*"content": "\\"([\w.]+)\\""')
#: The value comes within so many bytes.
_VERSION_BYTES = 400


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model, and the version of scikit-learn that saved it if that is not this one."""

    model: Any
    trained: str | None


_log = logging.getLogger(__name__)


def find(model_dir: str) -> Path:
    """Return the model's file in a folder; ``model.*`` is preferred when there are several.

    Raises ``InvalidModel`` when there is none, or when it is not clear which one it is.
    """
    folder = Path(model_dir)
    names = sorted(path.name for path in folder.iterdir() if path.is_file() and path.name[0] != ".")
    candidates = [name for name in names if _suffix(name) in SUFFIXES]
    if not candidates:
        candidates = [name for name in names if _starts_with(folder / name, _PICKLE)]
    preferred = [name for name in candidates if name.partition(".")[0] == "model"] or candidates
    if len(preferred) == 1:
        return folder / preferred[0]
    if preferred:
        raise InvalidModel(
            f"{model_dir} holds several model files: {', '.join(preferred)}; "
            "name one of them model.joblib, model.pkl or model.skops, or write model_fn in code/inference.py"
        )
    raise InvalidModel(
        f"{model_dir} holds no scikit-learn model: expected model.joblib, model.pkl or model.skops, "
        f"found {', '.join(names) or 'no file'}"
    )


def load(path: Path, trusted: Sequence[str]) -> Loaded:
    """Read a model; ``trusted`` are type names that skops may build beyond its own list.

    Raises ``InvalidModel`` for what is not such a file, ``ModelLoadError`` for what cannot be read
    here. Logs a warning that names both versions when another scikit-learn wrote it.
    """
    with path.open("rb") as file:
        head = file.read(len(_GIT_LFS))
    if not head:
        raise InvalidModel(f"{path.name} is empty")
    if head == _GIT_LFS:
        raise InvalidModel(f"{path.name} is a Git LFS pointer, not the file: run `git lfs pull`, pack again")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            model = _load_skops(path, trusted) if _is_skops(path) else _load_pickle(path, head)
        except (InvalidModel, ModelLoadError):
            raise
        except Exception as error:
            # An unpickled class may raise anything; memory is another matter than a bad file.
            if is_out_of_memory(error):
                raise
            raise ModelLoadError(_why_not(path, error)) from error
    return Loaded(model, _pass_on(path, caught))


def trained_version(path: Path) -> str | None:
    """Return the version of scikit-learn that wrote a file, without unpickling; None if it does not say."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                after = _after(archive.read("schema.json"), _VERSION_KEY)
        else:
            after = _search(path, _VERSION_KEY)
    except (OSError, KeyError, EOFError, zipfile.BadZipFile, zlib.error, lzma.LZMAError):
        return None
    found = (_VERSION_IN_PICKLE.match(after) or _VERSION_IN_SKOPS.match(after)) if after else None
    return found[1].decode() if found else None


def versions(trained: str | None) -> str:
    """Return the sentence that names both versions; empty when they are the same or one is not known."""
    import sklearn

    if trained is None or trained == sklearn.__version__:
        return ""
    return (
        f"; trained with scikit-learn {trained}, this image has {sklearn.__version__}: "
        f"train again with {sklearn.__version__} or build an image with scikit-learn=={trained}"
    )


def _suffix(name: str) -> str:
    """Return the suffix, ignoring one that names a compression: ``model.joblib.gz``."""
    name = re.sub(r"\.(gz|bz2|xz|lzma|z|lz4)$", "", name.lower())
    return Path(name).suffix


def _starts_with(path: Path, magic: bytes | tuple[bytes, ...]) -> bool:
    with path.open("rb") as file:
        return file.read(8).startswith(magic)


def _is_skops(path: Path) -> bool:
    return _suffix(path.name) == ".skops" or _starts_with(path, b"PK\x03\x04")


def _load_pickle(path: Path, head: bytes) -> Any:
    # joblib reads with a pickle machine written in Python, 4 to 6 times slower than pickle's. Only its
    # compression and its array placeholders need it; without them the file is a plain pickle.
    is_compressed = head.startswith((_LZ4, *_COMPRESSED))
    if not is_compressed and _search(path, _JOBLIB_ARRAY) is None:
        with path.open("rb") as file:
            return pickle.load(file)
    import joblib

    return joblib.load(path)


def _load_skops(path: Path, trusted: Sequence[str]) -> Any:
    try:
        from skops import io
    except ModuleNotFoundError:
        raise ModelLoadError(
            f"{path.name} needs module 'skops', which this image does not have: "
            "add it to the image, or save the model with joblib"
        ) from None
    if not zipfile.is_zipfile(path):
        raise InvalidModel(f"{path.name} is not a skops file: it is not a zip archive")
    unknown = sorted(set(io.get_untrusted_types(file=path)) - set(trusted))
    if unknown:
        names = ",".join([*trusted, *unknown])
        raise ModelLoadError(
            f"{path.name} holds types that skops does not trust: {', '.join(unknown)}; "
            f"if you do, set MMEKIT_SKOPS_TRUSTED={names}"
        )
    return io.load(path, trusted=list(trusted) or None)


def _why_not(path: Path, error: Exception) -> str:
    """Say why a file could not be read: class and message, and what to do about it."""
    note = versions(trained_version(path))
    what = f"{type(error).__name__}: {error}"
    if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("sklearn."):
        return (
            f"{path.name} needs module {error.name!r}, which this image does not have: "
            f"install it in the image or put it into the model's code/ folder{note}"
        )
    if isinstance(error, AttributeError) and "__main__" in str(error):
        return (
            f"{path.name} refers to a class or function of the script that saved it ({what}): "
            f"move that into a module of its own, put it into code/ and save the model again{note}"
        )
    if isinstance(error, _BROKEN) or not (_is_skops(path) or _starts_with(path, (_PICKLE, *_COMPRESSED))):
        return f"{path.name} is damaged or truncated, or is not a joblib, pickle or skops file: {what}{note}"
    return f"{path.name} cannot be read: {what}{note}"


def _pass_on(path: Path, caught: list[warnings.WarningMessage]) -> str | None:
    """Log version warnings, one a version, and return the last; repeat all other warnings."""
    from sklearn.exceptions import InconsistentVersionWarning

    trained: str | None = None
    for item in caught:
        if not isinstance(item.message, InconsistentVersionWarning):
            warnings.warn_explicit(item.message, item.category, item.filename, item.lineno)
            continue
        if item.message.original_sklearn_version != trained:
            trained = item.message.original_sklearn_version
            _log.warning("%s may predict otherwise or fail%s", path.name, versions(trained))
    return trained


def _search(path: Path, key: bytes) -> bytes | None:
    """Return what follows the first ``key`` in a file, decompressed if need be; None when it is not there."""
    for magic, read in _COMPRESSED.items():
        if _starts_with(path, magic):
            return _after(read(path), key)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        return _after(view, key)


def _after(data: bytes | mmap.mmap, key: bytes) -> bytes | None:
    start = data.find(key)
    return None if start < 0 else data[start + len(key) : start + len(key) + _VERSION_BYTES]


def _read_with(opener: Callable[..., Any]) -> Callable[[Path], bytes]:
    def read(path: Path) -> bytes:
        with opener(path, "rb") as file:
            data: bytes = file.read(_SEARCHED_BYTES)
            return data

    return read


def _read_zlib(path: Path) -> bytes:
    return zlib.decompressobj().decompress(path.read_bytes(), _SEARCHED_BYTES)


#: What readers raise when bytes are missing or wrong; joblib's own says IndexError.
_BROKEN = (
    pickle.UnpicklingError,
    EOFError,
    IndexError,
    OSError,
    UnicodeDecodeError,
    lzma.LZMAError,
    zipfile.BadZipFile,
    zlib.error,
)

#: First bytes of what joblib's ``compress=`` writes (joblib: compressor.py), and how to read it.
_COMPRESSED: dict[bytes, Callable[[Path], bytes]] = {
    b"\x1f\x8b": _read_with(gzip.open),
    b"BZ": _read_with(bz2.open),
    b"\xfd7zXZ": _read_with(lzma.open),
    b"\x5d\x00": _read_with(lzma.open),
    b"x": _read_zlib,
}
