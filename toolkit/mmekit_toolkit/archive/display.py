"""What goes on, on standard error: bars on a terminal, else a line where something takes long."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from mmekit_toolkit.archive.sizes import shown_bytes

#: Files from this on are worth a line where there is no terminal.
_LARGE_BYTES = 100 * 1000 * 1000


class Display:
    """Shows steps and progress; nothing is written to standard output."""

    def __init__(self, is_quiet: bool = False) -> None:
        self._is_quiet = is_quiet
        self._is_terminal = sys.stderr.isatty() and not is_quiet

    @contextmanager
    def steps(self, title: str) -> Iterator[Callable[[str], None]]:
        """Yield a function that says what is done now."""
        if not self._is_terminal:
            yield lambda _: None
            return
        from rich.console import Console
        from rich.markup import escape

        with Console(stderr=True).status(escape(title)) as status:
            yield lambda step: status.update(f"{escape(title)}: {step}")

    @contextmanager
    def bytes(self, title: str, total: int) -> Iterator[Callable[[int], None]]:
        """Yield a function that takes the number of bytes that came."""
        if not self._is_terminal:
            if total >= _LARGE_BYTES and not self._is_quiet:
                click.echo(f"{title} ({shown_bytes(total)})", err=True)
            yield lambda _: None
            return
        from rich.console import Console
        from rich.markup import escape
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task(escape(title), total=total)
            yield lambda count: progress.advance(task, count)
