"""Uploads and removes, and tells of it: asks first, shows what a dry run would do, says how far one came."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence

import click

from mmekit_toolkit.archive.findings import count, printable
from mmekit_toolkit.archive.sizes import shown_bytes
from mmekit_toolkit.aws import s3
from mmekit_toolkit.aws.clients import Aws
from mmekit_toolkit.aws.s3 import Location
from mmekit_toolkit.operate import catalog, naming, uploads
from mmekit_toolkit.operate.archives import Archive
from mmekit_toolkit.operate.catalog import Entry
from mmekit_toolkit.operate.endpoint import Models
from mmekit_toolkit.question import confirm

#: Dates in S3 are whole seconds, and the newest version of a name is the current one.
_DATE_STEP_S = 1.0


def upload(
    aws: Aws, archives: Sequence[Archive], place: Models, *, check: bool, dry_run: bool
) -> Iterator[Archive]:
    """Upload what is not there yet, in this order; yield each archive when it is there.

    Nothing goes up before all were looked at: raises ToolkitError for names that cannot be used, FaultsFound
    for archives with faults, KeyboardInterrupt that says what was uploaded.
    """
    for archive in archives:
        naming.check(archive.name, place.prefix.key)
    missing = uploads.missing(aws, archives, place.prefix)
    if check:
        from mmekit_toolkit.operate import faults  # what looks into archives takes long to import

        faults.insist_on_none([archive for archive in archives if archive.target in missing], place.volume_gb)
    done: list[Archive] = []
    uploaded: set[str] = set()
    with _saying_how_far(len(archives), done):
        for archive in archives:
            size = shown_bytes(archive.size_bytes)
            if archive.target not in missing:
                click.echo(f"{archive.target} is there already{_newer(aws, archive, place)}.", err=True)
            elif dry_run:
                click.echo(f"{archive.target} would be uploaded ({size}).", err=True)
            else:
                if archive.name in uploaded:
                    time.sleep(_DATE_STEP_S)  # two versions of one second would have no order
                uploads.upload(aws, archive, place.prefix)
                uploaded.add(archive.name)
                click.echo(f"{archive.target} uploaded ({size}) to {place.prefix}.", err=True)
            missing.discard(archive.target)  # the same once more is there by now
            done.append(archive)
            yield archive


def _newer(aws: Aws, archive: Archive, place: Models) -> str:
    """Return which other version calls by name go to: adding one that is there does not make it current."""
    versions = s3.list_objects(aws, place.prefix, f"{archive.name}-")
    for entry in catalog.entries(versions):
        if entry.name == archive.name and entry.current and entry.target != archive.target:
            return f", and {entry.target} is newer: `mmekit invoke` with the name {archive.name} calls that"
    return ""


def remove(aws: Aws, entries: Sequence[Entry], prefix: Location, yes: bool, dry_run: bool) -> None:
    """Remove objects after asking. Raises as `confirm` does."""
    total = shown_bytes(sum(entry.object.size_bytes for entry in entries))
    number = count(len(entries), "object")
    for entry in entries:
        current = "  (current version)" if entry.current else ""
        size = shown_bytes(entry.object.size_bytes)
        click.echo(f"  {printable(entry.target)}  {size}{current}", err=True)
    if dry_run:
        click.echo(f"{number} ({total}) would be removed from {prefix}.", err=True)
        return
    confirm(f"Remove {number} ({total}) from {prefix}?", yes=yes)
    s3.delete(aws, prefix, [entry.target for entry in entries])
    click.echo(
        f"Removed {number} ({total}). Instances that have one loaded serve it until they evict it.", err=True
    )


@contextlib.contextmanager
def _saying_how_far(of: int, done: Sequence[Archive]) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted: {len(done)} of {of} archives are there, of the next one nothing is left. Run the "
            "command again: it goes on from there."
        ) from None
