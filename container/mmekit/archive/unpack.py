"""Unpacks an archive into a folder: all of it, or nothing is left written."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from mmekit.archive.members import Member, members, refusal, refusing_broken, too_large
from mmekit.errors import MmekitError, OutOfResources

#: Errors that say a disk is full, or that this process may open no more files.
_SHORT = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE})

#: Folders that one archive may make; a member makes all those of its path.
_MAX_FOLDERS = 10_000


def unpack(
    archive: Path, source: str, folder: Path, max_bytes: int, check: Callable[[], None] = lambda: None
) -> None:
    """Unpack a zip or tar archive to ``folder``, which must not exist yet but whose parent does.

    ``source`` is what errors call the archive: the url that a person knows.

    Files become 0644, or 0755 when the archive has them executable; owners and times are not kept.
    Raises InvalidModel for an archive that is damaged or not to be trusted (see ``members``) and
    OutOfResources when the disk is full; what ``check`` raises, which is called before each part of the
    work. After an error nothing is left.
    """
    part = folder.with_name(f".{folder.name}.part")
    writer = _Writer(part, source, max_bytes, check)
    try:
        with writer.writing():
            part.mkdir()
        with refusing_broken(source), closing(members(archive, source, max_bytes)) as found:
            for member in found:
                writer.write(member)
        if not writer.made:
            raise refusal(source, "it is empty")
        with writer.writing():
            part.rename(folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def read_files(archive: Path, wanted: re.Pattern[str], max_bytes: int) -> dict[str, bytes]:
    """Return the content of the files whose whole path ``wanted`` matches, each cut after ``max_bytes``.

    Raises InvalidModel for an archive that cannot be used.
    """
    contents: dict[str, bytes] = {}
    with refusing_broken(str(archive)), closing(members(archive, str(archive), 2**63)) as found:
        for member in found:
            if not member.is_folder and wanted.fullmatch(member.path):
                content = b""
                for chunk in member.chunks():
                    content += chunk
                    if len(content) > max_bytes:
                        break
                contents[member.path] = content[:max_bytes]
    return contents


def cannot_write(source: str, folder: Path | None, written: int, error: OSError) -> MmekitError:
    """Return the error for a folder that takes no more: 507 where unloading a model would help.

    ``folder`` is None where no temporary folder could be found.
    """
    if error.errno in _SHORT and folder is not None:
        free = shutil.disk_usage(folder).free if folder.exists() else 0
        return OutOfResources(
            f"Out of resources: {source} cannot be unpacked: {error.strerror} after {written} bytes; "
            f"its disk has {free} bytes free. Unload models that came as archives, or point TMPDIR to a "
            "larger disk."
        )
    return MmekitError(
        f"Failed to save model: {source}: {error.strerror or error} (in {folder or 'any of these'}). "
        f"Expected a folder that user {os.getuid()} can write to; TMPDIR or TEMP names another."
    )


class _Writer:
    """Writes members below one folder, each path once."""

    def __init__(self, folder: Path, source: str, max_bytes: int, check: Callable[[], None]) -> None:
        self._folder = folder
        self._source = source
        self._max_bytes = max_bytes
        self._check = check
        #: Path → whether it is a folder.
        self.made: dict[str, bool] = {}
        self._folders = 0
        self._written = 0

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Tell what the disk refuses from what cannot be read."""
        try:
            yield
        except OSError as error:
            raise cannot_write(self._source, self._folder.parent, self._written, error) from error

    def write(self, member: Member) -> None:
        """Write one member. Raises InvalidModel when its path is taken or its size is another."""
        self._check()
        if member.is_folder:
            self._make_folder(member.path)
            return
        self._make_folder(member.path.rpartition("/")[0])
        if member.path in self.made:
            raise refusal(self._source, f"it has {member.path!r:.200} twice")
        self.made[member.path] = False
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with self.writing():
            file = os.open(self._folder / member.path, flags, 0o755 if member.executable else 0o644)
        size = 0
        with open(file, "wb", buffering=0) as out:
            for chunk in member.chunks():
                self._check()
                size += len(chunk)
                if self._written + len(chunk) > self._max_bytes:
                    raise too_large(self._source, self._max_bytes)
                with self.writing():
                    view = memoryview(chunk)
                    while view:
                        view = view[out.write(view) :]
                self._written += len(chunk)
        if size != member.size:
            raise refusal(
                self._source, f"its member {member.path!r:.200} has {size} bytes instead of {member.size}"
            )

    def _make_folder(self, path: str) -> None:
        parts = path.split("/") if path else []
        for number in range(1, len(parts) + 1):
            above = "/".join(parts[:number])
            is_folder = self.made.get(above)
            if is_folder is None:
                self._folders += 1
                if self._folders > _MAX_FOLDERS:
                    raise refusal(self._source, f"it makes more than {_MAX_FOLDERS} folders")
                self.made[above] = True
                with self.writing():
                    os.mkdir(self._folder / above, 0o755)
            elif not is_folder:
                raise refusal(self._source, f"it has {above!r:.200} as a file and as a folder")
