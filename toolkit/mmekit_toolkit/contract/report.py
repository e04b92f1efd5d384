"""What a run says to a person: a table, and for each broken clause what was sent, expected and received."""

from __future__ import annotations

import itertools
import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from mmekit_toolkit.contract.clause import Clause, Outcome, Section
from mmekit_toolkit.contract.subjects import Form
from mmekit_toolkit.contract.verdict import Verdict

if TYPE_CHECKING:
    from rich.table import Table

_STYLES = {Verdict.PASSED: "green", Verdict.FAILED: "bold red", Verdict.SKIPPED: "yellow"}

#: Sections in the order of the report; clauses are checked in another.
_ORDER = list(Section)


def in_order(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """Return outcomes by section."""
    return sorted(outcomes, key=lambda outcome: _ORDER.index(outcome.clause.section))


def table(outcomes: Sequence[Outcome]) -> Table:
    """Return one line for each outcome, in sections."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    result = Table(box=SIMPLE_HEAD, pad_edge=False)
    result.add_column("clause", no_wrap=True)
    result.add_column("verdict", no_wrap=True)
    result.add_column("seconds", justify="right", no_wrap=True)
    result.add_column("what", overflow="fold")
    section = None
    for outcome in in_order(outcomes):
        if section not in (None, outcome.clause.section):
            result.add_section()
        section = outcome.clause.section
        what = outcome.clause.title if outcome.verdict is Verdict.FAILED else outcome.reason
        verdict = Text(outcome.verdict.value, _STYLES[outcome.verdict])
        result.add_row(outcome.clause.name, verdict, f"{outcome.took_s:.2f}", Text(what))
    return result


def listing(clauses: Iterable[Clause]) -> str:
    """Return each clause with its rule, where it is written, and what it needs."""
    lines: list[str] = []
    by_section = sorted(clauses, key=lambda clause: _ORDER.index(clause.section))
    for section, group in itertools.groupby(by_section, key=lambda clause: clause.section):
        lines += ["", section.value] if lines else [section.value]
        for clause in group:
            needs = clause.needs(Form.COMMAND) or clause.needs(Form.URL)
            rest = [clause.source, *([needs] if needs else [])]
            lines += [f"  {clause.name:<26}{clause.title}", *(" " * 28 + line for line in rest)]
    return "\n".join(lines)


def block(outcome: Outcome) -> str:
    """Return the block of a broken clause, with whatever is needed to see it again by hand."""
    lines = [f"{outcome.clause.name}: {outcome.clause.title}", *_field("source", [outcome.clause.source])]
    if exchange := outcome.exchange:
        lines += _field("before", exchange.before)
        lines += _field("sent", [exchange.sent])
        lines += _field("expected", [exchange.expected])
        lines += _field("received", [exchange.received])
    if outcome.exchange is None or outcome.reason.startswith("the server "):
        lines += _field("reason", [outcome.reason])
    return "\n".join([*lines, *_field("log", outcome.log)])


def summary(outcomes: Iterable[Outcome]) -> str:
    """Return how many clauses passed, failed and were skipped."""
    counts = Counter(outcome.verdict for outcome in outcomes)
    return ", ".join(f"{counts[verdict]} {verdict.value}" for verdict in Verdict)


def _field(name: str, lines: Sequence[str]) -> list[str]:
    """Return lines below each other, the first with the name; none where there are none."""
    text = textwrap.indent("\n".join(lines), " " * 12)
    return [f"  {name:<10}{text[12:]}"] if lines else []
