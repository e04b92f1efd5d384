"""Checks clauses one after the other on one subject, whatever its server does."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Iterator

from mmekit_toolkit.contract.bench import Bench
from mmekit_toolkit.contract.clause import Clause, Outcome
from mmekit_toolkit.contract.main_server import MainServer
from mmekit_toolkit.contract.sample import Sample
from mmekit_toolkit.contract.subjects import END_IS_SEEN_S, Form, NotStarted, Running, Subject
from mmekit_toolkit.contract.verdict import Broken, Exchange, Skipped, Verdict
from mmekit_toolkit.contract.wire import Unanswered

#: What the platform gives a container until /ping answers (AWS: your-algorithms-inference-code).
START_TIMEOUT_S = 240.0


class Session:
    """One subject under check; a context manager that ends what was started."""

    def __init__(self, subject: Subject, sample: Sample, start_timeout_s: float = START_TIMEOUT_S) -> None:
        self.subject = subject
        self._main = MainServer(subject, sample, start_timeout_s)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self._main.discard()

    def outcomes(self, clauses: Iterable[Clause]) -> Iterator[Outcome]:
        """Check clauses in the given order. Raises Uncheckable."""
        for clause in clauses:
            yield self.check(clause)

    def check(self, clause: Clause) -> Outcome:
        """Check one clause. Raises Uncheckable when the server cannot load the sample at all."""
        if needed := clause.needs(self.subject.form):
            return Outcome(clause, Verdict.SKIPPED, 0.0, needed)
        began = time.monotonic()
        bench = Bench(self._main, clause.deadline_s)
        try:
            outcome = _judge(clause, bench)
            return self._unless_it_ended(bench, dataclasses.replace(outcome, took_s=time.monotonic() - began))
        except KeyboardInterrupt:
            if self.subject.form is Form.URL and self._main.started:
                bench.clean_up()  # this server goes on, and should go on as it was
            raise
        finally:
            bench.remove_folders()

    @property
    def running(self) -> Running:
        """The server, started if need be, for tests beside the clauses. Raises NotStarted."""
        return self._main.running

    @property
    def not_started(self) -> NotStarted | None:
        """Why the server could not be started; None where it could, or no clause needed it."""
        return self._main.not_started

    def ended(self, within_s: float = 0.0) -> tuple[str | None, tuple[str, ...]]:
        """Return how the server ended, with its last lines; the next who needs it gets a new one.

        None, without lines, while it runs, or where none was started.
        """
        running = self._main.started
        how = running.wait_end(within_s) if running else None
        if running is None or how is None:
            return None, ()
        log = running.last_lines()
        self._main.discard()
        return how, log

    def _unless_it_ended(self, bench: Bench, outcome: Outcome) -> Outcome:
        """Clean up; a clause in which the server ended by itself is broken, whatever else it found."""
        if bench.ended_on_purpose:
            self._main.discard()
            return outcome
        # The connection is cut a moment before the end can be seen.
        how, log = self.ended(END_IS_SEEN_S if bench.transcript.unanswered else 0.0)
        if how is None:
            if self._main.started and not bench.clean_up():
                self._main.discard()
            return outcome
        exchange = outcome.exchange or _exchange(
            bench, "the last of the requests above", "a server that goes on running", f"it {how}"
        )
        return dataclasses.replace(
            outcome, verdict=Verdict.FAILED, reason=f"the server {how}", exchange=exchange, log=log
        )


def _judge(clause: Clause, bench: Bench) -> Outcome:
    try:
        return Outcome(clause, Verdict.PASSED, 0.0, clause.check(bench) or "")
    except Skipped as skipped:
        return Outcome(clause, Verdict.SKIPPED, 0.0, skipped.reason)
    except NotStarted as error:
        return Outcome(clause, Verdict.SKIPPED, 0.0, error.message, log=error.log)
    except Unanswered as error:
        broken = error.broken("an answer")
    except Broken as error:
        broken = error
    exchange = _exchange(bench, broken.sent, broken.expected, broken.received)
    return Outcome(clause, Verdict.FAILED, 0.0, str(broken), exchange, broken.log)


def _exchange(bench: Bench, sent: str, expected: str, received: str) -> Exchange:
    return Exchange(sent, expected, received, bench.transcript.before(sent))
