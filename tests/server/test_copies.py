"""How many workers hold a model: one, as many as asked for, or one more while it is hot."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import Future
from pathlib import Path

import pytest

from tests.support.looking import EVALUATE, code_model, exists, look, looking_environ, looking_server
from tests.support.server import Answer, Server, plain_model, until


def _workers(server: Server, name: str) -> list[str]:
    return [worker["id"] for worker in server.get(f"/models/{name}").json["workers"]]


def _pids(server: Server, name: str, calls: int = 8) -> set[int]:
    """The workers that answer when several calls come at once."""
    answers = [server.later(server.invoke, name, "time.sleep(0.1) or os.getpid()") for _ in range(calls)]
    return {answer.result().json for answer in answers}


def test_a_model_has_one_copy_by_default(tmp_path: Path) -> None:
    with looking_server(tmp_path, ["a"], MMEKIT_WORKERS="2") as server:
        assert len(_workers(server, "a")) == 1


@pytest.mark.parametrize("variable", ["SAGEMAKER_MODEL_SERVER_WORKERS", "SAGEMAKER_NUM_MODEL_WORKERS"])
def test_the_setting_asks_for_copies_of_each_model_shared_or_not(tmp_path: Path, variable: str) -> None:
    with looking_server(tmp_path, ["a"], MMEKIT_WORKERS="2", **{variable: "2"}) as server:
        assert server.load("own", code_model(tmp_path, "own")).status == 200
        for name in ("a", "own"):
            assert len(set(_workers(server, name))) == 2
            assert len(_pids(server, name)) == 2
            described = server.get(f"/models/{name}").json
            assert described["minWorkers"] == 2


def test_a_load_asks_for_copies_by_itself_before_the_setting(tmp_path: Path) -> None:
    with looking_server(tmp_path, ["one"], MMEKIT_WORKERS="2") as server:
        assert server.load("three", plain_model(tmp_path, "three"), initial_workers=3).status == 200
        assert len(set(_workers(server, "three"))) == 3
        assert len(_pids(server, "three", 12)) == 3
        assert len(_workers(server, "one")) == 1


def test_when_one_copy_cannot_be_loaded_the_load_fails_as_a_whole(tmp_path: Path) -> None:
    with looking_server(tmp_path, [], MMEKIT_MAX_OWN_WORKERS="2") as server:
        answer = server.load("three", code_model(tmp_path, "three"), initial_workers=3)
        assert answer.status == 507
        assert "MMEKIT_MAX_OWN_WORKERS=2" in answer.message
        assert server.models() == []
        assert server.load("two", code_model(tmp_path, "two"), initial_workers=2).status == 200


def test_unloading_takes_all_copies_out(tmp_path: Path) -> None:
    with looking_server(tmp_path, []) as server:
        assert server.load("two", code_model(tmp_path, "two"), initial_workers=2).status == 200
        pids = _pids(server, "two")
        assert len(pids) == 2
        assert server.unload("two").status == 200
        assert not [pid for pid in pids if exists(pid)]


def test_a_copy_that_was_asked_for_comes_back_after_a_crash_and_the_other_serves_meanwhile(
    tmp_path: Path,
) -> None:
    with looking_server(tmp_path, []) as server:
        assert server.load("two", code_model(tmp_path, "two"), initial_workers=2).status == 200
        before = _pids(server, "two")
        os.kill(min(before), signal.SIGKILL)
        until(lambda: not exists(min(before)))
        assert look(server, "two", "os.getpid()") == max(before)
        until(lambda: len(_workers(server, "two")) == 2, what="the second copy being back")
        assert len(_pids(server, "two")) == 2


@pytest.mark.parametrize("own", [False, True], ids=["shared", "own code"])
def test_a_hot_model_gets_a_copy_on_another_worker_while_its_queue_stays_non_empty(
    tmp_path: Path, own: bool
) -> None:
    with looking_server(tmp_path, ["cold"], MMEKIT_WORKERS="2", MMEKIT_MAX_COPIES="2") as server:
        path = code_model(tmp_path, "hot") if own else plain_model(tmp_path, "hot")
        assert server.load("hot", path).status == 200
        assert _call_until_copied(server) == 2
        assert len(_pids(server, "hot")) == 2
        assert server.told("Model hot has 2 copies now.")
        assert len(_workers(server, "cold")) == 1


def _call_until_copied(server: Server) -> int:
    """Keep the model's queue non-empty with calls that use no CPU, until it has a copy."""
    calls: list[Future[Answer]] = []
    end = time.monotonic() + 30
    while len(_workers(server, "hot")) < 2 and time.monotonic() < end:
        calls = [call for call in calls if not call.done()]
        while len(calls) < 8:
            calls.append(server.later(server.invoke, "hot", "time.sleep(0.05)"))
        time.sleep(0.02)
    assert {call.result().status for call in calls} <= {200}
    return len(_workers(server, "hot"))


def test_without_a_lasting_backlog_there_is_no_copy(tmp_path: Path) -> None:
    with looking_server(tmp_path, ["calm"], MMEKIT_WORKERS="2") as server:
        for _ in range(30):
            look(server, "calm", "time.sleep(0.05)")
        assert len(_workers(server, "calm")) == 1


def test_max_copies_of_one_never_adds_one(tmp_path: Path) -> None:
    with looking_server(tmp_path, ["hot"], MMEKIT_WORKERS="2", MMEKIT_MAX_COPIES="1") as server:
        calls = [server.later(server.invoke, "hot", "time.sleep(0.1)") for _ in range(20)]
        assert {call.result().status for call in calls} == {200}
        assert len(_workers(server, "hot")) == 1


def test_without_memory_a_hot_model_gets_no_copy_and_goes_on(tmp_path: Path) -> None:
    environ = looking_environ(tmp_path, MMEKIT_MEMORY_LIMIT_BYTES=str(200 << 20), MMEKIT_MAX_COPIES="2")
    with Server(**environ) as server:
        program = "held = bytearray(b'x') * (100 << 20)\n"
        assert server.load("hot", code_model(tmp_path, "hot", EVALUATE + program)).status == 200
        calls = [server.later(server.invoke, "hot", "time.sleep(0.05)") for _ in range(40)]
        assert {call.result().status for call in calls} == {200}
        assert len(_workers(server, "hot")) == 1
        assert server.told("No further copy of hot:")
