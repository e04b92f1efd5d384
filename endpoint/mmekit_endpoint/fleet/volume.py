"""An instance's disk: folders of unpacked models, and archives on their way. Blocking; called in threads."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from mmekit.archive.members import members, refusing_broken
from mmekit.archive.unpack import unpack
from mmekit.errors import InvalidModel, ModelTooLarge, OutOfResources
from mmekit_endpoint.errors import ValidationError
from mmekit_endpoint.fleet.sources import DiskFull, Source

#: The first two bytes of a gzip file (RFC 1952, 2.3.1).
_GZIP = b"\x1f\x8b"


class Volume:
    """Folders of unpacked models below ``folder``: ``models/NAME/model``, as containers are told."""

    def __init__(self, folder: Path, capacity_bytes: int) -> None:
        self.folder = folder
        self.capacity_bytes = capacity_bytes
        self._incoming = folder / "incoming"
        self._outgoing = folder / "outgoing"
        self._numbers = itertools.count(1)

    def prepare(self) -> None:
        """Make the folders; containers of any user may read them."""
        for folder in (self.folder, self.folder / "models", self.folder / "model"):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o755)
        self._incoming.mkdir(exist_ok=True)
        self._outgoing.mkdir(exist_ok=True)

    def arrival(self, source: Source, key: str) -> Arrival:
        """Return what brings an archive in, in a folder of its own."""
        return Arrival(source, key, self._incoming / f"{next(self._numbers)}", self.capacity_bytes)

    def place(self, arrival: Arrival, name: str) -> None:
        """Put what has been unpacked to ``models/NAME/model``; quick."""
        home = self.folder / "models" / name
        self.delete(name)
        home.mkdir()
        home.chmod(0o755)
        arrival.unpacked.rename(home / "model")

    def place_single(self, arrival: Arrival) -> None:
        """Put what has been unpacked to ``model``, for a single-model container."""
        target = self.folder / "model"
        target.rmdir()
        arrival.unpacked.rename(target)

    def delete(self, name: str) -> None:
        """Delete a model's folder; its name is free again at once."""
        doomed = self._outgoing / f"{next(self._numbers)}"
        try:
            (self.folder / "models" / name).rename(doomed)
        except FileNotFoundError:
            return
        shutil.rmtree(doomed, ignore_errors=True)

    def remove(self) -> None:
        """Delete everything, the folder included."""
        shutil.rmtree(self.folder, ignore_errors=True)


class Arrival:
    """One archive on its way in: download, measure, unpack, and at last remove what is left of it.

    All raise ValidationError for an archive that is missing, no gzip-compressed tar, not to be trusted or
    larger than the volume; DiskFull; and what ``check`` raises, which is called
    between all parts of the work.
    """

    def __init__(self, source: Source, key: str, folder: Path, capacity_bytes: int) -> None:
        self.unpacked = folder / "model"
        self._source = source
        self._key = key
        self._folder = folder
        self._archive = folder / "archive.tar.gz"
        self._capacity_bytes = capacity_bytes

    def download(self, check: Callable[[], None]) -> None:
        """Fetch the archive. Raises ServiceUnavailable, too, where the store does not answer."""
        size = self._source.size(self._key)
        if size > self._capacity_bytes:
            raise self._too_large(f"has {size} bytes")
        self._folder.mkdir(exist_ok=True)
        self._archive.unlink(missing_ok=True)
        self._source.fetch(self._key, self._archive, check)
        with self._archive.open("rb") as file:
            head = file.read(2)
        if head != _GZIP:
            raise ValidationError(
                f"The archive {self._key} cannot be used: expected a gzip-compressed tar file (.tar.gz), "
                f"found a file that starts with {head!r}."
            )

    def measure(self, check: Callable[[], None]) -> int:
        """Return the bytes of all files in the archive: what it will take is known before it is unpacked."""
        size = 0
        try:
            with (
                refusing_broken(self._key),
                closing(members(self._archive, self._key, self._capacity_bytes)) as found,
            ):
                for member in found:
                    check()
                    size += member.size
        except ModelTooLarge as error:
            raise self._too_large(f"has more than {self._capacity_bytes} bytes when unpacked") from error
        except InvalidModel as error:
            raise ValidationError(error.message) from error
        return size

    def unpack(self, check: Callable[[], None]) -> None:
        """Unpack the archive and delete it."""
        try:
            unpack(self._archive, self._key, self.unpacked, self._capacity_bytes, check)
        except InvalidModel as error:
            raise ValidationError(error.message) from error
        except OutOfResources as error:
            raise DiskFull(error.message) from error
        self.unpacked.chmod(0o755)
        self._archive.unlink()
        check()

    def remove(self) -> None:
        """Delete what is left."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _too_large(self, text: str) -> ValidationError:
        return ValidationError(
            f"The archive {self._key} cannot be used: it {text}, more than the instance's volume of "
            f"{self._capacity_bytes}. Choose a larger VolumeSizeInGB or instance type."
        )
