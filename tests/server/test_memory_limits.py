"""Memory that is short is a 507 for who asks for it; the server and the models it has go on."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.cgroup import MemoryGroup, memory_group
from tests.support.looking import EVALUATE, code_model, look, looking_environ
from tests.support.server import MODELS, Answer, Server, plain_model, until

MIB = 1024 * 1024

#: Keeps ``{mib}`` MiB of a Python object, or of native memory that no allocator of Python's sees.
KEEPS = EVALUATE + "\ndef model_fn(model_dir):\n    return bytearray(b'x') * ({mib} << 20)\n"
NATIVE = """
import mmap
def model_fn(model_dir):
    held = mmap.mmap(-1, {mib} << 20)
    fill(held)
    return held

def predict_fn(data, model):
    return data
"""


@contextmanager
def limited(
    tmp_path: Path, limit_bytes: int, *models: str, **environ: str
) -> Iterator[tuple[Server, MemoryGroup]]:
    """A server in a real cgroup with this limit, and models without code in its shared worker."""
    with memory_group(limit_bytes) as group:
        environ.setdefault("MMEKIT_WORKERS", "1")
        server = Server(**looking_environ(tmp_path, **environ)).start(wrap=group.enter)
        try:
            for name in models:
                assert server.load(name, plain_model(tmp_path, name)).status == 200
            yield server, group
        finally:
            server.close()


def _refused(server: Server, folder: Path, program: str, most: int = 40) -> tuple[list[str], Answer]:
    """Load models until one is refused; return the names of those that came in, and the refusal."""
    loaded: list[str] = []
    for name in [f"m{number}" for number in range(most)]:
        if name in server.models():
            continue
        answer = server.load(name, code_model(folder, name, program))
        if answer.status != 200:
            return loaded, answer
        loaded.append(name)
    raise AssertionError(f"all of {most} loads succeeded")


# --- admission ---------------------------------------------------------------------------------


def test_loads_are_507_with_the_numbers_when_the_cgroup_is_full_and_one_unload_lets_the_next_in(
    tmp_path: Path,
) -> None:
    with limited(tmp_path, 400 * MIB, "a") as (server, group):
        loaded, refused = _refused(server, tmp_path, KEEPS.format(mib=40))
        assert 2 <= len(loaded) <= 8
        assert refused.status == 507
        assert refused.json["type"] == "OutOfMemoryError"
        assert re.search(r"limit 400.0 MiB|of 400 MiB were used", refused.message)
        assert "cgroup v" in refused.message
        assert look(server, "a", "1 + 1") == 2
        assert [look(server, name, "1 + 1") for name in loaded] == [2] * len(loaded)
        for name in loaded[:2]:  # as the platform does: unload, and try again
            assert server.unload(name).status == 200
            fits = server.load("next", code_model(tmp_path, "next", KEEPS.format(mib=40)))
            if fits.status == 200:
                break
        assert fits.status == 200, fits.body
        assert group.oom_kills() == 0


def test_a_load_that_is_known_not_to_fit_is_507_with_all_the_numbers_before_it_is_tried(
    tmp_path: Path,
) -> None:
    with limited(tmp_path, 400 * MIB, "a") as (server, _):
        big = code_model(tmp_path, "big", KEEPS.format(mib=180))
        assert server.load("big", big).status == 200
        answer = server.load("twin", big)
        assert answer.status == 507
        assert "(measured when it was loaded before), but" in answer.message
        assert "limit 400.0 MiB (cgroup v" in answer.message
        assert re.search(r"needs about [\d.]+ MiB of memory \(.+\), but [\d.]+ MiB are free", answer.message)
        assert "Unload other models and try again." in answer.message
        assert look(server, "big", "1 + 1") == look(server, "a", "1 + 1") == 2
        assert server.unload("big").status == 200
        assert server.load("twin", big).status == 200


def test_the_setting_alone_limits_without_a_cgroup(tmp_path: Path) -> None:
    environ = looking_environ(tmp_path, MMEKIT_WORKERS="1", MMEKIT_MEMORY_LIMIT_BYTES=str(300 * MIB))
    with Server(**environ) as server:
        loaded, refused = _refused(server, tmp_path, KEEPS.format(mib=40))
        assert 2 <= len(loaded) <= 7
        assert refused.status == 507
        assert re.search(r"limit 300.0 MiB|of 300 MiB were used", refused.message)
        assert "(MMEKIT_MEMORY_LIMIT_BYTES" in refused.message
        # A few MiB beside the models themselves may be missing: SageMaker, too, unloads until it fits.
        following = code_model(tmp_path, "next", KEEPS.format(mib=40))
        for name in loaded[:2]:
            assert server.unload(name).status == 200
            if (answer := server.load("next", following)).status == 200:
                break
        assert answer.status == 200


def test_a_model_that_can_never_fit_is_507_before_it_is_tried(tmp_path: Path) -> None:
    path = plain_model(tmp_path, "huge")
    with (path / "weights.dat").open("wb") as file:
        file.truncate(4 << 30)
    with limited(tmp_path, 300 * MIB, "a") as (server, _):
        answer = server.load("huge", path)
        assert answer.status == 507
        assert "Unloading every other model would free" in answer.message
        assert "which is not enough: give the container more memory" in answer.message
        assert server.models() == ["a"]


def test_page_cache_is_not_use(tmp_path: Path) -> None:
    """A container that has read more files than its limit still loads."""
    with limited(tmp_path, 300 * MIB) as (server, group):
        files = tmp_path / "files.bin"
        with files.open("wb") as out:
            for _ in range(280):
                out.write(os.urandom(MIB))
            os.fsync(out.fileno())
            os.posix_fadvise(out.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        reader = code_model(tmp_path, "reader")
        assert server.load("reader", reader).status == 200
        parts = f"iter(lambda f=open({str(files)!r}, 'rb', 0): f.read(1 << 20), b'')"
        read = f"sum(len(part) for part in {parts})"
        assert look(server, "reader", read) == 280 * MIB
        assert look(server, "reader", read) == 280 * MIB
        assert int(group.usage_file.read_text()) > 200 * MIB, "the cache is there"
        assert server.load("big", code_model(tmp_path, "big", KEEPS.format(mib=60))).status == 200
        assert group.oom_kills() == 0


def test_the_spare_goes_before_a_load_is_refused(tmp_path: Path) -> None:
    with limited(tmp_path, 400 * MIB) as (server, _):
        _, refused = _refused(server, tmp_path, KEEPS.format(mib=40))
        assert refused.status == 507
        processes = 2 + len(server.models())  # server and template
        until(lambda: len(server.family()) == processes, what="no spare being kept while memory is short")


def test_idle_copies_go_before_a_load_is_refused(tmp_path: Path) -> None:
    environ = {"MMEKIT_MAX_COPIES": "2", "MMEKIT_WORKERS": "2"}
    with limited(tmp_path, 500 * MIB, **environ) as (server, _):
        assert server.load("hot", code_model(tmp_path, "hot", KEEPS.format(mib=60))).status == 200
        calls = [server.later(server.invoke, "hot", "time.sleep(0.1)") for _ in range(40)]
        until(lambda: len(server.get("/models/hot").json["workers"]) == 2, what="a copy of the hot model")
        assert {call.result().status for call in calls} == {200}
        _, refused = _refused(server, tmp_path, KEEPS.format(mib=40))
        assert refused.status == 507
        assert len(server.get("/models/hot").json["workers"]) == 1
        assert look(server, "hot", "1 + 1") == 2


# --- while loading -----------------------------------------------------------------------------


def test_a_load_that_hits_its_grant_while_memory_is_free_is_tried_once_more_and_succeeds(
    tmp_path: Path,
) -> None:
    """Its file is tiny, so the estimate is, too."""
    joblib = pytest.importorskip("joblib")
    numpy = pytest.importorskip("numpy")
    linear_model = pytest.importorskip("sklearn.linear_model")
    model = linear_model.LinearRegression().fit(numpy.eye(4), [1, 2, 3, 4])
    model.zeros_ = numpy.zeros(200 * MIB // 8)
    (tmp_path / "m").mkdir()
    joblib.dump(model, tmp_path / "m" / "model.joblib", compress=3)
    del model
    ran_out = "Failed to start workers: out of memory"
    with memory_group(900 * MIB) as group:
        server = Server(MMEKIT_PRELOAD="mmekit_handlers.sklearn", MMEKIT_WORKERS="1").start(wrap=group.enter)
        try:
            assert server.load("m", tmp_path / "m").status == 200
            assert len(server.told(ran_out)) == 1
            (worker,) = server.get("/models/m").json["workers"]
            assert worker["memoryUsage"] > 190 * MIB
            assert server.invoke("m", "1,2,3,4", "text/csv").status == 200
            assert server.unload("m").status == 200
            assert server.load("m", tmp_path / "m").status == 200
            assert len(server.logged(ran_out)) == 1, "what it needed is remembered"
            assert group.oom_kills() == 0
        finally:
            server.close()


def test_peoples_code_may_use_all_that_is_free_at_its_first_try(tmp_path: Path) -> None:
    """It may import a library of any size: refused memory half way, that is broken for a second try."""
    tries = tmp_path / "tries"
    program = KEEPS.format(mib=200) + f"open({str(tries)!r}, 'a').write('x')\n"
    with limited(tmp_path, 900 * MIB) as (server, _):
        assert server.load("m", code_model(tmp_path, "m", program)).status == 200
        assert tries.read_text() == "x"


@pytest.mark.parametrize("name", ["torch", "xgboost", "sklearn.linear_model", "pandas"])
def test_own_code_can_import_a_large_library_that_the_template_does_not_have(
    tmp_path: Path, name: str
) -> None:
    pytest.importorskip(name)
    with Server(**looking_environ(tmp_path)) as server:
        answer = server.load("m", code_model(tmp_path, "m", f"import {name}\n" + EVALUATE))
        assert answer.status == 200, answer.body
        assert look(server, "m", f"{name!r} in sys.modules") is True


def test_a_load_that_needs_more_than_there_is_is_507_and_leaves_no_trace(tmp_path: Path) -> None:
    with limited(tmp_path, 400 * MIB, "a") as (server, group):
        for _ in range(2):
            answer = server.load("m", MODELS / "allocates_on_load")
            assert answer.status == 507
            assert server.models() == ["a"]
        assert server.load("m", code_model(tmp_path, "m")).status == 200
        assert look(server, "a", "1 + 1") == look(server, "m", "1 + 1") == 2
        assert group.oom_kills() == 0


def test_a_model_that_says_it_is_out_of_memory_is_507_with_its_words(tmp_path: Path) -> None:
    with limited(tmp_path, 400 * MIB, "a") as (server, _):
        answer = server.load("m", MODELS / "out_of_memory_on_load")
        assert answer.status == 507
        assert "cannot allocate 40 GiB for the weights" in answer.message
        assert server.models() == ["a"]


def test_native_memory_beyond_the_limit_is_507_before_the_kernel_comes(tmp_path: Path) -> None:
    """Shared mappings count against no RLIMIT_DATA: only the watchdog sees them grow."""
    with limited(tmp_path, 400 * MIB, "a") as (server, group):
        program = group.fill_code + NATIVE.format(mib=600)
        pid = look(server, "a", "os.getpid()")
        answer = server.load("m", code_model(tmp_path, "m", program))
        assert answer.status == 507
        assert "Out of memory: " in answer.message
        assert "its worker was ended before the kernel would have ended one" in answer.message
        assert look(server, "a", "os.getpid()") == pid
        assert server.models() == ["a"]
        assert group.oom_kills() == 0
        until(lambda: server.load("n", code_model(tmp_path, "n")).status == 200)


# --- calls -------------------------------------------------------------------------------------


def test_a_call_that_asks_for_more_than_is_left_is_507_and_its_worker_lives(tmp_path: Path) -> None:
    with limited(tmp_path, 400 * MIB, "a", "b") as (server, group):
        pid = look(server, "a", "os.getpid()")
        answer = server.invoke("a", "len(bytearray(2 << 30))")
        assert answer.status == 507
        assert look(server, "b", "os.getpid()") == pid
        assert group.oom_kills() == 0


def test_a_worker_that_leaks_natively_is_ended_alone(tmp_path: Path) -> None:
    with limited(tmp_path, 400 * MIB, "a") as (server, group):
        pid = look(server, "a", "os.getpid()")
        program = EVALUATE + "\nimport mmap\n" + group.fill_code
        assert server.load("leak", code_model(tmp_path, "leak", program)).status == 200
        answer = server.invoke("leak", "kept.append(mmap.mmap(-1, 600 << 20)) or fill(kept[0])")
        assert answer.status == 507
        assert "its worker was ended before the kernel would have ended one" in answer.message
        assert look(server, "a", "os.getpid()") == pid
        assert look(server, "leak", "len(kept)") == 0, "it came back, empty"
        assert group.oom_kills() == 0


def test_a_leak_over_many_calls_costs_its_own_worker_and_nothing_else(tmp_path: Path) -> None:
    with limited(tmp_path, 300 * MIB, "a") as (server, group):
        pid = look(server, "a", "os.getpid()")
        assert server.load("leaks", MODELS / "leaks").status == 200
        answers = [server.invoke("leaks", "x") for _ in range(90)]
        assert {answer.status for answer in answers} <= {200, 507}
        assert max(int(answer.text) for answer in answers if answer.status == 200) < 60, "it began anew"
        assert look(server, "a", "os.getpid()") == pid
        assert group.oom_kills() == 0


@pytest.mark.parametrize("pause_s", [0.004, 0.012, 0.03])
def test_a_leak_of_short_calls_is_seen_though_none_of_them_runs_at_a_tick(
    tmp_path: Path, pause_s: float
) -> None:
    with limited(tmp_path, 300 * MIB, "a") as (server, group):
        assert server.load("leaks", MODELS / "leaks").status == 200
        for _ in range(60):
            assert server.invoke("leaks", "x").status in (200, 507)
            time.sleep(pause_s)  # the pace of this client, not a wait for something
        assert group.oom_kills() == 0


def test_the_standing_allowance_follows_what_is_left_after_the_load(tmp_path: Path) -> None:
    limits = "__import__('resource').getrlimit(__import__('resource').RLIMIT_DATA)"
    with limited(tmp_path, 400 * MIB, "a") as (server, _):
        soft, hard = look(server, "a", limits)
        data = look(server, "a", "int(process_status('VmData').split()[0])") * 1024
        assert hard == -1, "the soft limit only: it can be lifted for the next load"
        assert 64 * MIB <= soft - data <= 400 * MIB


def test_a_devices_worker_has_no_limit_of_its_data(tmp_path: Path) -> None:
    """CUDA reserves address space."""
    limits = "__import__('resource').getrlimit(__import__('resource').RLIMIT_DATA)[0]"
    environ = {"MMEKIT_NUMBER_OF_GPU": "1", "MMEKIT_PYTORCH_DEVICE": "cpu"}
    with Server(**looking_environ(tmp_path, **environ)) as server:
        assert server.load("m", code_model(tmp_path, "m")).status == 200
        assert look(server, "m", limits) == -1


# --- the kernel --------------------------------------------------------------------------------


def test_a_worker_that_the_kernel_ended_for_memory_is_507_and_the_server_lives(tmp_path: Path) -> None:
    """With next to no reserve the kernel is first; it takes the worker (oom_score_adj)."""
    program = EVALUATE + "\nimport ctypes\n"
    with limited(tmp_path, 400 * MIB, "a", MMEKIT_MEMORY_RESERVE_BYTES="0") as (server, group):
        assert server.load("m", code_model(tmp_path, "m", program)).status == 200
        # Locked in one system call, it grows by hundreds of MiB between two looks of the watchdog.
        answer = server.invoke("m", "__import__('mmap').mmap(-1, 700 << 20, flags=0x8001) and 1")
        assert group.oom_kills() >= 1
        assert answer.status == 507
        assert "The kernel killed its process because the container had no memory left." in answer.message
        assert server.process is not None
        assert server.process.poll() is None
        assert look(server, "a", "1 + 1") == look(server, "m", "1 + 1") == 2


def test_a_worker_killed_for_another_reason_is_not_507(tmp_path: Path) -> None:
    with limited(tmp_path, 400 * MIB, "a") as (server, _):
        answer = server.invoke("a", f"os.kill(os.getpid(), {int(signal.SIGKILL)})")
        assert answer.status == 500
