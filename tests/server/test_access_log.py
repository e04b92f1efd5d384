"""The access log: a line for each request however it ends, in both forms, whatever else is written."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.server import COMMAND, Answer, Server, image_environ, image_server, plain_model, until

UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d,\d{3}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    names = ["a", "b", 'c/ü "模"\x01\n']
    with image_server(tmp_path_factory.mktemp("models"), names, MMEKIT_WORKERS="1") as server:
        yield server
    for line in server.raw:
        assert json.loads(line)["level"]


def accesses(server: Server) -> list[dict[str, Any]]:
    return [line for line in server.lines if line["logger"] == "mmekit.access"]


def line_of(server: Server, answer: Answer) -> dict[str, Any]:
    """The one line of the request that was answered so."""
    wanted = answer.headers["x-request-id"]
    lines = until(lambda: [line for line in accesses(server) if line.get("request_id") == wanted])
    assert len(lines) == 1
    return dict(lines[0])


def raw_exchange(server: Server, data: bytes) -> bytes:
    """Send bytes and return all that comes until the server closes."""
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(data)
        received = b""
        while piece := connection.recv(65536):
            received += piece
        return received


def test_a_request_leaves_a_line_with_all_that_is_known_of_it(server: Server) -> None:
    answer = server.request(
        "POST", "/models/a/invoke?q=%20x", "echo hello", {"X-Amzn-SageMaker-Target-Model": "a.tar.gz"}
    )
    assert answer.text == "hello"
    line = line_of(server, answer)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    ms = line.pop("ms")
    assert 0 < ms < 10_000
    assert re.fullmatch(r"127\.0\.0\.1:\d+", line.pop("peer"))
    assert re.fullmatch(UUID, line.pop("request_id"))
    assert line == {
        "level": "INFO",
        "logger": "mmekit.access",
        "message": f"POST /models/a/invoke?q=%20x HTTP/1.1 200 {int(ms)}",
        "model": "a",
        "target": "a.tar.gz",
        "status": 200,
        "bytes": 5,
    }


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "model"),
    [
        ("POST", "/models/a/invoke", "raise it", 503, "a"),
        ("POST", "/models/a/invoke", "exit 7", 500, "a"),
        ("POST", "/models/a/invoke", "status 404", 404, "a"),
        ("POST", "/models/not-there/invoke", "x", 404, "not-there"),
        ("GET", "/nowhere", None, 404, None),
        ("PATCH", "/models", None, 405, None),
        ("POST", "/models", "{not json", 400, None),
        ("GET", "/models/a", None, 200, "a"),
        ("DELETE", "/models/not-there", None, 404, "not-there"),
    ],
)
def test_every_answer_leaves_one_line_with_its_status(
    server: Server, method: str, path: str, body: str | None, status: int, model: str | None
) -> None:
    answer = server.request(method, path, body, {"Content-Type": "application/json"})
    assert answer.status == status
    line = line_of(server, answer)
    assert (line["status"], line["bytes"], line.get("model")) == (status, len(answer.body), model)
    assert line["message"].startswith(f"{method} {path} HTTP/1.1 {status} ")


def test_names_and_paths_with_odd_characters_are_escaped(server: Server) -> None:
    path = "/models/c%2F%C3%BC%20%22%E6%A8%A1%22%01%0A/invoke"
    answer = server.request("POST", path, "echo odd")
    assert answer.text == "odd"
    line = line_of(server, answer)
    assert line["model"] == 'c/ü "模"\x01\n'
    assert line["message"].startswith(f"POST {path} ")


def test_a_target_model_in_utf_8_is_readable(server: Server) -> None:
    head = "POST /models/a/invoke?utf HTTP/1.1\r\nhost: x\r\nX-Amzn-SageMaker-Target-Model: é 模.tar.gz\r\n"
    raw_exchange(server, f"{head}content-length: 6\r\nconnection: close\r\n\r\necho x".encode())
    (line,) = until(lambda: [line for line in accesses(server) if "invoke?utf" in line["message"]])
    assert line["target"] == "é 模.tar.gz"


def test_a_quote_in_a_path_is_escaped(server: Server) -> None:
    raw_exchange(server, b'GET /say"hi"\\x HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n')
    until(lambda: [line for line in accesses(server) if 'say"hi"\\x' in line["message"]])


def test_a_streamed_answer_leaves_its_line_at_its_end_with_all_its_bytes(server: Server) -> None:
    answer = server.invoke("b", "stream 5 1000 0.01")
    assert len(answer.body) == 5000
    line = line_of(server, answer)
    assert (line["status"], line["bytes"]) == (200, 5000)
    assert line["ms"] >= 40


def test_a_client_that_leaves_is_a_499(server: Server, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        body = f"stay {runs}".encode()
        head = b"POST /models/b/invoke?left HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body)
        connection.sendall(head + body)
        until(runs.exists)

    def lines() -> list[dict[str, Any]]:
        return [line for line in accesses(server) if "invoke?left" in line["message"]]

    until(lines)
    runs.unlink()
    assert line_of(server, server.invoke("b", "echo after"))["status"] == 200  # the call has ended
    (line,) = lines()
    assert (line["status"], line["model"], line["bytes"]) == (499, "b", 0)


def test_a_client_that_leaves_a_stream_is_a_499_with_the_bytes_it_was_sent(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        body = b"stream 1000 1000 0.01"
        head = b"POST /models/b/invoke?half HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body)
        connection.sendall(head + body)
        received = b""
        while not received.endswith(b".") and (piece := connection.recv(1000)):
            received += piece
        assert received.startswith(b"HTTP/1.1 200")
    (line,) = until(lambda: [line for line in accesses(server) if "invoke?half" in line["message"]])
    assert line["status"] == 499
    assert 0 < line["bytes"] < 1_000_000


def test_requests_that_are_no_http_leave_a_line_too(server: Server) -> None:
    line_of(server, server.get("/models/a"))  # no line of an earlier request comes after this one's
    before = len(accesses(server))
    assert raw_exchange(server, b"\x00\x01garbage\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    long_path = b"/" + b"x" * 20_000
    assert raw_exchange(server, b"GET " + long_path + b" HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 414 ")
    too_large = b"POST /models/a/invoke HTTP/1.1\r\nhost: x\r\ncontent-length: 999999999\r\n\r\n"
    assert raw_exchange(server, too_large).startswith(b"HTTP/1.1 413 ")
    until(lambda: len(accesses(server)) >= before + 3)
    lines = accesses(server)[before:]
    assert [line["status"] for line in lines] == [400, 414, 413]
    assert lines[0]["message"] == "- - HTTP/1.1 400 0"
    assert "request_id" not in lines[0]
    assert lines[1]["message"].startswith("GET /xxxx")
    assert len(lines[1]["message"]) < 1100
    assert lines[2]["message"] == "POST /models/a/invoke HTTP/1.1 413 0"


def test_garbage_after_a_good_request_is_not_logged_as_that_request(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(b"GET /models/a?once HTTP/1.1\r\nhost: x\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        connection.sendall(b"\x00\x01\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 400 ")
    lines = until(lambda: [line for line in accesses(server)[-2:] if line["status"] == 400])
    assert lines[-1]["message"] == "- - HTTP/1.1 400 0"


def test_at_level_debug_pings_are_there_as_debug(tmp_path: Path) -> None:
    with Server(SAGEMAKER_CONTAINER_LOG_LEVEL="10") as server:
        answer = server.get("/ping")
        line = line_of(server, answer)
        assert (line["level"], line["status"]) == ("DEBUG", 200)
        assert line["message"].startswith("GET /ping HTTP/1.1 200 ")
        assert line_of(server, server.get("/models"))["level"] == "DEBUG"
        assert line_of(server, server.get("/nowhere"))["level"] == "INFO"


def test_the_access_log_can_be_switched_off(tmp_path: Path) -> None:
    with image_server(tmp_path, ["a"], MMEKIT_ACCESS_LOG="false") as server:
        assert server.invoke("a", "echo unseen").text == "unseen"
    assert not accesses(server)


def test_the_last_lines_are_written_when_the_server_stops(tmp_path: Path) -> None:
    with image_server(tmp_path, ["a"]) as server:
        answers = [server.invoke("a", f"echo {number}") for number in range(50)]
    ids = {line["request_id"] for line in accesses(server) if "request_id" in line}
    assert {answer.headers["x-request-id"] for answer in answers} <= ids


def test_every_line_is_json_while_models_print_garbage_and_requests_fly(tmp_path: Path) -> None:
    with image_server(tmp_path, ["a", "b", "c"], MMEKIT_WORKERS="2") as server:
        noise = "".join(map(chr, range(1, 300))) + "\u2028\x85\ud7ff" + "x" * 9000
        calls = [
            server.later(server.invoke, name, f"print {number} {noise}" if number % 2 else f"size {number}")
            for number in range(100)
            for name in ("a", "b", "c")
        ]
        answers = [call.result() for call in calls]
    assert {answer.status for answer in answers} == {200}
    lines = [json.loads(line) for line in server.raw]
    logged = [line["request_id"] for line in lines if line["logger"] == "mmekit.access" and "model" in line]
    wanted = [answer.headers["x-request-id"] for answer in answers]
    assert sorted(wanted) == sorted(logged[-len(wanted) :])
    printed = {line["request_id"] for line in lines if line["logger"] == "mmekit.output" and "model" in line}
    assert printed <= set(wanted)
    assert len(printed) == 150


def test_lines_that_nobody_reads_are_dropped_and_counted_and_stop_nobody(tmp_path: Path) -> None:
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
        path = b"/models/a?" + b"x" * 8000
        request = b"GET " + path + b" HTTP/1.1\r\nhost: x\r\n\r\n"
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            for _ in range(1300):
                connection.sendall(request)
                assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        assert re.search(
            r"^mmekit_access_log_dropped_lines_total [1-9]", server.get("/metrics").text, re.MULTILINE
        )
        # Read before the stop, which waits for a slow reader for two seconds only.
        rest = b""
        while b"lines of the access log were dropped" not in rest:
            piece = os.read(reader, 1 << 20)
            assert piece, rest[-1000:]
            rest += piece
        process.send_signal(signal.SIGTERM)
        while piece := os.read(reader, 1 << 20):
            rest += piece
        assert process.wait(20) == 0
    finally:
        os.close(reader)
        if process.poll() is None:
            process.kill()
            process.wait()
    for line in rest.splitlines()[1:]:
        json.loads(line)


def test_in_mms_form_the_lines_are_those_of_mms(tmp_path: Path) -> None:
    with image_server(tmp_path, ["a"], MMEKIT_LOG_FORMAT="mms") as server:
        answer = server.invoke("a", "echo hello")
        assert server.get("/no?x=1").status == 404
        until(lambda: "/no?x=1" in "".join(server.raw))
    text = "".join(server.raw)
    assert answer.text == "hello"
    host = re.escape(socket.gethostname())
    for request, status, kind in (("POST /models/a/invoke", 200, "2XX"), ("GET /no?x=1", 404, "4XX")):
        pattern = (
            rf"^{TIME} \[INFO \] \S+ ACCESS_LOG - /127\.0\.0\.1:\d+ "
            rf'"{re.escape(request)} HTTP/1.1" {status} \d+\n'
            rf"{TIME} \[INFO \] \S+ MMS_METRICS - "
            rf"Requests{kind}\.Count:1\|#Level:Host\|#hostname:{host},timestamp:\d{{10}}$"
        )
        assert re.search(pattern, text, re.MULTILINE), text


def test_in_mms_form_every_line_has_its_start_and_pings_are_silent(tmp_path: Path) -> None:
    with image_server(tmp_path, ["a"], MMEKIT_LOG_FORMAT="mms") as server:
        assert server.invoke("a", "print one\r two\nthree").text == "printed"
        assert server.invoke("a", "raise it").status == 503
        assert server.get("/ping").status == 200
        until(lambda: "ValueError: it" in "".join(server.raw))
    for line in server.raw:
        assert re.match(rf"{TIME} \[(FATAL|ERROR|WARN |INFO |DEBUG)\] \S+ \S+ - |\t", line), line
    text = "".join(server.raw)
    assert "/ping" not in text
    assert re.search(rf"^{TIME} \[INFO \] W-\d+-a-stdout MODEL_LOG - three$", text, re.MULTILINE)
