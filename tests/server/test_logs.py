"""The log: one JSON object a line, what models print under their names, tracebacks, and no noise."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmekit_toolkit.contract.watch import Watch
from tests.support.server import MODELS, Server, image_server, until

LEVELS = {"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with image_server(
        tmp_path_factory.mktemp("models"), ["a", "b", "c/ü 模\x01\x02\nd"], MMEKIT_WORKERS="1"
    ) as server:
        yield server
    assert server.raw
    for line in server.raw:
        is_log_line(line)


def is_log_line(line: str) -> None:
    """Hold a line of standard error to its form."""
    assert line.endswith("\n")
    record = json.loads(line)
    assert {"time", "level", "logger", "message"} <= set(record)
    assert set(record) <= {
        *("time", "level", "logger", "message", "exception"),
        *("model", "target", "worker", "stream", "request_id"),
        *("status", "ms", "bytes", "peer"),
        *("metric", "value", "unit", "dimensions"),
    }
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", record["time"])
    assert record["level"] in LEVELS


def test_what_a_model_prints_carries_its_name(server: Server) -> None:
    for name in ("a", "b"):
        assert server.invoke(name, f"print hello from {name}").text == "printed"
    for name in ("a", "b"):
        (line,) = until(lambda name=name: server.logged(f"hello from {name}"))
        assert (line["model"], line["stream"], line["level"]) == (name, "stdout", "INFO")
        assert line["worker"] > 0


def test_a_name_with_control_characters_does_not_break_the_log(server: Server) -> None:
    assert server.invoke("c%2F%C3%BC%20%E6%A8%A1%01%02%0Ad", "print odd name").text == "printed"
    (line,) = until(lambda: server.logged("odd name"))
    assert line["model"] == "c/ü 模\x01\x02\nd"


def test_what_looks_like_a_log_line_is_a_message_all_the_same(server: Server) -> None:
    forged = '{"time": "now", "level": "CRITICAL", "logger": "mmekit", "message": "forged"}'
    assert server.invoke("a", f"print {forged}").status == 200
    (line,) = until(lambda: server.logged("forged"))
    assert (line["level"], line["model"], line["message"]) == ("INFO", "a", forged)


@pytest.mark.parametrize("text", ["ERROR is what I print", "INFO: ready", "CRITICAL"])
def test_a_printed_word_that_names_a_level_stays(server: Server, text: str) -> None:
    assert server.invoke("a", f"print {text} once").status == 200
    (line,) = until(lambda: server.logged(f"{text} once"))
    assert line["level"] == "INFO"
    assert line["message"] == f"{text} once"


def test_several_lines_of_one_print_are_several_lines_of_the_log(server: Server) -> None:
    assert server.invoke("a", "print first of two\nsecond of two").status == 200
    until(lambda: server.logged("second of two"))
    assert [line["message"] for line in server.lines if "of two" in line["message"]] == [
        "first of two",
        "second of two",
    ]


def test_bytes_that_are_no_text_do_not_break_the_log(server: Server, tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "inference.py").write_text(
        "import os, sys\n"
        "def model_fn(model_dir):\n    return None\n"
        "def transform_fn(model, input_data, content_type, accept):\n"
        "    os.write(1, b'past python \\xff\\xfe\\n')\n"
        "    sys.stdout.buffer.write(b'buffered \\xff\\n')\n"
        "    print('half a character \\ud800')\n"
        "    return 'printed', 'text/plain'\n"
    )
    assert server.load("raw", tmp_path).status == 200
    assert server.invoke("raw", b"").text == "printed"
    until(lambda: server.logged("past python"))
    until(lambda: server.logged("buffered"))
    until(lambda: server.logged("half a character"))
    assert server.unload("raw").status == 200


def test_the_traceback_of_a_handlers_error_is_in_the_log(server: Server) -> None:
    assert server.invoke("a", "raise the reason").status == 503
    # The traceback's last line; the answer's own line has it behind another text.
    until(lambda: [x for x in server.logged("ValueError: the reason") if "failed" not in x["message"]])
    lines = [line for line in server.lines if line.get("model") == "a"]
    text = "\n".join(str(line["message"]) for line in lines)
    assert "ValueError: the reason" in text
    assert re.search(r'File ".*image_handler\.py", line \d+, in do_raise', text)
    (first,) = [line for line in lines if "Prediction failed: ValueError: the reason" in line["message"]]
    assert first["level"] == "ERROR"


def test_the_traceback_of_a_failed_load_is_in_the_log(server: Server) -> None:
    assert server.load("broken", MODELS / "raises_on_load").status == 500
    until(lambda: server.logged("Load of broken failed"))
    until(lambda: [line for line in server.logged("in model_fn") if line.get("model") == "broken"])


def test_a_crash_is_in_the_log_with_its_reason(server: Server) -> None:
    assert server.invoke("a", "exit 9").status == 500
    (line,) = until(lambda: server.logged("exited with code 9"))
    assert line["level"] == "WARNING"
    assert server.invoke("a", "echo on").status == 200


def test_loads_and_unloads_are_in_the_log(server: Server, tmp_path: Path) -> None:
    (tmp_path / "weights").write_text("x")
    assert server.load("noted", tmp_path).status == 200
    assert server.unload("noted").status == 200
    (loaded,) = until(lambda: server.logged("Loaded noted from"))
    assert str(tmp_path) in loaded["message"]
    assert loaded["model"] == "noted"
    until(lambda: server.logged("Unloaded noted."))


def test_pings_and_polls_leave_no_lines(server: Server) -> None:
    for _ in range(20):
        assert server.get("/ping").status == 200
        assert server.get("/models").status == 200
        assert server.get("/metrics").status == 200
    assert server.request("POST", "/models/b/invoke?last", "echo quiet").status == 200
    until(lambda: server.logged("/models/b/invoke?last"))  # lines of the access log keep their order
    polls = ("GET /ping", "GET /models HTTP", "GET /metrics")
    assert not [line for line in server.lines if line["message"].startswith(polls)]


def test_what_a_model_prints_carries_the_request_and_the_target_model(server: Server) -> None:
    header = {"X-Amzn-SageMaker-Target-Model": 'a "quoted".tar.gz'}
    answer = server.request("POST", "/models/a/invoke", "print of a request", header)
    assert answer.text == "printed"
    (line,) = until(lambda: server.logged("of a request"))
    assert line["request_id"] == answer.headers["x-request-id"]
    assert line["target"] == 'a "quoted".tar.gz'


def test_the_target_model_of_a_load_is_in_the_log_of_its_requests(server: Server, tmp_path: Path) -> None:
    (tmp_path / "weights").write_text("x")
    body = json.dumps({"model_name": "aimed", "url": str(tmp_path)})
    headers = {"Content-Type": "application/json", "X-Amzn-SageMaker-Target-Model": "aimed.tar.gz"}
    assert server.request("POST", "/models", body, headers).status == 200
    answer = server.invoke("aimed", "print aimed well")
    (line,) = until(lambda: server.logged("aimed well"))
    assert (line["target"], line["request_id"]) == ("aimed.tar.gz", answer.headers["x-request-id"])
    answer = server.invoke("aimed", "raise aimed badly")
    lines = until(lambda: server.logged("ValueError: aimed badly"))
    assert {line["request_id"] for line in lines} == {answer.headers["x-request-id"]}
    assert {line["target"] for line in lines} == {"aimed.tar.gz"}
    assert server.unload("aimed").status == 200


def test_megabytes_of_prints_stop_nobody(tmp_path: Path) -> None:
    with image_server(tmp_path, ["a"]) as server:
        assert server.load("noisy", MODELS / "prints_megabytes").status == 200
        slowest = 0.0
        with Watch() as watch:
            calls = [server.later(server.invoke, "noisy", b"1") for _ in range(3)]
            while not all(call.done() for call in calls):
                slowest = max(slowest, server.get("/ping").seconds)
                assert server.invoke("a", "echo quick").text == "quick"
        assert slowest - watch.lost_s < 1
        assert {call.result().text for call in calls} == {"printed"}
        until(lambda: [line for line in server.logged("zzzz") if line["model"] == "noisy"])
        cut = [line for line in server.logged("yyyy") if line["model"] == "noisy"]
        assert all(len(line["message"]) < 9000 for line in cut)
        assert "line cut after" in cut[0]["message"]
    for line in server.raw:
        is_log_line(line)


def test_what_models_print_last_is_in_the_log_of_a_server_that_stops(tmp_path: Path) -> None:
    names = ["a", "b", "c", "d"]
    lines = "\n".join(f"line {number}" for number in range(2000))
    with image_server(tmp_path, names, MMEKIT_WORKERS="4") as server:
        calls = [server.later(server.invoke, name, f"print {lines}") for name in names]
        until(
            lambda: all(any(line.get("model") == name for line in server.logged("line ")) for name in names)
        )
        server.signal(signal.SIGTERM)
        assert {call.result().text for call in calls} == {"printed"}
        assert server.wait() == 0
    for name in names:
        printed = [line["message"] for line in server.logged("line ") if line.get("model") == name]
        assert printed == lines.split("\n")


def test_a_log_that_nobody_reads_stops_nobody(tmp_path: Path) -> None:
    """A full pipe at standard error: lines are dropped, calls go on."""
    import os
    import subprocess

    from tests.support.server import COMMAND, image_environ, plain_model

    server = Server(**image_environ())
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [COMMAND, "serve"], env=server.environ, stderr=writer, stdin=subprocess.DEVNULL
    )
    os.close(writer)
    try:
        text = b""
        while not (listens := re.search(rb"Listening on 127\.0\.0\.1:(\d+)\.", text)):
            text += os.read(reader, 4096)
        server.port = int(listens[1])
        server.addresses = dict.fromkeys(("inference", "management"), f"http://127.0.0.1:{server.port}")
        until(lambda: server.get("/ping").status == 200)
        assert server.load("a", plain_model(tmp_path)).status == 200
        for _ in range(40):
            assert server.invoke("a", "print " + "x" * 8000, timeout_s=30).text == "printed"
        assert server.get("/ping").seconds < 20
        process.send_signal(signal.SIGTERM)
        while os.read(reader, 65536):
            pass
        assert process.wait(20) == 0
    finally:
        os.close(reader)
        if process.poll() is None:
            process.kill()
            process.wait()
