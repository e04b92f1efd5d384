"""The question before something is deleted."""

from __future__ import annotations

import sys

import click


def confirm(question: str, *, yes: bool) -> None:
    """Ask at the terminal whether to go on; ``yes`` answers in advance.

    Raises click.UsageError where nobody can be asked, click.Abort for a no.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("There is no terminal to ask at: --yes deletes without a question.")
    click.confirm(question, abort=True, err=True)
