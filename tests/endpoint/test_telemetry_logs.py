"""Containers' logs: from bytes to lines, files that turn over, batches within limits."""

from __future__ import annotations

from collections import deque
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmekit_endpoint.telemetry import log_file
from mmekit_endpoint.telemetry.log_file import LogFile
from mmekit_endpoint.telemetry.log_lines import MAX_LINE_BYTES, PATIENCE_S, Lines
from mmekit_endpoint.telemetry.log_stream import (
    MAX_BATCH_BYTES,
    MAX_BATCH_EVENTS,
    LogEvent,
    next_batch,
)

# --- lines


@given(st.lists(st.binary(max_size=20)))
def test_lines_do_not_depend_on_how_their_bytes_come(parts: list[bytes]) -> None:
    at_once, lines = Lines(), Lines()
    whole = b"".join(parts)
    expected = at_once.feed(whole, 0.0) + at_once.flush(0.0, at_end=True)
    found = [line for part in parts for line in lines.feed(part, 0.0)] + lines.flush(0.0, at_end=True)
    assert found == expected


def test_lines_are_text_without_their_ends_and_empty_ones_are_left_out() -> None:
    lines = Lines()
    assert lines.feed("a\r\n\n  \n  b é\n\xff".encode() + b"\xff\nrest", 0.0) == ["a", "  b é", "ÿ\ufffd"]
    assert lines.flush(0.0, at_end=True) == ["rest"]
    assert lines.flush(0.0, at_end=True) == []


def test_the_begin_of_a_line_waits_for_its_end_but_not_for_ever() -> None:
    lines = Lines()
    assert lines.feed(b"50 %", 10.0) == []
    assert lines.flush(10.0 + PATIENCE_S - 0.1) == []
    assert lines.feed(b" 60 %", 12.0) == []
    assert lines.flush(10.0 + PATIENCE_S) == ["50 % 60 %"]
    assert lines.feed(b"100 %\n", 20.0) == ["100 %"]


@pytest.mark.parametrize("letter", [b"x", "é".encode(), b"\xff"])
@pytest.mark.parametrize("pieces", [1, 1000])
def test_long_lines_are_cut_with_a_mark(letter: bytes, pieces: int) -> None:
    lines = Lines()
    line = letter * (MAX_LINE_BYTES + 1000)
    size = -(-len(line) // pieces)
    found = [
        one for start in range(0, len(line), size) for one in lines.feed(line[start : start + size], 0.0)
    ]
    found += lines.feed(b"\nnext\n", 0.0)
    assert len(found) == 2
    assert MAX_LINE_BYTES - 100 < len(found[0].encode()) <= MAX_LINE_BYTES
    assert found[0].endswith("bytes were cut]")
    assert found[1] == "next"


def test_a_line_of_the_longest_size_is_whole() -> None:
    assert Lines().feed(b"x" * MAX_LINE_BYTES + b"\n", 0.0) == ["x" * MAX_LINE_BYTES]


# --- files


def test_a_file_is_read_as_it_grows(tmp_path: Path) -> None:
    path = tmp_path / "i.log"
    path.write_bytes(b"one\ntw")
    file = LogFile(path)
    assert file.read(0.0) == ["one"]
    with path.open("ab") as log:
        log.write(b"o\nthree")
    assert file.read(1.0) == ["two"]
    assert file.read(1.0, at_end=True) == ["three"]
    path.write_bytes(b"cut\n")
    assert file.read(2.0) == ["cut"]


def test_a_large_file_turns_over_while_its_writer_has_it_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_file, "MAX_BYTES", 1000)
    path = tmp_path / "i.log"
    file = LogFile(path)
    found = []
    with path.open("ab", buffering=0) as log:
        for number in range(300):
            log.write(b"line %d\n" % number)
            if number % 7 == 0:
                found += file.read(0.0)
            assert path.stat().st_size < 1100
    found += file.read(0.0)
    assert found == [f"line {number}" for number in range(300)]
    assert (tmp_path / "i.log.1").stat().st_size < 1100


def test_what_came_too_fast_is_left_out_with_a_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_file, "MAX_BYTES", 1000)
    monkeypatch.setattr(log_file, "MAX_READ_BYTES", 100)
    path = tmp_path / "i.log"
    path.write_bytes(b"123456789\n" * 200)
    file = LogFile(path)
    *read, mark = file.read(0.0)
    assert read == ["123456789"] * 20
    assert mark == f"[mmekit: 1800 bytes came too fast and are left out here; they are in {path}.1]"
    assert path.stat().st_size == 0
    assert (tmp_path / "i.log.1").stat().st_size == 2000
    path.write_bytes(b"again\n")
    assert file.read(0.0) == ["again"]


# --- batches


def test_batches_are_within_limits() -> None:
    small = deque(LogEvent(1, "x") for _ in range(MAX_BATCH_EVENTS + 1))
    assert len(next_batch(small)) == MAX_BATCH_EVENTS
    large = deque(LogEvent(1, "é" * (MAX_LINE_BYTES // 2)) for _ in range(5))
    batch = next_batch(large)
    assert len(batch) == 4
    assert sum(len(event.message.encode()) + 26 for event in batch) <= MAX_BATCH_BYTES
    assert len(large) == 5
