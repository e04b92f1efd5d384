"""Where models come from: a prefix in an S3 bucket, or a folder. Blocking; called in threads."""

from __future__ import annotations

import errno
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Protocol
from urllib.parse import unquote, urlsplit

from mmekit_endpoint.errors import ServiceUnavailable, ValidationError

_CHUNK_BYTES = 1024 * 1024

#: Between two tries of a download that broke off, in seconds; the last one is repeated.
_PAUSES_S = (0.1, 0.5, 1.0, 2.0, 5.0)


class DiskFull(Exception):
    """Raised when this machine's disk takes no more."""


class Source(Protocol):
    """What archives are fetched from."""

    def size(self, key: str) -> int:
        """Return the bytes of an archive. Raises as ``fetch``."""
        ...

    def fetch(self, key: str, path: Path, check: Callable[[], None]) -> None:
        """Write an archive to ``path``, a new file; ``check`` is called between parts and may raise.

        Raises ValidationError where it is not there or may not be read, ServiceUnavailable where the store
        does not answer, DiskFull.
        """
        ...


class FolderSource:
    """Archives in a folder of this machine."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def size(self, key: str) -> int:
        """Return the bytes of an archive."""
        return self._path(key).stat().st_size

    def fetch(self, key: str, path: Path, check: Callable[[], None]) -> None:
        """Copy an archive."""
        try:
            with self._path(key).open("rb") as file:
                _write(path, file, check)
        except PermissionError as error:
            raise ValidationError(
                f"The archive {error.filename} cannot be read: {error.strerror}."
            ) from error

    def _path(self, key: str) -> Path:
        path = self._folder / key
        if not path.is_file():
            raise ValidationError(
                f"Failed to download model data: there is no archive {path}. Put it into the folder; it is "
                "looked for again after a second."
            )
        return path


class S3Source:
    """Objects under a prefix of a bucket, read with boto3.

    A store that does not answer is asked again for ``patience_s``.
    """

    def __init__(
        self,
        client: Any,  # boto3's clients have no types
        bucket: str,
        prefix: str,
        patience_s: float,
    ) -> None:
        self._patience_s = patience_s
        self._client = client
        self._bucket = bucket
        self._prefix = prefix

    def size(self, key: str) -> int:
        """Return the bytes of an object."""
        return int(self._patiently(key, lambda: self._head(key)["ContentLength"], lambda: None, lambda: 0))

    def fetch(self, key: str, path: Path, check: Callable[[], None]) -> None:
        """Download an object; what broke off goes on where it stopped, if it still is the same object."""
        etag = ""

        def have() -> int:
            return path.stat().st_size if path.exists() else 0

        def go_on() -> None:
            nonlocal etag
            begin = have()
            more = {"Range": f"bytes={begin}-", "IfMatch": etag} if begin else {}
            response = self._client.get_object(Bucket=self._bucket, Key=self._prefix + key, **more)
            etag = response["ETag"]
            try:
                _write(path, response["Body"], check, append=bool(begin))
            finally:
                response["Body"].close()

        def replaced() -> None:
            path.unlink(missing_ok=True)

        replaced()
        self._patiently(key, go_on, check, have, replaced)

    def _head(self, key: str) -> Any:
        return self._client.head_object(Bucket=self._bucket, Key=self._prefix + key)

    def _patiently(
        self,
        key: str,
        step: Callable[[], Any],
        check: Callable[[], None],
        progress: Callable[[], int],
        replaced: Callable[[], None] = lambda: None,
    ) -> Any:
        """Repeat a step while the store does not answer and nothing progresses, up to a limit."""
        from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
        from urllib3.exceptions import HTTPError

        begun = time.monotonic()
        last = 0
        tries = 0
        while True:
            check()
            try:
                return step()
            except ClientError as error:
                status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
                if status in (412, 416):  # another object has its name now
                    replaced()
                elif status < 500:
                    raise self._refused(key, error, status) from error
                reason = str(error)
            except (BotoCoreError, HTTPClientError, HTTPError) as error:
                reason = str(error) or type(error).__name__
            if progress() > last:
                last, tries, begun = progress(), 0, time.monotonic()
            if time.monotonic() - begun > self._patience_s:
                raise ServiceUnavailable(
                    f"The model store does not deliver s3://{self._bucket}/{self._prefix}{key}: {reason:.300}"
                )
            time.sleep(_PAUSES_S[min(tries, len(_PAUSES_S) - 1)])
            tries += 1

    def _refused(self, key: str, error: Any, status: int) -> ValidationError:
        code = error.response.get("Error", {}).get("Code", "")
        where = f"(bucket: {self._bucket}, key: {self._prefix}{key})"
        reason = {404: "there is no such object, or no such bucket", 403: "access is denied"}.get(
            status, f"{code or status}"
        )
        return ValidationError(
            f"Failed to download model data{where}: {reason}. Please ensure that there is an object at this "
            "place and that it may be read; it is looked for again after a second."
        )


def _write(path: Path, stream: BinaryIO | Any, check: Callable[[], None], append: bool = False) -> None:
    try:
        with path.open("ab" if append else "xb", buffering=0) as out:
            while chunk := stream.read(_CHUNK_BYTES):
                check()
                view = memoryview(chunk)
                while view:
                    view = view[out.write(view) :]
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            free = shutil.disk_usage(path.parent).free
            raise DiskFull(f"{error.strerror}: {path.parent} has {free} bytes free") from error
        raise


def split_url(url: str) -> tuple[str, str] | Path:
    """Return (bucket, prefix) of a ModelDataUrl, or the folder of a ``file:`` url.

    Forms: s3://BUCKET/KEY, https://s3.REGION.amazonaws.com/BUCKET/KEY, https://BUCKET.s3.REGION.amazonaws.com/KEY.
    Raises ValidationError for others.
    """
    parts = urlsplit(url)
    path = unquote(parts.path)
    if parts.scheme == "file":
        return Path(path)
    if parts.scheme == "s3" and parts.netloc:
        return parts.netloc, url.partition("://")[2].partition("/")[2]
    if parts.scheme == "https":
        host = parts.netloc
        if host.startswith(("s3.", "s3-")):
            bucket, _, key = path.lstrip("/").partition("/")
            return bucket, key
        bucket, found, _ = host.partition(".s3")
        if found:
            return bucket, path.lstrip("/")
    raise ValidationError(f"ModelDataUrl {url!r} names no S3 object: expected s3://BUCKET/PREFIX/.")


class Sources:
    """Makes the source of a ModelDataUrl; ``client`` returns an S3 client."""

    def __init__(self, client: Callable[[], Any], patience_s: float) -> None:
        self._client = client
        self._patience_s = patience_s

    def prefix(self, model_data_url: str) -> Source:
        """Return the source of a multi-model container's archives.

        A prefix is joined with a target model by one slash, whether it ends with one or not.
        """
        place = split_url(model_data_url)
        if isinstance(place, Path):
            return FolderSource(place)
        bucket, prefix = place
        if prefix and not prefix.endswith("/"):
            prefix += "/"
        return S3Source(self._client(), bucket, prefix, self._patience_s)

    def archive(self, model_data_url: str) -> tuple[Source, str]:
        """Return the source of one archive, and its key there."""
        place = split_url(model_data_url)
        if isinstance(place, Path):
            return FolderSource(place.parent), place.name
        bucket, key = place
        return S3Source(self._client(), bucket, "", self._patience_s), key


def check_target(target: str) -> None:
    """Raise ValidationError for a TargetModel that names nothing below the prefix."""
    if target.startswith("/"):
        raise ValidationError(
            f"TargetModel {target!r:.200} is absolute: expected a path below the model's prefix, without "
            "a slash at its start."
        )
    if any(part in ("", ".", "..") for part in target.split("/")):
        raise ValidationError(
            f"TargetModel {target!r:.200} is not a plain path: expected parts between slashes, none of them "
            "empty, '.' or '..'."
        )
    if "\\" in target or "\0" in target:
        raise ValidationError(f"TargetModel {target!r:.200} has a character that no path here may have.")
