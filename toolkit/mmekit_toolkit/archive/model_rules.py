"""What is wrong with a model's file: what its pickles import, and whether the libraries there can read it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from packaging.version import InvalidVersion, Version

from mmekit_toolkit.archive import imports, torch_model, xgboost_model
from mmekit_toolkit.archive.environment import Environment
from mmekit_toolkit.archive.findings import Finding, Level, about, shown
from mmekit_toolkit.archive.imports import Kind, kind_of, of_kind
from mmekit_toolkit.archive.model import ModelFile

_XGBOOST = ("xgboost", "xgboost-cpu")
#: The first numpy with the names of numpy 2 (numpy's release notes, 1.26).
_NUMPY_CORE_SINCE = Version("1.26")


@dataclass(frozen=True)
class Surroundings:
    """What a file meets when it is loaded."""

    environment: Environment
    #: Top-level modules of the model's own code.
    own_modules: frozenset[str]
    #: Whether the model's code is on the path: only where it brings what runs it.
    code_runs: bool

    @property
    def level(self) -> Level:
        """How bad it is that something is missing: without an image one can but guess."""
        return Level.FAULT if self.environment.is_image else Level.WARNING

    @property
    def advice(self) -> str:
        """What to do where one can but guess."""
        return "" if self.environment.is_image else " --image IMAGE compares with the image itself."


def of_model(model: ModelFile, is_read: bool, around: Surroundings) -> list[Finding]:
    """Return what is wrong with a file; ``is_read``: a built-in handler is known to load it."""
    found: list[Finding] = []
    if model.fault:
        level = Level.FAULT if is_read else Level.WARNING
        found.append(about(level, "not-a-model", f"{model.name}: {model.fault}.", [model.name]))
    if model.cannot_predict and is_read and not around.code_runs:
        text = f"{model.name}: {model.cannot_predict}, or predict_fn in code/inference.py."
        found.append(about(Level.FAULT, "not-a-model", text, [model.name]))
    found += _of_pickles(model, is_read)
    found += _of_imports(model, around)
    found += _of_sklearn(model, around)
    found += _of_xgboost(model, around)
    found += _of_torch(model, is_read, around)
    found += _of_numpy(model, around)
    return found


# --- pickles -------------------------------------------------------------------------------


def _of_pickles(model: ModelFile, is_read: bool) -> Iterable[Finding]:
    for found in model.pickles:
        where = f"{model.name} ({found.member})" if found.member else model.name
        if found.pickle.problem and found.pickle.is_damaged:
            level = Level.FAULT if is_read else Level.WARNING
            yield about(level, "damaged", f"{where}: {found.pickle.problem}.", [model.name])
        elif found.pickle.problem:
            text = f"{where}: {found.pickle.problem}; what it imports is not all known."
            yield about(Level.WARNING, "not-looked-into", text, [model.name])
        if found.pickle.hides_imports:
            yield about(
                Level.FAULT,
                "dangerous",
                f"{where}: it computes the names of what it imports or calls, as no honest pickle does. Do "
                "not load it.",
                [model.name],
            )
        if inside := imports.reaching(found.pickle.attributes):
            yield about(
                Level.FAULT,
                "dangerous",
                f"{where}: it takes {shown(inside)} from an object, which leads to all of Python. Do not "
                "load it.",
                [model.name],
            )


def _of_imports(model: ModelFile, around: Surroundings) -> Iterable[Finding]:
    environment = around.environment
    kinds = {each: kind_of(each, around.own_modules, environment) for each in model.imports}
    name = model.name
    if names := of_kind(kinds, Kind.DANGEROUS):
        yield about(
            Level.FAULT,
            "dangerous",
            f"{name}: loading it calls or takes {shown(names)}, which can run commands, open files or "
            "connections; no model needs that. Do not load it: it may be an attack. If it is the model's "
            "own, put that code into a module in code/.",
            [name],
        )
    if names := of_kind(kinds, Kind.UNUSUAL):
        yield about(
            Level.WARNING,
            "unusual-import",
            f"{name}: it needs {shown(names)} of Python's own library, which models rarely do, and which may "
            "open files or run code. See what that is for before you load it.",
            [name],
        )
    if names := of_kind(kinds, Kind.SCRIPT):
        yield about(
            Level.WARNING if around.code_runs else Level.FAULT,
            "class-of-a-script",
            f"{name}: it needs {shown(names)}, which lived in the script that saved it. Move that into a "
            "module of its own, put it into code/, and save the model again.",
            [name],
        )
    if names := of_kind(kinds, Kind.INLINE):
        yield about(
            Level.WARNING,
            "code-in-a-pickle",
            f"{name}: {shown(names)}: code, or a further pickle, travels inside, which is not looked into, "
            "and code needs the same Python that wrote it.",
            [name],
        )
    if (names := of_kind(kinds, Kind.OWN)) and not around.code_runs:
        yield about(
            Level.FAULT,
            "own-code-unused",
            f"{name}: it needs {shown(names)}, and the model's code is imported only where "
            "code/inference.py, "
            "or a handler of the model, runs it. Add code/inference.py with a model_fn.",
            [name],
        )
    if names := of_kind(kinds, Kind.MISSING):
        modules = imports.top_modules(names)
        yield about(
            around.level,
            "module-missing",
            f"{name}: it needs {shown(modules)} ({shown(names)}), which {environment.name} does not have. "
            f"Install {'it' if len(modules) == 1 else 'them'} in the image, or put the module into code/."
            f"{around.advice}",
            [name],
        )


# --- versions ------------------------------------------------------------------------------


def _of_sklearn(model: ModelFile, around: Surroundings) -> Iterable[Finding]:
    wrote, has = model.written_by.get("scikit-learn"), around.environment.version("scikit-learn")
    if wrote and has and wrote != has:
        yield about(
            Level.WARNING,
            "version",
            f"{model.name}: saved with scikit-learn {wrote}, {around.environment.name} has {has}: it may "
            f"fail, or predict otherwise. Train again with {has}, or build an image with "
            f"scikit-learn=={wrote}."
            f"{around.advice}",
            [model.name],
        )


def _of_xgboost(model: ModelFile, around: Surroundings) -> Iterable[Finding]:
    found, has = model.xgboost, around.environment.version(*_XGBOOST)
    if found is None:
        return
    name, there = model.name, around.environment.name
    ours = _numbers(has)
    wrote = f"XGBoost {found.version_text}" if found.version else "an XGBoost that it does not name"
    if found.form == "old binary":
        if ours and ours[:2] >= xgboost_model.OLD_FORMAT_ENDED:
            yield about(
                Level.FAULT,
                "version",
                f"{name}: it has XGBoost's old binary format (written by {wrote}), which XGBoost reads up to "
                f"3.0 and {there}, with {has}, does not. Load it with an older one and save it as model.ubj.",
                [name],
            )
        else:
            yield about(
                Level.REMARK,
                "version",
                f"{name}: it has XGBoost's old binary format (written by {wrote}), which no XGBoost from 3.1 "
                "on reads. Save it once with save_model('model.ubj').",
                [name],
            )
        return
    if found.lists_base_score and ours and ours[:2] < xgboost_model.LISTED_BASE_SCORE_SINCE:
        yield about(
            around.level,
            "version",
            f"{name}: written by {wrote}, whose base_score is a list; XGBoost {has} of {there} would take it "
            "for 0.5 and predict wrongly, so it is refused. Save it with the older one, or build the image "
            f"with xgboost-cpu>=3.1.{around.advice}",
            [name],
        )
    elif found.version and ours and found.version[:2] > ours[:2]:
        yield about(
            Level.WARNING,
            "version",
            f"{name}: written by {wrote}, {there} has the older {has}, which may not read it.{around.advice}",
            [name],
        )
    if model.pickles and found.version and ours and found.version[:2] != ours[:2]:
        yield about(
            Level.WARNING,
            "version",
            f"{name}: a pickle of {wrote}, and {there} has {has}; pickles are tied to the version that wrote "
            f"them. Save the booster with save_model('model.ubj').{around.advice}",
            [name],
        )


def _of_torch(model: ModelFile, is_read: bool, around: Surroundings) -> Iterable[Finding]:
    if model.torch is None:
        return
    kind, name = model.torch.kind, model.name
    if is_read:
        yield from _of_torch_kind(model, kind, around.environment)
    wrote, has = _numbers(model.torch.version), _numbers(around.environment.version("torch"))
    if wrote and has and wrote[:2] > has[:2]:
        yield about(
            Level.WARNING,
            "version",
            f"{name}: exported with torch {model.torch.version}, {around.environment.name} has the older "
            f"{around.environment.version('torch')}, which may not read it.{around.advice}",
            [name],
        )


def _of_torch_kind(model: ModelFile, kind: torch_model.Kind, environment: Environment) -> Iterable[Finding]:
    allows_pickle = environment.variables.get("MMEKIT_PYTORCH_ALLOW_PICKLE", "").lower() == "true"
    objects = torch_model.objects_in(model.imports) if kind is torch_model.Kind.PICKLED else []
    if objects and allows_pickle:
        return
    if objects:
        text = (
            f"a pickle of Python objects ({shown(objects)}), which is loaded only with "
            "MMEKIT_PYTORCH_ALLOW_PICKLE=true. Save it with torch.jit.save or torch.export.save, or bring "
            "the weights and a model_fn in code/inference.py."
        )
    elif kind in (torch_model.Kind.PICKLED, torch_model.Kind.SAFETENSORS):
        text = (
            "weights without the network: add code/inference.py with a model_fn that makes it (load_weights)."
        )
    elif kind in (torch_model.Kind.AOT_INDUCTOR, torch_model.Kind.PACKAGE):
        text = f"an {kind.value}, which only a model_fn of the model's own loads; or use torch.export.save."
    else:
        return
    yield about(Level.FAULT, "torch", f"{model.name}: {text}", [model.name])


def _of_numpy(model: ModelFile, around: Surroundings) -> Iterable[Finding]:
    has = around.environment.version("numpy")
    if not has or not any(each.module.startswith("numpy._core") for each in model.imports):
        return
    try:
        is_old = Version(has) < _NUMPY_CORE_SINCE
    except InvalidVersion:
        return
    if is_old:
        yield about(
            around.level,
            "version",
            f"{model.name}: saved with numpy 2, {around.environment.name} has {has}, which cannot read it."
            f"{around.advice}",
            [model.name],
        )


def _numbers(version: str | None) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version or "")[:3])
