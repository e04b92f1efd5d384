"""The template is warm, single-threaded and replaceable; what it forks are workers of the server."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.looking import alive, code_model, exists, look, looking_environ, looking_server, module
from tests.support.server import Server, plain_model, until


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Two workers with a model each, and a spare: the template is not in the middle of a fork."""
    with looking_server(tmp_path, ["a", "b"], MMEKIT_WORKERS="2") as server:
        until(lambda: 'mmekit_workers{kind="spare"} 1.0' in server.get("/metrics").text, what="the spare")
        yield server


def _environ_of(pid: int) -> dict[str, str]:
    pairs = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(pair.split("=", 1) for pair in pairs if pair)


# --- what a worker is --------------------------------------------------------------------------


def test_workers_are_children_of_the_server_and_survive_the_template(server: Server) -> None:
    workers = {name: look(server, name, "[os.getpid(), os.getppid()]") for name in "ab"}
    template = server.template_pid()
    os.kill(template, signal.SIGKILL)
    until(lambda: not exists(template), what="the template being reaped")
    assert {name: look(server, name, "[os.getpid(), os.getppid()]") for name in "ab"} == workers
    assert {parent for _, parent in workers.values()} == {server.pid}


def test_a_new_template_is_started_and_forks_again(server: Server, tmp_path: Path) -> None:
    before = server.template_pid()
    os.kill(before, signal.SIGKILL)
    after = until(lambda: server.template_pid() not in (0, before) and server.template_pid())
    assert server.told("The template process died (1 in a row); it is started again.")
    for number in range(3):  # the spare was forked before; the others were not
        name = f"own-{number}"
        assert server.load(name, code_model(tmp_path, name)).status == 200
        assert look(server, name, "os.getppid()") == server.pid
    assert server.template_pid() == after


def test_a_template_that_dies_at_its_imports_is_started_without_them_after_three_times(
    tmp_path: Path,
) -> None:
    modules = module(tmp_path / "lib", "fatal", "import os; os._exit(9)")
    with looking_server(tmp_path, ["a"], modules, MMEKIT_PRELOAD="fatal") as server:
        assert look(server, "a", "'fatal' in sys.modules") is False
        assert server.told("The template process died (3 in a row)")
        assert server.told("It is started without fatal: loads will import them.")


def test_a_module_that_cannot_be_imported_is_named_and_the_others_are_imported(tmp_path: Path) -> None:
    modules = module(tmp_path / "lib", "broken", "raise ValueError('no licence')")
    module(tmp_path / "lib", "sound", "")
    with looking_server(tmp_path, ["a"], modules, MMEKIT_PRELOAD="broken,sound") as server:
        assert look(server, "a", "'sound' in sys.modules") is True
        assert server.told("The template cannot import broken")
        assert server.told("ValueError: no licence")


def test_a_worker_has_three_standard_descriptors_its_channel_and_no_others(server: Server) -> None:
    folder = f"/proc/{look(server, 'a', 'os.getpid()')}/fd"
    links = {name: os.readlink(f"{folder}/{name}") for name in os.listdir(folder)}
    assert set(links) == {"0", "1", "2", "3"}
    assert links["0"] == "/dev/null"
    assert links["1"] == links["2"]
    assert links["1"].startswith("pipe:")
    assert links["3"].startswith("socket:")


def test_a_worker_has_one_task_and_its_own_session(server: Server) -> None:
    facts = look(
        server, "a", "[len(os.listdir('/proc/self/task')), os.getpid() == os.getsid(0) == os.getpgid(0)]"
    )
    assert facts == [1, True]


def test_the_kernel_takes_a_worker_before_the_server(server: Server, tmp_path: Path) -> None:
    assert server.load("own", code_model(tmp_path, "own")).status == 200
    expression = "int(open('/proc/self/oom_score_adj').read())"
    assert [look(server, name, expression) for name in ("a", "own")] == [1000, 1000]
    assert int(Path(f"/proc/{server.pid}/oom_score_adj").read_text()) < 1000
    assert int(Path(f"/proc/{server.template_pid()}/oom_score_adj").read_text()) < 1000


def test_workers_draw_different_random_numbers(server: Server) -> None:
    assert look(server, "a", "random.random()") != look(server, "b", "random.random()")


def test_what_the_template_holds_is_frozen_for_the_collector(server: Server) -> None:
    assert look(server, "a", "gc.get_freeze_count()") > 1000


def test_the_template_has_one_thread_a_library_and_the_worker_has_what_the_user_set(tmp_path: Path) -> None:
    with looking_server(tmp_path, ["a"], OMP_NUM_THREADS="3") as server:
        template = _environ_of(server.template_pid())
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        assert [template[name] for name in names] == ["1", "1", "1"]
        assert look(server, "a", "os.environ['OMP_NUM_THREADS']") == "3"


def test_a_call_has_one_thread_by_default(server: Server) -> None:
    assert look(server, "a", "os.environ['OMP_NUM_THREADS']") == "1"


# --- one task when it forks --------------------------------------------------------------------


def test_a_preloaded_module_that_leaves_a_thread_makes_workers_fresh_processes(tmp_path: Path) -> None:
    modules = module(
        tmp_path / "lib",
        "threaded",
        """
        import threading, time
        threading.Thread(target=time.sleep, args=(10_000,), daemon=True).start()
        """,
    )
    with looking_server(tmp_path, ["a"], modules, MMEKIT_PRELOAD="threaded") as server:
        assert look(server, "a", "'threaded' in sys.modules") is False
        assert look(server, "a", "os.getppid()") == server.pid
        assert server.told("the template has 2 threads: forking it would not be safe")


# --- imports and first predictions happen once -------------------------------------------------


def test_a_module_is_imported_once_and_its_handlers_warm_up_once(tmp_path: Path) -> None:
    modules = module(
        tmp_path / "lib",
        "warm",
        """
        import os
        imported_by = os.getpid()
        warmed_by = []

        class First:
            @classmethod
            def warm_up(cls):
                warmed_by.append(("First", os.getpid()))

        class Second:
            @classmethod
            def warm_up(cls):
                warmed_by.append(("Second", os.getpid()))
                raise RuntimeError("no prediction today")
        """,
    )
    with looking_server(tmp_path, ["a", "b"], modules, MMEKIT_PRELOAD="warm", MMEKIT_WORKERS="2") as server:
        template = server.template_pid()
        for name in "ab":
            found = look(server, name, "[sys.modules['warm'].imported_by, sys.modules['warm'].warmed_by]")
            assert found == [template, [["First", template], ["Second", template]]]
        assert server.told("warm.Second cannot make its first prediction.")


# --- readiness ---------------------------------------------------------------------------------


def test_ping_is_503_until_a_worker_can_be_forked_and_then_200(tmp_path: Path) -> None:
    gate = tmp_path / "open"
    modules = module(
        tmp_path / "lib",
        "gated",
        f"""
        import os, time
        while not os.path.exists({str(gate)!r}):
            time.sleep(0.01)
        """,
    )
    with looking_server(tmp_path, [], modules, ready=False, MMEKIT_PRELOAD="gated") as server:
        until(server.template_pid)
        answer = server.get("/ping")
        assert (answer.status, answer.json) == (503, {"status": "Unhealthy"})
        early = server.later(server.load, "early", plain_model(tmp_path, "early"))
        assert server.get("/models").json == {"models": []}
        assert server.get("/ping").status == 503
        gate.touch()
        until(lambda: server.get("/ping").status == 200)
        assert early.result().status == 200, "a load that came early waits for the template"
        assert server.told("is ready: imports took")


# --- ends --------------------------------------------------------------------------------------


def test_killing_the_server_ends_the_template_and_all_workers(tmp_path: Path) -> None:
    server = Server(**looking_environ(tmp_path, MMEKIT_WORKERS="2")).start()
    for name in "ab":
        assert server.load(name, plain_model(tmp_path, name)).status == 200
    assert server.load("own", code_model(tmp_path, "own")).status == 200
    shadowing = code_model(tmp_path, "fresh", msgspec="NAME = 'mine'")
    assert server.load("fresh", shadowing).status == 200
    busy = server.later(server.invoke, "own", "time.sleep(300)")
    workers = [look(server, name, "os.getpid()") for name in ("a", "b", "fresh")]
    family = server.family()
    assert {*workers, server.template_pid(), server.pid} < family
    server.signal(signal.SIGKILL)
    until(lambda: not [pid for pid in family - {server.pid} if alive(pid)], what="the whole family ending")
    assert busy.exception(10) is not None
    server.close()


def test_grandchildren_of_a_worker_that_ended_come_to_the_server_and_are_reaped(
    server: Server, tmp_path: Path
) -> None:
    # In a session of its own it is not in the worker's group, so it outlives the worker.
    start = "subprocess.Popen(['sleep', '{}'], start_new_session=True).pid"
    orphan = look(server, "a", start.format("60"))
    worker = look(server, "a", "os.getpid()")
    os.kill(worker, signal.SIGKILL)
    until(lambda: not exists(worker), what="the worker being reaped")
    assert int(Path(f"/proc/{orphan}/stat").read_text().rpartition(")")[2].split()[1]) == server.pid
    os.kill(orphan, signal.SIGKILL)
    until(lambda: not exists(orphan), what="the orphan being reaped")
    assert look(server, "a", "os.getpid()") != worker


def test_unloading_a_model_ends_the_processes_that_its_code_started(server: Server, tmp_path: Path) -> None:
    assert server.load("own", code_model(tmp_path, "own")).status == 200
    child = look(server, "own", "__import__('subprocess').Popen(['sleep', '300']).pid")
    assert alive(child)
    assert server.unload("own").status == 200
    until(lambda: not exists(child), what="the model's child being ended and reaped")


def test_the_server_reaps_many_children_that_end_at_once(server: Server, tmp_path: Path) -> None:
    names = [f"own-{number}" for number in range(5)]
    for name in names:
        assert server.load(name, code_model(tmp_path, name)).status == 200
    pids = [look(server, name, "os.getpid()") for name in names]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    until(lambda: not [pid for pid in pids if exists(pid)], what="all of them being reaped")
    assert {look(server, name, "os.getppid()") for name in names} == {server.pid}


def test_health_and_lists_are_answered_at_once_while_models_compute_and_stall(
    server: Server, tmp_path: Path
) -> None:
    calls = [server.later(server.invoke, name, "sum(range(60_000_000))") for name in "ab"]
    holds = {name: tmp_path / f"stay-{name}" for name in "ab"}
    calls += [server.later(server.invoke, name, f"stay({str(hold)!r})") for name, hold in holds.items()]
    time.sleep(0.1)  # by now they compute
    times = sorted(server.get(path).seconds for _ in range(10) for path in ("/ping", "/models", "/models/a"))
    assert not any(call.done() for call in calls[2:])
    assert times[len(times) // 2] < 0.1
    for hold in holds.values():
        until(hold.exists)
        hold.unlink()
    assert {call.result().status for call in calls} == {200}
