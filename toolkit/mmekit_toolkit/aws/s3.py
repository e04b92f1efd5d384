"""Objects of S3: where they are, which there are, putting and removing them, and what its errors mean."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from mmekit_toolkit.aws import explanations
from mmekit_toolkit.aws.clients import Aws
from mmekit_toolkit.errors import CredentialsError, NotFound, ToolkitError

#: Objects of one DeleteObjects (botocore: Delete).
_DELETED_AT_ONCE = 1000
#: Larger files go up in parts; each part is tried again by itself.
_PART_BYTES = 16 * 1024 * 1024
#: Parts on the way at once.
_PARTS_AT_ONCE = 4

#: Calls on the way at once: a client keeps ten connections.
CALLS_AT_ONCE = 10

#: The forms that SageMaker takes for ModelDataUrl beside s3:// (botocore: Url).
_HTTPS = (
    re.compile(r"https://(?P<bucket>[^/]+?)\.s3[.-][^/]*amazonaws\.com[^/]*/(?P<key>.*)"),
    re.compile(r"https://s3[.-][^/]*amazonaws\.com[^/]*/(?P<bucket>[^/]+)/(?P<key>.*)"),
)


@dataclass(frozen=True)
class Location:
    """A place in a bucket; ``key`` is an object's, or a prefix that ends with a slash or is empty."""

    bucket: str
    key: str

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"

    def below(self, path: str) -> Location:
        """Return the object at this path below a prefix."""
        return Location(self.bucket, self.key + path)


@dataclass(frozen=True)
class StoredObject:
    """An object as a listing has it; ``path`` is its key below the prefix that was listed."""

    path: str
    size_bytes: int
    modified: datetime


@dataclass(frozen=True)
class Head:
    """An object's size and its own metadata."""

    size_bytes: int
    metadata: Mapping[str, str]


def parse(url: str) -> Location:
    """Return what ``s3://BUCKET/KEY``, or an https address of S3, names. Raises ToolkitError."""
    found = re.fullmatch(r"s3://(?P<bucket>[^/]+)(?:/(?P<key>.*))?", url) or next(
        (match for form in _HTTPS if (match := form.fullmatch(url))), None
    )
    if not found:
        raise ToolkitError(f"{url} is not an address in S3. Expected s3://BUCKET/KEY.")
    return Location(found["bucket"], found["key"] or "")


def parse_prefix(url: str) -> Location:
    """Return a prefix; one without a slash at its end gets it, as SageMaker joins names to it."""
    location = parse(url)
    if not location.key or location.key.endswith("/"):
        return location
    return Location(location.bucket, location.key + "/")


def list_objects(aws: Aws, prefix: Location, begin: str = "") -> Iterator[StoredObject]:
    """Yield all objects below a prefix whose path begins with ``begin``, by path.

    Objects that stand for folders are left out. Raises NotFound without the bucket, CredentialsError.
    """
    with _explained(prefix):
        pages = aws.client("s3").get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=prefix.bucket, Prefix=prefix.key + begin):
            for found in page.get("Contents", ()):
                path = found["Key"].removeprefix(prefix.key)
                if path and not path.endswith("/"):
                    yield StoredObject(path, found["Size"], found["LastModified"])


def head(aws: Aws, location: Location) -> Head | None:
    """Return what is known of an object, None where there is none. Raises NotFound without the bucket."""
    bucket = Location(location.bucket, "")
    # HEAD's answers have no body: it cannot tell a wrong key from a missing object, a listing can.
    first = next(list_objects(aws, bucket, location.key), None)
    if first is None or first.path != location.key:
        return None
    with _explained(location):
        found = aws.client("s3").head_object(Bucket=location.bucket, Key=location.key)
    return Head(found["ContentLength"], found["Metadata"])


def heads(aws: Aws, prefix: Location, paths: Sequence[str]) -> Iterator[Head | None]:
    """Yield what is known of each of these objects below a prefix, None for one that is gone meanwhile."""
    client = aws.client("s3")  # made here: threads may share it, but not make it

    def one(path: str) -> Head | None:
        try:
            found = client.head_object(Bucket=prefix.bucket, Key=prefix.key + path)
        except client.exceptions.ClientError as error:
            if error.response["Error"]["Code"] != "404":
                raise
            return None
        return Head(found["ContentLength"], found["Metadata"])

    with _explained(prefix), ThreadPoolExecutor(CALLS_AT_ONCE) as pool:
        yield from pool.map(one, paths)


def upload(
    aws: Aws,
    file: Path,
    location: Location,
    metadata: Mapping[str, str],
    progress: Callable[[int], None],
) -> None:
    """Put a file, in parts where it is large; ``progress`` gets the number of bytes that went.

    S3 compares each part with its SHA-256 and refuses one that differs. A part that breaks off is tried
    again; when that does not help, what went is removed again and the error is raised.
    """
    from boto3.exceptions import S3UploadFailedError
    from boto3.s3.transfer import TransferConfig
    from botocore.exceptions import ClientError

    transfer = TransferConfig(
        multipart_threshold=_PART_BYTES, multipart_chunksize=_PART_BYTES, max_concurrency=_PARTS_AT_ONCE
    )
    more = {
        "ChecksumAlgorithm": "SHA256",
        "ContentType": "application/gzip",
        "Metadata": dict(metadata),
    }
    with _explained(location):
        try:
            aws.client("s3").upload_file(
                str(file), location.bucket, location.key, ExtraArgs=more, Callback=progress, Config=transfer
            )
        except S3UploadFailedError as error:
            # boto3 hides the service's answer in a text; it is the context of that.
            if isinstance(error.__context__, ClientError):
                raise error.__context__ from None
            raise ToolkitError(f"{location}: {error}") from error


def delete(aws: Aws, prefix: Location, paths: Sequence[str]) -> None:
    """Remove objects below a prefix. Raises ToolkitError that names those that are still there."""
    with _explained(prefix):
        for first in range(0, len(paths), _DELETED_AT_ONCE):
            some = paths[first : first + _DELETED_AT_ONCE]
            answer = aws.client("s3").delete_objects(
                Bucket=prefix.bucket,
                Delete={"Objects": [{"Key": prefix.key + path} for path in some], "Quiet": True},
            )
            if left := answer.get("Errors"):
                reasons = sorted({f"{error['Code']}: {error['Message']}" for error in left})
                kind = CredentialsError if "AccessDenied" in reasons[0] else ToolkitError
                raise kind(
                    f"{len(left)} objects below {prefix} are still there, the first is {left[0]['Key']} "
                    f"({'; '.join(reasons)})."
                )


@contextlib.contextmanager
def _explained(location: Location) -> Iterator[None]:
    """Say which bucket or key an error of S3 is about: its own texts leave that out."""
    from botocore.exceptions import ClientError

    try:
        yield
    except ClientError as error:
        raise explain(error, location) or error from error


def explain(error: Any, location: Location) -> ToolkitError | None:  # Any: botocore's ClientError
    """Return what an answer of S3 means for this place, None where it says nothing of the place."""
    what, operation = str(error.response["Error"]["Code"]), error.operation_name
    if what == "NoSuchBucket":
        return NotFound(
            f"there is no bucket {location.bucket}. Create it (`aws s3 mb s3://{location.bucket}`), or "
            "correct `models:`."
        )
    if what in explanations.DENIED:
        return CredentialsError(
            f"{operation} is not allowed at {location}. `mmekit iam deployer` prints the policy that the "
            "commands need; the bucket's own policy, its owner and its KMS key may refuse, too."
        )
    if what in (
        "PermanentRedirect",
        "301",
        "AuthorizationHeaderMalformed",
        "IllegalLocationConstraintException",
    ):
        return ToolkitError(
            f"the bucket {location.bucket} is in another region. SageMaker takes models from its own "
            "region's buckets only: correct `region:` or `models:`, or give --region."
        )
    return None
