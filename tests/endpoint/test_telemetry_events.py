"""Events: in memory, on disk, and numbered across restarts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmekit_endpoint.telemetry import event_file, events
from mmekit_endpoint.telemetry.events import EventLog


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_events_are_numbered_and_read_after_one_another() -> None:
    log = EventLog(None)
    for number in range(5):
        log.add("loaded", f"{number}", endpoint="e", variant="v", instance="i", model="m", seconds=number)
    found = log.since(2, 2)
    assert [(event.sequence, event.text, event.numbers) for event in found] == [
        (3, "2", {"seconds": 2}),
        (4, "3", {"seconds": 3}),
    ]
    assert (found[0].endpoint, found[0].variant, found[0].instance, found[0].model) == ("e", "v", "i", "m")
    assert log.since(5, 10) == []
    assert log.since(99, 10) == []
    assert len(log.since(0, 10)) == 5
    log.close()


def test_memory_has_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MAX_EVENTS", 3)
    log = EventLog(None)
    for _ in range(5):
        log.add("k", "")
    assert [event.sequence for event in log.since(0, 10)] == [3, 4, 5]
    assert [event.sequence for event in log.since(4, 10)] == [5]


def test_the_file_has_all_and_the_sequence_goes_on_after_it(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    for first in (1, 3):
        log = EventLog(path)
        log.add("a", "line\nbreak", model='"é"')
        log.add("b", "")
        log.close()
        assert [event.sequence for event in log.since(0, 10)] == [first, first + 1]
    assert [line["sequence"] for line in lines(path)] == [1, 2, 3, 4]
    assert lines(path)[0]["text"] == "line\nbreak"
    assert lines(path)[0]["model"] == '"é"'


def test_a_line_that_was_cut_by_a_kill_harms_nothing(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    log = EventLog(path)
    log.add("a", "")
    log.close()
    with path.open("ab") as file:
        file.write(b'{"sequence":2,"ti')
    log = EventLog(path)
    log.add("b", "")
    log.close()
    before, cut, after = path.read_bytes().splitlines()
    assert json.loads(before)["sequence"] == 1
    assert cut == b'{"sequence":2,"ti'
    assert json.loads(after)["sequence"] == 2


def test_the_file_is_bounded_and_the_sequence_is_found_in_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_file, "MAX_BYTES", 2000)
    path = tmp_path / "events.jsonl"
    for number in range(200):
        log = EventLog(path)
        log.add("kind", "x" * 50)
        assert log.since(0, 1)[0].sequence == number + 1
        log.close()
    sizes = [file.stat().st_size for file in tmp_path.iterdir()]
    assert len(sizes) <= 2
    assert all(size < 3000 for size in sizes)


def test_a_file_that_cannot_be_written_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = EventLog(tmp_path / "missing" / "events.jsonl")
    for _ in range(3):
        log.add("a", "")
    log.close()
    assert len(log.since(0, 10)) == 3
    assert len(caplog.records) == 1
