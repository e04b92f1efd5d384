"""The stand-in containers do what their knobs say; other tests of the endpoint rely on them."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

PROGRAMS = Path(__file__).parent / "programs"
TARGET = "X-Amzn-SageMaker-Target-Model"


class Program:
    """A running program and one kept connection to it."""

    def __init__(self, name: str, base: Path, **environ: str) -> None:
        self.base = base
        self.journal = base / "journal"
        self.process = subprocess.Popen(
            [PROGRAMS / f"{name}.py", "serve"],
            env={
                "PATH": os.environ["PATH"],
                "SAGEMAKER_BIND_TO_PORT": "0",
                "SAGEMAKER_BASE_DIR": str(base),
                "STUB_JOURNAL": str(self.journal),
                **environ,
            },
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout
        port = int(self.process.stdout.readline().split()[-1].rstrip("."))
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)

    def ask(
        self, method: str, path: str, body: Any = None, target: str | None = "a.tar.gz"
    ) -> tuple[int, Any]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else None
        self.connection.request(method, path, data, {TARGET: target} if target else {})
        response = self.connection.getresponse()
        text = response.read()
        return response.status, json.loads(text) if text[:1] == b"{" else text

    def load(self, name: str, target: str | None = None, **files: str) -> tuple[int, Any]:
        folder = self.base / "models" / name / "model"
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            (folder / file).write_text(text)
        return self.ask(
            "POST", "/models", {"model_name": name, "url": str(folder)}, target or f"{name}.tar.gz"
        )

    def invoke(self, name: str, target: str | None = None) -> tuple[int, Any]:
        return self.ask("POST", f"/models/{name}/invoke", b"\xffbody", target or f"{name}.tar.gz")

    def close(self) -> None:
        self.connection.close()
        self.process.kill()
        self.process.communicate()


Start = Callable[..., Program]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    programs: list[Program] = []

    def start(name: str = "multi_model", **environ: str) -> Program:
        programs.append(Program(name, tmp_path, **environ))
        return programs[-1]

    yield start
    for program in programs:
        program.close()


def test_a_model_is_loaded_listed_invoked_and_unloaded(start: Start) -> None:
    stub = start()

    assert stub.ask("GET", "/ping") == (200, b"")
    assert stub.load("a", value="one\n")[0] == 200
    url = str(stub.base / "models/a/model")
    assert stub.ask("GET", "/models") == (200, {"models": [{"modelName": "a", "modelUrl": url}]})
    assert stub.ask("GET", "/models/a") == (200, {"modelName": "a", "modelUrl": url})
    status, answer = stub.invoke("a")
    assert status == 200
    assert answer.pop("headers")["x-amzn-sagemaker-target-model"] == "a.tar.gz"
    assert answer == {
        "model": "a",
        "url": url,
        "target": "a.tar.gz",
        "value": "one",
        "pid": stub.process.pid,
        "body": "\ufffdbody",
        "body_bytes": 5,
    }
    assert stub.load("a")[0] == 409
    assert stub.ask("DELETE", "/models/a")[0] == 200
    assert stub.ask("DELETE", "/models/a")[0] == 404
    assert stub.invoke("a")[0] == 404
    assert stub.ask("GET", "/models/a")[0] == 404


def test_a_single_model_answers_invocations(start: Start) -> None:
    stub = start()
    (stub.base / "model").mkdir()
    (stub.base / "model" / "value").write_text("single")

    status, answer = stub.ask("POST", "/invocations", b"x", target=None)

    assert (status, answer["value"], answer["model"], answer["target"]) == (200, "single", None, None)


def test_lists_come_in_pages(start: Start) -> None:
    stub = start(STUB_PAGE="2")
    for name in "abc":
        stub.load(name)

    _, first = stub.ask("GET", "/models")
    _, second = stub.ask("GET", f"/models?next_page_token={first['nextPageToken']}")

    assert [model["modelName"] for model in first["models"] + second["models"]] == ["a", "b", "c"]
    assert "nextPageToken" not in second


def test_capacity_is_freed_by_unloading(start: Start) -> None:
    stub = start(STUB_CAPACITY="1")
    assert stub.load("a")[0] == 200
    assert stub.load("b")[0] == 507
    stub.ask("DELETE", "/models/a")
    assert stub.load("b")[0] == 200


def test_invocations_find_no_memory_while_others_are_loaded(start: Start) -> None:
    stub = start(STUB_INVOKE_507="9")
    stub.load("a")
    assert stub.invoke("a")[0] == 200
    stub.load("b")
    assert stub.invoke("b")[0] == 507
    stub.ask("DELETE", "/models/a")
    assert stub.invoke("b")[0] == 200


@pytest.mark.parametrize("status", [409, 500, 507])
def test_a_load_answers_what_it_was_told(start: Start, status: int) -> None:
    stub = start(STUB_LOAD=str(status))
    assert stub.load("a")[0] == status
    assert stub.invoke("a")[0] == 404
    assert stub.load("b", load_status="418")[0] == 418


def test_an_invocation_answers_what_it_was_told(start: Start) -> None:
    stub = start()
    stub.load("a", invoke_status="503")
    status, answer = stub.invoke("a")
    assert (status, answer["message"]) == (503, "the stub was told to answer 503 to invoke")


def test_rubbish_is_not_http(start: Start) -> None:
    stub = start(STUB_LOAD="rubbish", STUB_MODELS="rubbish")
    assert stub.ask("GET", "/models") == (200, b"this is not JSON")
    with pytest.raises(http.client.BadStatusLine):
        stub.load("a")


def test_a_hanging_load_does_not_stop_the_rest(start: Start) -> None:
    stub = start()
    stub.connection.timeout = 0.5
    with pytest.raises(socket.timeout):
        stub.load("a", load_status="hang")
    stub.connection.close()
    stub.connection.timeout = 20
    assert stub.ask("GET", "/ping")[0] == 200


def test_calls_take_as_long_as_told(start: Start) -> None:
    stub = start(STUB_LOAD_S="0.2", STUB_INVOKE_S="60")
    began = time.monotonic()
    stub.load("a", invoke_s="0.2")
    stub.invoke("a")
    assert 0.4 < time.monotonic() - began < 10


@pytest.mark.parametrize("call", ["load", "invoke"])
def test_it_dies_where_it_was_told(start: Start, call: str) -> None:
    stub = start()
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        stub.load("a", dies=call)
        stub.invoke("a")
    assert stub.process.wait(10) == 3


def test_pings_answer_as_told(start: Start) -> None:
    assert start(STUB_PING="never").ask("GET", "/ping")[0] == 503
    assert start(STUB_MODELS="404").ask("GET", "/models")[0] == 404
    dying = start(STUB_PING="dies")
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        dying.ask("GET", "/ping")


def test_the_journal_has_every_request(start: Start) -> None:
    stub = start()
    stub.load("a")
    stub.ask("GET", "/ping", target=None)

    first, second = [json.loads(line) for line in stub.journal.read_text().splitlines()]

    assert (first["method"], first["path"], first["target"]) == ("POST", "/models", "a.tar.gz")
    assert first["body_bytes"] > 10
    assert (second["method"], second["path"], second["target"]) == ("GET", "/ping", None)
    assert first["time"] < second["time"] < time.monotonic()
    assert first["pid"] == stub.process.pid


def test_sigterm_ends_it(start: Start) -> None:
    stub = start()
    stub.ask("GET", "/ping")
    stub.process.send_signal(signal.SIGTERM)
    assert stub.process.wait(10) == 0


def test_triton_keeps_models_by_their_target(start: Start) -> None:
    triton = start("triton_like")
    assert triton.ask("GET", "/ping")[0] == 200
    assert triton.load("a1.b_", "x/a.tar.gz") == (200, b"")
    assert triton.invoke("a1.b_", "x/a.tar.gz")[0] == 200
    assert triton.ask("GET", "/models") == (200, {"models": [{}]})
    assert triton.ask("GET", "/models/a1.b_")[1]["modelName"] == "a1.b_"
    assert triton.load("a1.b_", "x/a.tar.gz")[0] == 409

    assert triton.invoke("a1.b_", "other.tar.gz")[0] == 400
    assert triton.ask("POST", "/models/a1.b_/invoke", b"", target=None)[0] == 400
    assert triton.ask("DELETE", "/models/a1.b_", target=None)[0] == 400
    assert triton.ask("DELETE", "/models/a1.b_", target="x/a.tar.gz") == (200, b"")
    assert triton.ask("DELETE", "/models/a1.b_", target="x/a.tar.gz") == (404, b"")


def test_triton_refuses_names_paths_and_routes_it_does_not_know(start: Start) -> None:
    triton = start("triton_like")
    assert triton.load("with-dash")[0] == 400
    assert triton.ask("POST", "/models", {"model_name": "a", "url": str(triton.base)})[0] == 400
    assert triton.ask("POST", "/models", {"model_name": "a", "url": "/x/models/a/model"})[0] == 400
    assert triton.ask("GET", "/metrics") == (400, b"")


def test_streams_come_piece_by_piece(start: Start) -> None:
    streams = start("streams")
    streams.connection.request("POST", "/invocations", json.dumps({"pieces": ["one", "two"], "pause_s": 0.1}))
    response = streams.connection.getresponse()
    assert response.read1() == b"one"
    assert response.read() == b"two"
    assert streams.load("a")[0] == 200

    streams.connection.request("POST", "/invocations", json.dumps({"pieces": ["one"], "breaks": True}))
    with pytest.raises(http.client.IncompleteRead):
        streams.connection.getresponse().read()
