"""What a run says while it goes on: a line that moves in a terminal, a line for each clause elsewhere."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

import click

from mmekit_toolkit.contract.clause import Clause, Outcome

#: Called before a clause is checked, and with its outcome.
Begin = Callable[[Clause], None]
End = Callable[[Outcome], None]


@contextlib.contextmanager
def shown(total: int) -> Iterator[tuple[Begin, End]]:
    """Show on stderr which of so many clauses is checked; yields what to call before and after each."""
    if sys.stderr.isatty():
        with _bar(total) as calls:
            yield calls
    else:
        yield _lines(total)


@contextlib.contextmanager
def _bar(total: int) -> Iterator[tuple[Begin, End]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)
        yield (
            lambda clause: bar.update(task, description=clause.name),
            lambda outcome: bar.advance(task),
        )


def _lines(total: int) -> tuple[Begin, End]:
    done = 0

    def end(outcome: Outcome) -> None:
        nonlocal done
        done += 1
        line = f"{done}/{total} {outcome.clause.name}: {outcome.verdict.value}, {outcome.took_s:.2f} s"
        click.echo(line, err=True)

    return lambda clause: None, end
