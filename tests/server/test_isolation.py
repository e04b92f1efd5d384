"""What one model does to itself it does not do to others: crashes, deadlines, stalls, leaks."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.server import MODELS, Answer, Server, image_server, plain_model, until


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Three models in one shared worker, and a spare."""
    with image_server(tmp_path, ["a", "b", "c"], MMEKIT_WORKERS="1") as server:
        assert len({server.facts(name)["pid"] for name in "abc"}) == 1
        yield server


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("segfault", "was killed by SIGSEGV (a crash in native code)"),
        ("kill", "was killed by SIGKILL (often by the kernel, for memory)"),
        ("exit 3", "exited with code 3"),
    ],
)
def test_a_crash_answers_its_own_caller_with_the_reason_and_leaves_the_neighbours_loaded(
    server: Server, body: str, reason: str
) -> None:
    answer = server.invoke("a", body)
    assert answer.status == 500
    assert answer.message == f"Worker died. Its process {reason} while it ran this call."
    for name in "abc":
        assert server.invoke(name, "echo still here").text == "still here"
    assert server.models() == ["a", "b", "c"]


def test_requests_that_waited_behind_a_crash_are_run_again(server: Server) -> None:
    slow = server.later(server.invoke, "a", "sleep 0.3")
    time.sleep(0.1)
    crash = server.later(server.invoke, "a", "segfault")
    waiting = [server.later(server.invoke, name, f"echo {name}") for name in "bc"]
    assert slow.result().status == 200
    assert crash.result().status == 500
    assert [answer.result().text for answer in waiting] == ["b", "c"]


def test_a_worker_killed_from_outside_under_load_costs_at_most_the_call_it_ran(server: Server) -> None:
    worker = server.facts("b")["pid"]
    calls = [server.later(server.invoke, "abc"[i % 3], "sleep 0.02") for i in range(40)]
    until(lambda: any(call.done() for call in calls))
    os.kill(worker, signal.SIGKILL)
    statuses = [call.result().status for call in calls]
    assert set(statuses) <= {200, 500}
    assert statuses.count(500) <= 1
    assert server.invoke("b", "echo back").text == "back"


def test_a_model_that_keeps_killing_its_worker_is_quarantined_until_it_is_loaded_again(
    server: Server, tmp_path: Path
) -> None:
    for _ in range(3):
        assert server.invoke("a", "exit 3").status == 500
    answer = server.invoke("a", "echo hello")
    assert answer.status == 503
    assert "ended its worker 3 times within ten minutes and is quarantined" in answer.message
    assert "exited with code 3" in answer.message
    assert server.invoke("b", "echo fine").text == "fine"
    assert server.unload("a").status == 200
    assert server.load("a", plain_model(tmp_path, "a")).status == 200
    assert server.invoke("a", "echo hello").text == "hello"


def test_a_call_that_outlives_its_deadline_is_answered_504_and_its_worker_replaced(tmp_path: Path) -> None:
    with image_server(
        tmp_path, ["a", "b"], MMEKIT_WORKERS="1", SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS="0.5"
    ) as server:
        before = _in_time(server, "a", "facts").json["pid"]
        answer = server.invoke("a", "sleep 30")
        assert answer.status == 504
        assert answer.json["type"] == "PredictionTimeoutException"
        assert "did not answer within 0.5 s" in answer.message
        assert "SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS" in answer.message
        assert _in_time(server, "a", "facts").json["pid"] != before
        assert _in_time(server, "b", "echo fine").text == "fine"


def _in_time(server: Server, name: str, body: str) -> Answer:
    """Ask a model whose deadline is so short that this machine may hold it up for longer."""
    answer: Answer = until(lambda: (a := server.invoke(name, body)).status != 504 and a)
    return answer


def test_neighbours_of_a_stalled_call_move_to_the_spare_and_the_slow_one_keeps_its_worker(
    server: Server, tmp_path: Path
) -> None:
    before = server.facts("b")["pid"]
    runs = tmp_path / "runs"
    stalled = server.later(server.invoke, "a", f"stay {runs}")
    until(runs.exists)
    assert server.facts("b")["pid"] != before
    assert server.invoke("c", "echo fast").text == "fast"
    assert not stalled.done(), "they waited for the stalled call"
    runs.unlink()
    assert stalled.result().text == "stayed"
    assert server.told("holds worker")


def test_a_model_that_is_steadily_slow_is_no_stall(server: Server) -> None:
    server.invoke("a", "sleep 1.5")  # a call may take twice as long, so much may this machine add to the next
    assert not server.logged("holds worker")
    calls = [server.later(server.invoke, "a", "sleep 0.2") for _ in range(3)]
    time.sleep(0.1)
    before = {line["message"] for line in server.logged("holds worker")}
    assert server.invoke("b", "echo in turn").text == "in turn"
    assert {line["message"] for line in server.logged("holds worker")} == before
    assert all(call.result().status == 200 for call in calls)


def test_three_stalls_earn_a_worker_of_ones_own(server: Server, tmp_path: Path) -> None:
    for stall in range(3):
        neighbour = _new_neighbour_of_a(server, tmp_path, stall)
        runs = tmp_path / "runs"
        stalled = server.later(server.invoke, "a", f"stay {runs}")
        until(runs.exists)
        assert server.invoke(neighbour, "echo x").status == 200
        runs.unlink()
        assert stalled.result().status == 200
        for _ in range(400):  # its usual time comes down again
            server.invoke("a", "echo x")
    until(lambda: len(server.logged("holds worker")) == 3)
    mine = server.facts("a")["pid"]
    for number in range(4):
        name = f"late-{number}"
        assert server.load(name, plain_model(tmp_path, name)).status == 200
        assert server.facts(name)["pid"] != mine


def _new_neighbour_of_a(server: Server, folder: Path, stall: int) -> str:
    """Load models until one shares a's worker; return its name."""
    time.sleep(1.1)  # a worker counts as busy for a second, and slow loads avoid it
    for number in range(20):
        name = f"neighbour-{stall}-{number}"
        assert server.load(name, plain_model(folder, name)).status == 200
        if server.facts(name)["pid"] == server.facts("a")["pid"]:
            return name
    raise AssertionError("no model was placed beside a")


def test_a_model_whose_folder_changed_meanwhile_answers_alone_with_that_reason(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / "b" / "weights.dat").write_bytes(b"other")
    assert server.invoke("a", "segfault").status == 500
    answer = server.invoke("b", "echo x")
    assert answer.status == 500
    assert "Model b lost its worker and could not be loaded again" in answer.message
    assert f"its folder {tmp_path / 'b'} has changed or gone since it was loaded" in answer.message
    assert server.invoke("c", "echo fine").text == "fine"


def test_printing_megabytes_slows_nobody_else(server: Server) -> None:
    assert server.load("noisy", MODELS / "prints_megabytes").status == 200
    noisy = server.later(server.invoke, "noisy", b"1")
    assert server.invoke("b", "echo quick").text == "quick"
    assert noisy.result().status == 200


def test_processes_that_a_model_started_end_with_its_worker(server: Server) -> None:
    child = int(server.invoke("a", "children").text)
    assert Path(f"/proc/{child}").exists()
    server.invoke("a", "kill")
    until(lambda: not Path(f"/proc/{child}").exists(), what="the child being ended and reaped")


@pytest.mark.parametrize("name", ["raises_on_predict", "returns_wrong_type", "killed_in_handle", "segfaults"])
def test_bad_models_answer_5xx_with_a_reason_and_the_server_stays(server: Server, name: str) -> None:
    assert server.load("bad", MODELS / name).status == 200
    answer = server.invoke("bad", "[1]", "application/json")
    assert answer.status >= 500
    assert len(answer.message) > 20
    assert server.invoke("a", "echo fine").text == "fine"
