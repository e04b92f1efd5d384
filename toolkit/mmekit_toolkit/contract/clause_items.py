"""A session of pytest that checks a container: an item for each clause, one server for all of them."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from _pytest._code.code import ReprFileLocation, TerminalRepr  # Item.repr_failure is declared with them
from _pytest._io import TerminalWriter

from mmekit.errors import MmekitError
from mmekit_toolkit.command import interrupted_by_signals
from mmekit_toolkit.contract.choosing import chosen, sample_of
from mmekit_toolkit.contract.clause import Clause, Outcome
from mmekit_toolkit.contract.own_tests import MmeContainer
from mmekit_toolkit.contract.plugin_settings import Settings
from mmekit_toolkit.contract.report import block
from mmekit_toolkit.contract.runner import Session
from mmekit_toolkit.contract.subjects import END_IS_SEEN_S, NotStarted
from mmekit_toolkit.contract.verdict import Verdict

#: What the items' node ids begin with.
COLLECTOR = "mme-contract"
#: Their marker, for -m.
MARKER = "mme_contract"


class ContractRun:
    """The plugin of one session of pytest: its items, and the server that the first of them starts."""

    def __init__(self, config: pytest.Config) -> None:
        self.settings = Settings(config)
        # Per session of the kit
        self._open = ExitStack()
        self._session: Session | None = None
        self._not_there: MmekitError | None = None
        self._start_is_checked = False

    # --- pytest's hooks

    def pytest_report_header(self) -> str:
        return f"mme-contract: {self.settings.subject}"

    def pytest_sessionstart(self) -> None:
        """See that SIGTERM, as CI systems send it, does not leave a container behind."""
        self._open.enter_context(interrupted_by_signals())

    # First, so that -k, -m and --deselect see the items.
    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(
        self, session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        """Put the clauses before the other tests."""
        collector = ClauseCollector.from_parent(
            session, name=COLLECTOR, nodeid=COLLECTOR, path=config.rootpath, run=self
        )
        # Through pytest's own hooks, so that it counts them and tells what went wrong.
        report = config.hook.pytest_make_collect_report(collector=collector)
        config.hook.pytest_collectreport(report=report)
        items[:0] = report.result

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """See what is left of the clauses."""
        self._start_is_checked = any(
            isinstance(item, ClauseItem) and item.name == "starts-with-serve" for item in session.items
        )

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Let a skipped clause be told by its name, not by a line of this file."""
        report = yield
        if isinstance(item, ClauseItem) and report.skipped and isinstance(report.longrepr, tuple):
            # Any: pytest prints no line number for None, but declares int.
            nowhere: Any = None
            report.longrepr = (item.nodeid, nowhere, report.longrepr[2].removeprefix("Skipped: "))
        return report

    def pytest_sessionfinish(self) -> None:
        """End the server."""
        self._open.close()
        self._session = None

    # --- the kit's session

    def check(self, clause: Clause) -> Outcome:
        """Check a clause. Raises MmekitError where the subject cannot be used; skips once that is known."""
        session = self._opened()
        try:
            outcome = session.check(clause)
            if session.not_started and not self._start_is_checked:
                # No clause is there to say so, and skipped tests alone would look like success.
                raise session.not_started
        except MmekitError as error:
            self._not_there = error
            raise
        return outcome

    @contextmanager
    def container(self) -> Iterator[MmeContainer]:
        """Lend the running server to one test; fail it where the server ends meanwhile."""
        session, container = self._lent()
        try:
            yield container
        finally:
            how, log = session.ended(END_IS_SEEN_S if container.unanswered else 0.0)
            if how is not None:
                pytest.fail("\n".join([f"the server {how}; its last lines:", *log]), pytrace=False)
            container.close()

    def _lent(self) -> tuple[Session, MmeContainer]:
        try:
            session = self._opened()
            return session, MmeContainer(session.running.base_url, session.subject.models)
        except MmekitError as error:
            fault = _text(error)
        pytest.fail(fault, pytrace=False)

    def _opened(self) -> Session:
        if self._not_there is not None:
            pytest.skip("the subject cannot be used; the first test that needs it says why")
        if self._session is None:
            settings = self.settings
            try:
                sample = sample_of(settings.model, settings.payload, settings.content_type, settings.accept)
                subject = self._open.enter_context(
                    chosen(
                        settings.target,
                        settings.command,
                        models_dir=settings.models_dir,
                        environment=settings.environment,
                        platform=settings.platform,
                    )
                )
                self._session = self._open.enter_context(Session(subject, sample, settings.start_timeout_s))
            except MmekitError as error:
                self._not_there = error
                raise
        return self._session


class ClauseCollector(pytest.Collector):
    """The parent of the items; it gives their node ids the form ``mme-contract::load-conflict``."""

    def __init__(self, *, run: ContractRun, **more: Any) -> None:  # Any: pytest's own
        super().__init__(**more)
        self._run = run

    def collect(self) -> Iterator[pytest.Item]:
        """Make the items: no file on disk stands for them."""
        for clause in self._run.settings.clauses:
            item: ClauseItem = ClauseItem.from_parent(self, name=clause.name, clause=clause, run=self._run)
            if self.config.pluginmanager.hasplugin("timeout"):
                # The kit has its own deadlines, and they are longer than those of unit tests.
                item.add_marker(pytest.mark.timeout(0))
            yield item


class ClauseItem(pytest.Item):
    """One clause."""

    def __init__(self, *, clause: Clause, run: ContractRun, **more: Any) -> None:  # Any: pytest's own
        super().__init__(**more)
        self.clause = clause
        self._run = run
        self.add_marker(MARKER)
        self.user_properties.append(("title", clause.title))
        self.user_properties.append(("source", clause.source))

    def runtest(self) -> None:
        outcome = self._run.check(self.clause)
        if outcome.verdict is Verdict.SKIPPED:
            pytest.skip(outcome.reason)
        if outcome.verdict is Verdict.FAILED:
            raise _ClauseBroken(outcome)
        if outcome.reason:
            self.user_properties.append(("measured", outcome.reason))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        # Any: pytest declares a private type of its own for both
        error = excinfo.value
        if isinstance(error, _ClauseBroken):
            return _Text(self.nodeid, error.outcome.reason, block(error.outcome))
        if isinstance(error, MmekitError):
            return _Text(self.nodeid, error.message, _text(error))
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, None, str]:
        return self.path, None, self.nodeid


def _text(error: MmekitError) -> str:
    """Return the message, and the last lines of a server that did not start."""
    return "\n".join([error.message, *(error.log if isinstance(error, NotStarted) else ())])


class _ClauseBroken(Exception):
    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.reason)
        self.outcome = outcome


class _Text(TerminalRepr):
    """A failure as plain text; the summary and JUnit's ``message`` have its one line."""

    def __init__(self, nodeid: str, line: str, text: str) -> None:
        self.reprcrash = ReprFileLocation(nodeid, 0, line)
        self._text = text

    def __str__(self) -> str:
        return self._text

    def toterminal(self, tw: TerminalWriter) -> None:
        tw.line(self._text)
