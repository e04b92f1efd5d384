"""Decides how a prefix becomes what a folder has."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mmekit_toolkit.operate.archives import Archive
from mmekit_toolkit.operate.catalog import Entry


@dataclass(frozen=True)
class Plan:
    """What to do, in this order: uploads first, so that there is always a version of each model."""

    uploads: Sequence[Archive]
    #: Versions that the folder does not have; which of them are ours is found out before they are removed.
    surplus: Sequence[Entry]


def plan(archives: Iterable[Archive], there: Iterable[Entry]) -> Plan:
    """Return what makes the prefix the folder's.

    A folder may have several versions of a name; the file that was written last becomes the current one.
    """
    known = list(there)
    targets = {entry.target for entry in known}
    wanted = {archive.target: archive for archive in archives}
    return Plan(
        sorted(
            (archive for target, archive in wanted.items() if target not in targets),
            key=lambda archive: archive.modified_ns,
        ),
        [entry for entry in known if entry.name is not None and entry.target not in wanted],
    )
