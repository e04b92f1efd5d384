"""All members of an archive, or all files of a folder, whatever they are; what cannot be listed is told."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from mmekit.archive.members import (
    CHUNK_BYTES,
    MAX_MEMBERS,
    Form,
    RawMember,
    fault_of_name,
    form_of,
    raw_members,
    refusing_broken,
)
from mmekit.errors import InvalidModel
from mmekit_toolkit.archive.junk import is_junk

#: Folders that are made for one archive, as by the server.
_MAX_FOLDERS = 10_000


@dataclass(frozen=True, slots=True)
class Entry:
    """A member; ``path`` as the archive has it, with ``/`` between its parts."""

    path: str
    #: As in ``st_mode``, file type and permissions; the type is 0 where a zip archive has none.
    mode: int
    size: int
    #: Where a link leads.
    target: str = ""
    #: Of a folder's link: whether there is something where it leads.
    leads: bool = True

    @property
    def is_file(self) -> bool:
        return stat.S_IFMT(self.mode) in (0, stat.S_IFREG)

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_link(self) -> bool:
        return stat.S_ISLNK(self.mode)

    @property
    def parts(self) -> tuple[str, ...]:
        return tuple(part for part in self.path.split("/") if part not in ("", "."))

    @property
    def clean(self) -> str:
        """The path without empty parts."""
        return "/".join(self.parts)


@dataclass
class Listing:
    """What is in an archive or a folder."""

    #: None: a folder.
    form: Form | None
    entries: list[Entry] = field(default_factory=list)
    #: Why the list is not complete, None when it is.
    problem: str | None = None
    #: More bytes than were asked for: the rest was not read.
    is_too_large: bool = False

    @property
    def size_bytes(self) -> int:
        """What the files take, as they declare it."""
        return sum(entry.size for entry in self.entries if entry.is_file)

    @property
    def files(self) -> list[Entry]:
        return [entry for entry in self.entries if entry.is_file]


def list_archive(archive: Path, source: str, max_bytes: int) -> Listing:
    """List an archive's members, up to where it is damaged or its files have more than ``max_bytes``.

    Raises InvalidModel for what is no archive.
    """
    listing = Listing(form_of(archive, source))
    total = 0
    try:
        with refusing_broken(source), closing(raw_members(archive, source)) as found:
            for member in found:
                listing.entries.append(
                    Entry(member.name, member.kind | member.mode, member.size, member.target)
                )
                total += max(0, member.size)
                if total > max_bytes:
                    listing.is_too_large = True
                    break
                if len(listing.entries) > MAX_MEMBERS:
                    listing.problem = f"it has more than {MAX_MEMBERS} members"
                    break
    except InvalidModel as error:
        listing.problem = reason_of(error, source)
    return listing


def reason_of(error: InvalidModel, source: str) -> str:
    """Return a refusal's reason without the words around it (``members.refusal``)."""
    text = error.message.removeprefix(f"The archive {source} cannot be used: ")
    return text.removesuffix(" Nothing was unpacked.").removesuffix(".")


def list_folder(folder: Path) -> Listing:
    """List what is below a folder; links are told, not followed. Raises OSError for the folder itself."""
    listing = Listing(None)
    with os.scandir(folder):
        pass
    for entry in _below(str(folder), ""):
        if isinstance(entry, str):
            listing.problem = listing.problem or entry
        elif len(listing.entries) >= MAX_MEMBERS:
            listing.problem = f"it has more than {MAX_MEMBERS} files and folders"
            break
        else:
            listing.entries.append(entry)
    return listing


def files_below(folder: Path) -> list[Path]:
    """Return all files below a folder but junk, links followed as `pack` does, in the order of names."""
    found: list[Path] = []
    entered: set[str] = set()
    for root, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        if real in entered or len(found) > MAX_MEMBERS:
            folders.clear()
            continue
        entered.add(real)
        folders[:] = sorted(name for name in folders if not is_junk((name,)))
        paths = (Path(root, name) for name in sorted(names) if not is_junk((name,)))
        found += [path for path in paths if path.is_file()]
    return found


def _below(folder: str, prefix: str) -> Iterator[Entry | str]:
    """Yield entries, and sentences about what cannot be listed."""
    waiting = [(folder, prefix)]
    while waiting:
        current, above = waiting.pop()
        try:
            with os.scandir(current) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            yield f"its folder {above or '.'} cannot be read: {error.strerror}"
            continue
        for entry in entries:
            status = entry.stat(follow_symlinks=False)
            target = os.readlink(entry.path) if entry.is_symlink() else ""
            leads = not target or os.path.exists(entry.path)
            yield Entry(above + entry.name, status.st_mode, status.st_size, target, leads)
            if entry.is_dir(follow_symlinks=False):
                waiting.append((entry.path, f"{above}{entry.name}/"))


def extract_what_is_good(archive: Path, source: str, folder: Path, max_bytes: int) -> None:
    """Unpack those files of a refused archive that can be trusted, to tell what else is wrong with it.

    ``folder`` must be there and empty. Stops quietly where the archive is damaged.
    """
    made: set[str] = set()
    folders: set[str] = set()
    left = max_bytes
    try:
        with refusing_broken(source), closing(raw_members(archive, source)) as found:
            for member in found:
                path = Entry(member.name, member.kind, member.size).clean
                left -= max(0, member.size)
                if left < 0 or len(made) > MAX_MEMBERS or len(folders) > _MAX_FOLDERS:
                    return
                if not path or path in made or fault_of_name(member.name) or not _is_plain(member):
                    continue
                made.add(path)
                folders.add(os.path.dirname(path))
                _write(folder / path, member)
    except InvalidModel:
        return


def _is_plain(member: RawMember) -> bool:
    return member.kind in (0, stat.S_IFREG) and not member.encrypted and member.size >= 0


def _write(target: Path, member: RawMember) -> None:
    """Write a file as far as its declared size goes; one whose name is taken by a folder is left out."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except OSError:
        return
    left = member.size
    with open(file, "wb", buffering=CHUNK_BYTES) as out:
        for chunk in member.chunks():
            out.write(chunk[:left])
            left -= len(chunk)
            if left < 0:
                return
