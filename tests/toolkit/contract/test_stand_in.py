"""The stand-in without a sabotage keeps the contract, seen by raw HTTP and not by the kit."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mmekit_toolkit.contract import probe
from tests.support.mms import free_port

HERE = Path(__file__).parent
ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"


class StandIn:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "sabotage", "serve"],
            env={"PYTHONPATH": str(HERE), "SAGEMAKER_BIND_TO_PORT": str(self.port)},
        )
        deadline = time.monotonic() + 20
        while True:
            try:
                assert self.ask("GET", "/ping")[0] == 200
                return
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.02)

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes, dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            data = json.dumps(body) if isinstance(body, dict) else body
            connection.request(method, path, data, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read(), {k.lower(): v for k, v in answer.getheaders()}
        finally:
            connection.close()

    def model(self, name: str, **more: Any) -> dict[str, str]:
        folder = self.folder / name / "model"
        folder.mkdir(parents=True)
        probe.write(folder, name, **more)
        return {"model_name": name, "url": str(folder)}

    def load(self, name: str, **more: Any) -> int:
        return self.ask("POST", "/models", self.model(name, **more))[0]

    def listed(self) -> list[str]:
        names, token = [], ""
        while True:
            page = json.loads(self.ask("GET", f"/models?next_page_token={token}")[1])
            names += [entry["modelName"] for entry in page["models"]]
            token = page.get("nextPageToken")
            if not token:
                return names

    def held_mib(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("RssAnon")).split()[1]) >> 10


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StandIn]:
    server = StandIn(tmp_path)
    yield server
    server.process.kill()
    server.process.wait(10)


def test_load_get_invoke_and_unload_are_answered_as_the_contract_says(server: StandIn) -> None:
    assert json.loads(server.ask("GET", "/models")[1]) == {"models": []}
    order = server.model("A.b_1")
    entry = {"modelName": "A.b_1", "modelUrl": order["url"]}
    assert server.ask("POST", "/models", order)[0] == 200
    assert server.ask("POST", "/models", order)[0] == 409
    assert json.loads(server.ask("GET", "/models")[1]) == {"models": [entry]}
    assert json.loads(server.ask("GET", "/models/A.b_1")[1]) == entry
    headers = {"Content-Type": "text/csv; charset=utf-8", "Accept": "x/y", ATTRIBUTES: "a" * 1024}
    status, body, answered = server.ask("POST", "/models/A.b_1/invoke", "1,2", headers)
    assert (status, body, answered["content-type"]) == (200, b"1,2", headers["Content-Type"])
    assert answered[ATTRIBUTES.lower()] == "a" * 1024
    facts = json.loads(server.ask("POST", "/models/A.b_1/invoke", probe.facts(6 << 20), headers)[1])
    assert (facts["identity"], facts["body_bytes"]) == ("A.b_1", 6 << 20)
    assert facts["headers"]["accept"] == "x/y"
    assert len(server.ask("POST", "/models/A.b_1/invoke", probe.answer(6 << 20))[1]) == 6 << 20
    assert server.ask("DELETE", "/models/A.b_1")[0] == 200
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/invoke")):
        assert server.ask(method, f"/models/A.b_1{path}")[0] == 404
    assert server.ask("POST", "/models", order)[0] == 200


def test_a_failed_load_leaves_nothing_and_can_be_repeated(server: StandIn) -> None:
    order = server.model("x", broken="on purpose")
    assert server.ask("POST", "/models", order)[0] == 500
    assert server.listed() == []
    assert server.ask("GET", "/models/x")[0] == 404
    (Path(order["url"]) / "broken").unlink()
    assert server.ask("POST", "/models", order)[0] == 200


def test_250_models_are_listed_once_each(server: StandIn) -> None:
    names = [f"m{number}" for number in range(250)]
    for name in names:
        assert server.load(name) == 200
    assert sorted(server.listed()) == sorted(names)


def test_memory_is_held_while_a_model_is_loaded_and_not_longer(server: StandIn) -> None:
    before = server.held_mib()
    assert server.load("big", hold_mib=100) == 200
    assert server.held_mib() - before > 95
    assert server.ask("DELETE", "/models/big")[0] == 200
    assert server.held_mib() - before < 10


def test_of_concurrent_loads_of_one_name_one_wins(server: StandIn) -> None:
    order = server.model("m", hold_mib=50)
    statuses: list[int] = []
    callers = [
        threading.Thread(target=lambda: statuses.append(server.ask("POST", "/models", order)[0]))
        for _ in range(8)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(30)
    assert sorted(statuses) == [200, *[409] * 7]


def test_sigterm_ends_it(server: StandIn) -> None:
    server.load("m")
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(10) == 0
