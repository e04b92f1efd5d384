"""Which worker a model gets: shared, its own, fresh or the device's; and how large bodies reach it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmekit.errors import MmekitError
from mmekit.server.placement import Kind
from mmekit.server.workers import WRITE_BYTES, Job, Worker
from mmekit.worker.messages import Answer, Call, FrameReader, Invoke, Message, encode
from tests.support.cgroup import pids_group
from tests.support.looking import (
    EVALUATE,
    alive,
    code_model,
    exists,
    look,
    looking_environ,
    looking_server,
    module,
)
from tests.support.server import IMAGE_CODE, MODELS, Server, plain_model, until

PID = "os.getpid()"


def _load(server: Server, name: str, path: Path, **parameters: object) -> None:
    answer = server.load(name, path, **parameters)
    assert answer.status == 200, answer.body


# --- the spare ---------------------------------------------------------------------------------


def test_a_new_spare_is_forked_when_the_last_was_used(tmp_path: Path) -> None:
    with looking_server(tmp_path, [], MMEKIT_WORKERS="1") as server:
        for number in range(3):
            # Not only its process: the server knows it, too.
            came_up = f'mmekit_worker_starts_total{{start="fork"}} {number + 1}.0'
            until(
                lambda came_up=came_up: came_up in server.get("/metrics").text, what="the spare being there"
            )
            spare = _children(server)
            assert len(spare) == 1
            _load(server, f"own-{number}", code_model(tmp_path, f"own-{number}"))
            assert look(server, f"own-{number}", PID) in spare
            used = set(spare)
            until(lambda used=used: _children(server) - used, what="another spare")
            server.unload(f"own-{number}")


def _children(server: Server) -> set[int]:
    """The workers: all below the server except the template."""
    children = set()
    for pid in server.family() - {server.pid, server.template_pid()}:
        with contextlib.suppress(ProcessLookupError):  # the process between template and worker is brief
            if alive(pid) and os.getsid(pid) == pid:
                children.add(pid)
    return children


# --- the sharing rule --------------------------------------------------------------------------


def test_models_without_code_share_a_worker(tmp_path: Path) -> None:
    with looking_server(tmp_path, ["a", "b", "c"], MMEKIT_WORKERS="1") as server:
        assert len({look(server, name, PID) for name in "abc"}) == 1


def test_models_are_spread_over_the_shared_workers(tmp_path: Path) -> None:
    with looking_server(tmp_path, ["a", "b", "c", "d"], MMEKIT_WORKERS="2") as server:
        assert len({look(server, name, PID) for name in "abcd"}) == 2


def test_a_program_of_the_image_is_not_the_models_own_code(tmp_path: Path) -> None:
    submitted = tmp_path / "submitted"
    submitted.mkdir()
    (submitted / "serve_all.py").write_text(EVALUATE)
    environ = {
        "SAGEMAKER_PROGRAM": "serve_all.py",
        "SAGEMAKER_SUBMIT_DIRECTORY": str(submitted),
        "MMEKIT_WORKERS": "1",
    }
    with Server(**environ) as server:
        for name in "ab":
            _load(server, name, plain_model(tmp_path, name))
        assert look(server, "a", PID) == look(server, "b", PID)
        assert look(server, "a", "kept.append('mine') or kept") == ["mine"]
        assert look(server, "b", "kept") == [], "module globals are one set a model"


def test_a_model_with_code_gets_a_worker_of_its_own(tmp_path: Path) -> None:
    with looking_server(tmp_path, ["a"], MMEKIT_WORKERS="1") as server:
        for name in ("x", "y"):
            _load(server, name, code_model(tmp_path, name))
        _load(server, "b", plain_model(tmp_path, "b"))
        assert len({look(server, name, PID) for name in "axy"}) == 3
        assert look(server, "b", PID) not in {look(server, name, PID) for name in "xy"}


def test_a_large_model_gets_a_worker_of_its_own(tmp_path: Path) -> None:
    with looking_server(tmp_path, ["a"], MMEKIT_WORKERS="1", MMEKIT_LARGE_MODEL_BYTES="5000") as server:
        path = plain_model(tmp_path, "large")
        (path / "weights.dat").write_bytes(b"0" * 5000)
        _load(server, "large", path)
        time.sleep(1.1)  # a worker counts as busy for a second, and loads of unknown length avoid it
        _load(server, "b", plain_model(tmp_path, "b"))
        assert look(server, "a", PID) == look(server, "b", PID) != look(server, "large", PID)


def test_sharing_never_gives_each_model_a_worker(tmp_path: Path) -> None:
    with looking_server(tmp_path, ["a", "b", "c"], MMEKIT_WORKERS="1", MMEKIT_SHARING="never") as server:
        assert len({look(server, name, PID) for name in "abc"}) == 3


def test_sharing_always_puts_own_code_together_each_with_its_own_modules(tmp_path: Path) -> None:
    with looking_server(tmp_path, [], MMEKIT_WORKERS="1", MMEKIT_SHARING="always") as server:
        _load(server, "a", MODELS / "own_utils_a")
        _load(server, "b", MODELS / "own_utils_b")
        _load(server, "x", code_model(tmp_path, "x"))
        _load(server, "y", code_model(tmp_path, "y"))
        assert look(server, "x", PID) == look(server, "y", PID)
        for _ in range(2):
            assert server.invoke("a").text == "a a late a"
            assert server.invoke("b").text == "b b late b"


def test_unloading_a_model_with_a_worker_of_its_own_ends_the_process_before_the_answer(
    tmp_path: Path,
) -> None:
    with looking_server(tmp_path, []) as server:
        _load(server, "own", code_model(tmp_path, "own"))
        pid = look(server, "own", PID)
        assert server.unload("own").status == 200
        assert not exists(pid)


def test_unloading_a_model_of_a_shared_worker_leaves_the_process_and_its_neighbours(tmp_path: Path) -> None:
    with looking_server(tmp_path, ["a", "b"], MMEKIT_WORKERS="1") as server:
        pid = look(server, "a", PID)
        assert server.unload("b").status == 200
        assert look(server, "a", PID) == pid
        assert server.invoke("b", PID).status == 404


# --- caps --------------------------------------------------------------------------------------


def test_beyond_the_cap_of_own_workers_loads_are_507_with_the_reason_until_one_is_unloaded(
    tmp_path: Path,
) -> None:
    with looking_server(tmp_path, [], MMEKIT_MAX_OWN_WORKERS="2") as server:
        for name in "ab":
            _load(server, name, code_model(tmp_path, name))
        refused = server.load("c", code_model(tmp_path, "c"))
        assert refused.status == 507
        assert refused.message == (
            "2 models have a worker of their own and no more are allowed (MMEKIT_MAX_OWN_WORKERS=2). "
            "Unload one of them."
        )
        assert server.models() == ["a", "b"]
        _load(server, "shared", plain_model(tmp_path, "shared"))
        assert server.unload("a").status == 200
        _load(server, "c", code_model(tmp_path, "c"))


def test_the_cap_holds_for_loads_at_once(tmp_path: Path) -> None:
    with looking_server(tmp_path, [], MMEKIT_MAX_OWN_WORKERS="2") as server:
        loads = [server.later(server.load, f"m{n}", code_model(tmp_path, f"m{n}")) for n in range(6)]
        statuses = sorted(load.result().status for load in loads)
        assert statuses == [200, 200, 507, 507, 507, 507]
        assert len(server.models()) == 2


def test_at_the_limit_of_processes_loads_are_507_and_the_server_goes_on(tmp_path: Path) -> None:
    with pids_group(40) as group:
        server = Server(**looking_environ(tmp_path, MMEKIT_WORKERS="1")).start(wrap=group.enter)
        try:
            _load(server, "shared", plain_model(tmp_path, "shared"))
            answers = []
            for number in range(40):
                answers.append(server.load(f"own-{number}", code_model(tmp_path, f"own-{number}")))
                if answers[-1].status != 200:
                    break
            assert len(answers) > 2
            assert answers[-1].status == 507
            assert "more processes and" in answers[-1].message
            assert "Unload models that have a worker of their own." in answers[-1].message
            assert look(server, "own-0", "1 + 1") == look(server, "shared", "1 + 1") == 2
            for number in (0, 1):
                assert server.unload(f"own-{number}").status == 200
            _load(server, "again", code_model(tmp_path, "again"))
        finally:
            server.close()


# --- fresh processes ---------------------------------------------------------------------------


def test_a_model_whose_code_shadows_what_the_template_imported_gets_its_own_copy(tmp_path: Path) -> None:
    """Forked from the template, ``sys.modules`` would win silently."""
    modules = module(tmp_path / "lib", "pricing", "VERSION = 'of the image'")
    program = "import pricing\n" + EVALUATE
    with looking_server(tmp_path, ["shared"], modules, MMEKIT_PRELOAD="pricing") as server:
        own = code_model(tmp_path, "own", program, pricing="VERSION = 'of the model'")
        _load(server, "own", own)
        _load(server, "other", code_model(tmp_path, "other", program))
        assert look(server, "own", "pricing.VERSION") == "of the model"
        assert look(server, "other", "pricing.VERSION") == "of the image"
        assert look(server, "shared", "sys.modules['pricing'].VERSION") == "of the image"
        commands = {
            name: Path(f"/proc/{look(server, name, PID)}/cmdline").read_bytes() for name in ("own", "other")
        }
        assert b"mmekit.worker.main" in commands["own"]
        assert b"mmekit.worker.template" in commands["other"]


def test_a_fresh_worker_looks_like_a_forked_one(tmp_path: Path) -> None:
    modules = module(tmp_path / "lib", "pricing", "")
    expression = (
        "[os.getppid(), os.getsid(0) == os.getpid(), int(open('/proc/self/oom_score_adj').read()), "
        "os.environ['OMP_NUM_THREADS']]"
    )
    with looking_server(tmp_path, [], modules, MMEKIT_PRELOAD="pricing", OMP_NUM_THREADS="2") as server:
        _load(server, "fresh", code_model(tmp_path, "fresh", pricing=""))
        _load(server, "forked", code_model(tmp_path, "forked"))
        assert look(server, "fresh", expression) == look(server, "forked", expression)
        assert look(server, "fresh", expression) == [server.pid, True, 1000, "2"]
        for name in ("fresh", "forked"):
            assert set(os.listdir(f"/proc/{look(server, name, PID)}/fd")) == {"0", "1", "2", "3"}


# --- devices -----------------------------------------------------------------------------------


@pytest.fixture
def device_server(tmp_path: Path) -> Iterator[Server]:
    """A server that believes in two GPUs; models are told to stay on the CPU."""
    environ = {"MMEKIT_NUMBER_OF_GPU": "2", "MMEKIT_PYTORCH_DEVICE": "cpu", "MMEKIT_WORKERS": "1"}
    with looking_server(tmp_path, ["plain"], **environ) as server:
        yield server


def test_each_device_has_one_worker_exec_ed_that_all_models_share_own_code_included(
    device_server: Server, tmp_path: Path
) -> None:
    names = [f"own-{number}" for number in range(4)]
    for name in names:
        _load(device_server, name, code_model(tmp_path, name))
    pids = {look(device_server, name, PID) for name in names}
    assert len(pids) == 2
    for pid in pids:
        assert b"mmekit.worker.main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    assert look(device_server, "plain", PID) not in pids, "what uses no device does not go there"
    assert [w["gpu"] for w in device_server.get("/models/own-0").json["workers"]] == [True]


def test_loads_at_once_start_a_devices_worker_once(tmp_path: Path) -> None:
    environ = {"MMEKIT_NUMBER_OF_GPU": "1", "MMEKIT_PYTORCH_DEVICE": "cpu"}
    with looking_server(tmp_path, [], **environ) as server:
        names = [f"own-{number}" for number in range(5)]
        loads = [server.later(server.load, name, code_model(tmp_path, name)) for name in names]
        assert [load.result().status for load in loads] == [200] * 5
        assert len({look(server, name, PID) for name in names}) == 1


def test_models_in_a_devices_worker_have_their_own_modules_of_the_same_name(tmp_path: Path) -> None:
    environ = {"MMEKIT_NUMBER_OF_GPU": "1", "MMEKIT_PYTORCH_DEVICE": "cpu"}
    with looking_server(tmp_path, [], **environ) as server:
        _load(server, "a", MODELS / "own_utils_a")
        _load(server, "b", MODELS / "own_utils_b")
        for _ in range(2):
            assert server.invoke("a").text == "a a late a"
            assert server.invoke("b").text == "b b late b"
        assert (
            len({worker["id"] for name in "ab" for worker in server.get(f"/models/{name}").json["workers"]})
            == 1
        )


def test_a_crash_in_a_devices_worker_brings_its_other_models_back(
    device_server: Server, tmp_path: Path
) -> None:
    names = [f"own-{number}" for number in range(4)]
    for name in names:
        _load(device_server, name, code_model(tmp_path, name))
    before = {name: look(device_server, name, PID) for name in names}
    assert device_server.invoke("own-0", "os._exit(3)").status == 500
    for name in names:
        assert look(device_server, name, "1 + 1") == 2
    after = {name: look(device_server, name, PID) for name in names}
    assert len(set(after.values())) == 2
    assert all(after[name] != before[name] for name in names if before[name] == before["own-0"])


# --- which handler -----------------------------------------------------------------------------


HANDLER = """
def handle(data, context):
    return None if data is None else ["{}"] * len(data)
"""


def test_the_load_request_names_the_handler_before_all_else(tmp_path: Path) -> None:
    """The order: load request, manifest, own code, the image's setting, the built-in for the file."""
    path = code_model(tmp_path, "m", "def model_fn(d): pass\ndef transform_fn(m, b, c, a): return 'own code'")
    (path / "code" / "asked.py").write_text(HANDLER.format("load request"))
    (path / "code" / "declared.py").write_text(HANDLER.format("manifest"))
    manifest = path / "MAR-INF" / "MANIFEST.json"
    manifest.parent.mkdir()
    manifest.write_text('{"model": {"modelName": "m", "handler": "declared:handle"}}')
    image = module(tmp_path / "lib", "imaged", HANDLER.format("image"))
    environ = {
        "SAGEMAKER_HANDLER": "imaged:handle",
        "PYTHONPATH": os.pathsep.join([str(image), str(IMAGE_CODE)]),
    }
    said = []
    with Server(**environ) as server:

        def ask(**parameters: str) -> None:
            _load(server, "m", path, **parameters)
            said.append(server.invoke("m").text)
            assert server.unload("m").status == 200

        ask(handler="asked:handle")
        ask()
        manifest.unlink()
        manifest.parent.rmdir()
        ask()
        for file in (path / "code").rglob("*.py"):
            file.unlink()
        (path / "weights.dat").write_bytes(b"0")
        ask()
    assert said == ["load request", "manifest", "own code", "image"]


def test_without_any_setting_the_built_in_handler_that_knows_the_file_serves(tmp_path: Path) -> None:
    xgboost_models = pytest.importorskip("tests.support.xgboost_models")
    path = tmp_path / "m"
    path.mkdir()
    xgboost_models.save(xgboost_models.train(), path / "xgboost-model")
    with Server() as server:
        _load(server, "m", path)
        answer = server.invoke("m", "1,2,3,4", "text/csv")
        assert answer.status == 200
        assert len(answer.json) == 1


# --- large bodies ------------------------------------------------------------------------------


def _worker(on_idle: object = None) -> Worker:
    def exited(worker: Worker, reason: MmekitError) -> None: ...

    return Worker(1, Kind.SHARED, lambda worker: None, lambda worker: None, exited)


def test_a_large_body_goes_to_its_worker_in_pieces_and_the_loop_goes_on() -> None:
    """A worker that reads slowly holds its own call, and nothing else."""
    body = random.Random(0).randbytes(1024) * (20 * 1024)
    done: list[Message] = []

    async def run() -> tuple[int, list[int]]:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        worker = _worker()
        written: list[int] = []
        await loop.create_unix_connection(lambda: worker, sock=ours)
        transport = worker._transport
        assert transport is not None
        worker._transport = _Counting(transport, written)  # type: ignore[assignment]

        class Noted(Job):
            def on_message(self, message: Message, _body: bytes | bytearray) -> None:
                done.append(message)

            def on_lost(self, error: MmekitError) -> None:
                raise error

        job = Noted(Invoke("m", [Call("1", [], len(body))]), [body], 60)
        turns, ticking = 0, True

        async def tick() -> None:
            nonlocal turns
            while ticking:
                turns += 1
                await asyncio.sleep(0)

        watcher = asyncio.create_task(tick())
        worker.run(job)
        received = await asyncio.to_thread(_read_slowly, theirs, len(body))
        assert received == body
        theirs.sendall(encode(Answer([])))
        while not done:
            await asyncio.sleep(0.001)
        ticking = False
        await watcher
        transport.close()
        theirs.close()
        return turns, written

    turns, written = asyncio.run(run())
    assert max(written) <= WRITE_BYTES
    assert sum(written) >= len(body)
    assert turns > 10, "the loop did nothing else meanwhile"


class _Counting:
    """A transport that notes the length of each write."""

    def __init__(self, transport: asyncio.Transport, written: list[int]) -> None:
        self._transport = transport
        self._written = written

    def write(self, data: bytes) -> None:
        self._written.append(len(data))
        self._transport.write(data)

    def is_closing(self) -> bool:
        return self._transport.is_closing()


def _read_slowly(channel: socket.socket, size: int) -> bytes | bytearray:
    """Read one frame with pauses between its pieces; return its body."""
    reader = FrameReader()
    count = 0
    while True:
        for _, body in reader.feed(channel.recv(512 * 1024)):
            assert len(body) == size
            return body
        count += 1
        if count % 10 == 0:
            time.sleep(0.01)


def test_others_are_served_while_a_large_body_is_on_its_way(tmp_path: Path) -> None:
    body = b"1 + 1 #" + b"x" * (30 << 20)
    with looking_server(tmp_path, ["a", "b"], MMEKIT_WORKERS="2", MAX_CONTENT_LENGTH=str(64 << 20)) as server:
        held = tmp_path / "held"
        stalled = server.later(server.invoke, "a", f"stay({str(held)!r})")
        until(held.exists)
        large = server.later(server.invoke, "a", body)
        answered = []
        while not large.done():
            answered.append(server.invoke("b", "1 + 1"))
            if len(answered) == 100:  # by then the body is there, and waits
                held.unlink()
        assert {answer.status for answer in answered} == {200}
        assert len(answered) >= 100
        assert sorted(answer.seconds for answer in answered)[len(answered) // 2] < 0.2
        assert stalled.result().status == 200
        assert large.result().text == "2"
