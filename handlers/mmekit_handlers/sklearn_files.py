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
from pathlib import Path
from typing import Any

from mmekit.errors import InvalidModel, ModelLoadError
from mmekit_handlers.base import is_out_of_memory

SUFFIXES = (".joblib", ".pkl", ".pickle", ".skops", ".sav")

#: How the name of joblib's array placeholder stands in a pickle (joblib: numpy_pickle.py).
_JOBLIB_ARRAY = b"NumpyArrayWrapper"
#: A pickle of protocol 2 and up starts so (PEP 307).
_PICKLE = b"\x80"
_GIT_LFS = b"version https://git-lfs"
#: At most so much of a compressed file is searched for a version, in bytes.
_SEARCHED_BYTES = 64 << 20

# The key and its value in pickle protocols 0 to 5, and in skops' schema.json: between them stand the
# opcodes that memoize and announce a string.
_VERSION_IN_PICKLE = re.compile(
    rb"_sklearn_version(?:\x94|q.|r.{4}|\np\d+\n)?(?:\x8c.|X.{4}|V)(\d+\.[\w.]+?)(?=[\x94qr\n])", re.DOTALL
)
_VERSION_IN_SKOPS = re.compile(rb'"_sklearn_version": \{[^}]*"content": "\\"([\w.]+)\\""')

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


def load(path: Path, trusted: Sequence[str]) -> Any:
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
    _pass_on(path, caught)
    return model


def trained_version(path: Path) -> str | None:
    """Return the version of scikit-learn that wrote a file, without unpickling; None if it does not say."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                found = _VERSION_IN_SKOPS.search(archive.read("schema.json"))
        else:
            found = _search(path, _VERSION_IN_PICKLE)
    except (OSError, KeyError, EOFError, zipfile.BadZipFile, zlib.error, lzma.LZMAError):
        return None
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


def _starts_with(path: Path, magic: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(magic)) == magic


def _is_skops(path: Path) -> bool:
    return _suffix(path.name) == ".skops" or _starts_with(path, b"PK\x03\x04")


def _load_pickle(path: Path, head: bytes) -> Any:
    # joblib reads with a pickle machine written in Python, 4 to 6 times slower than pickle's. Only its
    # compression and its array placeholders need it; without them the file is a plain pickle.
    if head[:1] == _PICKLE and not _search(path, re.compile(_JOBLIB_ARRAY)):
        with path.open("rb") as file:
            return pickle.load(file)
    if not head.startswith((_PICKLE, *_COMPRESSED)) and _suffix(path.name) != ".joblib":
        with path.open("rb") as file:  # protocols 0 and 1 have no magic
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
    if note:
        return f"{path.name} cannot be read: {what}{note}"
    if isinstance(error, pickle.UnpicklingError | EOFError | OSError | zlib.error | zipfile.BadZipFile):
        return f"{path.name} is damaged or truncated, or not a joblib, pickle or skops file: {what}"
    return f"{path.name} cannot be read: {what}"


def _pass_on(path: Path, caught: list[warnings.WarningMessage]) -> None:
    """Log version warnings, one a version, with both versions; repeat all others."""
    from sklearn.exceptions import InconsistentVersionWarning

    logged: set[str] = set()
    for item in caught:
        if not isinstance(item.message, InconsistentVersionWarning):
            warnings.warn_explicit(item.message, item.category, item.filename, item.lineno)
            continue
        version = item.message.original_sklearn_version
        if version not in logged:
            logged.add(version)
            _log.warning("%s%s; predictions may differ or fail", path.name, versions(version))


def _search(path: Path, pattern: re.Pattern[bytes]) -> re.Match[bytes] | None:
    opened = next((opener for magic, opener in _COMPRESSED.items() if _starts_with(path, magic)), None)
    if opened is not None:
        return pattern.search(opened(path))
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        found = pattern.search(view)
        # The match keeps the map alive; a copy of its few bytes does not.
        return pattern.fullmatch(found[0]) or pattern.search(view[found.start() : found.end() + 1]) if found else None


def _read_with(opener: Callable[..., Any]) -> Callable[[Path], bytes]:
    def read(path: Path) -> bytes:
        with opener(path, "rb") as file:
            data: bytes = file.read(_SEARCHED_BYTES)
            return data

    return read


def _read_zlib(path: Path) -> bytes:
    return zlib.decompressobj().decompress(path.read_bytes(), _SEARCHED_BYTES)


#: First bytes of what joblib's ``compress=`` writes (joblib: compressor.py), and how to read it.
_COMPRESSED: dict[bytes, Callable[[Path], bytes]] = {
    b"\x1f\x8b": _read_with(gzip.open),
    b"BZ": _read_with(bz2.open),
    b"\xfd7zXZ": _read_with(lzma.open),
    b"\x5d\x00": _read_with(lzma.open),
    b"x": _read_zlib,
}
