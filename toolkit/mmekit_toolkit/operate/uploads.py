"""Brings archives below an endpoint's prefix, each under the key of its content, none twice."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from mmekit import __version__
from mmekit_toolkit.archive.display import Display
from mmekit_toolkit.aws import s3
from mmekit_toolkit.aws.clients import Aws
from mmekit_toolkit.aws.s3 import Location
from mmekit_toolkit.errors import ToolkitError
from mmekit_toolkit.operate.archives import Archive
from mmekit_toolkit.operate.catalog import Entry

#: Metadata of what we upload. Objects without the hash are others': they are never removed.
_SHA256 = "mmekit-sha256"
_NAME = "mmekit-name"
_VERSION = "mmekit-version"


def missing(aws: Aws, archives: Sequence[Archive], prefix: Location) -> set[str]:
    """Return the TargetModels that are not below the prefix.

    Raises ToolkitError when another object has the key of one of the archives.
    """
    aws.client("s3")  # made here: threads may share it, but not make it
    with ThreadPoolExecutor(s3.CALLS_AT_ONCE) as pool:
        there = pool.map(lambda archive: _is_there(aws, archive, prefix), archives)
        return {archive.target for archive, found in zip(archives, there, strict=True) if not found}


def _is_there(aws: Aws, archive: Archive, prefix: Location) -> bool:
    place = prefix.below(archive.target)
    found = s3.head(aws, place)
    if found is None:
        return False
    if (
        found.size_bytes != archive.size_bytes
        or found.metadata.get(_SHA256, archive.sha256) != archive.sha256
    ):
        raise ToolkitError(
            f"{place} is there with other content: {found.size_bytes} bytes, {archive.file} has "
            f"{archive.size_bytes}. It is not overwritten: an endpoint may serve it. Remove it, or give "
            "--name."
        )
    return True


def upload(aws: Aws, archive: Archive, prefix: Location) -> None:
    """Upload the archive, with a progress bar on a terminal.

    Raises ToolkitError when the file changed meanwhile: what went is then not what its key says.
    """
    place = prefix.below(archive.target)
    metadata = {_SHA256: archive.sha256, _NAME: archive.name, _VERSION: __version__}
    with Display().bytes(f"uploading {archive.target}", archive.size_bytes) as advance:
        s3.upload(aws, archive.file, place, metadata, advance)
    after = archive.file.stat()
    if (after.st_size, after.st_mtime_ns) != (archive.size_bytes, archive.modified_ns):
        s3.delete(aws, prefix, [archive.target])
        raise ToolkitError(
            f"{archive.file} changed while it was uploaded; {place} was removed again. Run the command once "
            "more."
        )


def by_origin(aws: Aws, prefix: Location, entries: Sequence[Entry]) -> tuple[list[Entry], list[Entry]]:
    """Return the objects that mmekit uploaded, and those that others did; what is gone is neither."""
    ours: list[Entry] = []
    foreign: list[Entry] = []
    heads = s3.heads(aws, prefix, [entry.target for entry in entries])
    for entry, head in zip(entries, heads, strict=True):
        if head is not None:
            (ours if _SHA256 in head.metadata else foreign).append(entry)
    return ours, foreign
