"""What a person sees while a command works: lines on stderr, and on a terminal one that is rewritten."""

from __future__ import annotations

import shutil
import sys
import time
from types import TracebackType

import click

#: Between two lines about the same state, where there is no terminal, in seconds.
_REMIND_S = 60


class Progress:
    """Tells of steps, and of states that last; a context manager around a wait."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._shown: str | None = None
        self._last_s = 0.0
        self._began_s = 0.0

    def step(self, text: str) -> None:
        """Tell what is done now."""
        click.echo(text, err=True)

    def __enter__(self) -> Progress:
        self._began_s = time.monotonic()
        self._shown = None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._terminal and self._shown is not None:
            click.echo("", err=True)

    def state(self, text: str) -> None:
        """Tell how far it is; the same text again is shown with the time that has passed."""
        now = time.monotonic()
        line = f"  {text}, {duration(now - self._began_s)}"
        if self._terminal:
            # A line that wraps could not be rewritten.
            click.echo(f"\r\x1b[2K{line[: shutil.get_terminal_size().columns - 1]}", err=True, nl=False)
        elif text != self._shown or now - self._last_s >= _REMIND_S:
            click.echo(line, err=True)
            self._last_s = now
        self._shown = text


def duration(seconds: float) -> str:
    """Return ``45 s`` or ``3 min 5 s``."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
