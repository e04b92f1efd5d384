"""A model's folder: what is in it, and whether it brings code; ``choice`` decides what runs it.

Reads files, so it is called off the event loop. Nothing of the model's is imported or unpickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmekit.archive.manifest import read_manifest
from mmekit.errors import InvalidModel, ModelNotFound
from mmekit.formats import runtime_of_file

DEFAULT_PROGRAM = "inference.py"

#: Names that archivers and file systems leave behind (MMS: model-archiver skips most of them too).
_JUNK = frozenset({"__MACOSX", "__pycache__", "lost+found", "Thumbs.db", "desktop.ini"})
#: Folders of a model that hold code or descriptions, never a model's file.
SIDE_FOLDERS = frozenset({"code", "MAR-INF"})


@dataclass(frozen=True)
class Artifact:
    """What ``inspect`` found; paths are absolute."""

    path: str
    size_bytes: int
    #: Entries at the top of the folder without junk, sorted; folders end with ``/``.
    entries: tuple[str, ...]
    #: Files at the top that a built-in handler recognises, with its import string.
    model_files: tuple[tuple[str, str], ...]
    #: The user's program, or None.
    program: str | None
    #: Folders that own code is imported from, the first one wins.
    code_dirs: tuple[str, ...]
    #: The manifest as it is (see ``archive.manifest``), or None.
    manifest: dict[str, Any] | None
    #: What the manifest says of it, or None: a handler string, ...
    handler: str | None
    model_name: str | None
    model_version: str | None
    engine: str | None
    #: "python", "python2" or "python3"; the first without a manifest.
    runtime_name: str
    #: An archive for MMS 0.4: ``handler`` is a file with a subclass of SingleNodeService.
    legacy: bool
    #: Path of requirements.txt and its lines without comments.
    requirements_file: str | None
    requirements: tuple[str, ...]
    #: Names that could be imported from ``code_dirs``.
    top_level_modules: frozenset[str] = field(repr=False)

    @property
    def runtime(self) -> str | None:
        """The built-in handler for the model's files; None when none fits, or files of several are there."""
        runtimes = {runtime for _, runtime in self.model_files}
        return runtimes.pop() if len(runtimes) == 1 else None

    @property
    def manifest_text(self) -> str | None:
        """The manifest as JSON, in ASCII."""
        return None if self.manifest is None else json.dumps(self.manifest)

    @property
    def own_code(self) -> bool:
        """Whether the folder brings the code that will run: a program, or the manifest's handler."""
        return self.program is not None or (self.handler is not None and self.holds(self.handler))

    def holds(self, handler: str) -> bool:
        """Say whether the module of a handler string is a file or package of this folder."""
        return find_handler_file(handler, self.code_dirs) is not None


def inspect(path: str | os.PathLike[str], program: str = DEFAULT_PROGRAM) -> Artifact:
    """Look at a model's folder; ``program`` is the file name of a user's program (SAGEMAKER_PROGRAM).

    Raises ``ModelNotFound`` when nothing is there, ``InvalidModel`` when it is not a folder, is
    empty, cannot be read, or has a manifest that cannot be used.
    """
    folder = Path(os.path.abspath(path))
    try:
        _require_folder(folder)
        top = _entries(folder)
        if not top:
            raise InvalidModel(f"The model folder {folder} is empty.")
        manifest = read_manifest(folder)
        code_dirs = _code_dirs(folder)
        requirements = requirements_file(folder)
        return Artifact(
            path=str(folder),
            size_bytes=_size_bytes(folder),
            entries=tuple(entry.name + "/" * entry.is_dir() for entry in top),
            model_files=tuple(_model_files(folder, top)),
            program=_find_program(folder, program),
            code_dirs=code_dirs,
            manifest=manifest.raw if manifest else None,
            handler=manifest.handler if manifest else None,
            model_name=manifest.model_name if manifest else None,
            model_version=manifest.model_version if manifest else None,
            engine=manifest.engine_name if manifest else None,
            runtime_name=manifest.runtime if manifest else "python",
            legacy=manifest is not None and manifest.legacy,
            requirements_file=requirements,
            requirements=tuple(_requirement_lines(requirements)),
            top_level_modules=frozenset(importable_names(code_dirs)),
        )
    except OSError as error:
        raise InvalidModel(
            f"The model in {folder} cannot be read: {error.filename}: {error.strerror} "
            f"(the server runs as user {os.getuid()})."
        ) from error


def fingerprint(folder: str | os.PathLike[str]) -> str:
    """Return a text that changes when a file below the folder does: names, sizes and times of change.

    Empty when the folder is gone or cannot be read.
    """
    try:
        found = sorted(f"{entry.path}\0{_change(entry)}" for entry in _files(Path(folder)))
    except OSError:
        return ""
    return hashlib.sha256("\n".join(found).encode("utf-8", "surrogateescape")).hexdigest()


def requirements_file(folder: str | os.PathLike[str]) -> str | None:
    """Return the path of a model's requirements.txt, in ``code`` or at the top, or None."""
    return _first_file(Path(folder, "code", "requirements.txt"), Path(folder, "requirements.txt"))


def find_handler_file(handler: str, code_dirs: Iterable[str]) -> str | None:
    """Return the file of a handler string's module in ``code_dirs``, or None when it is not there.

    Strings as in MMS (model_loader.py): ``module``, ``package.module``, ``folder/file.py``, each
    with or without ``:attribute``.
    """
    module = module_of(handler)
    relative = module.removesuffix(".py") if is_path(module) else module.replace(".", "/")
    for folder in code_dirs:
        base = os.path.normpath(os.path.join(folder, relative))
        if not base.startswith(folder + os.sep):
            continue
        for file in (base + ".py", os.path.join(base, "__init__.py")):
            if os.path.isfile(file):
                return file
    return None


def importable_names(code_dirs: Iterable[str]) -> Iterable[str]:
    """Yield the top-level names of modules and packages in folders.

    A folder without ``__init__.py`` does not count: an installed package of its name comes first
    (PEP 420).
    """
    for folder in code_dirs:
        for entry in _entries(Path(folder)):
            stem, _, rest = entry.name.partition(".")
            is_package = not rest and os.path.isfile(os.path.join(entry.path, "__init__.py"))
            is_module = rest == "py" or rest == "so" or rest.endswith(".so")
            if stem.isidentifier() and (is_package or is_module):
                yield stem


def module_of(handler: str) -> str:
    """Return the part of a handler string before ``:attribute``: a module's name or a path."""
    return handler.rpartition(":")[0] if ":" in handler else handler


def is_path(module: str) -> bool:
    """Say whether a handler string names a file instead of a module."""
    return "/" in module or module.endswith(".py")


def program_name(program: str) -> str:
    """Return the file name of a program; sagemaker-inference allows it without ``.py``."""
    return program if program.endswith(".py") else program + ".py"


def _require_folder(folder: Path) -> None:
    try:
        mode = folder.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise ModelNotFound(f"Model not found in model store: there is no folder {folder}.") from None
    except ValueError:  # a zero byte in the path
        raise ModelNotFound(f"Model not found in model store: {str(folder)!r} is not a path.") from None
    if not stat.S_ISDIR(mode):
        raise InvalidModel(f"{folder} is a file; a model is loaded from the folder it was unpacked to.")


def _is_junk(name: str) -> bool:
    return name.startswith(".") or name in _JUNK


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as found:
        return sorted((entry for entry in found if not _is_junk(entry.name)), key=lambda entry: entry.name)


def _files(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Yield all files below a folder; links are not followed."""
    pending = [str(folder)]
    while pending:
        with os.scandir(pending.pop()) as found:
            for entry in found:
                if not entry.is_dir(follow_symlinks=False):
                    yield entry
                elif entry.name not in _JUNK:  # lost+found belongs to root
                    pending.append(entry.path)


def _change(entry: os.DirEntry[str]) -> str:
    try:
        status = entry.stat()  # of what a link points to: the file may be replaced behind it
    except OSError:
        return "nothing"
    return f"{status.st_size}\0{status.st_mtime_ns}"


def _size_bytes(folder: Path) -> int:
    """Sum what the files take, not what links point to."""
    return sum(entry.stat(follow_symlinks=False).st_size for entry in _files(folder))


def _model_files(folder: Path, top: Iterable[os.DirEntry[str]]) -> Iterable[tuple[str, str]]:
    for entry in top:
        if entry.is_file() and (runtime := runtime_of_file(folder / entry.name)):
            yield entry.name, runtime


def _code_dirs(folder: Path) -> tuple[str, ...]:
    """Return the folders a model's code is imported from.

    ``code`` before the top, as AWS's PyTorch toolkit and MMS have them; the SageMaker SDK packs
    ``dependencies=`` into ``code/lib``.
    """
    candidates = (folder / "code", folder, folder / "code" / "lib")
    return tuple(str(candidate) for candidate in candidates if candidate.is_dir())


def _first_file(*candidates: Path) -> str | None:
    return next((str(candidate) for candidate in candidates if candidate.is_file()), None)


def _find_program(folder: Path, program: str) -> str | None:
    name = program_name(program)
    return _first_file(folder / "code" / name, folder / name)


def _requirement_lines(file: str | None) -> Iterable[str]:
    if file is None:
        return
    for line in Path(file).read_text(encoding="utf-8", errors="replace").splitlines():
        text = line.strip()
        if text and not text.startswith("#"):
            yield text
