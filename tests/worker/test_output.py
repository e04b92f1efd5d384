"""What a model prints arrives line by line, with its name, through a real pipe."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmekit.lines import MAX_LINE, PIPE_BUF, Line, LineParser, pieces, tag
from mmekit.worker.messages import Call
from mmekit.worker.metrics import Dimension, Metric
from mmekit.worker.output import Streams, install

CUT = f" … [line cut after {MAX_LINE} bytes]"


#: Model, stream and text of a line.
Plain = tuple[str | None, str | None, str]


def plain(lines: list[Line]) -> list[Plain]:
    return [line[:3] for line in lines]


@contextmanager
def piped() -> Iterator[tuple[Streams, list[Plain]]]:
    """Yield streams into a pipe, and the lines that came out of it, complete after the block."""
    with piped_lines() as (streams, lines):
        read: list[Plain] = []
        yield streams, read
    read += plain(lines)


@contextmanager
def piped_lines() -> Iterator[tuple[Streams, list[Line]]]:
    """The same, with the target model and the request of each line."""
    read_end, write_end = os.pipe()
    lines: list[Line] = []

    def read() -> None:
        parser = LineParser()
        while data := os.read(read_end, 1000):
            lines.extend(parser.feed(data))
        lines.extend(parser.close())

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield Streams(write_end, write_end), lines
    finally:
        os.close(write_end)
        reader.join()
        os.close(read_end)


def test_lines_carry_the_model_whose_code_runs_and_their_stream() -> None:
    with piped() as (streams, lines):
        streams.model = "a"
        print("one", "two", file=streams.out)
        streams.model = "b"
        print("grüße\nthree", file=streams.err)
    assert lines == [("a", "stdout", "one two"), ("b", "stderr", "grüße"), ("b", "stderr", "three")]


def test_a_line_goes_out_at_its_end_not_before() -> None:
    read_end, write_end = os.pipe()
    os.set_blocking(read_end, False)
    streams = Streams(write_end, write_end)
    streams.out.write("half")
    streams.out.flush()
    with pytest.raises(BlockingIOError):
        os.read(read_end, 100)
    streams.out.write(" whole\n")
    assert plain(LineParser().feed(os.read(read_end, 100))) == [("", "stdout", "half whole")]
    os.close(read_end)
    os.close(write_end)


def test_a_line_without_an_end_goes_out_after_the_call() -> None:
    with piped() as (streams, lines):
        streams.model = "a"
        print("no end", end="", file=streams.out)
        streams.flush()
        streams.flush()
    assert lines == [("a", "stdout", "no end")]


@pytest.mark.parametrize("length", [PIPE_BUF - 20, PIPE_BUF, PIPE_BUF + 1, MAX_LINE])
def test_a_long_line_is_sent_in_pieces_and_arrives_whole(length: int) -> None:
    with piped() as (streams, lines):
        streams.model = "a"
        print("x" * length, file=streams.out)
        print("after", file=streams.out)
    assert lines == [("a", "stdout", "x" * length), ("a", "stdout", "after")]


@pytest.mark.parametrize("end", ["\n", ""])
def test_an_overlong_line_is_cut_with_a_mark(end: str) -> None:
    with piped() as (streams, lines):
        for _ in range(10):
            print("x" * 100_000, end="", file=streams.out)
        print(end=end, file=streams.out)
        streams.flush()
        print("after", file=streams.out)
    assert lines == [("", "stdout", "x" * MAX_LINE + CUT), ("", "stdout", "after")]


@pytest.mark.parametrize("model", ["a/b c", "\x01\x02\n", "模型", "\\x02", "n" * 5000])
def test_any_name_of_a_model_fits_in_a_tag(model: str) -> None:
    with piped() as (streams, lines):
        streams.model = model
        print("text", file=streams.out)
    assert lines == [(model[:1024], "stdout", "text")]


def call(request_id: str, *headers: tuple[bytes, bytes]) -> Call:
    return Call(request_id, list(headers), 0)


def test_lines_carry_the_request_and_the_target_model_it_names() -> None:
    target = (b"X-Amzn-SageMaker-Target-Model", b"sent.tar.gz")
    with piped_lines() as (streams, lines):
        streams.model, streams.targets["a"] = "a", "loaded.tar.gz"
        print("at the load", file=streams.out)
        streams.calls = [call("1")]
        print("in a call", file=streams.out)
        streams.calls = [call("2", target)]
        print("with a target", file=streams.err)
        streams.calls = ()
        print("after it", file=streams.err)
    assert [(line.request_id, line.target, line.text) for line in lines] == [
        ("", "loaded.tar.gz", "at the load"),
        ("1", "loaded.tar.gz", "in a call"),
        ("2", "sent.tar.gz", "with a target"),
        ("", "loaded.tar.gz", "after it"),
    ]


def test_lines_of_a_batch_carry_the_ids_of_its_requests_and_are_bounded() -> None:
    with piped_lines() as (streams, lines):
        streams.calls = [call(str(number)) for number in range(3)]
        print("three", file=streams.out)
        streams.calls = [call(f"{number:036d}") for number in range(1000)]
        print("many", file=streams.out)
    assert lines[0].request_id == "0,1,2"
    assert lines[1].request_id.startswith(f"{0:036d},{1:036d},")
    assert len(lines[1].request_id) < 1300


@pytest.mark.parametrize("target", ["a/b c", "\x01\x02\n", "ü" * 5000])
def test_any_target_model_fits_in_a_tag(target: str) -> None:
    with piped_lines() as (streams, lines):
        streams.targets[""] = target
        print("text", file=streams.out)
    (line,) = lines
    assert line.text == "text"
    assert line.target[:80] == target[:80]


def test_what_is_reported_comes_as_json_whatever_it_is() -> None:
    class Odd:
        def __str__(self) -> str:
            return "odd\n\x01"

    metrics = [
        Metric("Rows", 3, "Count", [Dimension("Level", "Model")], "1"),
        Metric("Odd\x02", Odd(), None, []),
        Metric("NaN", float("nan"), "", []),
        Metric("Half", Fraction(1, 2), "ms", []),
    ]
    with piped() as (streams, lines):
        streams.model = "a"
        streams.report(metrics)
    assert {(model, stream) for model, stream, _ in lines} == {("a", "metrics")}
    assert [json.loads(text) for _, _, text in lines] == [
        ["Rows", 3, "Count", [["Level", "Model"]], "1"],
        ["Odd\x02", "odd\n\x01", "unit", [], None],
        ["NaN", "nan", "", [], None],
        ["Half", 0.5, "Milliseconds", [], None],
    ]


def test_every_write_is_atomic_on_a_pipe() -> None:
    ids = [f"{number:036d}" for number in range(1000)]
    for tags in (tag("a", "stderr"), tag("n" * 5000, "stderr", "ü" * 5000, ids)):
        assert all(len(piece) <= PIPE_BUF for piece in pieces(tags, b"x" * MAX_LINE))


def test_a_progress_bar_shows_its_last_state() -> None:
    with piped() as (streams, lines):
        for percent in range(5000):
            streams.err.write(f"\rdone {percent}")
        streams.err.write("\n")
        streams.err.write("windows\r\n")
    assert lines == [("", "stderr", "done 4999"), ("", "stderr", "windows")]


def test_what_cannot_be_encoded_is_escaped_and_bytes_may_be_written_below() -> None:
    with piped() as (streams, lines):
        print("\ud800", file=streams.out)
        streams.out.buffer.write(b"raw \xff\n")
    assert lines == [("", "stdout", "\\ud800"), ("", "stdout", "raw �")]


def test_what_native_code_writes_has_no_tag() -> None:
    with piped() as (streams, lines):
        os.write(streams.out.fileno(), b"native\n")
        os.write(streams.out.fileno(), b"\x01 looks like one\n")
        os.write(streams.out.fileno(), b"\x01spoof\x02stdout\n")
        os.write(streams.out.fileno(), b"n" * 60_000 + b"\nend")
    assert lines == [
        (None, None, "native"),
        (None, None, "\x01 looks like one"),
        (None, None, "\x01spoof\x02stdout"),
        (None, None, "n" * MAX_LINE + CUT),
        (None, None, "end"),
    ]


def test_text_with_the_dividing_bytes_stays_text() -> None:
    with piped() as (streams, lines):
        print("\x01other\x02stdout\x02fake", file=streams.out)
    assert lines == [("", "stdout", "\x01other\x02stdout\x02fake")]


@pytest.mark.parametrize("size", [1, 2, 7, 4096])
def test_lines_are_the_same_however_the_bytes_are_cut(size: int) -> None:
    tags = tag("a", "stdout")
    data = b"".join([*pieces(tags, b"x" * 5000), b"native\n", *pieces(tags, b"end"), b"rest"])
    parser = LineParser()
    lines = [line for start in range(0, len(data), size) for line in parser.feed(data[start : start + size])]
    assert plain([*lines, *parser.close()]) == [
        ("a", "stdout", "x" * 5000),
        (None, None, "native"),
        ("a", "stdout", "end"),
        (None, None, "rest"),
    ]


def test_a_stream_is_what_libraries_expect_of_one() -> None:
    with piped() as (streams, _):
        assert not streams.out.isatty()
        assert streams.out.writable()
        assert (streams.out.encoding, streams.out.errors) == ("utf-8", "backslashreplace")
        assert streams.out.write("four") == 4
        assert streams.out.buffer.write(memoryview(b"bytes")) == 5


def test_installing_replaces_both_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stdout", "stderr", "__stdout__", "__stderr__"):
        monkeypatch.setattr(sys, name, getattr(sys, name))
    read_end, write_end = os.pipe()
    streams = install(write_end, write_end)
    streams.model = "a"
    print("printed")
    assert plain(LineParser().feed(os.read(read_end, 100))) == [("a", "stdout", "printed")]
    os.close(read_end)
    os.close(write_end)


def test_printing_when_the_server_has_gone_is_no_error() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    print("nobody reads this", file=Streams(write_end, write_end).out)
    os.close(write_end)


@given(st.lists(st.binary(max_size=50) | st.sampled_from([b"\x01", b"\x02", b"\n", b"\\q", b"%", b"+"])))
def test_no_bytes_make_the_parser_fail(parts: list[bytes]) -> None:
    parser = LineParser()
    lines = [line for part in parts for line in parser.feed(part)]
    lines += parser.close()
    assert all(isinstance(line.text, str) for line in lines)
