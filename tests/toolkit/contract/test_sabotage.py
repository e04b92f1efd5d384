"""The kit names exactly the clause that a server breaks, and takes no offence at what the contract allows.

MMEKIT_SABOTAGES=all   every sabotage, not one for each clause (make sabotage-test)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from mmekit_toolkit.contract.clauses import CLAUSES
from tests.toolkit.contract.kit import Report, on_stand_in
from tests.toolkit.contract.sabotage.all import SABOTAGES

#: Runs of the kit at a time: they wait more than they work.
WORKERS = 4

#: Each takes seconds, where all others together take one. They are checked on the servers that break them,
#: and on those of WHOLE.
SLOW = {"list-many", "unload-frees-memory", "ping-under-load"}

#: On one server for each kind of clause, the whole kit runs.
WHOLE = {
    None,
    "broken-model-is-fine",
    "failed-load-stays-listed",
    "ignores-sigterm",
    "invoke-of-an-unknown-model-is-500",
    "no-list-without-models",
    "second-load-is-fine",
    "target-header-chooses-the-model",
    "tokens-are-opaque",
}
#: Servers whose clause has SageMaker's 30 s are begun with, so that nobody waits for them.
FIRST = {"ignores-sigterm", "ignores-sigterm-while-models-are-loaded"}

#: Clauses that need an image.
OF_IMAGES = ["label-multi-models", "label-accept-bind-to-port", "exec-form-entrypoint", "load-out-of-memory"]

HERE = {name: sabotage for name, sabotage in SABOTAGES.items() if not sabotage.image_only}
BREAKING = {name: sabotage.clause for name, sabotage in HERE.items() if sabotage.clause is not None}
#: Beside one for each clause.
MORE = WHOLE | {"pages-lose-a-model", "invoke-of-an-unloaded-model-is-503"}
FIRST_OF_CLAUSE = {clause: name for name, clause in reversed(BREAKING.items())}
BROKEN = [
    name
    for name, clause in BREAKING.items()
    if os.environ.get("MMEKIT_SABOTAGES") == "all" or name in MORE or FIRST_OF_CLAUSE[clause] == name
]
ALLOWED = [name for name, sabotage in HERE.items() if sabotage.clause is None]


@pytest.fixture(scope="module")
def reports(request: pytest.FixtureRequest) -> Iterator[Callable[[str | None], Report]]:
    """Reports of the servers that this session's tests ask for; several are made at a time."""
    wanted = [
        item.callspec.params["sabotage"]
        for item in request.session.items
        if item.path == request.path and hasattr(item, "callspec")
    ]
    with ThreadPoolExecutor(WORKERS) as workers:
        order = sorted(wanted, key=lambda name: name not in FIRST)
        made = {name: workers.submit(on_stand_in, name, clauses_for(name)) for name in order}
        yield lambda name: made[name].result()
        for report in made.values():
            report.cancel()


def clauses_for(sabotage: str | None) -> list[str]:
    """Return the clauses that are checked on a server: all of them, or without the slow ones of others."""
    own = SABOTAGES[sabotage].clause if sabotage else None
    left_out = set() if sabotage in WHOLE else SLOW - {own}
    return [clause.name for clause in CLAUSES if clause.name not in left_out]


@pytest.mark.parametrize("sabotage", [None])
def test_a_server_that_keeps_the_contract_passes_every_clause(
    sabotage: None, reports: Callable[[str | None], Report]
) -> None:
    report = reports(sabotage)
    assert report.named("failed") == [], report.failures
    assert report.exit_code == 0
    assert report.named("skipped") == OF_IMAGES
    for name in OF_IMAGES:
        assert report.reason(name) == "it needs an image"


@pytest.mark.parametrize("sabotage", BROKEN)
def test_a_server_that_breaks_one_clause_is_named_by_that_one(
    sabotage: str, reports: Callable[[str | None], Report]
) -> None:
    report = reports(sabotage)
    assert report.named("failed") == [SABOTAGES[sabotage].clause], report.failures
    assert report.exit_code == 3
    for skipped in report.named("skipped"):
        assert report.reason(skipped)


@pytest.mark.parametrize("sabotage", ALLOWED)
def test_what_the_contract_allows_passes_every_clause(
    sabotage: str, reports: Callable[[str | None], Report]
) -> None:
    report = reports(sabotage)
    assert report.named("failed") == [], report.failures
    assert report.exit_code == 0
    assert set(report.named("skipped")) <= set(OF_IMAGES)


def test_each_clause_is_broken_by_a_server() -> None:
    broken = {sabotage.clause for sabotage in SABOTAGES.values()} - {None}
    known = {clause.name for clause in CLAUSES}
    assert broken <= known
    # The kernel accepts connections by itself; labels and entrypoints are broken in tests/image.
    assert known - broken == {"connect-time", *OF_IMAGES[:3]}


def test_a_server_that_does_not_start_is_no_success_whatever_is_chosen() -> None:
    report = on_stand_in("does-not-know-serve", ["load", "sigterm"])
    assert report.named("skipped") == ["sigterm", "load"]
    assert report.exit_code == 1
    assert "the server could not be started: it " in report.stderr
    report = on_stand_in("invoke-fails", ["invoke-concurrent"])
    assert report.exit_code == 1
    assert "nothing could be checked: it needs" in report.stderr
