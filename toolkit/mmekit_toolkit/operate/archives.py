"""Archives on this machine, ready to go up: a file as it is, a folder packed first."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mmekit_toolkit.archive import bundle
from mmekit_toolkit.errors import NotFound, ToolkitError
from mmekit_toolkit.operate import naming

_SUFFIXES = (naming.SUFFIX, ".tgz")
_GZIP_MAGIC = b"\x1f\x8b"
_BLOCK_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Archive:
    """A .tar.gz file, the name that its model is to have, and its content's hash."""

    file: Path
    name: str
    sha256: str
    size_bytes: int
    #: When the file was last written.
    modified_ns: int

    @property
    def target(self) -> str:
        """The TargetModel that will call it."""
        return naming.target_of(self.name, self.sha256)


def of_file(file: Path, name: str | None = None, folder: str = "") -> Archive:
    """Return the archive in a file; without ``name`` the file's name below ``folder`` is the model's.

    Raises NotFound, and ToolkitError for what is no .tar.gz.
    """
    if not file.is_file():
        raise NotFound(f"there is no file or folder {file}.")
    digest = hashlib.sha256()
    with file.open("rb") as content:
        head = content.read(len(_GZIP_MAGIC))
        if not file.name.endswith(_SUFFIXES) or head != _GZIP_MAGIC:
            raise ToolkitError(
                f"{file} is not a .tar.gz archive, the only kind that SageMaker loads into multi-model "
                "endpoints. `mmekit archive pack` makes one of a folder."
            )
        digest.update(head)
        while block := content.read(_BLOCK_BYTES):
            digest.update(block)
        status = os.fstat(content.fileno())
    sha256 = digest.hexdigest()
    name = name or folder + naming.name_from_file(file.name, sha256)
    return Archive(file, name, sha256, status.st_size, status.st_mtime_ns)


def ready(path: Path, scratch: Path, *, name: str | None = None, folder: str = "") -> Archive:
    """Return the archive to upload: a file's, or that of a model folder, which is packed into ``scratch``.

    Without ``name`` the model has the file's or folder's own, below ``folder``. Raises NotFound, and
    ToolkitError for what cannot be packed or is no archive.
    """
    if not path.is_dir():
        return of_file(path, name, folder)
    name = name or folder + path.resolve().name
    # Each its own place: two folders of one name may have the same content, and are two models all the same.
    output = Path(tempfile.mkdtemp(dir=scratch))
    packed = bundle.write(bundle.collect(path, name.rpartition("/")[2]), output)
    return of_file(packed.path, name)


def find(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield the archives and model folders of a folder, each with the folders that its name begins with.

    A folder that has nothing but archives, or such folders, is part of the names: ``tenant_a/churn.tar.gz``
    is the model ``tenant_a/churn``. Any other folder is a model. Hidden files are left out, and those that
    are no archives.
    """
    yield from _find(folder, "")


def _find(folder: Path, above: str) -> Iterator[tuple[Path, str]]:
    for path in _visible(folder):
        if path.is_dir() and _is_group(path):
            yield from _find(path, f"{above}{path.name}/")
        elif path.is_dir() or path.name.endswith(_SUFFIXES):
            yield path, above


def _is_group(folder: Path) -> bool:
    inside = _visible(folder)
    return bool(inside) and all(
        _is_group(path) if path.is_dir() else path.name.endswith(_SUFFIXES) for path in inside
    )


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
