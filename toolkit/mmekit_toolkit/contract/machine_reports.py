"""What a run says to machines: JSON, and JUnit's XML as CI systems read it."""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass, field
from datetime import datetime
from xml.etree import ElementTree

from mmekit_toolkit.contract import report
from mmekit_toolkit.contract.clause import Outcome
from mmekit_toolkit.contract.subjects import Form, NotStarted
from mmekit_toolkit.contract.verdict import Verdict

#: What XML 1.0 cannot have in any form (XML 1.0, 2.2).
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass
class Run:
    """A run over one subject, of ``total`` clauses; those before it stopped have outcomes."""

    subject: str
    form: Form
    began: datetime
    total: int
    took_s: float = 0.0
    outcomes: list[Outcome] = field(default_factory=list)
    #: Why the server could not be started, None where it could.
    not_started: NotStarted | None = None
    #: What ended the run before all clauses were checked, None where they were.
    stopped: Exception | None = None

    def count(self, verdict: Verdict) -> int:
        """Return how many clauses came to that verdict."""
        return sum(outcome.verdict is verdict for outcome in self.outcomes)


def as_json(run: Run) -> str:
    """Return the run as a JSON object; ``clauses`` has the outcomes in the order of the report."""
    document: dict[str, object] = {
        "subject": run.subject,
        "form": run.form.value,
        "began": run.began.isoformat(timespec="seconds"),
        "took_s": round(run.took_s, 3),
        "stopped": None if run.stopped is None else str(run.stopped),
        **{verdict.value: run.count(verdict) for verdict in Verdict},
        "not_checked": run.total - len(run.outcomes),
        "clauses": [_json_of(outcome) for outcome in report.in_order(run.outcomes)],
    }
    return json.dumps(document, indent=2) + "\n"


def _json_of(outcome: Outcome) -> dict[str, object]:
    return {
        "name": outcome.clause.name,
        "title": outcome.clause.title,
        "section": outcome.clause.section.value,
        "source": outcome.clause.source,
        "verdict": outcome.verdict.value,
        "took_s": round(outcome.took_s, 3),
        "reason": outcome.reason,
        "exchange": dataclasses.asdict(outcome.exchange) if outcome.exchange else None,
        "log": list(outcome.log),
    }


def as_junit(run: Run) -> str:
    """Return the run as JUnit XML: a test suite with a test case for each clause, in classes by section.

    What ended the run too early is an error, in a case of its own: the clauses before it are no success.
    """
    errors = 0 if run.stopped is None else 1
    counts = {
        "tests": str(len(run.outcomes) + errors),
        "failures": str(run.count(Verdict.FAILED)),
        "errors": str(errors),
        "skipped": str(run.count(Verdict.SKIPPED)),
        "time": f"{run.took_s:.3f}",
    }
    suites = ElementTree.Element("testsuites", {"name": "mmekit contract", **counts})
    began = run.began.isoformat(timespec="seconds")
    suite = ElementTree.SubElement(
        suites, "testsuite", {"name": _clean(run.subject), "timestamp": began, **counts}
    )
    for outcome in report.in_order(run.outcomes):
        _add_case(suite, outcome)
    if run.stopped is not None:
        case = ElementTree.SubElement(suite, "testcase", {"classname": "contract", "name": "run"})
        attributes = {"message": _clean(str(run.stopped)), "type": type(run.stopped).__name__}
        ElementTree.SubElement(case, "error", attributes)
    ElementTree.indent(suites)
    # Bytes first: with "unicode" Python 3.10 declares the locale's encoding, and the file is UTF-8.
    document: bytes = ElementTree.tostring(suites, encoding="utf-8", xml_declaration=True)
    return document.decode() + "\n"


def _add_case(suite: ElementTree.Element, outcome: Outcome) -> None:
    case = ElementTree.SubElement(
        suite,
        "testcase",
        {
            "classname": f"contract.{outcome.clause.section.value}",
            "name": outcome.clause.name,
            "time": f"{outcome.took_s:.3f}",
        },
    )
    if outcome.verdict is Verdict.FAILED:
        attributes = {"message": _clean(outcome.reason), "type": "Broken"}
        ElementTree.SubElement(case, "failure", attributes).text = _clean(report.block(outcome))
    elif outcome.verdict is Verdict.SKIPPED:
        ElementTree.SubElement(case, "skipped", {"message": _clean(outcome.reason)})
    elif outcome.reason:
        ElementTree.SubElement(case, "system-out").text = _clean(outcome.reason)


def _clean(text: str) -> str:
    return _NO_XML.sub("�", text)
