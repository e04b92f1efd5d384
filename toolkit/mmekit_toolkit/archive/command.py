"""``mmekit archive``: making model archives, and saying what is in them."""

from __future__ import annotations

import click

from mmekit_toolkit.archive.check_command import check_command
from mmekit_toolkit.archive.pack_command import pack_command
from mmekit_toolkit.command import Group


@click.group(cls=Group)
def archive() -> None:
    """Make model archives, and say what is in them."""


archive.add_command(check_command)
archive.add_command(pack_command)
