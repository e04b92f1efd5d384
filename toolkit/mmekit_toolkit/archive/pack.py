"""Packs a folder as Multi Model Server's model-archiver 1.0.3 does: the same members, the same manifest.

The same files give the same bytes: members are sorted, their dates and owners fixed.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from mmekit import artifact
from mmekit.archive.manifest import MANIFEST, RUNTIMES
from mmekit.errors import MmekitError

#: Archive format → what follows the model's name.
SUFFIXES = {"default": ".mar", "tgz": ".tar.gz", "no-archive": ""}

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_\-.]*")
_LEFT_OUT_FOLDERS = frozenset({"__MACOSX", "__pycache__"})
_LEFT_OUT_SUFFIXES = (".pyc", ".DS_Store", ".mar")
#: The earliest time a zip archive can hold.
_DATE = (1980, 1, 1, 0, 0, 0)


class PackError(MmekitError):
    """Raised when a folder cannot be packed as asked."""


@dataclass(frozen=True)
class Order:
    """What to pack; fields are model-archiver's options."""

    model_name: str
    handler: str
    model_path: Path
    export_path: Path
    runtime: str = RUNTIMES[0]
    archive_format: str = "default"
    force: bool = False
    convert: bool = False

    @property
    def target(self) -> Path:
        """The file or, without an archive, the folder to write."""
        return self.export_path / (self.model_name + SUFFIXES[self.archive_format])

    @property
    def manifest(self) -> str:
        """The content of MAR-INF/MANIFEST.json."""
        document = {
            "runtime": self.runtime,
            "model": {"modelName": self.model_name, "handler": self.handler},
            "modelServerVersion": "1.0",
            "implementationVersion": "1.0",
            "specificationVersion": "1.0",
        }
        return json.dumps(document, indent=2)


def pack(order: Order) -> Path:
    """Write the archive, or the folder for ``no-archive``, and return its path.

    An archive appears complete or not at all. Raises PackError when a name, a path or the handler is
    not one that works, the target exists without ``force``, or a file cannot be read or written.
    """
    _check(order)
    try:
        files = dict(_files(order))
        if order.archive_format == "no-archive":
            _copy(order, files)
        elif order.archive_format == "tgz":
            with _replacing(order.target) as out:
                _write_tar(order, files, out)
        else:
            with _replacing(order.target) as out:
                _write_zip(order, files, out)
    except OSError as error:
        raise PackError(
            f"{order.target} cannot be written: {error.filename or order.export_path}: "
            f"{error.strerror or error}."
        ) from error
    except (UnicodeEncodeError, RuntimeError) as error:  # zipfile: a file that grew over 2 GiB meanwhile
        raise PackError(
            f"{order.target} cannot be written: {error}. Names must be UTF-8, and files must not change "
            "while they are packed."
        ) from error
    return order.target


def _check(order: Order) -> None:
    if not _NAME.fullmatch(order.model_name):
        raise PackError(
            f"Model name {order.model_name!r} contains special characters. Expected letters, digits, '_', "
            "'-' and '.', the first one a letter or digit."
        )
    for option, folder in (("export-path", order.export_path), ("model-path", order.model_path)):
        if not folder.is_dir():
            raise PackError(f"Given {option} {folder} is not a directory. Point it to a folder that exists.")
    if order.target.exists() and not order.force:
        raise PackError(f"{order.target} already exists. --force (-f) overwrites it.")
    if order.convert and (onnx := sorted(file.name for file in order.model_path.glob("*.onnx"))):
        raise PackError(
            f"--convert is not supported: it needs MXNet to convert {onnx[0]}. Leave the option out to pack "
            "the ONNX file as it is, and load it in the handler."
        )
    module = artifact.module_of(order.handler)
    if artifact.is_path(module) and not os.path.isabs(module) and not handler_is_packed(order):
        raise PackError(
            f"The handler {order.handler!r} is not in {order.model_path}: there is no file {module!r}. "
            "Expected a file of the model, such as service.py:handle, or a module that the image has."
        )


def handler_is_packed(order: Order) -> bool:
    """Say whether the handler's module is one of the files packed; else the image must have it."""
    folder = order.model_path.resolve()
    return artifact.find_handler_file(order.handler, (str(folder / "code"), str(folder))) is not None


def _files(order: Order) -> Iterator[tuple[str, Path]]:
    """Yield the path of each file below the model's folder, and the file; sorted, links followed."""
    target = order.target.resolve()
    in_place = target == order.model_path.resolve()
    for root, folders, files in os.walk(order.model_path, followlinks=True):
        folders[:] = sorted(
            name
            for name in folders
            if name not in _LEFT_OUT_FOLDERS
            and not name.startswith(".")
            and (in_place or Path(root, name).resolve() != target)
        )
        _check_circle(Path(root), folders)
        for name in sorted(files):
            file = Path(root, name)
            if name == "MANIFEST.json" or name.endswith(_LEFT_OUT_SUFFIXES) or file.resolve() == target:
                continue
            yield file.relative_to(order.model_path).as_posix(), file


def _check_circle(root: Path, folders: list[str]) -> None:
    """Refuse links to a folder that they lie in: what they show has no end."""
    here = root.resolve()
    for name in folders:
        if (inner := (root / name).resolve()) == here or inner in here.parents:
            raise PackError(
                f"{root / name} leads back to a folder that it is in: links must form no circle. Delete the "
                "link."
            )


@contextmanager
def _replacing(target: Path) -> Iterator[IO[bytes]]:
    """Open a file beside the target that takes its place when all is written."""
    handle, part = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with open(handle, "wb") as out:
            yield out
        os.chmod(part, 0o644)
        os.replace(part, target)
    except BaseException:
        os.unlink(part)
        raise


def _mode(file: Path) -> int:
    return 0o755 if file.stat().st_mode & 0o100 else 0o644


def _write_zip(order: Order, files: dict[str, Path], out: IO[bytes]) -> None:
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, file in files.items():
            info = _zip_info(name, _mode(file))
            info.file_size = file.stat().st_size  # from 2 GiB on this makes it zip64
            with file.open("rb") as content, archive.open(info, "w") as member:
                shutil.copyfileobj(content, member, 1024 * 1024)
        archive.writestr(_zip_info(MANIFEST, 0o644), order.manifest)


def _zip_info(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, _DATE)
    info.create_system = 3  # Unix, wherever it is packed
    info.external_attr = (0o100000 | mode) << 16
    info.compress_type = zipfile.ZIP_DEFLATED
    return info


def _write_tar(order: Order, files: dict[str, Path], out: IO[bytes]) -> None:
    with (
        gzip.GzipFile("", "wb", fileobj=out, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name, file in files.items():
            with file.open("rb") as content:
                size = os.fstat(content.fileno()).st_size
                archive.addfile(_tar_info(f"{order.model_name}/{name}", _mode(file), size), content)
        manifest = order.manifest.encode()
        info = _tar_info(f"{order.model_name}/{MANIFEST}", 0o644, len(manifest))
        archive.addfile(info, io.BytesIO(manifest))


def _tar_info(name: str, mode: int, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.mode = mode
    info.size = size
    return info


def _copy(order: Order, files: dict[str, Path]) -> None:
    """Copy the files, unless the model's folder is the target, and write the manifest."""
    if order.target.resolve() != order.model_path.resolve():
        for name, file in files.items():
            copy = order.target / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, copy)
    manifest = order.target / MANIFEST
    manifest.parent.mkdir(parents=True, exist_ok=True)
    manifest.write_text(order.manifest)
