"""What a check of one clause comes to, and how a clause's code says so."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Verdict(Enum):
    """The three ends of a check."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Exchange:
    """What broke a clause, with all that is needed to do it again by hand.

    ``sent`` is a curl command line, or what was done in its place (a signal, a look at the image); ``before``
    are the requests that led there, one short line each, oldest first.
    """

    sent: str
    expected: str
    received: str
    before: tuple[str, ...] = ()


class Broken(Exception):
    """Raised by a clause that the server breaks."""

    def __init__(self, sent: str, expected: str, received: str, log: tuple[str, ...] = ()) -> None:
        super().__init__(f"expected {expected}; received {received}")
        self.sent = sent
        self.expected = expected
        self.received = received
        self.log = log


class Skipped(Exception):
    """Raised by a clause that cannot be checked here; the text says why."""

    @property
    def reason(self) -> str:
        """The sentence for the person."""
        return str(self.args[0])
