"""A model's folder through the server's own eyes: what would be loaded, by what, and what is wrong."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from mmekit import artifact, choice, requirements
from mmekit.archive.sample import DESCRIPTION, Sample, read_sample
from mmekit.artifact import SIDE_FOLDERS, Artifact
from mmekit.choice import Choice
from mmekit.errors import InvalidModel, MmekitError, ModelNotFound
from mmekit.formats import FRAMEWORKS
from mmekit_toolkit.archive import code_rules, model_rules
from mmekit_toolkit.archive.agreement import compare
from mmekit_toolkit.archive.environment import Environment, ImageEnvironment
from mmekit_toolkit.archive.findings import Finding, Level, about, count, shown
from mmekit_toolkit.archive.junk import is_junk
from mmekit_toolkit.archive.listing import files_below
from mmekit_toolkit.archive.model import ModelFile, read_model
from mmekit_toolkit.archive.model_files import Ambiguous, read_by
from mmekit_toolkit.archive.model_rules import Surroundings
from mmekit_toolkit.archive.own_code import OwnCode, read_code
from mmekit_toolkit.archive.pickle_files import may_hold_pickles
from mmekit_toolkit.archive.pickle_source import Limits
from mmekit_toolkit.archive.runner import code_of, sentence
from mmekit_toolkit.archive.signature import (
    LEGACY_SIGNATURE,
    SIGNATURE,
    Signature,
    derive,
    read_signature,
)
from mmekit_toolkit.errors import ToolkitError

#: Seconds for looking into all of a model's files; a gigabyte of compressed pickles takes ten.
_TIMEOUT_S = 60
#: Files that are looked into.
_MAX_FILES = 2000


@dataclass
class Inspection:
    """What was found in a folder; None where the server would have refused it before."""

    artifact: Artifact | None = None
    choice: Choice | None = None
    #: A sentence: what runs the model.
    runs: str | None = None
    code: OwnCode = field(default_factory=OwnCode)
    models: list[ModelFile] = field(default_factory=list)
    sample: Sample | None = None
    #: The model's own, else what its file says.
    signature: Signature | None = None
    findings: list[Finding] = field(default_factory=list)

    @property
    def own_code(self) -> bool:
        """Whether the model's own code would run."""
        return self.choice is not None and self.choice.own_code


def inspect_folder(
    folder: Path,
    environment: Environment,
    sample: Sample | None = None,
    signature: Signature | None = None,
) -> Inspection:
    """Look at a model's folder as the server does before a load, and further.

    ``sample`` and ``signature`` are to be packed with it: they count as if they lay in the folder.
    """
    inspection = Inspection(sample=sample, signature=signature)
    for step in (_choose, _look_at_code, _look_at_models, _look_at_what_nobody_reads, _look_at_description):
        step(inspection, folder, environment)
    return inspection


# --- what runs it --------------------------------------------------------------------------


def _choose(inspection: Inspection, folder: Path, environment: Environment) -> None:
    image = code_of(environment)
    try:
        found = artifact.inspect(folder, image.program)
        inspection.artifact = found
        inspection.choice = choice.choose(found, None, image)
        inspection.runs = sentence(found, inspection.choice)
    except (InvalidModel, ModelNotFound) as error:
        nested = _nested(folder)
        name = "nested-folder" if nested else "not-loaded"
        inspection.findings.append(about(Level.FAULT, name, error.message, [nested] if nested else []))
        return
    framework = FRAMEWORKS.get(inspection.choice.handler or inspection.choice.runtime or "")
    if framework and not environment.has_module(framework[1]):
        _tell_missing_framework(inspection, framework, environment)
    if isinstance(environment, ImageEnvironment) and not environment.has_module("mmekit"):
        text = (
            f"{environment.image} has no mmekit: what is said here of handlers is what mmekit would do; "
            "its own server may do otherwise."
        )
        inspection.findings.append(about(Level.REMARK, "other-server", text))
    _look_at_requirements(inspection, environment)


def _nested(folder: Path) -> str | None:
    """Return the one folder that everything lies in, as when an archive is packed with its folder."""
    try:
        names = [entry.name for entry in os.scandir(folder) if not is_junk((entry.name,))]
    except OSError:
        return None
    is_nested = len(names) == 1 and names[0] not in SIDE_FOLDERS and (folder / names[0]).is_dir()
    return names[0] if is_nested else None


def _tell_missing_framework(
    inspection: Inspection, framework: tuple[str, str], environment: Environment
) -> None:
    title, module = framework
    if environment.is_image:
        text = (
            f"the model's files are {title}'s, and {environment.name} has no {module}: build it with "
            f"{module} (for mmekit's Dockerfiles --build-arg FRAMEWORKS=…)."
        )
        inspection.findings.append(about(Level.FAULT, "framework-missing", text))
    else:
        text = f"{environment.name} has no {module}, so versions are not compared; --image IMAGE does."
        inspection.findings.append(about(Level.REMARK, "not-compared", text))


def _look_at_requirements(inspection: Inspection, environment: Environment) -> None:
    found = inspection.artifact
    if found is None or found.requirements_file is None:
        return
    name = os.path.relpath(found.requirements_file, found.path)
    level = Level.FAULT if environment.is_image else Level.WARNING
    advice = "" if environment.is_image else " --image IMAGE compares with the image itself."
    try:
        for sentence in requirements.unmet(found.requirements_file, environment):
            text = (
                f"{name}: {sentence} in {environment.name}. Nothing is installed when the model is loaded: "
                f"install it in the image or change the file.{advice}"
            )
            inspection.findings.append(about(level, "requirement", text, [name]))
    except InvalidModel as error:
        inspection.findings.append(about(Level.FAULT, "requirement", f"{name}: {error.message}", [name]))
    except OSError as error:
        text = f"{name} cannot be read: {error.strerror}."
        inspection.findings.append(about(Level.FAULT, "requirement", text, [name]))


# --- code ----------------------------------------------------------------------------------


def _look_at_code(inspection: Inspection, folder: Path, environment: Environment) -> None:
    chosen, found = inspection.choice, inspection.artifact
    main = chosen.program if chosen else None
    if main is None and chosen and chosen.handler and found:
        main = artifact.find_handler_file(chosen.handler, found.code_dirs)
    inspection.code = code = read_code(folder, main)
    if chosen is not None and found is not None:
        inspection.findings += code_rules.of_code(code, main, found, chosen, environment)


# --- files ---------------------------------------------------------------------------------


def _look_at_models(inspection: Inspection, folder: Path, environment: Environment) -> None:
    read = _files_that_are_read(inspection, folder)
    recognised = dict(inspection.artifact.model_files) if inspection.artifact else {}
    runtime = inspection.choice.runtime if inspection.choice else None
    around = Surroundings(
        environment,
        inspection.artifact.top_level_modules if inspection.artifact else frozenset(),
        inspection.own_code,
    )
    limits = Limits(_TIMEOUT_S)
    # What is loaded comes first, were it junk to everybody else.
    files = [*sorted(read), *(path for path in files_below(folder) if path not in read)]
    if len(files) > _MAX_FILES:
        text = (
            f"it has {len(files)} files, of which {_MAX_FILES} were looked into: what the others are, and "
            "would import, is not known."
        )
        inspection.findings.append(about(Level.WARNING, "not-looked-into", text))
    for path in files[:_MAX_FILES]:
        name = path.relative_to(folder).as_posix()
        is_read = path in read
        known = runtime if is_read and runtime in FRAMEWORKS else recognised.get(name)
        try:
            if known is None and not may_hold_pickles(name, _head(path)):
                continue
            model = read_model(path, name, known, limits)
        except OSError as error:
            text = f"{name} cannot be read: {error.strerror}."
            inspection.findings.append(about(Level.FAULT, "unreadable", text, [name]))
            continue
        if is_read or known or model.imports or any(found.pickle.problem for found in model.pickles):
            inspection.models.append(model)
            inspection.findings += model_rules.of_model(model, is_read, around)


def _files_that_are_read(inspection: Inspection, folder: Path) -> set[Path]:
    """Return the files that a built-in handler loads by itself; none where the model's code decides."""
    chosen = inspection.choice
    runtime = (chosen.handler or chosen.runtime) if chosen else None
    if chosen is None or runtime not in FRAMEWORKS or inspection.code.names & {"model_fn", "*"}:
        return set()
    try:
        read = set(read_by(runtime, folder))
    except Ambiguous as error:
        inspection.findings.append(about(Level.FAULT, "several-models", f"{error}."))
    except OSError as error:
        text = f"{error.filename} cannot be read: {error.strerror}."
        inspection.findings.append(about(Level.FAULT, "unreadable", text))
    else:
        if not read:
            text = (
                f"there is no file with a name that the built-in handler for {FRAMEWORKS[runtime][0]} loads."
            )
            inspection.findings.append(about(Level.FAULT, "not-loaded", text))
        return read
    return set()


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(16)


def _look_at_what_nobody_reads(inspection: Inspection, folder: Path, _: Environment) -> None:
    chosen, found = inspection.choice, inspection.artifact
    if chosen is None or found is None or chosen.own_code or chosen.runtime not in FRAMEWORKS:
        return
    if any(finding.name == "several-models" for finding in inspection.findings):
        return
    read = {path.name for path in _files_that_are_read(inspection, folder)}
    kept = {*SIDE_FOLDERS, "requirements.txt", "MANIFEST.json", LEGACY_SIGNATURE}
    unread = [name for name in found.entries if name.rstrip("/") not in read | kept]
    if found.top_level_modules:
        unread += [f"{Path(code).name}/" for code in found.code_dirs[:1] if Path(code).name == "code"]
    if unread:
        text = (
            f"{count(len(unread), 'file or folder')} that nobody reads: {shown(unread)}. Leave out what is "
            "not needed: every instance downloads and keeps it."
        )
        inspection.findings.append(about(Level.REMARK, "unread", text, unread))


# --- sample and signature ------------------------------------------------------------------


def _look_at_description(inspection: Inspection, folder: Path, _: Environment) -> None:
    if inspection.sample is None:
        try:
            inspection.sample = read_sample(str(folder))
        except (MmekitError, OSError) as error:
            text = error.message if isinstance(error, MmekitError) else f"{DESCRIPTION}: {error.strerror}."
            inspection.findings.append(about(Level.FAULT, "sample-request", text, [DESCRIPTION]))
    derived = next((found for model in inspection.models if (found := derive(model))), None)
    inspection.signature = inspection.signature or _own_signature(inspection, folder) or derived
    inspection.findings += compare(
        inspection.sample, inspection.signature, derived, built_in=not inspection.own_code
    )


def _own_signature(inspection: Inspection, folder: Path) -> Signature | None:
    for name, level in ((SIGNATURE, Level.FAULT), (LEGACY_SIGNATURE, Level.REMARK)):
        if (folder / name).is_file():
            try:
                return read_signature(folder / name)
            except ToolkitError as error:
                inspection.findings.append(about(level, "signature", error.message, [name]))
    return None
