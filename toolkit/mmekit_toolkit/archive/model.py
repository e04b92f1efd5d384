"""One file of a model: what it is, who wrote it, what it takes, what it would import. Nothing is loaded."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from mmekit.archive.members import raw_members, refusing_broken
from mmekit.errors import InvalidModel
from mmekit.formats import PYTORCH, SKLEARN, XGBOOST
from mmekit_toolkit.archive import torch_model, xgboost_model
from mmekit_toolkit.archive.pickle_files import Found, pickles_of
from mmekit_toolkit.archive.pickle_source import Limits
from mmekit_toolkit.archive.pickle_values import Blob, Global, Thing, Value, texts, walk

_GIT_LFS = b"version https://git-lfs"
#: A forest of a thousand trees has a few MiB; parsed it takes twenty times that.
_MAX_SCHEMA_BYTES = 16 * 1024 * 1024
#: skops writes each object's attributes into schema.json (skops: io/_general.py).
_SKOPS_VERSION = re.compile(r'"_sklearn_version": \{[^{}]{0,500}?"content": "\\"([\w.]+)\\""')
_SKOPS_COLUMNS = re.compile(r'"n_features_in_": \{[^{}]{0,500}?"content": "(\d{1,9})"')


@dataclass
class ModelFile:
    """What a file says of itself; what it does not say is None or empty."""

    path: Path
    #: A name, relative to the model's folder.
    name: str
    size_bytes: int
    #: The built-in handler that would read it (``formats``), None when it is nobody's.
    runtime: str | None
    #: ``XGBoost UBJSON``, ``pickle, protocol 4``, …
    form: str = ""
    #: The model's class, where a pickle says it.
    kind: str = ""
    #: Distribution → version that wrote the file.
    written_by: dict[str, str] = field(default_factory=dict)
    columns: int | None = None
    names: tuple[str, ...] | None = None
    objective: str | None = None
    xgboost: xgboost_model.XgboostModel | None = None
    torch: torch_model.TorchModel | None = None
    pickles: list[Found] = field(default_factory=list)
    #: Why it cannot be a model at all.
    fault: str | None = None
    #: Why it cannot predict without code of the model's own.
    cannot_predict: str | None = None

    @property
    def imports(self) -> list[Global]:
        """What its pickles import, in order, each once."""
        return list(dict.fromkeys(each for found in self.pickles for each in found.pickle.globals))


def read_model(path: Path, name: str, runtime: str | None, limits: Limits) -> ModelFile:
    """Look into a file. Raises OSError when it cannot be read."""
    model = ModelFile(path, name, path.stat().st_size, runtime)
    with path.open("rb") as file:
        head = file.read(64)
    if not head:
        model.fault = "it is empty"
    elif head.startswith(_GIT_LFS):
        model.fault = "it is a Git LFS pointer, not the file: run `git lfs pull`"
    elif runtime == SKLEARN and head.startswith(b"PK\3\4"):
        _read_skops(model)
    elif runtime == SKLEARN and name.lower().endswith(".skops"):
        model.fault = "it is no skops file, which is a zip archive"
    elif runtime == PYTORCH and not _is_pickle_by_name(name, head):
        _read_torch(model, limits)
    elif runtime == XGBOOST and not _is_pickle_by_name(name, head):
        _read_xgboost(model, head)
    else:
        _read_pickles(model, limits)
    return model


def _is_pickle_by_name(name: str, head: bytes) -> bool:
    if head.startswith((b"PK\3\4", b"\x80\x02\x8a\nl\xfc\x9cF\xf9")):
        return False
    return name.lower().endswith((".pkl", ".pickle", ".joblib", ".sav")) or head.startswith(b"\x80")


# --- frameworks ----------------------------------------------------------------------------


def _read_xgboost(model: ModelFile, head: bytes) -> None:
    found = xgboost_model.read_file(model.path)
    if found is None:
        model.fault = (
            f"it is not a model that XGBoost reads: it begins with {head[:12]!r}; expected XGBoost's UBJSON, "
            "JSON or old binary format, or a pickle"
        )
        return
    model.form = f"XGBoost {found.form}"
    if found.is_cut:
        model.fault = "its end is missing: it was cut off when it was written or copied"
    _take_xgboost(model, found)


def _take_xgboost(model: ModelFile, found: xgboost_model.XgboostModel) -> None:
    model.xgboost = found
    model.columns, model.names, model.objective = found.columns, found.names, found.objective
    if found.version_text:
        model.written_by["xgboost"] = found.version_text


def _read_torch(model: ModelFile, limits: Limits) -> None:
    model.torch = torch_model.read_file(model.path)
    model.form = model.torch.kind.value
    if model.torch.version:
        model.written_by["torch"] = model.torch.version
    if model.torch.kind is torch_model.Kind.PICKLED:
        model.pickles = pickles_of(model.path, limits)
        whole = torch_model.objects_in(model.imports)
        model.form = "pickle of Python objects (torch.save)" if whole else "state_dict (torch.save)"
    elif model.torch.is_cut:
        model.fault = "its end is missing: it was cut off when it was written or copied"
    elif model.torch.kind is torch_model.Kind.NONE:
        model.fault = "it is no PyTorch file: neither a zip archive that PyTorch writes nor safetensors"


def _read_skops(model: ModelFile) -> None:
    model.form = "skops"
    try:
        with refusing_broken(model.name), closing(raw_members(model.path, model.name)) as members:
            for member in members:
                if member.name == "schema.json":
                    if member.size <= _MAX_SCHEMA_BYTES:
                        _take_skops(model, b"".join(member.chunks()).decode("utf-8", "replace"))
                    return
        model.fault = "it is no skops file: it has no schema.json"
    except InvalidModel:
        model.fault = "it is a damaged zip archive"


def _take_skops(model: ModelFile, schema: str) -> None:
    if version := _SKOPS_VERSION.search(schema):
        model.written_by["scikit-learn"] = version[1]
    if columns := _SKOPS_COLUMNS.search(schema):
        model.columns = int(columns[1])
    try:
        document = json.loads(schema)
        model.kind = f"{document['__module__']}.{document['__class__']}"
    except (ValueError, KeyError, TypeError, RecursionError):
        model.fault = "its schema.json is damaged"


def _read_pickles(model: ModelFile, limits: Limits) -> None:
    model.pickles = pickles_of(model.path, limits)
    if not model.pickles:
        return
    protocol = max(found.pickle.protocol for found in model.pickles)
    joblib = any(each.module.startswith("joblib.") for each in model.imports)
    model.form = f"{'joblib' if joblib else 'pickle'}, protocol {protocol}"
    for found in model.pickles:
        _take_objects(model, found.pickle.root)
    if model.runtime == SKLEARN and len(model.pickles) == 1:
        model.cannot_predict = _no_estimator(model.pickles[0].pickle.root)


def _take_objects(model: ModelFile, root: Value) -> None:
    things = [each for each in walk(root) if isinstance(each, Thing)]
    versions = {str(v) for t in things if isinstance(v := t.attributes.get("_sklearn_version"), str)}
    if versions:
        model.written_by["scikit-learn"] = max(versions)
    if isinstance(root, Thing) and not model.kind:
        model.kind = _described(root)
    for blob in walk(root):
        if isinstance(blob, Blob) and (found := xgboost_model.read_bytes(blob.head + blob.tail)):
            _take_xgboost(model, found)
            break
    columns, names = _input_of(root)
    model.columns, model.names = columns or model.columns, names or model.names


def _no_estimator(root: Value) -> str | None:
    """Return why what a pickle makes cannot predict, where that is certain."""
    if isinstance(root, dict | list | tuple | str | int) or root is None:
        kind = type(root).__name__
    elif isinstance(root, Thing) and root.kind.endswith(
        ("multiarray._reconstruct", "numpy_pickle.NumpyArrayWrapper")
    ):
        kind = "numpy array"
    else:
        return None
    return f"it holds a {kind}, which cannot predict; expected an estimator"


def _described(root: Thing) -> str:
    """Return an object's class; of a pipeline those of its steps, too."""
    steps = [step.kind.rpartition(".")[2] for step in _steps(root) if isinstance(step, Thing)]
    return f"{root.kind} ({' → '.join(steps)})" if steps else root.kind


def _steps(root: Thing) -> Sequence[Value]:
    steps = root.attributes.get("steps")
    if not isinstance(steps, list):
        return []
    return [step[1] for step in steps if isinstance(step, tuple) and len(step) == 2]


def _input_of(root: Value) -> tuple[int | None, tuple[str, ...] | None]:
    """Return how many columns an estimator was fitted with, and their names, where it says so."""
    for _ in range(10):  # pipelines in searches in pipelines
        if not isinstance(root, Thing):
            return None, None
        attributes = root.attributes
        names = texts(attributes.get("feature_names_in_"))
        columns = attributes.get("n_features_in_")
        if isinstance(columns, int) and not isinstance(columns, bool) and columns > 0:
            return columns, names
        steps = _steps(root)
        root = steps[0] if steps else attributes.get("best_estimator_")
    return None, None
