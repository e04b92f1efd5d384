"""An instance's disk: archives come in, are unpacked under opaque names, and leave. Called in threads."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path

from mmekit.archive.unpack import unpack
from mmekit.errors import InvalidModel, ModelTooLarge, OutOfResources
from mmekit_endpoint.errors import EndpointError, ServiceUnavailable, ValidationError
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

    def fetch(self, source: Source, key: str, name: str, limit_bytes: int, check: Callable[[], None]) -> int:
        """Download and unpack an archive to ``models/name/model``; return the bytes it takes there.

        Raises ValidationError for an archive that is missing, no gzip-compressed tar, not to be trusted or
        larger than ``limit_bytes``; ServiceUnavailable where the store does not answer; DiskFull; and what
        ``check`` raises, which is called between all parts of the work. Nothing is left then.
        """
        home = self.folder / "models" / name
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir()
        home.chmod(0o755)
        try:
            return self._unpack(source, key, home / "model", limit_bytes, check)
        except BaseException:
            shutil.rmtree(home, ignore_errors=True)
            raise

    def fetch_single(self, source: Source, key: str, limit_bytes: int, check: Callable[[], None]) -> int:
        """Download and unpack the archive of a single-model container to ``model``; as ``fetch``."""
        target = self.folder / "model"
        shutil.rmtree(target, ignore_errors=True)
        return self._unpack(source, key, target, limit_bytes, check)

    def _unpack(
        self, source: Source, key: str, folder: Path, limit_bytes: int, check: Callable[[], None]
    ) -> int:
        size = source.size(key)
        if size > self.capacity_bytes:
            raise ValidationError(
                f"The archive {key} has {size} bytes, more than the instance's volume of "
                f"{self.capacity_bytes}. Choose a larger VolumeSizeInGB or instance type."
            )
        archive = self._incoming / f"{next(self._numbers)}.tar.gz"
        try:
            source.fetch(key, archive, check)
            with archive.open("rb") as file:
                head = file.read(2)
            if head != _GZIP:
                raise ValidationError(
                    f"The archive {key} cannot be used: expected a gzip-compressed tar file (.tar.gz), "
                    f"found a file that starts with {head!r}."
                )
            unpack(archive, key, folder, limit_bytes, check)
            folder.chmod(0o755)
            return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        except ModelTooLarge as error:
            raise self._too_large(key, limit_bytes) from error
        except InvalidModel as error:
            raise ValidationError(error.message) from error
        except OutOfResources as error:
            raise DiskFull(error.message) from error
        finally:
            archive.unlink(missing_ok=True)

    def _too_large(self, key: str, limit_bytes: int) -> EndpointError:
        text = f"unpacked, the archive {key} has more than {limit_bytes} bytes"
        if limit_bytes < self.capacity_bytes:
            return ServiceUnavailable(
                f"There is no room for a model: {text}, which is what models in use leave of the instance's "
                f"volume of {self.capacity_bytes}. Call again later."
            )
        return ValidationError(
            f"The archive cannot be used: {text}, the whole volume of the instance. Choose a larger "
            "VolumeSizeInGB or instance type."
        )

    def delete(self, name: str) -> None:
        """Delete a model's folder; a name is free again at once."""
        doomed = self._outgoing / f"{next(self._numbers)}"
        try:
            (self.folder / "models" / name).rename(doomed)
        except FileNotFoundError:
            return
        shutil.rmtree(doomed, ignore_errors=True)

    def remove(self) -> None:
        """Delete everything, the folder included."""
        shutil.rmtree(self.folder, ignore_errors=True)
