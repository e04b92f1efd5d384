"""Loads are synchronous, one a name, beside serving; a failed one leaves no trace; unloads answer first."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.looking import EVALUATE, code_model, exists, look, looking_server
from tests.support.server import MODELS, Server, plain_model, until

#: Code that loads until a file appears: ``{gate}``.
GATED = """
import os, time

def model_fn(model_dir):
    while not os.path.exists({gate!r}):
        time.sleep(0.005)

def transform_fn(model, input_data, content_type, accept):
    return "loaded"
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A shared worker with two models, and a spare."""
    with looking_server(tmp_path, ["a", "b"], MMEKIT_WORKERS="1") as server:
        yield server


def _loading(server: Server, name: str = "m") -> bool:
    """Whether a load has been accepted: it is slow, so that shows."""
    answer = server.get(f"/models/{name}")
    return answer.status == 404 and "loading" in answer.message


# --- synchronous and beside serving ------------------------------------------------------------


def test_a_load_answers_when_the_model_can_be_invoked_and_others_are_served_meanwhile(
    server: Server, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    load = server.later(server.load, "m", code_model(tmp_path, "m", GATED.format(gate=str(gate))))
    until(lambda: _loading(server))
    for _ in range(20):
        assert look(server, "a", "1 + 1") == look(server, "b", "1 + 1") == 2
    assert not load.done()
    assert server.models() == ["a", "b"]
    assert server.invoke("m").status == 404
    gate.touch()
    assert load.result().status == 200
    assert server.invoke("m").text == "loaded"
    assert server.models() == ["a", "b", "m"]


def test_a_second_load_of_a_name_is_409_at_once_while_the_first_still_runs(
    server: Server, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    path = code_model(tmp_path, "m", GATED.format(gate=str(gate)))
    first = server.later(server.load, "m", path)
    until(lambda: _loading(server))
    second = server.load("m", path)
    assert not first.done()
    assert second.status == 409
    assert second.message == "Model m is already registered (it is loading at the moment)."
    gate.touch()
    assert first.result().status == 200
    assert server.load("m", path).message == "Model m is already registered."


def test_of_many_loads_of_one_name_at_once_exactly_one_succeeds(server: Server, tmp_path: Path) -> None:
    path = plain_model(tmp_path, "m")
    loads = [server.later(server.load, "m", path) for _ in range(12)]
    assert sorted(load.result().status for load in loads) == [200] + 11 * [409]
    assert look(server, "m", "1 + 1") == 2


# --- failures leave no trace -------------------------------------------------------------------


BAD = [
    ("raises_on_load", "ValueError: no weights in this folder (code/inference.py:2)"),
    ("syntax_error", "SyntaxError: '{' was never closed"),
    ("import_missing_module", "No module named 'a_module_that_nobody_has'"),
    ("exit_on_import", "the code called exit(3) while loading"),
    ("segfaults_on_load", "was killed by SIGSEGV (a crash in native code)"),
    ("defines_nothing", "defines none of"),
    ("class_fails_to_initialize", "OSError: the license server does not answer"),
]


@pytest.mark.parametrize(("name", "reason"), BAD, ids=[name for name, _ in BAD])
def test_a_model_that_cannot_be_loaded_is_5xx_with_the_reason_and_leaves_no_trace(
    server: Server, tmp_path: Path, name: str, reason: str
) -> None:
    path = tmp_path / "m"
    shutil.copytree(MODELS / name, path)
    family = until(lambda: _settled(server))
    for _ in range(2):
        answer = server.load("m", path)
        assert answer.status == 500
        assert reason in answer.message.replace("(inference.py", "(code/inference.py")
    assert server.models() == ["a", "b"]
    assert server.get("/models/m").message == "Model not found: m"
    assert server.invoke("m").status == 404
    assert server.unload("m").status == 404
    shutil.rmtree(path)
    assert server.load("m", code_model(tmp_path, "m")).status == 200, "the name is free and a repair is seen"
    assert look(server, "m", "1 + 1") == 2
    assert server.unload("m").status == 200
    until(lambda: len(_settled(server) or ()) == len(family), what="no process more than before")
    assert look(server, "a", "1 + 1") == look(server, "b", "1 + 1") == 2


def _settled(server: Server) -> set[int] | None:
    """The server's processes once a spare is there: shared worker, spare, template, server."""
    family = server.family()
    return family if len(family) == 4 else None


def test_a_load_that_ends_its_process_says_how(server: Server, tmp_path: Path) -> None:
    path = code_model(tmp_path, "m", "import os\nos._exit(7)\n")
    answer = server.load("m", path)
    assert answer.status == 500
    assert answer.message == (
        "Failed to start workers: m ended its worker while it was loaded. "
        "Worker died. Its process exited with code 7 while it ran this call."
    )
    assert server.models() == ["a", "b"]


@pytest.mark.parametrize(
    ("make", "status", "reason"),
    [
        (lambda path: None, 404, "no such folder"),
        (lambda path: path.mkdir(), 400, "empty"),
        (lambda path: path.write_bytes(b"x"), 400, "not a folder"),
    ],
    ids=["missing", "empty", "a file"],
)
def test_a_path_that_is_no_model_is_refused_with_what_it_is(
    server: Server, tmp_path: Path, make: object, status: int, reason: str
) -> None:
    path = tmp_path / "nothing"
    make(path)  # type: ignore[operator]
    answer = server.load("m", path)
    assert answer.status == status
    assert str(path) in answer.message
    assert server.models() == ["a", "b"]


def test_an_endless_import_ends_at_the_load_deadline_and_others_go_on(tmp_path: Path) -> None:
    with looking_server(tmp_path, ["a"], MMEKIT_WORKERS="1", MMEKIT_LOAD_TIMEOUT_SECONDS="3") as server:
        load = server.later(server.load, "m", MODELS / "endless_import")
        served = 0
        while not load.done():
            assert look(server, "a", "1 + 1") == 2
            served += 1
        assert served > 3
        answer = load.result()
        assert answer.status == 504
        assert "its load did not end within 3 s and its worker was replaced" in answer.message
        assert "MMEKIT_LOAD_TIMEOUT_SECONDS" in answer.message
        assert server.models() == ["a"]
        assert server.load("m", MODELS / "echo").status == 200
        assert server.invoke("m", "x").text == "x"


def test_a_client_that_gives_up_does_not_end_its_load(server: Server, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    path = code_model(tmp_path, "m", GATED.format(gate=str(gate)))
    with pytest.raises(TimeoutError):
        server.load("m", path, timeout_s=0.5)
    assert server.load("m", path).status == 409
    gate.touch()
    until(lambda: "m" in server.models())
    assert server.invoke("m").text == "loaded"


# --- neighbours --------------------------------------------------------------------------------


def test_a_slow_load_never_runs_beside_busy_residents(server: Server, tmp_path: Path) -> None:
    """It goes to the spare, which joins the pool."""
    runs = tmp_path / "runs"
    busy = server.later(server.invoke, "a", f"stay({str(runs)!r})")
    until(runs.exists)
    before = {worker["id"] for name in "ab" for worker in server.get(f"/models/{name}").json["workers"]}
    assert server.load("m", plain_model(tmp_path, "m")).status == 200
    assert not busy.done(), "the load did not wait for the busy worker"
    (worker,) = server.get("/models/m").json["workers"]
    assert worker["id"] not in before
    runs.unlink()
    assert busy.result().status == 200
    assert server.load("n", plain_model(tmp_path, "n")).status == 200
    assert look(server, "m", "1 + 1") == look(server, "n", "1 + 1") == 2


def test_loads_that_waited_behind_one_that_crashed_are_done_in_another_worker(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    fatal = GATED.format(gate=str(gate)).replace("time.sleep(0.005)", "time.sleep(0.005)\n    os._exit(3)")
    with looking_server(tmp_path, [], MMEKIT_WORKERS="1", MMEKIT_SHARING="always") as server:
        first = server.later(server.load, "m", code_model(tmp_path, "m", fatal))
        until(lambda: _loading(server))
        others = [server.later(server.load, f"n{i}", code_model(tmp_path, f"n{i}")) for i in range(5)]
        until(lambda: all(_loading(server, f"n{i}") for i in range(5)))
        gate.touch()
        assert first.result().status == 500
        assert [load.result().status for load in others] == [200] * 5
        assert [look(server, f"n{i}", "1 + 1") for i in range(5)] == [2] * 5


def test_a_load_that_fails_in_a_shared_worker_leaves_its_neighbours(tmp_path: Path) -> None:
    with looking_server(tmp_path, ["a"], MMEKIT_WORKERS="1", MMEKIT_SHARING="always") as server:
        for name, _ in BAD:
            assert server.load("m", MODELS / name).status == 500
            assert look(server, "a", "1 + 1") == 2
        assert server.models() == ["a"]


# --- many --------------------------------------------------------------------------------------


@pytest.mark.timeout(300)
def test_two_thousand_loads_at_once_all_succeed_and_are_listed_once_each(tmp_path: Path) -> None:
    count = 2000
    path = plain_model(tmp_path, "tiny")
    names = [f"model-{number:04d}" for number in range(count)]
    with looking_server(tmp_path, [], MMEKIT_WORKERS="2") as server:
        loads = [("POST", "/models", json.dumps({"model_name": name, "url": str(path)})) for name in names]
        started = time.monotonic()
        assert asyncio.run(_all_at_once(server.port, loads)) == [200] * count
        listed = []
        page = server.get("/models").json
        while True:
            listed += [model["modelName"] for model in page["models"]]
            assert len(page["models"]) <= 100
            if "nextPageToken" not in page:
                break
            page = server.get(f"/models?next_page_token={page['nextPageToken']}").json
        assert listed == names
        assert look(server, "model-0000", "1 + 1") == look(server, "model-1999", "1 + 1") == 2
        unloads = [("DELETE", f"/models/{name}", "") for name in names]
        assert asyncio.run(_all_at_once(server.port, unloads)) == [200] * count
        assert server.models() == []
        assert time.monotonic() - started < 120
        assert server.load("model-0000", path).status == 200


async def _all_at_once(port: int, requests: list[tuple[str, str, str]]) -> list[int]:
    """Send each request on a connection of its own, all of them open together; return the statuses."""
    connecting = asyncio.Semaphore(200)  # the listen queue is not what is tested

    async def send(method: str, path: str, body: str) -> int:
        async with connecting:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode())
        answer = await reader.read()
        writer.close()
        return int(answer.split(b" ", 2)[1])

    return await asyncio.gather(*(send(*request) for request in requests))


# --- describe ----------------------------------------------------------------------------------


def test_the_measured_cost_of_a_model_is_described(server: Server, tmp_path: Path) -> None:
    program = EVALUATE + "\ndef model_fn(model_dir):\n    return bytearray(b'x') * (12 << 20)\n"
    path = code_model(tmp_path, "m", program)
    assert server.load("m", path).status == 200
    (worker,) = server.get("/models/m").json["workers"]
    assert 12 << 20 <= worker["memoryUsage"] < 20 << 20
    assert worker["status"] == "READY"


# --- unloads -----------------------------------------------------------------------------------


def test_an_unload_answers_what_the_model_has_and_refuses_what_is_new(server: Server, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    running = server.later(server.invoke, "a", f"stay({str(runs)!r})")
    until(runs.exists)
    queued = [server.later(server.invoke, "a", f"'queued {number}'") for number in range(4)]
    until(lambda: server.waiting("a") == 4)
    unload = server.later(server.unload, "a")
    until(lambda: "a" not in server.models())
    new = server.invoke("a", "1")
    assert new.status == 404
    assert new.message == "Model not found: a (it is unloading at the moment)"
    assert server.models() == ["b"]
    taken = server.load("a", plain_model(tmp_path, "a"))
    assert taken.status == 409
    assert not unload.done()
    runs.unlink()
    assert running.result().json == "stayed"
    assert [answer.result().json for answer in queued] == [f"queued {number}" for number in range(4)]
    assert unload.result().status == 200
    assert server.load("a", plain_model(tmp_path, "a")).status == 200, "the name is free at once"
    assert look(server, "a", "1 + 1") == 2
    assert look(server, "b", "1 + 1") == 2


def test_a_second_unload_is_404(server: Server, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    slow = server.later(server.invoke, "a", f"stay({str(runs)!r})")
    until(runs.exists)
    first = server.later(server.unload, "a")
    until(lambda: "a" not in server.models())
    assert server.unload("a").status == 404
    runs.unlink()
    assert (first.result().status, slow.result().status) == (200, 200)
    assert server.unload("a").status == 404


def test_an_unload_frees_the_models_memory_in_a_shared_worker(server: Server, tmp_path: Path) -> None:
    rss = "int(process_status('VmRSS').split()[0])"
    before = look(server, "b", rss)
    assert look(server, "a", "kept.append(bytearray(b'x') * (40 << 20)) or len(kept)") == 1
    assert look(server, "b", rss) > before + 35 * 1024
    assert server.unload("a").status == 200
    assert look(server, "b", rss) < before + 10 * 1024


def test_unloading_while_the_worker_dies_succeeds(server: Server, tmp_path: Path) -> None:
    pid = look(server, "a", "os.getpid()")
    runs = tmp_path / "runs"
    slow = server.later(server.invoke, "a", f"stay({str(runs)!r})")
    until(runs.exists)
    unload = server.later(server.unload, "a")
    until(lambda: "a" not in server.models())
    os.kill(pid, signal.SIGKILL)
    assert slow.result().status == 500
    assert unload.result().status == 200
    assert look(server, "b", "1 + 1") == 2
    assert server.load("a", plain_model(tmp_path, "a")).status == 200


# --- reloads -----------------------------------------------------------------------------------


def test_a_model_with_a_worker_of_its_own_comes_back_after_a_crash(server: Server, tmp_path: Path) -> None:
    assert server.load("m", code_model(tmp_path, "m")).status == 200
    before = look(server, "m", "os.getpid()")
    assert server.invoke("m", "os._exit(4)").status == 500
    assert look(server, "m", "os.getpid()") != before
    assert not exists(before)
    assert look(server, "a", "1 + 1") == 2


def test_a_crash_between_calls_is_not_seen_by_callers(server: Server) -> None:
    pid = look(server, "a", "os.getpid()")
    os.kill(pid, signal.SIGKILL)
    until(lambda: not exists(pid))
    assert look(server, "a", "1 + 1") == look(server, "b", "1 + 1") == 2


def test_a_load_is_not_lost_when_its_worker_dies_just_after_it(server: Server, tmp_path: Path) -> None:
    once = tmp_path / "once"
    program = f"""
import os, threading, time

def model_fn(model_dir):
    if not os.path.exists({str(once)!r}):
        open({str(once)!r}, "w").close()
        threading.Thread(target=lambda: (time.sleep(0.002), os._exit(1)), daemon=True).start()

def transform_fn(model, input_data, content_type, accept):
    return "here"
"""
    for number in range(5):
        once.unlink(missing_ok=True)
        answer = server.load(f"m{number}", code_model(tmp_path, f"m{number}", program))
        if answer.status == 200:
            until(lambda name=f"m{number}": server.invoke(name).text == "here")
