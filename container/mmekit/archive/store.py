"""Where models come from: folders and archives in the model store, and downloads where they are allowed.

Rules of contract 2.9 (MMS archive/ModelArchive.java). All calls block and may come from many threads.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mmekit.archive.manifest import LEGACY_MANIFEST, MANIFEST
from mmekit.errors import DownloadModelError, ModelNotFound, ServiceUnavailable

#: Names of the folders that archives are unpacked below, one a server.
_PREFIX = "mmekit-models-"

_URL = re.compile("https?://", re.IGNORECASE)
_OTHER_SCHEME = re.compile("([a-z][a-z0-9+.-]*)://", re.IGNORECASE)


@dataclass(frozen=True)
class Folder:
    """A model's folder; ``path`` is absolute."""

    path: str
    #: What was unpacked for this model alone; None for a folder that is used where it lies.
    unpacked: str | None = None

    @property
    def owned(self) -> bool:
        """Whether ``close`` deletes it."""
        return self.unpacked is not None

    def named(self, text: str, url: str) -> str:
        """Return a text for a person, who knows the url, not where its archive was unpacked to."""
        return text if self.unpacked is None else text.replace(self.path, f"{url:.500}")

    def close(self) -> None:
        """Delete what was unpacked, never a person's folder. May be called again; blocks."""
        if self.unpacked is not None:
            shutil.rmtree(self.unpacked, ignore_errors=True)


class ModelStore:
    """Finds a model's folder by its ``url``; unpacks archives below a private folder.

    ``root`` is the model store, None when there is none. ``scratch`` is a folder that exists, for
    what is unpacked; None means the system's (TMPDIR, TEMP, TMP). ``download_timeout_s`` is how long a
    download may take, and ``silence_s`` how long it may stand still.
    """

    def __init__(
        self,
        root: Path | None,
        allow_urls: bool,
        max_unpacked_bytes: int,
        scratch: Path | None = None,
        download_timeout_s: float = 3600,
        silence_s: float = 60,
    ) -> None:
        self.root = root
        self._allow_urls = allow_urls
        self._max_bytes = max_unpacked_bytes
        self._parent = scratch
        self._download_timeout_s = download_timeout_s
        self._silence_s = silence_s
        self._lock = threading.Lock()
        self._scratch: Path | None = None
        self._claim: int | None = None
        self._closed = False

    def open(self, url: str) -> Folder:
        """Return the folder of a model: where it lies, or where its archive was unpacked to.

        Nothing in the store is written to. Raises ModelNotFound when nothing is there,
        DownloadModelError when a download is not allowed or fails, InvalidModel when a file is no
        archive or not one to trust, OutOfResources when the disk is full.
        """
        try:
            if is_download(url):
                return self._download(url)
            path = self.locate(url)
            return Folder(str(path)) if path.is_dir() else self._unpack(path, url)
        finally:
            if self._closed:
                self.close()  # what was written since

    def locate(self, url: str) -> Path:
        """Return the file or folder that a url without ``http`` names. Raises ModelNotFound."""
        if found := _OTHER_SCHEME.match(url):
            raise ModelNotFound(
                f"Model not found in model store: {url:.500}. Expected a path below the model store or an "
                f"http(s) url, found the scheme {found[1]}; what lies there must be downloaded first."
            )
        try:
            f"{self.root}/{url}".encode()
        except UnicodeEncodeError:
            raise ModelNotFound(
                f"Model not found in model store: {url!a:.500}. Expected a path in UTF-8; rename what is not."
            ) from None
        if ".." in url.split("/"):
            raise ModelNotFound(f"Relative path is not allowed in url: {url:.500}")
        if self.root is None:
            raise ModelNotFound(
                "Model store has not been configured. Set model_store in config.properties, --model-store or "
                "MMEKIT_MODEL_STORE to the folder that holds the models."
            )
        path = Path(os.path.abspath(f"{self.root}/{url}"))
        try:
            path.stat()
        except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
            reason = error.strerror if isinstance(error, OSError) else "not a path"
            raise ModelNotFound(
                f"Model not found in model store: {url:.500} ({reason}: {str(path)!r:.500})."
            ) from None
        return path

    def close(self) -> None:
        """Delete everything that was unpacked; nothing is unpacked any more."""
        with self._lock:
            self._closed = True
            if self._scratch is not None:
                shutil.rmtree(self._scratch, ignore_errors=True)
            if self._claim is not None:
                os.close(self._claim)
                self._claim = None

    def _unpack(self, archive: Path, url: str) -> Folder:
        with self._private(url) as folder:
            return self._unpacked(archive, url, folder)

    def _download(self, url: str) -> Folder:
        if not self._allow_urls:
            raise DownloadModelError(
                f"Failed to download model from: {url:.500}. This server loads no models from URLs; "
                "MMEKIT_ALLOW_MODEL_URLS=true allows it, to everybody who can register models."
            )
        from mmekit.archive.download import download

        with self._private(url) as folder:
            archive = folder / "archive"
            deadline = time.monotonic() + self._download_timeout_s
            download(url, archive, self._max_bytes, deadline, self._silence_s, self._check_open)
            found = self._unpacked(archive, url, folder)
            archive.unlink()
            return found

    def _unpacked(self, archive: Path, url: str, folder: Path) -> Folder:
        from mmekit.archive.unpack import unpack

        unpack(archive, f"{url:.500}", folder / "model", self._max_bytes, self._check_open)
        return Folder(str(model_folder(folder / "model")), str(folder))

    def _check_open(self) -> None:
        """Raises ServiceUnavailable when the store is closed: what has been begun is given up."""
        if self._closed:
            raise ServiceUnavailable("The server is stopping and loads no more models.", None)

    @contextmanager
    def _private(self, url: str) -> Iterator[Path]:
        """Yield a new, empty folder below this store's own scratch folder; an error deletes it again."""
        # Here because most servers, SageMaker's among them, are only ever given folders.
        from mmekit.archive.unpack import cannot_write

        try:
            with self._lock:
                self._check_open()
                if self._scratch is None:
                    self._scratch, self._claim = _new_scratch(self._parent)
                    _delete_leftovers(self._scratch.parent)
                folder = Path(tempfile.mkdtemp(dir=self._scratch))
        except OSError as error:
            raise cannot_write(f"{url:.500}", self._scratch or self._parent, 0, error) from error
        try:
            yield folder
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise


def _new_scratch(parent: Path | None) -> tuple[Path, int]:
    """Return a new folder and the descriptor that claims it. Raises OSError."""
    while True:  # another server may take it for a leftover before it is claimed
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        if (claim := _claimed(folder)) is not None:
            return folder, claim


def _claimed(folder: Path) -> int | None:
    """Lock a folder for as long as this process lives; None when another has it, or it has gone."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_nlink > 0:
            return descriptor
    except OSError:
        pass  # another has it
    os.close(descriptor)
    return None


def _delete_leftovers(parent: Path) -> None:
    """Delete what servers unpacked that were killed: a container started again has its disk again."""
    for folder in parent.glob(_PREFIX + "*"):
        if (claim := _claimed(folder)) is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(claim)


def is_download(url: str) -> bool:
    """Say whether a url is downloaded instead of looked for in the store."""
    return _URL.match(url) is not None


def model_folder(folder: Path) -> Path:
    """Return the one folder that everything lies in when that is the model, else the folder itself.

    ``model-archiver --archive-format tgz`` packs below a folder with the model's name; MMS looks one
    level down for the manifests of 0.1 archives.
    """
    entries = list(folder.iterdir())
    if len(entries) != 1 or entries[0].name in ("MAR-INF", "code"):
        return folder
    has_manifest = any((entries[0] / name).is_file() for name in (MANIFEST, LEGACY_MANIFEST))
    return entries[0] if has_manifest else folder
