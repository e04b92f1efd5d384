"""One rule of the container contract: its name, where it is written, and the code that checks it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from mmekit_toolkit.contract.bench import Bench
from mmekit_toolkit.contract.subjects import Form
from mmekit_toolkit.contract.verdict import Exchange, Verdict

#: Seconds that a check has unless it says more; single requests have the platform's times.
DEADLINE_S = 120.0

#: A check returns what is worth knowing when it passes, such as a measured time, or nothing.
Check = Callable[[Bench], str | None]


class Section(Enum):
    """The parts of the contract, in the order of the report."""

    START = "start"
    HEALTH = "health"
    LIST = "list"
    LOAD = "load"
    GET = "get"
    UNLOAD = "unload"
    INVOKE = "invoke"
    LIMITS = "limits"


#: Forms that can be started and ended here.
STARTED = (Form.IMAGE, Form.COMMAND)

#: Why a clause is skipped in the other forms.
_NEEDS = {
    (Form.IMAGE,): "it needs an image",
    STARTED: "it needs an image or a command: nothing is started or ended at a URL",
}


@dataclass(frozen=True)
class Clause:
    """A rule; ``check`` raises Broken or Skipped, as ``verdict`` has them."""

    name: str
    title: str
    section: Section
    source: str
    forms: tuple[Form, ...]
    deadline_s: float
    check: Check

    def needs(self, form: Form) -> str:
        """Return why it cannot be checked in that form, "" where it can."""
        return "" if form in self.forms else _NEEDS[self.forms]


@dataclass(frozen=True)
class Outcome:
    """What the check of a clause came to.

    ``reason`` is what was measured (passed; may be empty), what was expected and received (failed), or why
    (skipped). ``log`` has the last lines of a server that ended.
    """

    clause: Clause
    verdict: Verdict
    took_s: float
    reason: str = ""
    exchange: Exchange | None = None
    log: tuple[str, ...] = ()


def clause(
    section: Section, source: str, forms: tuple[Form, ...] = tuple(Form), deadline_s: float = DEADLINE_S
) -> Callable[[Check], Clause]:
    """Make a function a clause: its name is the clause's, its docstring's first line the rule."""

    def make(check: Check) -> Clause:
        title = (inspect.getdoc(check) or "").partition("\n")[0].removesuffix(".")
        return Clause(check.__name__.replace("_", "-"), title, section, source, forms, deadline_s, check)

    return make
