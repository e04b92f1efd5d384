"""What is in an archive, one member after the other, without trusting it.

Zip (.mar, .model, .zip) and tar (.tar, .tar.gz, .tgz), told apart by their first bytes. Nothing is
written here. zipfile and tarfile take as much memory as an archive says it needs; the limits below
are checked before they are asked. ``members`` refuses what is not to be trusted; ``raw_members`` has
only those limits, for those who tell people all that is wrong.
"""

from __future__ import annotations

import enum
import gzip
import os
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, cast

from mmekit.errors import InvalidModel, ModelTooLarge

MAX_MEMBERS = 100_000
#: Folders inside each other. Python deletes a tree recursively, so a deep one could not be deleted.
_MAX_DEPTH = 100
CHUNK_BYTES = 1024 * 1024

#: The list at the end of a zip archive: 100 000 members with long names.
_MAX_DIRECTORY_BYTES = 64 * 1024 * 1024
#: Headers of one tar member: names of any length and extended attributes fit.
_MAX_HEADER_BYTES = 256 * 1024
#: Headers of all members: 100 000 with long names.
_MAX_HEADERS_BYTES = 256 * 1024 * 1024
#: One record of a pax header, up to its value.
_PAX_RECORD = re.compile(rb"([0-9]{1,20}) [^=]+=")
#: Older tarfiles search pax headers in as many steps as the square of the digits in a row: about 10 ms.
_MAX_DIGIT_STEPS = 4_000_000
#: What may follow the last member of a tar archive: tar fills its last record, at most 4 MiB, with zeros.
_MAX_PADDING_BYTES = 8 * 1024 * 1024

#: Names that archivers leave behind.
_JUNK = frozenset({"__MACOSX", ".DS_Store"})

#: What the standard library raises about bytes that are no archive. RuntimeError: RecursionError,
#: NotImplementedError. ValueError: names that are no text, numbers that are none. OSError: positions
#: that are none, gzip's errors, files that cannot be read.
_BROKEN = (
    zipfile.BadZipFile,
    tarfile.TarError,
    OSError,
    zlib.error,
    struct.error,
    EOFError,
    ValueError,
    RuntimeError,
    OverflowError,
    LookupError,
)


@dataclass(frozen=True)
class Member:
    """A file or folder of an archive."""

    #: Relative, with ``/`` between its parts; never ``..`` among them.
    path: str
    is_folder: bool
    executable: bool
    #: Bytes as the archive declares them.
    size: int
    #: The content; to be read before the next member is asked for.
    chunks: Callable[[], Iterator[bytes]]


class Form(enum.Enum):
    """What an archive is, by its first bytes."""

    ZIP = "zip"
    TAR = "tar"
    TAR_GZ = "tar.gz"


@dataclass(frozen=True)
class RawMember:
    """A member as the archive has it; its name may lead anywhere."""

    name: str
    #: The file's type as in ``st_mode``: S_IFREG, S_IFDIR, S_IFLNK …; 0 where a zip archive does not say.
    #: A tar archive's hard link has S_IFLNK too; what else is neither file nor folder there, S_IFCHR.
    kind: int
    #: Permissions, as far as the archive has them.
    mode: int
    #: Bytes as the archive declares them.
    size: int
    #: The content of a file; to be read before the next member is asked for.
    chunks: Callable[[], Iterator[bytes]]
    #: Where a tar archive's link leads.
    target: str = ""
    #: Of zip archives: whether a password is needed, and the number of the compression's method.
    encrypted: bool = False
    method: int = zipfile.ZIP_STORED


@contextmanager
def refusing_broken(source: str) -> Iterator[None]:
    """Turn what reading a damaged archive raises into InvalidModel."""
    try:
        yield
    except _BROKEN as error:
        text = str(error) or type(error).__name__
        raise refusal(source, f"it is damaged or incomplete ({text:.200})") from error


def refusal(source: str, reason: str) -> InvalidModel:
    """Return the error for an archive that is not unpacked."""
    return InvalidModel(f"The archive {source} cannot be used: {reason}. Nothing was unpacked.")


def members(archive: Path, source: str, max_bytes: int) -> Generator[Member, None, None]:
    """Yield files and folders; what archivers leave behind is left out. ``source`` is its name in errors.

    Raises InvalidModel for what is neither zip nor tar, for members that would be written elsewhere,
    links, devices, encrypted ones, more than 100 000 of them, or more than ``max_bytes`` declared.
    Wrap the whole loop in ``refusing_broken``.
    """
    with _opened(archive, source) as (form, file):
        if form is Form.ZIP:
            # All of them first: most hostile archives are refused before anything is read.
            raw = list(_zip_members(file, source))
            found = (_trusted_zip_member(each, source) for each in raw)
            for each in raw:
                _check_zip_member(each, source)
        else:
            found = (_trusted_tar_member(each, source) for each in _tar_members(file, source))
        yield from _within(found, source, max_bytes)


def raw_members(archive: Path, source: str) -> Generator[RawMember, None, None]:
    """Yield all members, whatever they are and wherever they would be written; few checks are made.

    Raises InvalidModel for what is neither zip nor tar, and where an archive is damaged or its headers are
    over the limits: what came before may still be told. Wrap the whole loop in ``refusing_broken``, and
    mind number and sizes.
    """
    with _opened(archive, source) as (form, file):
        yield from (_zip_members if form is Form.ZIP else _tar_members)(file, source)


def form_of(archive: Path, source: str) -> Form:
    """Return what an archive is. Raises InvalidModel for a file that is none, or cannot be read."""
    with _opened(archive, source) as (form, _):
        return form


@contextmanager
def _opened(archive: Path, source: str) -> Iterator[tuple[Form, IO[bytes]]]:
    """Yield what an archive is, and its bytes: those of a tar.gz unzipped."""
    try:
        if not stat.S_ISREG(archive.stat().st_mode):  # opening a pipe would wait for its writer
            raise refusal(source, "it is no file")
        file = archive.open("rb")
    except OSError as error:
        raise refusal(
            source, f"it cannot be read: {error.strerror} (the server runs as user {os.getuid()})"
        ) from error
    with file:
        head = file.read(512)
        file.seek(0)
        if head.startswith((b"PK\3\4", b"PK\5\6")):
            yield Form.ZIP, file
        elif head.startswith(b"\x1f\x8b"):
            with gzip.GzipFile(fileobj=file) as unzipped:
                yield Form.TAR_GZ, cast("IO[bytes]", unzipped)
        elif head[257:262] == b"ustar":
            yield Form.TAR, file
        else:
            raise refusal(
                source,
                "expected a zip (.mar, .model, .zip) or a tar archive (.tar.gz, .tgz, .tar), found "
                + (f"a file that starts with {head[:8]!r}" if head else "an empty file"),
            )


def _within(found: Iterator[Member], source: str, max_bytes: int) -> Iterator[Member]:
    """Hold the limits on number and size; leave out junk."""
    total = 0
    for number, member in enumerate(found, 1):
        if number > MAX_MEMBERS:
            raise refusal(source, f"it has more than {MAX_MEMBERS} members")
        total += member.size
        if total > max_bytes:
            raise too_large(source, max_bytes)
        parts = member.path.split("/")
        if member.path and not any(part in _JUNK or part.startswith("._") for part in parts):
            yield member


def too_large(source: str, max_bytes: int) -> ModelTooLarge:
    """Return the error for an archive that unpacks to more than the limit."""
    return ModelTooLarge(
        f"The archive {source} cannot be used: unpacked it has more than {max_bytes} bytes; raise "
        "MMEKIT_MAX_UNPACKED_BYTES if that is meant. Nothing was unpacked."
    )


def fault_of_name(name: str) -> str | None:
    """Return what a name has that is not unpacked, such as ``an absolute path``; None when it is good."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/"):
        return "an absolute path"
    if ".." in parts:
        return "a path that leads out of the archive"
    if "\\" in name:
        return "a path with a backslash; expected / between folders"
    if "\0" in name:
        return "a zero byte in its path"
    if parts and re.match("[A-Za-z]:", parts[0]):
        return "a drive letter"
    if len(_bytes(name)) > 4096 or any(len(_bytes(part)) > 255 for part in parts):
        return "a path longer than this system's limit"
    if len(parts) > _MAX_DEPTH:
        return f"a path of more than {_MAX_DEPTH} folders"
    return None


def _bytes(name: str) -> bytes:
    """Return a name as UTF-8, whatever the locale; bytes that are none are as they were."""
    return name.encode("utf-8", "surrogateescape")


def _clean(name: str, source: str) -> str:
    """Return a member's path without empty parts. Raises InvalidModel when it leads out of the folder."""
    if wrong := fault_of_name(name):
        raise refusal(source, f"its member {name!r:.200} has {wrong}")
    return "/".join(part for part in name.split("/") if part not in ("", "."))


# --- zip -----------------------------------------------------------------------------------------


def _zip_members(file: IO[bytes], source: str) -> Iterator[RawMember]:
    _check_directory(file, source)
    opened = zipfile.ZipFile(file)  # read as long as the file is open: contents are asked for at the end
    for info in opened.infolist():
        mode = info.external_attr >> 16
        kind = stat.S_IFMT(mode)
        yield RawMember(
            name=info.orig_filename,
            kind=stat.S_IFDIR if info.is_dir() and kind in (0, stat.S_IFREG) else kind,
            mode=stat.S_IMODE(mode),
            size=info.file_size,
            chunks=partial(_zip_chunks, opened, info),
            encrypted=bool(info.flag_bits & 0x2041),  # encrypted, strongly encrypted, names masked
            method=info.compress_type,
        )


def _trusted_zip_member(raw: RawMember, source: str) -> Member:
    return _member(raw, raw.kind == stat.S_IFDIR, source)


def _member(raw: RawMember, is_folder: bool, source: str) -> Member:
    return Member(_clean(raw.name, source), is_folder, bool(raw.mode & 0o111), raw.size, raw.chunks)


def _zip_chunks(opened: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    with opened.open(info) as content:
        while chunk := content.read(CHUNK_BYTES):  # checks the CRC at the end
            yield chunk


def _check_zip_member(raw: RawMember, source: str) -> None:
    _clean(raw.name, source)
    if raw.encrypted:
        raise refusal(source, f"its member {raw.name!r:.200} is encrypted")
    if raw.kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise refusal(
            source, f"its member {raw.name!r:.200} is {_kind(raw.kind)}; expected files and folders"
        )
    if raw.method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise refusal(
            source,
            f"its member {raw.name!r:.200} is compressed by method {raw.method}; expected "
            "stored or deflated, which is what zip and model-archiver do",
        )


def _kind(mode: int) -> str:
    kinds = {stat.S_IFLNK: "a link", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return kinds.get(mode, "a device")


def _check_directory(file: IO[bytes], source: str) -> None:
    """Count a zip archive's members before zipfile makes an object of each.

    Finds the end record as zipfile does (APPNOTE.TXT 4.3.14 to 4.3.16).
    """
    size = file.seek(0, os.SEEK_END)
    tail_at = max(0, size - 22 - 65535 - 76)
    file.seek(tail_at)
    tail = file.read()
    end = len(tail) - 22
    if end < 0 or tail[end : end + 4] != b"PK\5\6" or tail[-2:] != b"\0\0":
        end = tail.rfind(b"PK\5\6")
    if end < 0 or len(tail) < end + 22:
        raise refusal(source, "it is damaged or incomplete (the list at its end is missing)")
    (length,) = struct.unpack_from("<L", tail, end + 12)
    if tail[max(0, end - 20) :].startswith(b"PK\6\7"):
        end -= 76
        if end < 0 or tail[end : end + 4] != b"PK\6\6":
            raise refusal(source, "it is damaged or incomplete (its zip64 record is not where it should be)")
        (length,) = struct.unpack_from("<Q", tail, end + 40)
    start = tail_at + end - length
    if length > _MAX_DIRECTORY_BYTES or start < 0:
        raise refusal(source, f"the list of its members claims {length} bytes")
    file.seek(start)
    if file.read(length).count(b"PK\1\2") > MAX_MEMBERS:
        raise refusal(source, f"it has more than {MAX_MEMBERS} members")
    file.seek(0)


# --- tar -----------------------------------------------------------------------------------------


class _Bounded:
    """A file for tarfile, which reads as many bytes for a header as the header asks for."""

    def __init__(self, file: IO[bytes], source: str) -> None:
        self._file = file
        self._source = source
        #: How many more bytes may be read.
        self.allowed = _MAX_HEADER_BYTES
        #: The size of the pax header that is read next, None when something else is.
        self.pax_bytes: int | None = None
        self.last = b""

    def read(self, size: int) -> bytes:
        if not 0 <= size <= self.allowed:
            raise refusal(self._source, f"a header in it asks for {size} bytes more")
        self.allowed -= size
        self.last = self._file.read(size)
        if self.pax_bytes is not None:
            _check_pax_header(self.last[: self.pax_bytes], self._source)
            self.pax_bytes = None
        return self.last

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, position: int) -> int:
        if position < self._file.tell():  # also what a negative size leads to
            raise refusal(self._source, "a header in it points backwards")
        return self._file.seek(position)


class _TarInfo(tarfile.TarInfo):
    """Tells ``_Bounded`` which of the bytes that tarfile reads are a pax header: nothing public does."""

    def _proc_pax(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        vars(archive.fileobj)["pax_bytes"] = self.size
        found: tarfile.TarInfo = super()._proc_pax(archive)  # type: ignore[misc]  # not in typeshed
        return found


def _check_pax_header(content: bytes, source: str) -> None:
    """Refuse a pax header that is not ``LENGTH key=value`` lines, or has very many digits in a row.

    Others keep tarfile busy for minutes, and the GIL with it (CVE-2024-6232, repaired in 3.10.15, 3.11.10
    and 3.12.6).
    """
    position = 0
    while position < len(content) and content[position] != 0:
        record = _PAX_RECORD.match(content, position)
        end = position + int(record[1]) if record else 0
        if record is None or not record.end() < end <= len(content) or content[end - 1] != ord("\n"):
            break
        position = end
    if content[position:].strip(b"\0"):
        raise refusal(
            source,
            "expected lines LENGTH key=value in an extended header of it, found one that starts with "
            f"{content[position : position + 20]!r}",
        )
    if sum(len(digits) ** 2 for digits in re.findall(rb"[0-9]+", content)) > _MAX_DIGIT_STEPS:
        raise refusal(source, "an extended header in it has too many digits in a row")


def _tar_members(file: IO[bytes], source: str) -> Iterator[RawMember]:
    bounded = _Bounded(file, source)
    left = _MAX_HEADERS_BYTES
    with tarfile.TarFile(fileobj=bounded, tarinfo=_TarInfo) as opened:  # type: ignore[arg-type]  # reading needs no more of a file
        while True:
            bounded.allowed = _MAX_HEADER_BYTES
            info = opened.next()
            left -= _MAX_HEADER_BYTES - bounded.allowed
            if left < 0:
                raise refusal(source, f"it has more than {_MAX_HEADERS_BYTES} bytes of headers")
            vars(opened)["members"] = []  # tarfile keeps all of them, each with all its extended headers
            # It copies these to each member. They hold what all have in common: neither name nor size.
            vars(opened)["pax_headers"] = {}
            if info is None:
                break
            yield RawMember(
                name=info.name,
                kind=_kind_of(info),
                mode=info.mode & 0o7777,
                size=info.size,
                chunks=partial(_tar_chunks, opened, info, bounded),
                target=info.linkname,
            )
    # tarfile also stops where a header is not one, as if the archive ended there.
    if bounded.last != bytes(tarfile.BLOCKSIZE):
        raise refusal(source, f"it is damaged or incomplete (after {file.tell()} bytes)")
    left = _MAX_PADDING_BYTES
    while chunk := file.read(CHUNK_BYTES):  # to the end: gzip's CRC comes last
        left -= len(chunk)
        if left < 0 or chunk.strip(b"\0"):
            raise refusal(source, "something follows the end of its members")


def _kind_of(info: tarfile.TarInfo) -> int:
    if info.isreg():
        return stat.S_IFREG
    if info.isdir():
        return stat.S_IFDIR
    return stat.S_IFLNK if info.islnk() or info.issym() else stat.S_IFCHR


def _trusted_tar_member(raw: RawMember, source: str) -> Member:
    if raw.kind not in (stat.S_IFREG, stat.S_IFDIR):
        kind = "a link" if raw.kind == stat.S_IFLNK else "neither file nor folder"
        raise refusal(source, f"its member {raw.name!r:.200} is {kind}; expected files and folders")
    return _member(raw, raw.kind == stat.S_IFDIR, source)


def _tar_chunks(opened: tarfile.TarFile, info: tarfile.TarInfo, bounded: _Bounded) -> Iterator[bytes]:
    bounded.allowed = info.size + tarfile.BLOCKSIZE
    content = opened.extractfile(info)
    if content is None:  # never for a file
        return
    with content:
        while chunk := content.read(CHUNK_BYTES):
            yield chunk
