"""Which of a folder's files each built-in handler takes for the model, by names and first bytes.

The rules are the handlers' own (mmekit_handlers: sklearn_files, torch_files, xgboost_files), which need
their frameworks; a test compares the two.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from mmekit.formats import PYTORCH, SKLEARN, XGBOOST

_SKLEARN_SUFFIXES = (".joblib", ".pkl", ".pickle", ".skops", ".sav")
_COMPRESSION = re.compile(r"\.(gz|bz2|xz|lzma|z|lz4)$")
_PICKLE = b"\x80"

_TORCH_FIRST = ("model.pt", "model.pth", "model.pt2")
_TORCH_SUFFIXES = (".pt", ".pth", ".pt2", ".bin", ".safetensors")

_BESIDE_XGBOOST = re.compile(
    r"\.(cfg|csv|gz|html|ini|ipynb|libsvm|log|md|mf|npy|npz|parquet|png|py|pyc|rst|sh|svg"
    r"|tar|toml|tsv|txt|xml|yaml|yml|zip)$",
    re.IGNORECASE,
)
_NAMES_BESIDE_XGBOOST = re.compile(r"(licen[cs]e|readme|notice|changelog|manifest|metadata)\b", re.IGNORECASE)

#: A JSON file beside a model is smaller; a larger one is not read to see what it is.
_MAX_BESIDE_BYTES = 256 * 1024 * 1024


class Ambiguous(Exception):
    """Raised when a handler would not know which file is the model; the message names them."""


def read_by(runtime: str, folder: Path) -> list[Path]:
    """Return the files of a folder that a built-in handler (``formats.FRAMEWORKS``) reads; none may fit.

    Raises Ambiguous, and OSError for files that cannot be read.
    """
    names = sorted(path.name for path in folder.iterdir() if path.is_file() and path.name[0] != ".")
    rules = {SKLEARN: _by_sklearn, PYTORCH: _by_torch, XGBOOST: _by_xgboost}
    return [folder / name for name in rules[runtime](folder, names)]


def _by_sklearn(folder: Path, names: Sequence[str]) -> list[str]:
    candidates = [name for name in names if _suffix(name) in _SKLEARN_SUFFIXES]
    if not candidates:
        candidates = [name for name in names if _head(folder / name).startswith(_PICKLE)]
    preferred = [name for name in candidates if name.partition(".")[0] == "model"] or candidates
    if len(preferred) > 1:
        raise Ambiguous(
            f"several files could be the scikit-learn model: {', '.join(preferred)}; name one of them "
            "model.joblib, model.pkl or model.skops, or write model_fn in code/inference.py"
        )
    return preferred


def _suffix(name: str) -> str:
    return Path(_COMPRESSION.sub("", name.lower())).suffix


def _by_torch(_: Path, names: Sequence[str]) -> list[str]:
    candidates = [name for name in names if Path(name).suffix in _TORCH_SUFFIXES]
    for name in _TORCH_FIRST:
        if name in candidates:
            return [name]
    if len(candidates) > 1:
        raise Ambiguous(
            f"several files could be the PyTorch model: {', '.join(candidates)}; name one of them "
            f"{_TORCH_FIRST[0]}, or load what you need in model_fn (code/inference.py)"
        )
    return candidates


def _by_xgboost(folder: Path, names: Sequence[str]) -> list[str]:
    return [name for name in names if not _is_beside_xgboost(folder, name)]


def _is_beside_xgboost(folder: Path, name: str) -> bool:
    if _BESIDE_XGBOOST.search(name) or _NAMES_BESIDE_XGBOOST.match(name):
        return True
    if not name.lower().endswith(".json"):
        return False
    file = folder / name
    if file.stat().st_size > _MAX_BESIDE_BYTES:
        return False
    text = file.read_bytes()
    return b'"learner"' not in text and text.lstrip()[:1] == b"{" and text.rstrip()[-1:] == b"}"


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(8)
