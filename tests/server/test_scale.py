"""Scaling a model's workers: ``PUT /models/{name}`` (contract 2.6), alone and against everything else."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.support.gated import fleeting_model, gated_model, waiting_model, workers
from tests.support.looking import code_model, exists, look, looking_server
from tests.support.server import Answer, Server, plain_model, until


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(MMEKIT_WORKERS="2") as server:
        yield server


@pytest.fixture
def model(server: Server, tmp_path: Path) -> Iterator[str]:
    """A model with its own code and one worker; whatever a test loads goes with it."""
    assert server.load("m", waiting_model(tmp_path, "m"), initial_workers=1).status == 200
    yield "m"
    for name in server.models():
        assert server.unload(name).status == 200


def scale(server: Server, name: str, timeout_s: float = 60, **parameters: Any) -> Answer:
    return server.request("PUT", f"/models/{name}?{urlencode(parameters)}", timeout_s=timeout_s)


def now(server: Server, name: str, **parameters: Any) -> tuple[int, str]:
    answer = scale(server, name, synchronous="true", **parameters)
    return answer.status, answer.json["status"]


def limits(server: Server, name: str) -> tuple[int, int]:
    described = server.get(f"/models/{name}").json
    return described["minWorkers"], described["maxWorkers"]


def busy(server: Server, name: str, folder: Path, number: int = 0) -> tuple[Any, Path]:
    """Start a call that runs until the returned file is there."""
    begun, done = folder / f"begun-{number}", folder / f"done-{number}"
    call = server.later(
        server.invoke, name, f"[open({str(begun)!r}, 'w').close(), wait({str(done)!r}), os.getpid()][2]"
    )
    until(begun.exists)
    return call, done


# --- up and down --------------------------------------------------------------------------------------


def test_scaling_answers_202_at_once_and_the_workers_come(server: Server, model: str) -> None:
    answer = scale(server, model, min_worker=3)
    assert (answer.status, answer.json) == (202, {"status": "Processing worker updates..."})
    assert limits(server, model) == (3, 3)
    until(lambda: len(workers(server, model)) == 3)


def test_a_synchronous_scaling_answers_when_the_workers_are_there(server: Server, model: str) -> None:
    assert now(server, model, min_worker=2, max_worker=4) == (200, "Workers scaled")
    assert limits(server, model) == (2, 4)
    assert len(workers(server, model)) == 2


def test_without_parameters_one_worker_is_asked_for(server: Server, model: str) -> None:
    assert now(server, model, min_worker=3)[0] == 200
    assert now(server, model) == (200, "Workers scaled")
    assert limits(server, model) == (1, 1)
    assert len(workers(server, model)) == 1


def test_workers_within_the_limits_stay(server: Server, model: str) -> None:
    assert now(server, model, min_worker=3)[0] == 200
    before = workers(server, model)
    assert now(server, model, min_worker=1, max_worker=3)[0] == 200
    assert workers(server, model) == before


def test_the_processes_of_workers_that_are_too_many_end(server: Server, model: str) -> None:
    assert now(server, model, min_worker=3)[0] == 200
    pids = {int(each.partition("-")[2]) for each in workers(server, model)}
    assert now(server, model, min_worker=1)[0] == 200
    assert len([pid for pid in pids if exists(pid)]) == 1


def test_models_that_share_workers_are_scaled_too(tmp_path: Path) -> None:
    with looking_server(tmp_path, ["a", "b"], MMEKIT_WORKERS="2") as server:
        assert now(server, "a", min_worker=3)[0] == 200
        assert len(set(workers(server, "a"))) == 3
        assert now(server, "a", min_worker=1)[0] == 200
        assert len(workers(server, "a")) == 1
        assert now(server, "a", min_worker=0)[0] == 200
        assert server.invoke("a", "1").status == 503
        assert look(server, "b", "2") == 2


def test_a_hot_model_grows_to_its_own_maximum(tmp_path: Path) -> None:
    path = code_model(tmp_path, "hot")
    with Server(MMEKIT_MAX_COPIES="1") as server:
        assert server.load("hot", path).status == 200
        assert now(server, "hot", min_worker=1, max_worker=2)[0] == 200
        calls: list[Any] = []

        def grown() -> bool:
            calls[:] = [call for call in calls if not call.done()]
            while len(calls) < 6:
                calls.append(server.later(server.invoke, "hot", "time.sleep(0.1)"))
            return len(workers(server, "hot")) == 2

        until(grown)
        for call in calls:
            assert call.result().status == 200


# --- to none and up again -----------------------------------------------------------------------------


def test_scaling_to_none_frees_the_workers_and_keeps_the_model(server: Server, model: str) -> None:
    pid = look(server, model, "os.getpid()")
    assert now(server, model, min_worker=0, max_worker=1) == (200, "Workers scaled")
    assert not exists(pid)
    assert server.models() == [model]
    assert server.get(f"/models/{model}").json["workers"] == []
    answer = server.invoke(model, "1")
    assert (answer.status, answer.json["type"]) == (503, "ServiceUnavailableException")
    assert answer.message.startswith("No worker is available to serve request for model: m.")
    assert now(server, model, min_worker=1) == (200, "Workers scaled")
    assert look(server, model, "2 + 3") == 5


def test_requests_that_wait_when_a_model_is_scaled_to_none_get_503_and_the_running_one_its_answer(
    server: Server, model: str, tmp_path: Path
) -> None:
    running, done = busy(server, model, tmp_path)
    waiting = [server.later(server.invoke, model, "1") for _ in range(4)]
    scaled = server.later(now, server, model, min_worker=0)
    assert [call.result().status for call in waiting] == [503] * 4
    (leaving,) = server.get(f"/models/{model}").json["workers"]
    assert leaving["status"] == "UNLOADING"
    assert not scaled.done()
    done.touch()
    assert running.result().status == 200
    assert scaled.result() == (200, "Workers scaled")
    assert not exists(running.result().json)


def test_up_again_while_the_last_call_of_the_old_worker_runs(
    server: Server, model: str, tmp_path: Path
) -> None:
    running, done = busy(server, model, tmp_path)
    assert scale(server, model, min_worker=0).status == 202
    assert scale(server, model, min_worker=1).status == 202
    pid = look(server, model, "os.getpid()")
    done.touch()
    assert running.result().status == 200
    assert running.result().json != pid
    until(lambda: not exists(running.result().json))
    assert look(server, model, "os.getpid()") == pid


def test_scaling_down_ends_no_running_call(server: Server, model: str, tmp_path: Path) -> None:
    assert now(server, model, min_worker=3)[0] == 200
    calls = [busy(server, model, tmp_path, number) for number in range(3)]
    assert scale(server, model, min_worker=1).status == 202
    for _, done in calls:
        done.touch()
    answers = [call.result() for call, _ in calls]
    assert [answer.status for answer in answers] == [200] * 3
    until(lambda: len([each for each in answers if exists(each.json)]) == 1)
    assert len(workers(server, model)) == 1


# --- what cannot be ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"min_worker": 3, "max_worker": 2}, "max_worker cannot be less than min_worker."),
        ({"max_worker": 0}, "max_worker cannot be less than min_worker."),
        ({"min_worker": -1}, "Parameter min_worker must be a whole number from 0 to 1024, not '-1'."),
        ({"max_worker": -1}, "Parameter max_worker must be a whole number from 0 to 1024, not '-1'."),
        ({"min_worker": "two"}, "Parameter min_worker must be a whole number from 0 to 1024, not 'two'."),
        ({"min_worker": 10**9}, "Parameter min_worker must be a whole number from 0 to 1024"),
        ({"synchronous": "no"}, "Parameter synchronous must be true or false, not 'no'."),
    ],
)
def test_numbers_that_cannot_be_are_a_400_and_change_nothing(
    server: Server, model: str, parameters: dict[str, Any], message: str
) -> None:
    answer = scale(server, model, **parameters)
    assert (answer.status, answer.json["type"]) == (400, "BadRequestException")
    assert answer.message.startswith(message)
    assert limits(server, model) == (1, 1)


def test_a_body_and_unknown_parameters_are_ignored(server: Server, model: str) -> None:
    path = f"/models/{model}?min_worker=2&number_gpu=1&timeout=5&color=red&synchronous=TRUE"
    answer = server.request("PUT", path, '{"min_worker": 9}', {"Content-Type": "application/json"})
    assert answer.status == 200
    assert limits(server, model) == (2, 2)


def test_a_model_that_is_not_there_is_a_404(server: Server) -> None:
    answer = scale(server, "nobody", min_worker=1)
    assert (answer.status, answer.json["type"]) == (404, "ModelNotFoundException")
    assert answer.message == "Model not found: nobody"


def test_workers_that_cannot_be_had_are_a_507_and_those_that_are_there_stay(tmp_path: Path) -> None:
    with Server(MMEKIT_MAX_OWN_WORKERS="2") as server:
        assert server.load("m", code_model(tmp_path, "m")).status == 200
        answer = scale(server, "m", min_worker=4, synchronous="true")
        assert answer.status == 507
        assert "MMEKIT_MAX_OWN_WORKERS=2" in answer.message
        assert len(workers(server, "m")) == 2
        assert limits(server, "m") == (2, 4)
        assert look(server, "m", "4") == 4
        assert now(server, "m", min_worker=1)[0] == 200
        assert len(workers(server, "m")) == 1


def test_a_worker_that_fails_to_load_is_a_500_and_the_earlier_ones_serve(
    server: Server, model: str, tmp_path: Path
) -> None:
    path, gate = gated_model(tmp_path, "g")
    gate.open()
    assert server.load("g", path).status == 200
    gate.close()
    gate.fail()
    answer = scale(server, "g", min_worker=2, synchronous="true")
    assert (answer.status, answer.json["type"]) == (500, "InternalServerException")
    assert "the gate said no" in answer.message
    assert look(server, "g", "7") == 7
    assert len(workers(server, "g")) == 1


# --- against each other --------------------------------------------------------------------------------


def test_the_last_of_several_scalings_wins_and_the_earlier_ones_are_told(
    server: Server, model: str, tmp_path: Path
) -> None:
    path, gate = gated_model(tmp_path, "g")
    gate.open()
    assert server.load("g", path).status == 200
    gate.close()
    first = server.later(scale, server, "g", min_worker=4, synchronous="true")
    gate.wait_for_load(2)
    second = server.later(scale, server, "g", min_worker=2, synchronous="true")
    answer = first.result()
    assert (answer.status, answer.json["status"]) == (210, "Workers scaling in progress...")
    assert not second.done()
    gate.open()
    assert second.result().status == 200
    assert len(workers(server, "g")) == 2
    assert gate.begun == 2


def test_a_worker_that_comes_up_when_none_is_wanted_any_more_goes_again(
    server: Server, model: str, tmp_path: Path
) -> None:
    path, gate = gated_model(tmp_path, "g")
    assert server.load("g", path, synchronous=False).status == 202
    gate.wait_for_load()
    waiting = server.later(server.invoke, "g", "1")
    scaled = server.later(now, server, "g", min_worker=0)
    assert waiting.result().status == 503
    gate.open()
    assert scaled.result() == (200, "Workers scaled")
    assert server.get("/models/g").json["workers"] == []
    assert server.invoke("g", "1").status == 503


def test_a_model_that_is_being_loaded_or_unloaded_cannot_be_scaled(
    server: Server, model: str, tmp_path: Path
) -> None:
    path, gate = gated_model(tmp_path, "g")
    load = server.later(server.load, "g", path)
    gate.wait_for_load()
    answer = scale(server, "g", min_worker=2)
    assert answer.status == 404
    assert answer.message == "Model not found: g (it is loading at the moment)"
    gate.open()
    assert load.result().status == 200
    running, done = busy(server, "g", tmp_path)
    unload = server.later(server.unload, "g")
    until(lambda: server.get("/models/g").status == 404)
    answer = scale(server, "g", min_worker=2)
    assert answer.status == 404
    assert "unloading" in answer.message
    done.touch()
    assert running.result().status == 200
    assert unload.result().status == 200


def test_who_waits_for_workers_of_a_model_that_is_unloaded_gets_404(
    server: Server, model: str, tmp_path: Path
) -> None:
    path, gate = gated_model(tmp_path, "g")
    gate.open()
    assert server.load("g", path).status == 200
    gate.close()
    scaled = server.later(scale, server, "g", min_worker=2, synchronous="true")
    gate.wait_for_load(2)
    unload = server.later(server.unload, "g")
    assert scaled.result().status == 404
    gate.open()
    assert unload.result().status == 200
    assert server.get("/models/g").status == 404


def test_a_worker_that_dies_while_others_come_up_is_replaced(
    server: Server, model: str, tmp_path: Path
) -> None:
    path, gate = gated_model(tmp_path, "g")
    gate.open()
    assert server.load("g", path).status == 200
    pid = look(server, "g", "os.getpid()")
    gate.close()
    scaled = server.later(now, server, "g", min_worker=2)
    gate.wait_for_load(2)
    os.kill(pid, signal.SIGKILL)
    until(lambda: not exists(pid))
    call = server.later(server.invoke, "g", "8")
    gate.open()
    assert call.result().json == 8
    assert scaled.result() == (200, "Workers scaled")
    assert len(workers(server, "g")) == 2


def test_workers_that_end_as_fast_as_they_come_are_a_500_and_quarantine(
    server: Server, model: str, tmp_path: Path
) -> None:
    assert server.load("f", fleeting_model(tmp_path, "f")).status == 200
    answer = scale(server, "f", min_worker=2, synchronous="true")
    assert answer.status == 500
    assert answer.message.startswith("Failed to start workers: f was loaded, but 3 of its workers ended")
    assert limits(server, "f") == (1, 2)
    refused = server.invoke("f", "1")
    assert refused.status == 503
    assert "exited with code 3 between calls. Unload it" in refused.message


def test_a_model_on_gpus_has_no_more_workers_than_there_are_gpus(tmp_path: Path) -> None:
    """A device has one worker, and a process holds a model once."""
    with Server(MMEKIT_NUMBER_OF_GPU="2") as server:
        for _ in range(2):
            assert server.load("m", code_model(tmp_path, "m"), initial_workers=3).status == 200
            assert server.told("Model m gets 2 of 3 workers: it lives on a GPU")
            for asked, there in ((3, 2), (1, 1), (4, 2)):
                assert now(server, "m", min_worker=asked) == (200, "Workers scaled")
                assert limits(server, "m") == (there, there)
                assert len(set(workers(server, "m"))) == len(workers(server, "m")) == there
                assert look(server, "m", "6 * 7") == 42
            assert scale(server, "m", min_worker=3).status == 202
            assert server.unload("m").status == 200
        assert 'mmekit_model_memory_bytes{model="other"} 0.0' in server.get("/metrics").text


def test_a_quarantined_model_can_be_scaled_and_stays_quarantined(
    server: Server, model: str, tmp_path: Path
) -> None:
    for _ in range(3):
        assert server.invoke(model, "os._exit(3)").status == 500
    assert "quarantined" in server.invoke(model, "1").message
    assert now(server, model, min_worker=2)[0] == 200
    assert "quarantined" in server.invoke(model, "1").message
    assert now(server, model, min_worker=0)[0] == 200


def test_scalings_and_calls_in_any_order_end_in_a_whole_state(server: Server, model: str) -> None:
    wanted = [2, 0, 3, 1, 0, 2, 4, 1, 0, 3]
    calls = []
    for number in wanted:
        calls.append(server.later(scale, server, model, min_worker=number, synchronous="true"))
        calls += [server.later(server.invoke, model, "1") for _ in range(3)]
    statuses = {call.result().status for call in calls}
    assert statuses <= {200, 210, 503}
    assert now(server, model, min_worker=2)[0] == 200
    assert len(workers(server, model)) == 2
    assert look(server, model, "1") == 1


def test_reloads_and_scalings_bring_no_worker_too_many(server: Server, model: str, tmp_path: Path) -> None:
    path, gate = gated_model(tmp_path, "g")
    gate.open()
    assert server.load("g", path, initial_workers=1).status == 200
    pid = look(server, "g", "os.getpid()")
    gate.close()
    os.kill(pid, signal.SIGKILL)
    until(lambda: not exists(pid))
    call = server.later(server.invoke, "g", "9")
    gate.wait_for_load(2)
    scaled = server.later(now, server, "g", min_worker=1)
    gate.open()
    assert call.result().json == 9
    assert scaled.result()[0] == 200
    assert gate.begun == 2
    assert len(workers(server, "g")) == 1


def test_shared_and_elastic_models_are_unaffected_by_the_scaling_of_others(tmp_path: Path) -> None:
    with looking_server(tmp_path, ["a"], MMEKIT_WORKERS="1") as server:
        assert server.load("b", plain_model(tmp_path, "b"), initial_workers=2).status == 200
        before = workers(server, "a")
        for number in (0, 3, 1, 2, 0):
            assert now(server, "b", min_worker=number)[0] == 200
        assert workers(server, "a") == before
        assert look(server, "a", "1") == 1
