"""Load, invoke, unload, crash, leave, in any order from several threads: each call gets what it asked for
or a named error, and at the end nothing is left.
"""

from __future__ import annotations

import random
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.server import MODELS, Answer, Server, image_environ, plain_model, until

NAMES = ["a", "b", "c", "d/é"]
WORKERS = 2

#: What each step may be answered, with the beginnings of the messages.
NAMED_ERRORS = {
    404: ("Model not found: ",),
    409: ("Model ",),
    500: ("Worker died.", "Failed to start workers: ", "Model "),
    503: ("Prediction failed: ", "Model "),
}


def quoted(name: str) -> str:
    from urllib.parse import quote

    return quote(name, safe="")


def is_named_error(answer: Answer, *statuses: int) -> None:
    assert answer.status in statuses, answer.body
    assert answer.message.startswith(NAMED_ERRORS[answer.status]), answer.message


class Person:
    """One of several who use the server at the same time."""

    def __init__(self, server: Server, folders: dict[str, Path], number: int) -> None:
        self.server = server
        self.folders = folders
        self.number = number
        self.count = 0

    def do(self, verb: str, name: str) -> None:
        self.count += 1
        getattr(self, verb)(name)

    def load(self, name: str) -> None:
        answer = self.server.load(name, self.folders[name])
        if answer.status != 200:
            is_named_error(answer, 409)

    def load_broken(self, name: str) -> None:
        is_named_error(self.server.load(name, MODELS / "raises_on_load"), 500, 409)

    def load_own(self, name: str) -> None:
        answer = self.server.load(name, MODELS / "echo")
        if answer.status != 200:
            is_named_error(answer, 409)

    def unload(self, name: str) -> None:
        answer = self.server.unload(quoted(name))
        if answer.status != 200:
            is_named_error(answer, 404)

    def invoke(self, name: str) -> None:
        text = f"echo {self.number}-{self.count}"
        answer = self.server.invoke(quoted(name), text)
        if answer.status == 200:
            assert answer.text in (text, text.removeprefix("echo ")), "another's answer"
        else:
            # A worker that someone else's crash took with it is an honest reason too.
            is_named_error(answer, 404, 500, 503)

    def stream(self, name: str) -> None:
        answer = self.server.invoke(quoted(name), "stream 4 10 0.001")
        if answer.status == 200:
            assert answer.text in ("stream 4 10 0.001", "000000....000001....000002....000003....")
        else:
            is_named_error(answer, 404, 500, 503)

    def raises(self, name: str) -> None:
        answer = self.server.invoke(quoted(name), "raise on purpose")
        if answer.status == 200:
            assert answer.text == "raise on purpose"  # the model with code of its own echoes
        else:
            is_named_error(answer, 404, 500, 503)

    def crash(self, name: str) -> None:
        answer = self.server.invoke(quoted(name), "exit 7")
        if answer.status == 200:
            assert answer.text == "exit 7"
        else:
            is_named_error(answer, 404, 500, 503)

    def leave(self, name: str) -> None:
        body = random.Random(self.count).choice(["sleep 0.02", "stream 50 5000 0.001", "echo x"])
        with socket.create_connection(("127.0.0.1", self.server.port), timeout=10) as client:
            head = f"POST /models/{quoted(name)}/invoke HTTP/1.1\r\nHost: a\r\n"
            client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())

    def look(self, name: str) -> None:
        listed = self.server.get("/models")
        assert listed.status == 200
        assert {model["modelName"] for model in listed.json["models"]} <= set(NAMES)
        described = self.server.get(f"/models/{quoted(name)}")
        if described.status == 200:
            assert described.json["modelName"] == name
        else:
            is_named_error(described, 404)
        ping = self.server.get("/ping")
        assert ping.status in (200, 503)
        assert ping.seconds < 10  # it waits for no model; a busy machine may let it wait


VERBS = {
    "load": 6, "load_broken": 1, "load_own": 1, "unload": 3, "invoke": 10, "stream": 2, "raises": 1,
    "crash": 1, "leave": 2, "look": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {name: plain_model(folder, f"m{index}") for index, name in enumerate(NAMES)}


@pytest.fixture(scope="module")
def server(folders: dict[str, Path]):  # type: ignore[no-untyped-def]
    with Server(**image_environ(MMEKIT_WORKERS=str(WORKERS))) as server:
        yield server


def end_with_nothing(server: Server) -> None:
    """Unload all; then there is no model, no worker but the pool and a spare, and new models work."""

    def unload_all() -> bool:
        for name in server.models():
            server.unload(quoted(name))
        return server.models() == []

    until(unload_all, what="all models being unloaded")
    # The server, the template, the shared workers and the spare.
    until(lambda: len(server.family()) <= 2 + WORKERS + 1, what=f"no more processes than {2 + WORKERS + 1}")
    until(lambda: server.get("/ping").status == 200, what="the server being healthy")
    assert not [line for line in server.lines if "exception" in line], "an exception of the server's own"
    assert not server.logged("The server")


steps = st.lists(st.tuples(st.sampled_from(sorted(VERBS)), st.sampled_from(NAMES)), max_size=12)


@settings(
    max_examples=12,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(steps, min_size=3, max_size=3))
def test_any_order_of_calls_gives_answers_or_named_errors(
    server: Server, folders: dict[str, Path], plans: list[list[tuple[str, str]]]
) -> None:
    _run(server, folders, plans)
    end_with_nothing(server)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_long_run_of_everything_at_once_leaves_nothing(
    server: Server, folders: dict[str, Path], seed: int
) -> None:
    chance = random.Random(seed)
    verbs = chance.choices(list(VERBS), list(VERBS.values()), k=6 * 60)
    plans = [[(verb, chance.choice(NAMES)) for verb in verbs[start::6]] for start in range(6)]
    _run(server, folders, plans)
    end_with_nothing(server)
    for name in NAMES:
        assert server.load(name, folders[name]).status == 200
        assert server.invoke(quoted(name), "echo well").text == "well"
    end_with_nothing(server)


def _run(server: Server, folders: dict[str, Path], plans: list[list[tuple[str, str]]]) -> None:
    started = threading.Barrier(len(plans))

    def go(number: int, plan: list[tuple[str, str]]) -> None:
        person = Person(server, folders, number)
        started.wait(10)
        for verb, name in plan:
            person.do(verb, name)

    with ThreadPoolExecutor(len(plans)) as pool:
        begun = time.monotonic()
        for call in [pool.submit(go, number, plan) for number, plan in enumerate(plans)]:
            call.result()
        assert time.monotonic() - begun < 60
