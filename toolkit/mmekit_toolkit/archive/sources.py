"""What a check is given: files, folders, folders full of archives, and objects of S3, which are fetched."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mmekit.archive.startup import ARCHIVE_SUFFIXES
from mmekit_toolkit.archive.display import Display
from mmekit_toolkit.archive.junk import is_junk
from mmekit_toolkit.archive.sizes import shown_bytes
from mmekit_toolkit.aws.clients import Aws
from mmekit_toolkit.errors import NotFound, ToolkitError

#: Left free on this machine's disk.
_SPARE_BYTES = 256 * 1024 * 1024
_CHUNK_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Source:
    """One thing to check; ``text`` is what people call it."""

    text: str

    @property
    def is_remote(self) -> bool:
        return self.text.startswith("s3://")


def sources(given: Sequence[str]) -> list[Source]:
    """Return what is to be checked: a folder that holds nothing but archives stands for each of them.

    Raises NotFound for what is not there.
    """
    found = []
    for text in given:
        path = Path(text)
        if text.startswith("s3://"):
            found.append(Source(text))
        elif not path.exists():
            raise NotFound(f"there is no {text}. Expected an archive, a model's folder or s3://BUCKET/KEY.")
        else:
            found += [Source(str(each)) for each in _archives_in(path)] or [Source(text)]
    return found


def _archives_in(path: Path) -> list[Path]:
    """Return a folder's archives when there is nothing else in it."""
    if not path.is_dir():
        return []
    entries = sorted(entry for entry in path.iterdir() if not is_junk((entry.name,)))
    are_archives = all(entry.is_file() and entry.name.endswith(ARCHIVE_SUFFIXES) for entry in entries)
    return entries if are_archives else []


@contextmanager
def here(source: Source, aws: Aws, max_bytes: int, display: Display) -> Iterator[Path]:
    """Yield the path of a source; an object of S3 is fetched, and deleted at the end.

    Raises NotFound for an object that is not there, ToolkitError for one larger than ``max_bytes`` or than
    this machine's disk; both before anything is fetched.
    """
    if not source.is_remote:
        yield Path(source.text)
        return
    from mmekit_toolkit.aws import s3

    location = s3.parse(source.text)
    head = s3.head(aws, location)
    if head is None:
        raise NotFound(f"there is no object {location}.")
    with tempfile.TemporaryDirectory(prefix="mmekit-check-") as folder:
        _check_size(source, head.size_bytes, max_bytes, folder)
        target = Path(folder) / "archive"
        answer = aws.client("s3").get_object(Bucket=location.bucket, Key=location.key)
        with display.bytes(f"fetching {source.text}", head.size_bytes) as advance, target.open("wb") as out:
            for chunk in answer["Body"].iter_chunks(_CHUNK_BYTES):
                out.write(chunk)
                advance(len(chunk))
        if target.stat().st_size != head.size_bytes:
            raise ToolkitError(
                f"{location} was replaced, or broke off, while it was fetched: expected "
                f"{head.size_bytes} bytes, got {target.stat().st_size}. Run the command again."
            )
        yield target


def _check_size(source: Source, size: int, max_bytes: int, folder: str) -> None:
    if size > max_bytes:
        raise ToolkitError(
            f"{source.text} has {shown_bytes(size)}, and is not fetched: even its files may have no more "
            f"than {shown_bytes(max_bytes)}. --volume-gb says what the instance's volume takes."
        )
    free = shutil.disk_usage(folder).free - _SPARE_BYTES
    if size > free:
        raise ToolkitError(
            f"{source.text} has {shown_bytes(size)}, and {folder} has {shown_bytes(max(0, free))} free. Set "
            "TMPDIR to a folder with more."
        )
