"""Keeps archives that cannot be loaded from going up."""

from __future__ import annotations

from collections.abc import Sequence

import click

from mmekit_toolkit.archive.check import GIB, Order, check
from mmekit_toolkit.archive.environment import Environment
from mmekit_toolkit.archive.findings import Level, count
from mmekit_toolkit.errors import FaultsFound
from mmekit_toolkit.operate.archives import Archive


def insist_on_none(archives: Sequence[Archive], volume_gb: int | None) -> None:
    """Check archives as `mmekit archive check` does, against an instance's volume where its size is known.

    Warnings are told. Raises FaultsFound when any of them has a fault, after all were looked at.
    """
    order = Order(Environment(), None if volume_gb is None else volume_gb * GIB)
    faults = 0
    for archive in archives:
        for finding in check(archive.file, archive.target, order).findings:
            if finding.level is not Level.REMARK:
                click.echo(f"{archive.target}: {finding.level.value}: {finding.message}", err=True)
                faults += finding.level is Level.FAULT
    if faults:
        raise FaultsFound(
            f"{count(faults, 'fault')} found, and nothing was uploaded. --no-check uploads all the same."
        )
