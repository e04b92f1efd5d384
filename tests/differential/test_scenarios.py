"""The same bytes to Multi Model Server and to mmekit: the answers are the same, or the difference is meant.

An aspect of an answer that differs (see compare.py) must be declared by the exchange, with the value that
mmekit answers and the name of a row of docs/mms-differences.md; what is declared must differ.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from tests.differential.compare import differences
from tests.differential.exchange import Exchange, Scenario
from tests.differential.recording import Recording, record
from tests.differential.scenarios import SCENARIOS
from tests.differential.table import DIFFERENCES

#: The first test of a scenario starts both engines and sends everything.
pytestmark = [pytest.mark.mms, pytest.mark.timeout(300)]

#: Differences that every exchange has, so that comparing leaves them out; they have tests of their own here.
EVERYWHERE = {"date-header", "reason-phrases", "worker-ids"}

EXCHANGES = [
    pytest.param(scenario, exchange, id=f"{scenario.name}/{exchange.name}")
    for scenario in SCENARIOS
    for exchange in scenario.exchanges
]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Recording]:
    """Return the recording of a scenario's first run, or of a further one."""
    scenarios = {scenario.name: scenario for scenario in SCENARIOS}

    @cache
    def once(name: str, run: int = 1) -> Recording:
        return record(scenarios[name], tmp_path_factory.mktemp(name))

    return once


@pytest.mark.parametrize(("scenario", "exchange"), EXCHANGES)
def test_answers_are_the_same_or_the_difference_is_meant(
    scenario: Scenario, exchange: Exchange, recorded: Callable[..., Recording]
) -> None:
    recording = recorded(scenario.name)
    wrong = compared(exchange, recording)
    if wrong:
        # MMS is not the same in each run: it has races, after failed loads for one. mmekit has to be.
        again = recorded(scenario.name, 2)
        wrong = compared(exchange, again)
        changed = differences(recording.ours[exchange.name], again.ours[exchange.name])
        assert not changed, f"mmekit answers otherwise in another run: {changed}"
    assert not wrong, "\n".join(["", *wrong])


def compared(exchange: Exchange, recording: Recording) -> list[str]:
    """Return what is wrong with an exchange as one run shows it."""
    for replies in (recording.mms, recording.ours):
        assert exchange.name in replies, recording.failed
    return complaints(exchange, differences(recording.mms[exchange.name], recording.ours[exchange.name]))


def complaints(exchange: Exchange, found: dict[str, tuple[Any, Any]]) -> list[str]:
    """Hold what differs against what is declared to."""
    meant = {aspect: (each.name, value) for each in exchange.differs for aspect, value in each.ours.items()}
    wrong = []
    for aspect, (mms, ours) in found.items():
        if aspect not in meant:
            wrong.append(f"{aspect}: MMS {mms!r}, mmekit {ours!r}")
            continue
        name, value = meant[aspect]
        if value is not ... and value != ours:
            wrong.append(f"{aspect}: MMS {mms!r}, mmekit {ours!r}, where {name} says {value!r}")
    for aspect in meant.keys() - found.keys():
        wrong.append(f"{aspect}: does not differ any more, against {meant[aspect][0]}")
    return wrong


def test_mms_alone_leaves_out_the_date(recorded: Callable[[str], Recording]) -> None:
    recording = recorded("two-ports")
    assert not any(reply.header("date") for replies in recording.mms.values() for reply in replies)
    final = [reply for replies in recording.ours.values() for reply in replies if reply.status >= 200]
    assert all(reply.header("date") for reply in final)


def test_mms_alone_leaves_out_the_reason_phrase_of_predictions(recorded: Callable[[str], Recording]) -> None:
    recording = recorded("two-ports")
    name = "inference-POST-/predictions/echo"
    assert [recording.mms[name][0].reason, recording.ours[name][0].reason] == ["", "OK"]


def test_ids_of_workers_are_numbers_here(recorded: Callable[[str], Recording]) -> None:
    recording = recorded("two-ports")
    mms, ours = (
        json.loads(replies["management-GET-/models/echo"][0].body)["workers"][0]["id"]
        for replies in (recording.mms, recording.ours)
    )
    assert re.fullmatch("9[0-9]{3}-[0-9a-f]{8}", mms)
    assert re.fullmatch("[0-9]+-[0-9]+", ours)


def test_each_exchange_has_a_name_of_its_own() -> None:
    for scenario in SCENARIOS:
        names = Counter(exchange.name for exchange in scenario.exchanges)
        assert names.most_common(1)[0][1] == 1, (scenario.name, names.most_common(3))
    assert len({scenario.name for scenario in SCENARIOS}) == len(SCENARIOS)


def test_each_declared_difference_is_a_row_of_the_document_and_each_named_row_is_declared() -> None:
    exchanges = [exchange for scenario in SCENARIOS for exchange in scenario.exchanges]
    declared = {differs.name for exchange in exchanges for differs in exchange.differs}
    assert declared | EVERYWHERE == DIFFERENCES.keys()
