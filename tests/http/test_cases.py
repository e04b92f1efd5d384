"""The cases in ``cases/``: raw bytes beside what the application sees and what the client is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mmekit.http import Exchange, Request, Response
from tests.http.support import Client, RunningServer, Serve

CASES = sorted((Path(__file__).parent / "cases").glob("*.http"))
LIMITS = {
    "max_target_bytes": 256,
    "max_head_bytes": 1024,
    "max_headers": 20,
    "max_body_bytes": 1000,
    "max_body_setting": "the_setting",
}
AFTER = b"GET /after HTTP/1.1\r\nHost: a\r\n\r\n"


class Recorder:
    def __init__(self) -> None:
        self.requests: list[Request] = []

    def __call__(self, exchange: Exchange) -> None:
        self.requests.append(exchange.request)
        exchange.respond(Response(200, (), b"ok"))


@pytest.fixture(scope="module")
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture(scope="module")
def server(serve_module: Serve, recorder: Recorder) -> RunningServer:
    return serve_module(recorder, **LIMITS)


@pytest.fixture(params=["whole", "byte by byte", "with a request after it"])
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_case_gives_its_requests_and_answers(
    case: Path, way: str, server: RunningServer, recorder: Recorder
) -> None:
    expected = json.loads(case.with_suffix(".json").read_text())
    recorder.requests.clear()
    with server.connect() as client:
        send(client, server, case.read_bytes(), way)
        for status in expected["statuses"]:
            answer = client.answer()
            assert answer.status == status
        if message := expected.get("message"):
            assert message in answer.error["message"]
            assert answer.header("connection") == "close"
        if expected["closed"]:
            assert client.is_closed()
        else:
            if way != "with a request after it":
                client.send(AFTER)
            assert client.answer().status == 200
            assert recorder.requests.pop().path == "/after"
    pairs = zip(recorder.requests, expected["requests"], strict=True)
    assert [seen(request, wanted) for request, wanted in pairs] == expected["requests"]


def send(client: Client, server: RunningServer, raw: bytes, way: str) -> None:
    try:
        if way == "whole":
            client.send(raw)
        elif way == "with a request after it":
            client.send(raw + AFTER)
        else:
            for at in range(len(raw)):
                client.send(raw[at : at + 1])
                server.run(lambda: None)  # a turn of the loop: the byte is read by itself
    except (BrokenPipeError, ConnectionResetError):
        pass  # refused before the end


def seen(request: Request, wanted: dict[str, Any]) -> dict[str, Any]:
    """What came, in the fields that the case names."""
    values = {
        "method": request.method,
        "path": request.path,
        "query": request.query,
        "body": bytes(request.body).decode("latin-1"),
    }
    result: dict[str, Any] = {name: value for name, value in values.items() if value}
    if "headers" in wanted:
        result["headers"] = {name: text(request.header(name.encode())) for name in wanted["headers"]}
    return result


def text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")
