"""Regressions: things that happen at the same time, or in an order that nobody thought of first."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import socket
import textwrap
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mmekit import process
from tests.support.cgroup import memory_group
from tests.support.looking import EVALUATE, alive, code_model, exists, look, looking_environ, module
from tests.support.server import Answer, Server, image_environ, image_server, plain_model, until

MIB = 1024 * 1024

#: Own code that keeps this many MiB.
KEEPS = EVALUATE + "\ndef model_fn(model_dir):\n    return bytearray(b'x') * ({mib} << 20)\n"

#: How a chunked answer ends.
LAST_CHUNK = b"\r\n0\r\n\r\n"

#: Own code that lets an outside file decide what its load does, so that its folder stays as it was.
ASKS_FIRST = EVALUATE + "\nif os.path.exists({path!r}):\n    os._exit(9)\n"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Three models in one shared worker, and a spare."""
    with image_server(tmp_path, ["a", "b", "c"], MMEKIT_WORKERS="1") as server:
        assert len({server.facts(name)["pid"] for name in "abc"}) == 1
        yield server


def staying_model(folder: Path, name: str) -> tuple[Path, Path]:
    """A model whose load stays; return its folder and the file that is there until the test removes it."""
    path, begun = plain_model(folder, name), folder / f"{name}-begun"
    (path / "staying_load").write_text(str(begun))
    return path, begun


def workers(server: Server) -> set[int]:
    """The processes of all workers, the spare among them."""
    return server.family() - {server.pid, server.template_pid()}


def copies(server: Server, name: str) -> list[str]:
    return [worker["id"] for worker in server.get(f"/models/{name}").json["workers"]]


def hold(server: Server, name: str, begun: Path) -> Callable[[], Answer]:
    """Start a call that stays; returns, when it runs, what ends it and returns its answer."""
    call = server.later(server.invoke, name, f"stay {begun}")
    until(begun.exists, what=f"the call of {name} running")

    def end() -> Answer:
        assert not call.done()
        begun.unlink()
        return call.result()

    return end


def count(server: Server, kind: str) -> int:
    """How many workers of a kind the server has, those that are not ready left out."""
    pattern = rf'^mmekit_workers\{{kind="{kind}"\}} (\d+)'
    found = re.search(pattern, server.get("/metrics").text, re.MULTILINE)
    assert found
    return int(found[1])


def send(server: Server, name: str, body: str, times: int = 1, receive_bytes: int = 0) -> socket.socket:
    """Send invocations, pipelined, and return their connection without reading."""
    client = socket.socket()
    if receive_bytes:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    client.settimeout(30)
    client.connect(("127.0.0.1", server.port))
    head = f"POST /models/{name}/invoke HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n"
    client.sendall((head + body).encode() * times)
    return client


# --- stalls ------------------------------------------------------------------------------------


def test_a_load_that_stalls_its_worker_goes_on_while_the_neighbours_are_answered_elsewhere(
    tmp_path: Path,
) -> None:
    environ = image_environ(MMEKIT_WORKERS="1")
    # What loads quickly waits for a worker that loads; anything else takes the spare. Quick is 10 ms, which a
    # busy machine does not keep.
    environ["PYTHONPATH"] += os.pathsep + _with_constant(
        tmp_path / "site", "mmekit.server.placement.SLOW_LOAD_MS", 1e6
    )
    with Server(**environ) as server:
        assert server.load("a", plain_model(tmp_path, "a")).status == 200
        before = server.facts("a")["pid"]
        path, begun = staying_model(tmp_path, "b")
        load = server.later(server.load, "b", path)
        until(begun.exists, what="the load running")
        behind = server.later(server.load, "c", plain_model(tmp_path, "c"))
        until(lambda: "loading" in server.get("/models/c").message)
        time.sleep(0.5)  # its folder is looked at, then it waits for the worker, which nothing shows
        moved = server.facts("a")["pid"]
        assert not load.done()
        assert moved != before
        begun.unlink()
        assert (load.result().status, behind.result().status) == (200, 200)
        assert server.facts("b")["pid"] == server.facts("c")["pid"] == before
        # The two share like others again, after the next look of the clock: a stall holds no neighbour.
        until(lambda: count(server, "own") == 0)
        held = hold(server, "b", tmp_path / "held")
        assert server.invoke("c", "echo elsewhere").text == "elsewhere"
        assert held().status == 200


# --- streams to slow clients -------------------------------------------------------------------

#: Parts of 64 KiB: about as many as the buffers of kernel and server take before one must wait.
PARTS = range(36, 60)


def _read_late(server: Server, name: str, parts: int) -> tuple[int, Answer]:
    """Let the answer pile up for half a second, then read it; return its size and the next answer."""
    with send(server, name, f"stream {parts} 65536 0", receive_bytes=4096) as client:
        time.sleep(0.5)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, MIB)
        received = bytearray()
        while not received.endswith(LAST_CHUNK):
            received += client.recv(MIB)
        body = received.partition(b"\r\n\r\n")[2]
        return body.count(b"."), server.invoke(name, "echo next")


def test_after_a_streamed_answer_to_a_slow_client_its_worker_takes_the_next_call_at_once(
    tmp_path: Path,
) -> None:
    """The end may come in the same read as the part that asked for a pause."""
    names = [f"m{number}" for number in range(8)]
    with image_server(tmp_path, names, MMEKIT_SHARING="never") as server:
        for start in range(0, len(PARTS), len(names)):
            counts = PARTS[start : start + len(names)]
            with ThreadPoolExecutor(len(names)) as pool:
                reads = [pool.submit(_read_late, server, *pair) for pair in zip(names, counts, strict=True)]
            for parts, read in zip(counts, reads, strict=True):
                received, following = read.result()
                assert received == parts * (65536 - 6)
                # Never, if its end was not seen: a call's time stands still while its client is slow.
                assert following.text == "next", parts


@pytest.fixture
def three_clients(tmp_path: Path) -> Iterator[tuple[Server, list[socket.socket]]]:
    """Three copies that stream 16 MiB to clients that do not read, and 3 s for each call."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(
            image_server(
                tmp_path, [], MMEKIT_WORKERS="1", MMEKIT_STALL_MS="100000", MMEKIT_MAX_COPIES="1",
                SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS="3",
            )
        )  # fmt: skip
        assert server.load("a", plain_model(tmp_path, "a"), initial_workers=3).status == 200
        body = f"stream 64 {MIB // 4} 0"
        yield server, [stack.enter_context(send(server, "a", body, receive_bytes=4096)) for _ in range(3)]


def test_clients_that_read_slowly_get_all_however_long_it_takes(
    three_clients: tuple[Server, list[socket.socket]],
) -> None:
    """The clock of a call stands still while its client is what is slow."""
    server, clients = three_clients
    received = {client: bytearray() for client in clients}
    for part in (*range(1, 9), 20):  # no client waits for long, and half of the answer takes over 3 s
        time.sleep(0.45)
        for client in clients:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, MIB)
            while len(received[client]) < part * MIB and not received[client].endswith(LAST_CHUNK):
                data = client.recv(MIB)
                assert data, f"the answer was cut after {len(received[client])} bytes"
                received[client] += data
    assert server.invoke("a", "echo well").text == "well"
    assert not server.logged("is ended")


def test_clients_that_read_nothing_are_cut_and_do_not_quarantine_the_model(
    three_clients: tuple[Server, list[socket.socket]],
) -> None:
    server, clients = three_clients
    until(lambda: len(server.logged("A streamed answer was cut")) == len(clients))
    before = copies(server, "a")
    answers = [server.later(server.invoke, "a", "sleep 0.1") for _ in clients]
    assert {answer.result().text for answer in answers} == {"slept 0.1"}
    assert copies(server, "a") == before


# --- workers that die early --------------------------------------------------------------------


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


@contextlib.contextmanager
def _stopped(pid: int) -> Iterator[int]:
    os.kill(pid, signal.SIGSTOP)
    try:
        until(lambda: _stat(pid)[0] == "T")
        yield pid
    finally:
        os.kill(pid, signal.SIGCONT)


def _waits_for_work(pid: int) -> bool:
    """Whether a process is a worker that has sent its first message and has nothing to do."""
    with contextlib.suppress(OSError):
        return os.getsid(pid) == pid and _stat(pid)[0] == "S" and os.path.exists(f"/proc/{pid}/fd/3")
    return False


def _has_spare(server: Server, others: int) -> None:
    def is_there() -> bool:
        found = workers(server)
        return len(found) == others + 1 and all(map(_waits_for_work, found)) and count(server, "spare") == 1

    until(is_there, what=f"a spare beside {others} workers")
    assert server.get("/ping").status == 200  # the server has read what the spare sent before this


def _has_come_up(server: Server, known: set[int]) -> int:
    """Return a new worker when it waits for work: its first message is on its way."""

    def waiting() -> int:
        return next((pid for pid in workers(server) - known if _waits_for_work(pid)), 0)

    return int(until(waiting, what="a new worker"))


def test_a_worker_that_dies_before_its_first_message_is_read_is_not_kept(tmp_path: Path) -> None:
    """The reaper hears of its end before anybody knows its number."""
    with image_server(tmp_path, ["a"], MMEKIT_WORKERS="1") as server:
        for number in range(3):
            _has_spare(server, number + 1)
            with _stopped(server.template_pid()) as template:
                # The load takes the spare; the next one is ordered, and not forked yet.
                assert server.load(f"own-{number}", code_model(tmp_path, f"own-{number}")).status == 200
                known = workers(server)
                with _stopped(server.pid):
                    os.kill(template, signal.SIGCONT)
                    new = _has_come_up(server, known)
                    os.kill(new, signal.SIGKILL)
                    until(lambda: not alive(new))  # noqa: B023
        _has_spare(server, 4)
        answer = server.load("late", code_model(tmp_path, "late"))
        assert answer.status == 200
        assert look(server, "late", "1 + 1") == 2


def test_ping_stays_200_while_the_template_is_replaced(tmp_path: Path) -> None:
    slow = module(tmp_path / "lib", "slow_to_import", "import time\ntime.sleep(0.5)\n")
    environ = looking_environ(slow, MMEKIT_PRELOAD="slow_to_import", MMEKIT_WORKERS="1")
    with Server(**environ) as server:
        assert server.load("a", plain_model(tmp_path, "a")).status == 200
        ready = len(server.told("is ready: imports took"))
        os.kill(server.template_pid(), signal.SIGKILL)

        def replaced() -> bool:
            assert server.get("/ping").status == 200
            return len(server.logged("is ready: imports took")) > ready

        until(replaced, what="the new template being ready")
        assert look(server, "a", "1 + 1") == 2


def test_a_model_that_shadows_the_template_and_is_loaded_before_it_is_ready_runs_its_own_copy(
    tmp_path: Path,
) -> None:
    """Until the template is ready nobody knows what it imports; single-model mode does not wait for that."""
    library = module(tmp_path / "lib", "pricing", "import time\ntime.sleep(0.5)\nVERSION = 'of the image'\n")
    code_model(tmp_path / "ml", "model", "import pricing\n" + EVALUATE, pricing="VERSION = 'of the model'\n")
    environ = looking_environ(
        library,
        SAGEMAKER_MULTI_MODEL="false", SAGEMAKER_BASE_DIR=str(tmp_path / "ml"), MMEKIT_PRELOAD="pricing",
    )  # fmt: skip
    with Server(**environ) as server:
        answer = server.request("POST", "/invocations", "pricing.VERSION")
        assert (answer.status, answer.json) == (200, "of the model")
        command = server.request("POST", "/invocations", "open('/proc/self/cmdline').read()").text
        assert "mmekit.worker.main" in command, "it was forked from the template"


# --- copies ------------------------------------------------------------------------------------


@pytest.mark.parametrize("sharing", ["auto", "always"])
def test_an_unload_while_a_copy_is_being_loaded_answers_when_that_is_out_again(
    tmp_path: Path, sharing: str
) -> None:
    """A load cannot be called back once a worker has begun it."""
    steps, gate = tmp_path / "steps", tmp_path / "gate"
    program = EVALUATE + textwrap.dedent(f"""
        def step(text):
            with open({str(steps)!r}, "a") as file:
                file.write(text)

        def model_fn(model_dir):
            step("(")
            while os.path.getsize({str(steps)!r}) > 4 and not os.path.exists({str(gate)!r}):
                time.sleep(0.005)
            held = bytearray(b"x") * (100 << 20)
            step(")")
            return held
    """)
    environ = looking_environ(MMEKIT_WORKERS="2", MMEKIT_SHARING=sharing)
    with Server(**environ) as server:
        assert server.load("m", code_model(tmp_path, "m", program), initial_workers=2).status == 200
        killed = look(server, "m", "os.getpid()")
        os.kill(killed, signal.SIGKILL)
        until(lambda: steps.read_text() == "()()(", what="the copy being loaded again")
        unload = server.later(server.unload, "m")
        until(lambda: server.get("/models/m").status == 404, what="the unload having begun")
        assert not unload.done()
        gate.touch()
        assert unload.result().status == 200
        assert steps.read_text() == "()()()", "it answered before the copy was there"
        assert [pid for pid in workers(server) if process.anonymous_bytes(pid) > 60 * MIB] == []
        assert server.models() == []
        assert server.load("m", code_model(tmp_path, "m")).status == 200


def _with_constant(folder: Path, name: str, value: float) -> str:
    """Return a folder for PYTHONPATH that sets a constant of the server's when that starts."""
    owner = name.rpartition(".")[0]
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        textwrap.dedent(f"""
            import sys
            if "serve" in sys.orig_argv:
                import {owner}
                {name} = {value}
        """)
    )
    return str(folder)


def test_copies_that_were_asked_for_are_not_dissolved_though_they_are_more_than_the_pool(
    tmp_path: Path,
) -> None:
    """Else each would be loaded again at once, for ever."""
    environ = image_environ(
        MMEKIT_WORKERS="1",
        SAGEMAKER_MODEL_SERVER_WORKERS="3",
        MMEKIT_MAX_COPIES="1",
        MMEKIT_STALL_MS="100000",
    )
    environ["PYTHONPATH"] += os.pathsep + _with_constant(
        tmp_path / "site", "mmekit.server.watch._POOL_IDLE_S", 0.5
    )
    with Server(**environ) as server:
        assert server.load("three", plain_model(tmp_path, "three")).status == 200
        before = copies(server, "three")
        assert len(before) == 3
        calls = [hold(server, "three", tmp_path / f"held-{number}") for number, _ in enumerate(before)]
        # They are busy, so this one gets a fourth worker, that may go again.
        assert server.load("one", plain_model(tmp_path, "one"), initial_workers=1).status == 200
        assert {end().status for end in calls} == {200}
        until(lambda: copies(server, "one") == [], what="the fourth shared worker being dissolved")
        end = time.monotonic() + 1.0  # the pool is still above its target, and the others are idle
        while time.monotonic() < end:
            assert copies(server, "three") == before
            time.sleep(0.05)
        assert server.invoke("one", "echo back").text == "back"


def test_a_backlog_ends_when_its_clients_have_left(tmp_path: Path) -> None:
    with image_server(tmp_path, ["a"], MMEKIT_WORKERS="2", MMEKIT_MAX_COPIES="2") as server:
        first = hold(server, "a", tmp_path / "first")
        second = server.later(server.invoke, "a", f"stay {tmp_path / 'second'}")
        until(lambda: server.waiting("a") == 1)
        leaving = [send(server, "a", "echo nobody") for _ in range(3)]
        until(lambda: server.waiting("a") == 4)
        assert first().status == 200
        until((tmp_path / "second").exists, what="a call that leaves others behind")
        for client in leaving:
            client.close()
        left = 'mmekit_answers_total{status="499"} 3.0'
        until(lambda: left in server.get("/metrics").text, what="the server having seen that they left")
        (tmp_path / "second").unlink()
        assert second.result().status == 200
        end = time.monotonic() + 1.0
        while time.monotonic() < end:  # without traffic nothing happens
            assert len(copies(server, "a")) == 1
            time.sleep(0.02)
        # Nor does the old backlog count when a request waits again.
        third = hold(server, "a", tmp_path / "third")
        waits = server.later(server.invoke, "a", "echo waited")
        until(lambda: server.waiting("a") == 1)
        time.sleep(0.35)  # the clock has looked at it
        assert (third().status, waits.result().text) == (200, "waited")
        assert len(copies(server, "a")) == 1
        assert not server.logged("Model a has 2 copies now.")


# --- memory ------------------------------------------------------------------------------------


def test_after_a_refusal_the_spare_comes_back_when_memory_has_room_and_a_stall_holds_nobody(
    tmp_path: Path,
) -> None:
    with image_server(
        tmp_path, ["a", "b"], MMEKIT_WORKERS="1", MMEKIT_MEMORY_LIMIT_BYTES=str(300 * MIB)
    ) as server:
        loaded: list[str] = []
        while (
            answer := server.load(f"m{len(loaded)}", _keeps(tmp_path, f"m{len(loaded)}", 40))
        ).status == 200:
            loaded.append(f"m{len(loaded)}")
        assert answer.status == 507
        until(lambda: len(workers(server)) == 1 + len(loaded), what="the spare being given up")
        for name in loaded:
            assert server.unload(name).status == 200
        _has_spare(server, 1)
        held = hold(server, "a", tmp_path / "held")
        assert server.invoke("b", "echo elsewhere").text == "elsewhere"
        assert held().status == 200


def _keeps(folder: Path, name: str, mib: int) -> Path:
    return code_model(folder, name, KEEPS.format(mib=mib))


def test_a_call_gets_memory_that_came_free_after_its_model_was_loaded(tmp_path: Path) -> None:
    environ = looking_environ(MMEKIT_WORKERS="1", MMEKIT_MEMORY_LIMIT_BYTES=str(600 * MIB))
    with Server(**environ) as server:
        assert server.load("filler", _keeps(tmp_path, "filler", 250)).status == 200
        assert server.load("m", plain_model(tmp_path, "m")).status == 200
        assert server.unload("filler").status == 200
        assert look(server, "m", f"len(bytearray({350 * MIB}))") == 350 * MIB


def test_after_heavy_loads_of_a_kind_small_models_of_it_still_load_where_there_is_room(
    tmp_path: Path,
) -> None:
    with image_server(tmp_path, [], MMEKIT_WORKERS="1", MMEKIT_MEMORY_LIMIT_BYTES=str(400 * MIB)) as server:
        for name in ("heavy-0", "heavy-1"):
            path = plain_model(tmp_path, name)
            (path / "heavy_load").write_text("200")
            assert server.load(name, path).status == 200
        assert server.load("filler", _keeps(tmp_path, "filler", 100)).status == 200
        for number in range(3):
            answer = server.load(f"small-{number}", plain_model(tmp_path, f"small-{number}"))
            assert answer.status == 200, answer.text
        assert server.invoke("small-0", "echo here").text == "here"


def _huge(folder: Path) -> Path:
    path = plain_model(folder, "huge")
    with (path / "weights.dat").open("wb") as file:
        file.truncate(4 << 30)
    return path


def _refused_alone_and_beside(server: Server, folder: Path, path: Path) -> None:
    alone = server.load("m", path)
    assert (alone.status, alone.json["type"]) == (500, "InternalServerException")
    assert re.search("[Mm]emory", alone.message)
    assert server.load("other", plain_model(folder, "other")).status == 200
    beside = server.load("m", path)
    assert beside.status == 507
    assert beside.json["type"] in ("OutOfMemoryError", "InternalServerException")  # before it began, or in it
    assert server.models() == ["other"]


@pytest.mark.parametrize("make", [_huge, lambda folder: _keeps(folder, "m", 2048)], ids=["a file", "a load"])
def test_a_load_that_never_fits_is_507_only_when_there_is_a_model_to_unload(
    tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    environ = looking_environ(MMEKIT_WORKERS="1", MMEKIT_MEMORY_LIMIT_BYTES=str(250 * MIB))
    with Server(**environ) as server:
        _refused_alone_and_beside(server, tmp_path, make(tmp_path))


def test_so_is_one_that_the_watchdog_ends(tmp_path: Path) -> None:
    with memory_group(300 * MIB) as group:
        program = EVALUATE + group.fill_code + "import mmap\nfill(mmap.mmap(-1, 600 << 20))\n"
        server = Server(**looking_environ(MMEKIT_WORKERS="1")).start(wrap=group.enter)
        try:
            _refused_alone_and_beside(server, tmp_path, code_model(tmp_path, "m", program))
            assert group.oom_kills() == 0
        finally:
            server.close()


def test_where_no_model_may_have_a_worker_of_its_own_no_unload_would_help(tmp_path: Path) -> None:
    with image_server(tmp_path, ["other"], MMEKIT_MAX_OWN_WORKERS="0") as server:
        answer = server.load("own", code_model(tmp_path, "own"))
        assert answer.status == 500
        assert "MMEKIT_MAX_OWN_WORKERS=0" in answer.message
        assert server.models() == ["other"]


# --- models that cannot come back --------------------------------------------------------------


def test_a_request_behind_one_whose_reload_failed_is_answered_at_once_too(
    server: Server, tmp_path: Path
) -> None:
    """It comes in while the first is being answered, when that reload has not quite ended."""
    pid = server.facts("a")["pid"]
    os.kill(pid, signal.SIGKILL)
    until(lambda: not exists(pid))
    (tmp_path / "a" / "weights.dat").write_bytes(b"other")
    with contextlib.ExitStack() as clients:
        for client in [clients.enter_context(send(server, "a", "echo x")) for _ in range(4)]:
            received = b""
            while data := client.recv(65536):  # an error ends its connection
                received += data
            assert b"Model a lost its worker and could not be loaded again" in received


def test_a_model_that_kills_its_worker_when_it_comes_back_is_quarantined(tmp_path: Path) -> None:
    deadly = tmp_path / "deadly"
    with Server(**looking_environ(MMEKIT_WORKERS="1")) as server:
        path = code_model(tmp_path, "m", ASKS_FIRST.format(path=str(deadly)))
        assert server.load("m", path).status == 200
        pid = look(server, "m", "os.getpid()")
        os.kill(pid, signal.SIGKILL)
        until(lambda: not exists(pid))
        deadly.touch()
        for _ in range(3):
            answer = server.invoke("m", "1")
            assert answer.status >= 500
        answer = server.invoke("m", "1")
        assert answer.status == 503
        assert "ended its worker 3 times within ten minutes and is quarantined" in answer.message
        assert "exited with code 9" in answer.message
        deadly.unlink()
        assert server.unload("m").status == 200
        assert server.load("m", path).status == 200
        assert look(server, "m", "1 + 1") == 2


def test_a_model_whose_workers_end_between_calls_is_quarantined_and_no_more_copies_come(
    tmp_path: Path,
) -> None:
    doomed = tmp_path / "doomed"
    loads = tmp_path / "loads"
    program = EVALUATE + textwrap.dedent(f"""
        import threading

        def ends():
            while not os.path.exists({str(doomed)!r}):
                time.sleep(0.005)
            os._exit(9)

        def model_fn(model_dir):
            with open({str(loads)!r}, "a") as file:
                file.write("x")
            threading.Thread(target=ends, daemon=True).start()
            return model_dir
    """)
    with Server(MMEKIT_WORKERS="1") as server:
        assert server.load("m", code_model(tmp_path, "m", program), initial_workers=3).status == 200
        doomed.touch()
        until(lambda: server.logged("ended its worker 3 times within ten minutes"))
        answer = server.invoke("m", "1")
        assert answer.status == 503
        assert "exited with code 9 between calls" in answer.message
        # Server, template and spare: a copy that was on its way has ended, too.
        until(lambda: len(server.family()) == 3, what="all workers of the model having ended")
        begun = len(loads.read_text())
        assert [server.invoke("m", "1").status for _ in range(100)] == [503] * 100
        assert len(loads.read_text()) == begun


def test_a_model_that_crashed_does_it_again_in_a_worker_of_its_own(server: Server) -> None:
    assert server.invoke("a", "exit 3").status == 500
    pids = {name: server.facts(name)["pid"] for name in "abc"}
    assert pids["a"] not in (pids["b"], pids["c"])
    assert server.invoke("a", "exit 3").status == 500
    assert {name: server.facts(name)["pid"] for name in "bc"} == {name: pids[name] for name in "bc"}


def test_of_a_batch_that_crashed_each_request_runs_again_away_from_the_neighbours(tmp_path: Path) -> None:
    with image_server(tmp_path, ["a"], MMEKIT_WORKERS="1", MMEKIT_STALL_MS="100000") as server:
        path = plain_model(tmp_path, "d")
        assert server.load("d", path, batch_size=2, max_batch_delay=5000).status == 200
        assert copies(server, "d") == copies(server, "a")
        begun = tmp_path / "begun"
        with send(server, "d", f"hold 0.3 {begun}"):
            assert server.get("/ping").status == 200  # so that the other one comes second
            crash = server.later(server.invoke, "d", "exit 3")
            until(begun.exists, what="the batch running")
            behind = server.facts("a")["pid"]  # where it came back, beside the batch if that shared again
            assert crash.result().status == 500
        assert server.facts("a")["pid"] == behind


# --- start -------------------------------------------------------------------------------------


def test_the_soft_limit_of_descriptors_is_raised_to_the_hard_one(tmp_path: Path) -> None:
    """Containers often start with 1,024: a thousand models with workers of their own need more."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    server = Server(**looking_environ(MMEKIT_WORKERS="1"))
    server.start(wrap=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard)))
    try:
        assert resource.prlimit(server.pid, resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        server.close()
