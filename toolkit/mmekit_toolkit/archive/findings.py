"""What a check finds: one sentence each, with what to do, and how bad it is."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence

import msgspec

#: Names that a sentence lists before it counts the rest.
_SHOWN = 5
#: Names that a finding keeps.
_MAX_MEMBERS = 100


class Level(str, enum.Enum):
    """How bad it is; in this order."""

    #: It will not be loaded, or calls will fail, or loading it is not safe.
    FAULT = "fault"
    #: It may fail, or does what nobody expects.
    WARNING = "warning"
    #: It works, and could be better.
    REMARK = "remark"


class Finding(msgspec.Struct, frozen=True):
    """``name`` is what scripts look for; ``members`` are the first hundred files that it is about."""

    level: Level
    name: str
    message: str
    members: tuple[str, ...] = ()


def about(level: Level, name: str, message: str, members: Iterable[str] = ()) -> Finding:
    """Return a finding whose names can be printed, whatever bytes they have."""
    return Finding(level, name, printable(message), tuple(map(printable, list(members)[:_MAX_MEMBERS])))


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings with the worst first, each once."""
    order = list(Level)
    return sorted(dict.fromkeys(findings), key=lambda finding: order.index(finding.level))


def faults(findings: Iterable[Finding]) -> int:
    """Return how many faults there are."""
    return sum(finding.level is Level.FAULT for finding in findings)


def shown(names: Sequence[str]) -> str:
    """Return the first names for a sentence: ``a, b and 3 more``."""
    listed = ", ".join(name if len(name) <= 100 else name[:97] + "…" for name in names[:_SHOWN])
    more = len(names) - _SHOWN
    return f"{listed} and {more} more" if more > 0 else listed


def count(number: int, noun: str) -> str:
    """Return ``1 file`` or ``2 files``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def printable(text: str) -> str:
    """Return a text with controls and broken characters escaped: names come from anybody's archive."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode()
        for char in text.encode("utf-8", "backslashreplace").decode()
    )
