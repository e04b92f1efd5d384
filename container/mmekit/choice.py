"""Which code runs a model: a named handler, the model's own, the image's, or a built-in handler.

Reads the file system to see whether code is there, so it is called off the event loop.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from mmekit.artifact import DEFAULT_PROGRAM, SIDE_FOLDERS, Artifact, program_name
from mmekit.errors import InvalidModel
from mmekit.formats import FRAMEWORKS, KNOWN_FILES

#: How many names a message lists before it says "and N more".
_MAX_LISTED = 12


@dataclass(frozen=True)
class ImageCode:
    """The image-wide setting: code that serves models which bring none of their own.

    ``handler`` is SAGEMAKER_HANDLER, ``program`` the name in SAGEMAKER_PROGRAM and ``code_dir``
    SAGEMAKER_SUBMIT_DIRECTORY or SAGEMAKER_BASE_DIR/code. ``handler_runs_programs``: in MMS mode the handler
    runs all models that name none, as if they named it; MMS knows nothing of programs.
    """

    handler: str | None = None
    program: str = DEFAULT_PROGRAM
    code_dir: Path | None = None
    handler_runs_programs: bool = False

    def program_file(self) -> Path | None:
        """Return the image-wide program when it is there."""
        if self.code_dir is None:
            return None
        file = self.code_dir / program_name(self.program)
        return file if file.is_file() else None

    def code_dirs(self) -> tuple[str, ...]:
        """Return the folder of image-wide code when it is there."""
        return (str(self.code_dir),) if self.code_dir is not None and self.code_dir.is_dir() else ()


@dataclass(frozen=True)
class Choice:
    """Which code runs a model: fields of ``messages.Load`` by the same names, and what follows from it."""

    handler: str | None
    program: str | None
    #: Under a ``program``: the handler that supplies what the program leaves out. When that is a handler
    #: service of the image, which only a worker can tell, it runs the model and finds the program itself.
    runtime: str | None
    code_dirs: tuple[str, ...]
    #: The code comes with the model, so it gets a worker of its own.
    own_code: bool
    #: Names that this code could import from its folders. If one of them is already imported in
    #: the template, a forked worker would use that one: the worker must be a fresh process.
    shadows: frozenset[str] = field(default=frozenset(), repr=False)


def choose(
    artifact: Artifact, requested_handler: str | None = None, image: ImageCode | None = None
) -> Choice:
    """Decide which code runs a model, by the first of these that is there.

    1. the handler that the load request names, else the manifest's;
    2. the model's own program, run by the image's handler where that is a handler service or class;
    3. the image-wide handler, else the image-wide program;
    4. the built-in handler that recognises the model's files.

    Raises ``InvalidModel`` when there is none, and says what was found and what would have done.
    """
    image = image or ImageCode()
    default = image.handler if image.handler_runs_programs else None
    if handler := requested_handler or artifact.handler or default:
        return _named_handler(artifact, handler, image)
    if artifact.program:
        # What the program leaves out comes from the image's own framework, if it has one.
        dirs = _program_first(artifact.program, artifact.code_dirs)
        runtime = image.handler or artifact.runtime
        return Choice(
            None, artifact.program, runtime, dirs + image.code_dirs(), True, artifact.top_level_modules
        )
    if image.handler:
        return Choice(image.handler, None, None, image.code_dirs(), False)
    if file := image.program_file():
        return Choice(None, str(file), artifact.runtime, _program_first(str(file), image.code_dirs()), False)
    if image.program != DEFAULT_PROGRAM:
        raise InvalidModel(_no_program(artifact, image))
    if artifact.runtime is None:
        raise InvalidModel(_nothing_recognised(artifact))
    return Choice(None, None, artifact.runtime, (), False)


def _named_handler(artifact: Artifact, handler: str, image: ImageCode) -> Choice:
    # A handler of the image may import what the model brings: MMS puts the model's folder on the path.
    brings_code = handler not in FRAMEWORKS and artifact.top_level_modules
    if brings_code or artifact.holds(handler):
        dirs = artifact.code_dirs + image.code_dirs()
        return Choice(handler, None, None, dirs, True, artifact.top_level_modules)
    return Choice(handler, None, None, image.code_dirs(), False)


def _program_first(program: str, code_dirs: tuple[str, ...]) -> tuple[str, ...]:
    own = os.path.dirname(program)
    return (own, *(folder for folder in code_dirs if folder != own))


def _listed(names: Iterable[str]) -> str:
    shown = list(names)
    more = len(shown) - _MAX_LISTED
    return ", ".join(shown[:_MAX_LISTED]) + (f" and {more} more" if more > 0 else "")


def _no_program(artifact: Artifact, image: ImageCode) -> str:
    name = program_name(image.program)
    return (
        f"SAGEMAKER_PROGRAM={image.program}, but there is no {name} in {artifact.path}/code, in "
        f"{artifact.path} or in {image.code_dir} (SAGEMAKER_SUBMIT_DIRECTORY, a folder of this image). "
        f"The model has: {_listed(artifact.entries)}."
    )


def _nothing_recognised(artifact: Artifact) -> str:
    """Say why: files of several frameworks, an archive packed with its folder, or unknown files."""
    if artifact.model_files:
        found = _listed(f"{name} ({FRAMEWORKS[runtime][0]})" for name, runtime in artifact.model_files)
        return (
            f"The model folder {artifact.path} has files of several frameworks: {found}. Keep one, or say in "
            f"code/{DEFAULT_PROGRAM} how they are used."
        )
    if len(artifact.entries) == 1 and artifact.entries[0].endswith("/"):
        inner = artifact.entries[0].rstrip("/")
        if inner not in SIDE_FOLDERS:
            return (
                f"The model folder {artifact.path} holds only the folder {inner!r}: the model's files must "
                f"be at the top. Pack what is in it, not the folder: tar -czf model.tar.gz -C {inner} ."
            )
    return (
        f"Model handler is not defined. {artifact.path} has: {_listed(artifact.entries)}. Recognised are "
        f"{KNOWN_FILES}. For anything else put code/{DEFAULT_PROGRAM} into the model, name a handler in the "
        f"load request, or set SAGEMAKER_HANDLER."
    )
