"""``preload_model``: further copies of a model are forked from a worker that holds it already."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.gated import waiting_model, workers
from tests.support.looking import EVALUATE, alive, code_model, exists, look, looking_server
from tests.support.server import Server, plain_model, until

MIB = 1024 * 1024

#: The load says which process it runs in, and keeps something large.
LOADING = (
    EVALUATE.replace("def model_fn", "def unused")
    + """
def model_fn(model_dir):
    with open(model_dir + ".loads", "a") as loads:
        loads.write(f"{os.getpid()}\\n")
    kept.append(b"x" * (100 << 20))
    print("loaded by", os.getpid())
    %s
"""
)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(MMEKIT_WORKERS="2", MMEKIT_MAX_COPIES="1") as server:
        yield server


@pytest.fixture(autouse=True)
def _nothing_stays(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "server" in request.fixturenames:
        server: Server = request.getfixturevalue("server")
        for name in server.models():
            assert server.unload(name).status == 200


def loading_model(folder: Path, name: str, last: str = "pass") -> Path:
    """Make a model whose load notes its process and keeps 100 MiB; ``last`` is what it does then."""
    return code_model(folder, name, LOADING % last)


def loads(folder: Path, name: str) -> list[int]:
    """Return the processes that loaded a model."""
    return [int(line) for line in (folder / f"{name}.loads").read_text().split()]


def pids(server: Server, name: str) -> set[int]:
    """Return the processes that hold a model."""
    return {int(each.partition("-")[2]) for each in workers(server, name)}


def answering(server: Server, name: str, calls: int) -> set[int]:
    """Return the processes that answer when as many calls come at once."""
    answers = [server.later(server.invoke, name, "[time.sleep(0.1), os.getpid()][1]") for _ in range(calls)]
    return {answer.result().json for answer in answers}


def private_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Private_Dirty:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("smaps_rollup has no Private_Dirty")


def metric(server: Server, name: str) -> float:
    for line in server.get("/metrics").text.splitlines():
        if line.startswith(name + " "):
            return float(line.rpartition(" ")[2])
    raise AssertionError(f"/metrics has no {name}")


def scale(server: Server, name: str, number: int) -> int:
    return server.request("PUT", f"/models/{name}?min_worker={number}&synchronous=true").status


def refusals(server: Server, name: str) -> list[str]:
    lines = server.logged("as preload_model asks")
    return [line["message"] for line in lines if line["model"] == name]


def kill_at_once(server: Server, pids: Iterable[int]) -> None:
    """Kill workers while the server stands still: it hears of all their ends together."""
    server.signal(signal.SIGSTOP)
    try:
        until(lambda: Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        until(lambda: not any(alive(pid) for pid in pids))
    finally:
        server.signal(signal.SIGCONT)


def three(server: Server, folder: Path, name: str = "m", last: str = "pass") -> set[int]:
    """Load a model into three workers; return their processes."""
    path = loading_model(folder, name, last)
    assert server.load(name, path, initial_workers=3, preload_model=True).status == 200
    return pids(server, name)


# --- what is shared ------------------------------------------------------------------------------


def test_three_workers_hold_what_one_has_loaded(server: Server, tmp_path: Path) -> None:
    held = three(server, tmp_path)
    assert len(held) == 3
    assert len(loads(tmp_path, "m")) == 1
    assert set(loads(tmp_path, "m")) < held
    assert answering(server, "m", 12) == held


def test_without_it_each_worker_loads_the_model(server: Server, tmp_path: Path) -> None:
    path = loading_model(tmp_path, "m")
    assert server.load("m", path, initial_workers=2).status == 200
    assert set(loads(tmp_path, "m")) == pids(server, "m")


def test_a_copy_shares_the_models_memory(server: Server, tmp_path: Path) -> None:
    held = three(server, tmp_path)
    answering(server, "m", 12)
    for pid in held:
        assert private_bytes(pid) < 30 * MIB


def test_each_copy_draws_random_numbers_of_its_own(server: Server, tmp_path: Path) -> None:
    held = three(server, tmp_path, last="import numpy; kept.append(numpy.random.random)")
    drawn: dict[int, float] = {}
    while set(drawn) != held:
        expression = "[kept.append(kept[1]()), time.sleep(0.05), os.getpid(), kept[2]][2:]"
        answers = [server.later(server.invoke, "m", expression) for _ in range(6)]
        drawn.update(answer.result().json for answer in answers)
    assert len(set(drawn.values())) == 3


def test_what_a_copy_prints_is_logged_as_the_models(server: Server, tmp_path: Path) -> None:
    held = three(server, tmp_path)
    seen: set[int] = set()
    while seen != held:
        expression = "[print('here is', os.getpid()), time.sleep(0.05), os.getpid()][2]"
        answers = [server.later(server.invoke, "m", expression) for _ in range(6)]
        seen |= {answer.result().json for answer in answers}
    for pid in held:
        lines = until(lambda pid=pid: server.logged(f"here is {pid}"))  # type: ignore[misc]
        assert {line["model"] for line in lines} == {"m"}
    assert len({line["worker"] for line in server.logged("here is")}) == 3


def test_what_c_code_has_printed_and_not_flushed_is_not_printed_twice(server: Server, tmp_path: Path) -> None:
    three(server, tmp_path, last="import ctypes; ctypes.CDLL(None).printf(b'from C\\n')")
    answering(server, "m", 6)
    before = len(server.logged("Unloaded m"))
    assert server.unload("m").status == 200
    until(lambda: len(server.logged("Unloaded m")) > before)
    assert len(server.told("from C")) == 1


# --- lives ----------------------------------------------------------------------------------------


def test_copies_survive_the_worker_that_they_come_from(server: Server, tmp_path: Path) -> None:
    held = three(server, tmp_path)
    [first] = loads(tmp_path, "m")
    os.kill(first, signal.SIGKILL)
    until(lambda: not exists(first))
    others = held - {first}
    assert answering(server, "m", 8) >= others
    assert all(alive(pid) for pid in others)


def test_copies_go_on_being_forked_when_the_first_is_gone(server: Server, tmp_path: Path) -> None:
    held = three(server, tmp_path)
    [first] = loads(tmp_path, "m")
    os.kill(first, signal.SIGKILL)
    until(lambda: first not in pids(server, "m"))
    assert scale(server, "m", 4) == 200
    now = pids(server, "m")
    assert len(now) == 4
    assert now > held - {first}
    assert loads(tmp_path, "m") == [first]
    assert answering(server, "m", 16) == now


def test_a_crash_of_a_copy_is_its_own(server: Server, tmp_path: Path) -> None:
    held = three(server, tmp_path)
    crash = server.invoke("m", "os.abort()")
    assert crash.status == 500
    assert "SIGABRT" in crash.message
    until(lambda: len([pid for pid in held if exists(pid)]) == 2)
    assert look(server, "m", "1") == 1


def test_a_model_that_lost_all_its_workers_is_loaded_again_once(server: Server, tmp_path: Path) -> None:
    held = three(server, tmp_path)
    kill_at_once(server, held)
    until(lambda: not any(exists(pid) for pid in held))
    assert look(server, "m", "1") == 1
    until(lambda: len(pids(server, "m")) == 3)
    assert len(loads(tmp_path, "m")) == 2


def test_unloading_ends_all(server: Server, tmp_path: Path) -> None:
    held = three(server, tmp_path)
    assert server.unload("m").status == 200
    assert not any(exists(pid) for pid in held)


def test_scaling_down_ends_copies_and_up_forks_them_again(server: Server, tmp_path: Path) -> None:
    held = three(server, tmp_path)
    assert scale(server, "m", 1) == 200
    [last] = pids(server, "m")
    until(lambda: [pid for pid in held if exists(pid)] == [last])
    assert scale(server, "m", 3) == 200
    assert len(pids(server, "m")) == 3
    assert len(loads(tmp_path, "m")) == 1
    assert answering(server, "m", 12) == pids(server, "m")


def test_scaling_to_none_and_up_loads_the_model_once_more(server: Server, tmp_path: Path) -> None:
    three(server, tmp_path)
    assert scale(server, "m", 0) == 200
    assert scale(server, "m", 2) == 200
    assert len(loads(tmp_path, "m")) == 2


def test_a_worker_is_forked_after_its_call(server: Server, tmp_path: Path) -> None:
    path = waiting_model(tmp_path, "m")
    assert server.load("m", path, initial_workers=1, preload_model=True).status == 200
    begun, done = tmp_path / "begun", tmp_path / "done"
    call = server.later(
        server.invoke, "m", f"[open({str(begun)!r}, 'w').close(), wait({str(done)!r}), os.getpid()][2]"
    )
    until(begun.exists)
    assert server.request("PUT", "/models/m?min_worker=2").status == 202
    assert len(pids(server, "m")) == 1
    done.touch()
    first = call.result().json
    until(lambda: len(pids(server, "m")) == 2)
    assert first in pids(server, "m")
    assert not refusals(server, "m")


def test_a_worker_that_ends_while_a_copy_waits_for_it_is_replaced(server: Server, tmp_path: Path) -> None:
    path = waiting_model(tmp_path, "m")
    assert server.load("m", path, initial_workers=1, preload_model=True).status == 200
    begun = tmp_path / "begun"
    call = server.later(
        server.invoke, "m", f"[open({str(begun)!r}, 'w').close(), wait('/nowhere'), os.getpid()][2]"
    )
    until(begun.exists)
    [pid] = pids(server, "m")
    before = len(server.logged("is to have 2 to 2 workers"))
    scaled = server.later(server.request, "PUT", "/models/m?min_worker=2&synchronous=true")
    until(lambda: len(server.logged("is to have 2 to 2 workers")) > before)
    os.kill(pid, signal.SIGKILL)
    assert call.result().status == 500
    assert scaled.result().status == 200
    until(lambda: len(pids(server, "m")) == 2)
    assert look(server, "m", "1") == 1


def test_unloading_while_copies_are_made_leaves_nothing(server: Server, tmp_path: Path) -> None:
    path = loading_model(tmp_path, "m")
    assert server.load("m", path, initial_workers=1, preload_model=True).status == 200
    before = server.family()
    assert server.request("PUT", "/models/m?min_worker=6").status == 202
    assert server.unload("m").status == 200
    until(lambda: len(server.family()) < len(before) + 1)
    assert server.models() == []


# --- when it cannot be ---------------------------------------------------------------------------


def _falls_back(server: Server, folder: Path, last: str, reason: str) -> None:
    before = len(refusals(server, "m"))
    held = three(server, folder, last=last)
    assert set(loads(folder, "m")) == held
    assert len(held) == 3
    lines = until(lambda: refusals(server, "m")[before + 1 :] and refusals(server, "m")[before:])
    assert [reason in line for line in lines[:2]] == [True, True]
    assert answering(server, "m", 12) == held


def test_a_model_with_a_thread_is_loaded_by_each_worker(server: Server, tmp_path: Path) -> None:
    thread = "import threading; threading.Thread(target=time.sleep, args=(1e6,), daemon=True).start()"
    _falls_back(server, tmp_path, thread, "its worker has 2 threads")


def test_a_model_with_a_child_process_is_loaded_by_each_worker(server: Server, tmp_path: Path) -> None:
    child = "import subprocess; kept.append(subprocess.Popen(['sleep', '1000000']))"
    _falls_back(server, tmp_path, child, "its worker has child processes")


def test_on_a_gpu_each_devices_worker_loads_the_model(tmp_path: Path) -> None:
    with Server(MMEKIT_NUMBER_OF_GPU="2") as server:
        path = loading_model(tmp_path, "m")
        assert server.load("m", path, initial_workers=2, preload_model=True).status == 200
        assert set(loads(tmp_path, "m")) == pids(server, "m")
        assert ["its worker uses a GPU" in line for line in until(lambda: refusals(server, "m"))] == [True]


def test_a_model_in_a_shared_worker_is_loaded_by_each(tmp_path: Path) -> None:
    with looking_server(tmp_path, [], MMEKIT_WORKERS="2") as server:
        answer = server.load("m", plain_model(tmp_path, "m"), initial_workers=2, preload_model=True)
        assert answer.status == 200
        assert len(workers(server, "m")) == 2
        assert ["a shared one" in line for line in until(lambda: refusals(server, "m"))] == [True]


def test_the_limit_of_own_workers_holds_for_copies_too(tmp_path: Path) -> None:
    with Server(MMEKIT_MAX_OWN_WORKERS="2") as server:
        path = loading_model(tmp_path, "m")
        answer = server.load("m", path, initial_workers=3, preload_model=True)
        assert answer.status == 507
        assert "MMEKIT_MAX_OWN_WORKERS=2" in answer.message


# --- settings --------------------------------------------------------------------------------------


def _load_two(folder: Path, server: Server, **parameters: Any) -> int:
    path = loading_model(folder, "m")
    assert server.load("m", path, initial_workers=2, **parameters).status == 200
    assert len(pids(server, "m")) == 2
    return len(loads(folder, "m"))


def test_config_properties_may_ask_for_it(tmp_path: Path) -> None:
    file = tmp_path / "config.properties"
    file.write_text("model_store=/\npreload_model=true\n")
    with Server("--mms-config", str(file), SAGEMAKER_MULTI_MODEL="") as server:
        assert _load_two(tmp_path, server) == 1


def test_the_setting_holds_for_all_loads_that_say_nothing(tmp_path: Path) -> None:
    with Server(MMEKIT_PRELOAD_MODEL="true") as server:
        assert _load_two(tmp_path / "one", server) == 1
        assert server.unload("m").status == 200
        assert _load_two(tmp_path / "two", server, preload_model=False) == 2


def test_shared_memory_counts_once_also_when_the_worker_that_loaded_it_is_gone(tmp_path: Path) -> None:
    with Server(MMEKIT_PRELOAD_MODEL="true", MMEKIT_MEMORY_LIMIT_BYTES=str(1024 * MIB)) as server:
        assert server.load("m", loading_model(tmp_path, "m"), initial_workers=3).status == 200
        [first] = loads(tmp_path, "m")
        used = metric(server, "mmekit_memory_used_bytes")
        cost = metric(server, 'mmekit_model_memory_bytes{model="m"}')
        assert 100 * MIB <= cost < 130 * MIB
        os.kill(first, signal.SIGKILL)
        until(lambda: first not in pids(server, "m") and len(pids(server, "m")) == 3)
        assert abs(metric(server, "mmekit_memory_used_bytes") - used) < 30 * MIB
        assert 100 * MIB <= metric(server, 'mmekit_model_memory_bytes{model="m"}') < 130 * MIB
        assert len(loads(tmp_path, "m")) == 1


def test_a_copy_of_a_hot_model_is_forked_too(tmp_path: Path) -> None:
    with Server(MMEKIT_PRELOAD_MODEL="true", MMEKIT_WORKERS="2", MMEKIT_MAX_COPIES="2") as server:
        assert server.load("m", loading_model(tmp_path, "m")).status == 200
        calls: list[Any] = []

        def is_copied() -> bool:
            calls[:] = [call for call in calls if not call.done()]
            calls.extend(server.later(server.invoke, "m", "time.sleep(0.05)") for _ in range(8 - len(calls)))
            return len(pids(server, "m")) == 2

        until(is_copied)
        assert {call.result().status for call in calls} <= {200}
        assert len(loads(tmp_path, "m")) == 1


def test_copies_fit_where_loads_would_not(tmp_path: Path) -> None:
    limit = 420 * MIB
    with Server(MMEKIT_PRELOAD_MODEL="true", MMEKIT_MEMORY_LIMIT_BYTES=str(limit)) as server:
        path = loading_model(tmp_path, "m")
        assert server.load("m", path, initial_workers=5).status == 200
        assert len(loads(tmp_path, "m")) == 1
        answer = server.load("n", loading_model(tmp_path, "n"), initial_workers=5, preload_model=False)
        assert answer.status == 507
