"""Packs a model's folder into the archive that SageMaker takes: the same files always give the same bytes.

Files lie at the root, in the order of their names; dates, owners and umask leave no trace; what links lead
to is packed in their place; junk is left out. The name carries the content's hash, so that a new version
never overwrites an old one.
"""

from __future__ import annotations

import contextlib
import filecmp
import gzip
import hashlib
import io
import os
import re
import stat
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

from mmekit.archive import sample
from mmekit.archive.members import fault_of_name
from mmekit.archive.sample import Sample
from mmekit_toolkit.archive.junk import is_junk
from mmekit_toolkit.archive.signature import SIGNATURE, Signature
from mmekit_toolkit.errors import ToolkitError

#: Digits of the hash in an archive's name: two in 10^14 are the same.
HASH_DIGITS = 12
SUFFIX = ".tar.gz"

#: SageMaker's object keys and TargetModel take more; these are safe in shells, URLs and IAM's patterns.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
#: 1980-01-01, as in zip archives; tar warns of 1970.
_DATE = 315_532_800
#: zlib's default; 9 takes three times as long for one per cent.
_COMPRESSION = 6
_CHUNK_BYTES = 1024 * 1024
#: Folders inside each other, through links.
_MAX_DEPTH = 100


@dataclass(frozen=True)
class Bundle:
    """What goes into an archive: path in it → file, and path in it → content."""

    name: str
    files: Mapping[str, Path]
    contents: Mapping[str, bytes] = field(default_factory=dict)
    #: Files left out, as paths below the folder.
    junk: tuple[str, ...] = ()
    #: Files that links outside of the folder brought in.
    outside: tuple[str, ...] = ()

    @property
    def size_bytes(self) -> int:
        """What the files have together."""
        return sum(file.stat().st_size for file in self.files.values())


@dataclass(frozen=True)
class Written:
    """An archive; ``is_new`` is False when it was there already."""

    path: Path
    sha256: str
    size_bytes: int
    is_new: bool


def collect(
    folder: Path, name: str, request: Sample | None = None, signature: Signature | None = None
) -> Bundle:
    """Find what is to be packed. Raises ToolkitError for names and links that cannot be."""
    if not _NAME.fullmatch(name):
        raise ToolkitError(
            f"the name {name!r:.120} cannot be used. Expected up to 100 letters, digits, '.', '_' and '-', "
            "the first one a letter or digit; --name gives another."
        )
    walk = _Walk(folder)
    walk.run()
    contents = {}
    if request is not None:
        contents = {sample.BODY: request.body, sample.DESCRIPTION: request.description}
    if signature is not None:
        contents[SIGNATURE] = signature.content
    files = {path: file for path, file in walk.files.items() if path not in contents}
    if not files:
        raise ToolkitError(f"{folder} has no files to pack.")
    return Bundle(name, files, contents, tuple(walk.junk), tuple(walk.outside))


def write(bundle: Bundle, output: Path, progress: Callable[[int], None] = lambda _: None) -> Written:
    """Write ``NAME-HASH.tar.gz`` into a folder, complete or not at all; if it is there, it is left as it is.

    ``progress`` gets the number of bytes that went in. Raises ToolkitError for what cannot be read or
    written, and for files that change meanwhile.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(prefix=f".{bundle.name}.", suffix=".part", dir=output)
    except OSError as error:
        raise ToolkitError(f"{output} cannot be written to: {error.strerror}.") from error
    try:
        with open(handle, "wb") as file:
            out = _Hashing(file)
            _write_archive(bundle, out, progress)
        target = output / f"{bundle.name}-{out.digest.hexdigest()[:HASH_DIGITS]}{SUFFIX}"
        is_new = not (target.is_file() and filecmp.cmp(part, target, shallow=False))
        if is_new:
            os.chmod(part, 0o644)
            os.replace(part, target)
        return Written(target, out.digest.hexdigest(), out.size_bytes, is_new)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted; nothing was written.") from None
    except OSError as error:
        raise ToolkitError(
            f"{bundle.name} cannot be packed: {error.filename or output}: {error.strerror or error}."
        ) from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part)


class _Hashing(io.RawIOBase):
    """Writes to a file and keeps the hash of all that was written."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.size_bytes = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:  # Any: bytes or a view of them
        self.digest.update(data)
        self.size_bytes += len(data)
        return self._file.write(data)


def _write_archive(bundle: Bundle, out: _Hashing, progress: Callable[[int], None]) -> None:
    with (
        gzip.GzipFile("", "wb", _COMPRESSION, cast("IO[bytes]", out), mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name in sorted({*bundle.files, *bundle.contents}, key=_order):
            if name in bundle.contents:
                content = bundle.contents[name]
                archive.addfile(_info(name, len(content), 0o644), io.BytesIO(content))
            else:
                _add_file(archive, name, bundle.files[name], progress)


def _order(name: str) -> list[bytes]:
    """Sort by folders, byte by byte: the locale does not matter."""
    return [part.encode() for part in name.split("/")]


def _add_file(archive: tarfile.TarFile, name: str, file: Path, progress: Callable[[int], None]) -> None:
    with file.open("rb") as content:
        status = os.fstat(content.fileno())
        mode = 0o755 if status.st_mode & stat.S_IXUSR else 0o644
        counted = _Counted(content, progress)
        archive.addfile(_info(name, status.st_size, mode), cast("IO[bytes]", counted))
        if content.read(1) or counted.count != status.st_size:
            raise OSError(0, "it changed while it was packed; run the command again", str(file))


def _info(name: str, size: int, mode: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, mode, _DATE
    return info


class _Counted:
    """Tells how many bytes of a file were read."""

    def __init__(self, file: IO[bytes], progress: Callable[[int], None]) -> None:
        self._file = file
        self._progress = progress
        self.count = 0

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self.count += len(data)
        self._progress(len(data))
        return data


class _Walk:
    """Finds files below a folder, links followed."""

    def __init__(self, folder: Path) -> None:
        self._root = folder
        self._real = os.path.realpath(folder)
        #: Path in the archive → file.
        self.files: dict[str, Path] = {}
        self.junk: list[str] = []
        self.outside: list[str] = []

    def run(self) -> None:
        self._enter(self._root, (), frozenset())

    def _enter(self, folder: Path, above: tuple[str, ...], entered: frozenset[str]) -> None:
        real = os.path.realpath(folder)
        if real in entered or len(above) > _MAX_DEPTH:
            raise ToolkitError(f"{folder} leads back to a folder that it is in: links must form no circle.")
        try:
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: os.fsencode(entry.name))
        except OSError as error:
            raise ToolkitError(f"{folder} cannot be read: {error.strerror}.") from error
        for entry in entries:
            # The bytes are UTF-8, whatever the locale takes them for.
            part = os.fsencode(entry.name).decode("utf-8", "surrogateescape")
            self._take(entry, (*above, part), entered | {real})

    def _take(self, entry: os.DirEntry[str], parts: tuple[str, ...], entered: frozenset[str]) -> None:
        name = "/".join(parts)
        if is_junk(parts):
            self.junk.append(name)
        elif wrong := fault_of_name(name):
            raise ToolkitError(f"{entry.path!r:.300} has {wrong}, and no archive can have that. Rename it.")
        elif not _is_text(name):
            raise ToolkitError(f"the name {name!a:.300} is not UTF-8. Rename it.")
        elif entry.is_dir():
            self._enter(Path(entry.path), parts, entered)
        elif entry.is_file():
            self.files[name] = Path(entry.path)
            if not os.path.realpath(entry.path).startswith(self._real + os.sep):
                self.outside.append(name)
        elif entry.is_symlink():
            raise ToolkitError(
                f"{entry.path} is a link to {os.readlink(entry.path)}, where nothing is. Delete it, or put "
                "the file there."
            )
        else:
            raise ToolkitError(f"{entry.path} is neither a file nor a folder. Take it out of the folder.")


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
