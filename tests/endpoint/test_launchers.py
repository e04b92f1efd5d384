"""The process launcher with real processes: `mmekit serve` and small programs that behave badly.

Of the docker launcher what needs no engine; tests/image/test_docker_launcher.py has the rest.
"""

from __future__ import annotations

import asyncio
import fcntl
import gc
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import uvloop

from mmekit.process_table import boot_id, read_row, read_table
from mmekit_endpoint.definitions import ContainerSpec
from mmekit_endpoint.errors import LaunchFailed
from mmekit_endpoint.fleet.launchers import (
    Launcher,
    Order,
    Resources,
    Running,
    Usage,
    docker_engine,
    process_record,
)
from mmekit_endpoint.fleet.launchers.choice import choose
from mmekit_endpoint.fleet.launchers.docker_container import describe_state, usage_of
from mmekit_endpoint.fleet.launchers.docker_images import resolved_name
from mmekit_endpoint.fleet.launchers.docker_log import MAX_LINE_BYTES, whole_lines
from mmekit_endpoint.fleet.launchers.docker_options import run_options
from mmekit_endpoint.fleet.launchers.gpus import GpuUse, gpu_use
from mmekit_endpoint.fleet.launchers.process import ProcessLauncher, RunningProcess, environment
from mmekit_endpoint.fleet.launchers.process_record import ProcessRecord
from mmekit_endpoint.fleet.launchers.state_lock import is_served
from mmekit_endpoint.fleet.launchers.waiting import finished_or_undone, in_own_thread
from tests.support.forks import coming_and_going
from tests.support.server import until

MIB = 1024 * 1024

#: Writes its pid, and starts what lives on in a session of its own, out of reach of a signal to the group.
GRANDCHILD = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
open("pids", "w").write(f"{os.getpid()} {child.pid}")
"""


@pytest.fixture(autouse=True)
def no_process_is_left(tmp_path: Path) -> Iterator[None]:
    """Every process of an instance knows its folder by a variable; none may be alive after a test."""
    yield
    left = [pid for pid, row in read_table().items() if not row.zombie and _is_below(tmp_path, pid)]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left


def _is_below(folder: Path, pid: int) -> bool:
    try:
        return f"SAGEMAKER_BASE_DIR={folder}/".encode() in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False


def is_alive(pid: int) -> bool:
    row = read_row(pid)
    return row is not None and not row.zombie


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str], str]:
    """Write an executable Python program; return its path."""

    def write(source: str) -> str:
        file = tmp_path / "program"
        file.write_text(f"#!{sys.executable}\n{source}")
        file.chmod(0o755)
        return str(file)

    return write


@pytest.fixture
def order(tmp_path: Path) -> Callable[..., Order]:
    """Make orders of instances, each with a folder of its own."""

    def make(number: int = 1, gpus: int = 0, multi_model: bool = True, **variables: str) -> Order:
        folder = tmp_path / "instances" / f"i-{number}"
        (folder / "models").mkdir(parents=True)
        return Order(
            f"i-{number}",
            "endpoint",
            "AllTraffic",
            ContainerSpec("image", multi_model, environment=variables),
            Resources(1, 1024 * MIB, gpus),
            folder,
            folder / "log",
        )

    return make


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a test on the loop that the service uses."""
    uvloop.run(asyncio.wait_for(main, 60))


class RememberingLauncher(ProcessLauncher):
    """Knows what it has started."""

    def __init__(self, program: str | None, state: Path, stop_timeout_s: float) -> None:
        super().__init__(program, state, stop_timeout_s)
        self.started: list[RunningProcess] = []

    async def launch(self, order: Order) -> RunningProcess:
        running = await super().launch(order)
        self.started.append(running)
        return running


@asynccontextmanager
async def launcher(
    tmp_path: Path, program: str | None, stop_timeout_s: float = 10
) -> AsyncIterator[RememberingLauncher]:
    """A launcher whose processes have ended at the end."""
    local = RememberingLauncher(program, tmp_path / "state", stop_timeout_s)
    try:
        yield local
    finally:
        for running in local.started:
            await running.stop()
        await local.close()


async def eventually(condition: Callable[[], Awaitable[Any]], timeout_s: float = 20) -> Any:
    """Ask until the answer is true."""

    async def ask() -> Any:
        while not (answer := await condition()):
            await asyncio.sleep(0.01)
        return answer

    return await asyncio.wait_for(ask(), timeout_s)


async def pids(folder: Path) -> list[int]:
    """Wait for the pids that a program has written into its folder."""

    async def read() -> list[int]:
        file = folder / "pids"
        return [int(word) for word in file.read_text().split()] if file.exists() else []

    found: list[int] = await eventually(read)
    return found


def get(address: tuple[str, int], path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(*address, timeout=5)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


# --- mmekit serve ---------------------------------------------------------------------------------


def test_mmekit_is_started_answers_on_its_address_and_stops(tmp_path: Path, order: Any) -> None:
    async def main() -> None:
        async with launcher(tmp_path, None) as local:
            placed: Launcher = local
            given = order(MMEKIT_PRELOAD="none", MMEKIT_LOG_FORMAT="json")
            running: Running = await placed.launch(given)

            async def ready() -> bool:
                try:
                    return (await asyncio.to_thread(get, running.address, "/ping"))[0] == 200
                except OSError:
                    return False

            await eventually(ready, 30)
            status, body = await asyncio.to_thread(get, running.address, "/models")
            assert (status, json.loads(body)["models"]) == (200, [])
            assert running.address[0] == "127.0.0.1"
            assert running.models_path == str(given.folder / "models")
            assert running.resolved_image is None
            usage = await running.usage()
            assert usage is not None
            assert 10 * MIB < usage.memory_bytes < 400 * MIB
            assert usage.memory_limit_bytes == 1024 * MIB
            assert usage.cpu_seconds > 0.1

            started = time.monotonic()
            await running.stop()
            assert time.monotonic() - started < 8
            assert await running.wait() == "exited with code 0"
            assert await running.usage() is None
            assert f"Listening on 127.0.0.1:{running.address[1]}" in given.log.read_text()

    run(main())


# --- variables ------------------------------------------------------------------------------------


def test_an_instance_gets_the_services_variables_without_those_that_speak_to_servers(order: Any) -> None:
    shell = {"PATH": "/bin", "MMEKIT_PRELOAD": "none", "SAGEMAKER_HANDLER": "x", "OMP_NUM_THREADS": "9"}
    assert environment(order(), 4711, shell) == {
        "PATH": "/bin",
        "MMEKIT_HOST": "127.0.0.1",
        "MMEKIT_MEMORY_LIMIT_BYTES": str(1024 * MIB),
        "MMEKIT_WORKERS": "1",
        "MMEKIT_NUMBER_OF_GPU": "0",
        "CUDA_VISIBLE_DEVICES": "",
        "SAGEMAKER_BASE_DIR": str(order(2).folder.parent / "i-1"),
        "SAGEMAKER_BIND_TO_PORT": "4711",
        "SAGEMAKER_MULTI_MODEL": "true",
    }


def test_the_containers_own_variables_win_but_for_where_it_listens(order: Any) -> None:
    own = order(MMEKIT_WORKERS="7", PATH="/mine", MMEKIT_HOST="0.0.0.0", SAGEMAKER_BIND_TO_PORT="80")
    variables = environment(own, 4711, {"PATH": "/bin"})
    assert variables["MMEKIT_WORKERS"] == "7"
    assert variables["PATH"] == "/mine"
    assert variables["MMEKIT_HOST"] == "127.0.0.1"
    assert variables["SAGEMAKER_BIND_TO_PORT"] == "4711"


def test_a_single_model_container_is_not_told_of_many(order: Any) -> None:
    assert "SAGEMAKER_MULTI_MODEL" not in environment(order(multi_model=False), 4711, {})


def test_an_instance_type_with_gpus_does_not_hide_them(order: Any) -> None:
    variables = environment(order(gpus=1), 4711, {"CUDA_VISIBLE_DEVICES": "2"})
    assert variables["CUDA_VISIBLE_DEVICES"] == "2"
    assert variables["MMEKIT_MAX_GPUS"] == "1"
    assert "MMEKIT_NUMBER_OF_GPU" not in variables


# --- programs that cannot be started ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("no-such-program", "The program no-such-program is in none of the folders of PATH"),
        ("/no/such/program", "The program /no/such/program does not exist, or is not an executable file"),
        (__file__, "does not exist, or is not an executable file"),
    ],
)
def test_a_program_that_is_not_there_is_named(tmp_path: Path, order: Any, named: str, message: str) -> None:
    async def main() -> None:
        async with launcher(tmp_path, named) as local:
            with pytest.raises(LaunchFailed, match=message):
                await local.launch(order())

    run(main())


def test_a_program_whose_interpreter_is_missing_is_a_failed_launch(tmp_path: Path, order: Any) -> None:
    file = tmp_path / "program"
    file.write_text("#!/no/such/interpreter\n")
    file.chmod(0o755)

    async def main() -> None:
        async with launcher(tmp_path, str(file)) as local:
            with pytest.raises(LaunchFailed, match="program serve` cannot be started"):
                await local.launch(order())

    run(main())


# --- how they end -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "how"),
    [
        ("import sys; sys.exit(3)", "exited with code 3"),
        ("", "exited with code 0"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "was killed by SIGSEGV"),
    ],
)
def test_wait_says_how_a_program_ended(
    tmp_path: Path, order: Any, program: Any, source: str, how: str
) -> None:
    async def main() -> None:
        async with launcher(tmp_path, program(source)) as local:
            running = await local.launch(order())
            assert (await running.wait()).startswith(how)
            assert await running.usage() is None
            await running.stop()  # nothing is left to stop

    run(main())


def test_both_streams_are_appended_to_the_log(tmp_path: Path, order: Any, program: Any) -> None:
    lines = 40_000
    source = f"""
import sys
for number in range({lines}):
    print(number, file=sys.stderr if number % 2 else sys.stdout, flush=True)
print(sys.argv[1:])
"""

    async def main() -> None:
        given = order()
        given.log.write_text("earlier\n")
        async with launcher(tmp_path, program(source)) as local:
            running = await local.launch(given)
            assert await running.wait() == "exited with code 0"
        expected = ["earlier", *map(str, range(lines)), "['serve']"]
        assert given.log.read_text().splitlines() == expected

    run(main())


def test_a_program_that_ignores_sigterm_is_killed_after_the_time(
    tmp_path: Path, order: Any, program: Any
) -> None:
    source = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open("pids", "w").write("1")
time.sleep(600)
"""

    async def main() -> None:
        async with launcher(tmp_path, program(source), stop_timeout_s=0.5) as local:
            given = order()
            running = await local.launch(given)
            await pids(given.folder)
            started = time.monotonic()
            await running.stop()
            assert 0.4 < time.monotonic() - started < 9
            assert (await running.wait()).startswith("was killed by SIGKILL")

    run(main())


def test_two_stops_send_one_sigterm(tmp_path: Path, order: Any, program: Any) -> None:
    source = """
import signal, time
received = []
signal.signal(signal.SIGTERM, lambda *_: received.append(1))
open("pids", "w").write("1")
while not received:
    time.sleep(0.01)
time.sleep(0.3)
print(len(received))
"""

    async def main() -> None:
        async with launcher(tmp_path, program(source)) as local:
            given = order()
            running = await local.launch(given)
            await pids(given.folder)
            await asyncio.gather(running.stop(), running.stop())
            assert given.log.read_text() == "1\n"

    run(main())


@pytest.mark.parametrize("stopped", [True, False])
def test_what_a_program_has_started_ends_with_it(
    tmp_path: Path, order: Any, program: Any, stopped: bool
) -> None:
    source = GRANDCHILD + ("time.sleep(600)" if stopped else "")

    async def main() -> None:
        async with launcher(tmp_path, program(source)) as local:
            given = order()
            running = await local.launch(given)
            _, grandchild = await pids(given.folder)
            if stopped:
                assert is_alive(grandchild)
                await running.stop()
            await running.wait()
            assert not is_alive(grandchild)

    run(main())


# --- several instances, cancelled launches -----------------------------------------------------------


def test_instances_get_ports_of_their_own(tmp_path: Path, order: Any, program: Any) -> None:
    async def main() -> None:
        async with launcher(tmp_path, program("import time; time.sleep(600)")) as local:
            launched = await asyncio.gather(*(local.launch(order(number)) for number in range(8)))
            ports = {running.address[1] for running in launched}
            assert len(ports) == 8
            # A program opens its port a while later: meanwhile Linux must not give it to a client, which it
            # does from 32768 on.
            assert max(ports) < 32767

    run(main())


def test_a_cancelled_launch_leaves_no_process(tmp_path: Path, order: Any, program: Any) -> None:
    async def main() -> None:
        async with launcher(tmp_path, program("import time; time.sleep(600)")) as local:
            launch = asyncio.create_task(local.launch(order()))
            await asyncio.sleep(0)
            launch.cancel()
            with pytest.raises(asyncio.CancelledError):
                await launch
            assert not local.started
            assert not list((tmp_path / "state").rglob("*.json"))

    run(main())


def test_what_was_finished_after_a_cancellation_is_undone() -> None:
    async def main() -> None:
        undone: list[int] = []
        going = asyncio.Event()

        async def start() -> int:
            going.set()
            await asyncio.sleep(0.05)
            return 7

        async def undo(result: int) -> None:
            undone.append(result)

        task = asyncio.create_task(finished_or_undone(start(), undo))
        await going.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert undone == [7]

    run(main())


def test_an_error_in_a_thread_of_its_own_reaches_the_waiter() -> None:
    async def main() -> None:
        with pytest.raises(ZeroDivisionError):
            await in_own_thread(lambda: 1 // 0, "test")
        assert await in_own_thread(lambda: 4 // 2, "test") == 2

    run(main())


# --- usage ------------------------------------------------------------------------------------------


async def _usage_when_ready(running: RunningProcess, folder: Path) -> Usage:
    await pids(folder)
    usage = await running.usage()
    assert usage is not None
    return usage


def test_usage_counts_what_a_process_allocates(tmp_path: Path, order: Any, program: Any) -> None:
    source = "import time\nkept = b'x' * (100 << 20)\nopen('pids', 'w').write('1')\ntime.sleep(600)"

    async def main() -> None:
        async with launcher(tmp_path, program(source)) as local:
            given = order()
            usage = await _usage_when_ready(await local.launch(given), given.folder)
            assert 100 * MIB < usage.memory_bytes < 130 * MIB

    run(main())


def test_usage_counts_memory_once_that_forked_workers_share(tmp_path: Path, order: Any, program: Any) -> None:
    source = """
import os, time
kept = b"x" * (100 << 20)
workers = []
for _ in range(2):
    if not (pid := os.fork()):
        os.setsid()
        time.sleep(600)
    workers.append(pid)
open("pids", "w").write(" ".join(map(str, workers)))
time.sleep(600)
"""

    async def main() -> None:
        async with launcher(tmp_path, program(source)) as local:
            given = order()
            usage = await _usage_when_ready(await local.launch(given), given.folder)
            assert 100 * MIB < usage.memory_bytes < 140 * MIB

    run(main())


def test_usage_is_the_same_while_forks_come_and_go(tmp_path: Path, order: Any, program: Any) -> None:
    source = coming_and_going(100, "open('pids', 'w').write('1')")

    async def main() -> None:
        async with launcher(tmp_path, program(source)) as local:
            given = order()
            running = await local.launch(given)
            await pids(given.folder)
            seen = [usage.memory_bytes // MIB for _ in range(20) if (usage := await running.usage())]
            assert len(seen) == 20
            assert 100 <= min(seen) <= max(seen) < 140, seen

    run(main())


def test_usage_counts_the_cpu_time_of_children_that_have_ended(
    tmp_path: Path, order: Any, program: Any
) -> None:
    source = """
import subprocess, sys, time
burn = "import time\\nwhile time.process_time() < 0.5: pass"
subprocess.run([sys.executable, "-c", burn])
open("pids", "w").write("1")
time.sleep(600)
"""

    async def main() -> None:
        async with launcher(tmp_path, program(source)) as local:
            given = order()
            usage = await _usage_when_ready(await local.launch(given), given.folder)
            assert 0.4 <= usage.cpu_seconds < 5

    run(main())


def test_usage_is_cheap(tmp_path: Path, order: Any, program: Any) -> None:
    async def main() -> None:
        async with launcher(tmp_path, program(GRANDCHILD + "time.sleep(600)")) as local:
            given = order()
            running = await local.launch(given)
            await pids(given.folder)
            before = time.process_time()
            for _ in range(20):
                assert await running.usage() is not None
            assert (time.process_time() - before) / 20 < 0.05

    run(main())


# --- a service that was killed -----------------------------------------------------------------------

SERVICE = """
import asyncio, sys, uvloop
from pathlib import Path
from mmekit_endpoint.definitions import ContainerSpec
from mmekit_endpoint.fleet.launchers import Order, Resources
from mmekit_endpoint.fleet.launchers.process import ProcessLauncher

async def main(program, state, folder):
    launcher = ProcessLauncher(program, state)
    spec = ContainerSpec("image", True)
    await launcher.launch(Order("i-1", "e", "v", spec, Resources(1, 1 << 30, 0), folder, folder / "log"))
    await asyncio.sleep(600)

uvloop.run(main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])))
"""


def _killed_service(tmp_path: Path, program: str) -> tuple[int, int]:
    """Start a service with one instance and kill it; return the pids of program and grandchild."""
    folder = tmp_path / "instance"
    folder.mkdir()
    command = [sys.executable, "-c", SERVICE, program, str(tmp_path / "state"), str(folder)]
    service = subprocess.Popen(command)
    try:
        file = folder / "pids"
        until(lambda: file.exists() and file.read_text())
        leader, grandchild = map(int, file.read_text().split())
        # not before it has been written: one that is cut short is ignored
        until(lambda: [f for f in (tmp_path / "state/processes").glob("i-1.json") if f.stat().st_size])
        assert is_alive(leader)
    finally:
        service.kill()
        service.wait()
    return leader, grandchild


def test_a_killed_service_takes_its_processes_along_and_the_next_ends_their_remains(
    tmp_path: Path, program: Any
) -> None:
    leader, grandchild = _killed_service(tmp_path, program(GRANDCHILD + "time.sleep(600)"))
    until(lambda: not is_alive(leader))
    assert is_alive(grandchild)

    async def main() -> None:
        async with launcher(tmp_path, None) as local:
            assert await local.clean() == ["i-1"]
            assert not is_alive(grandchild)
            assert await local.clean() == []

    run(main())


def test_clean_ends_the_session_of_a_leader_that_lives_though_it_hides_its_variables(tmp_path: Path) -> None:
    bare = subprocess.Popen(["sleep", "600"], env={}, start_new_session=True)
    try:
        row = until(lambda: read_row(bare.pid))
        record = ProcessRecord("i-9", bare.pid, row.started, boot_id(), "i-9 token")
        process_record.write(tmp_path / "state" / "processes", record)

        async def main() -> None:
            async with launcher(tmp_path, None) as local:
                assert await local.clean() == ["i-9"]

        run(main())
        assert bare.wait(10) == -signal.SIGKILL
    finally:
        bare.kill()
        bare.wait()


@pytest.mark.parametrize("change", [{"started": 1}, {"boot": "another"}])
def test_clean_never_ends_a_process_that_is_not_the_recorded_one(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    foreign = subprocess.Popen(["sleep", "600"], start_new_session=True)
    try:
        row = until(lambda: read_row(foreign.pid))
        record = ProcessRecord("i-9", foreign.pid, row.started, boot_id(), "i-9 token")
        folder = tmp_path / "state" / "processes"
        process_record.write(folder, msgspec.structs.replace(record, **change))
        (folder / "cut-short.json").write_text('{"instance')

        async def main() -> None:
            async with launcher(tmp_path, None) as local:
                assert await local.clean() == []

        run(main())
        assert foreign.poll() is None
        assert not list(folder.iterdir())
    finally:
        foreign.kill()
        foreign.wait()


def test_clean_leaves_instances_that_run(tmp_path: Path, order: Any, program: Any) -> None:
    async def main() -> None:
        async with launcher(tmp_path, program("import time; time.sleep(600)")) as local:
            running = await local.launch(order())
            assert await local.clean() == []
            assert await running.usage() is not None

    run(main())


# --- the choice -----------------------------------------------------------------------------------------


#: Where nobody listens the docker SDK drops its socket without closing it.
LEAKS = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


@pytest.fixture
def no_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    yield
    gc.collect()


@LEAKS
@pytest.mark.parametrize(("wanted", "program"), [("auto", None), ("process", None), ("auto", "serve.sh")])
def test_instances_are_processes_where_no_engine_answers_or_a_program_is_named(
    tmp_path: Path, no_engine: None, wanted: str, program: str | None
) -> None:
    async def main() -> None:
        chosen = await choose(wanted, tmp_path, "one", program)
        assert chosen.name == "process"
        await chosen.close()

    run(main())


@LEAKS
def test_docker_without_an_engine_says_what_was_tried_and_what_to_do(tmp_path: Path, no_engine: None) -> None:
    async def main() -> None:
        with pytest.raises(LaunchFailed) as caught:
            await choose("docker", tmp_path, "one")
        message = str(caught.value)
        assert message.startswith(
            f"No container engine answers. Tried DOCKER_HOST=unix://{tmp_path}/no.sock: "
        )
        assert "No such file or directory" in message
        assert "--launcher process" in message

    run(main())


def test_an_engine_that_does_not_answer_in_time_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_engine, "_CONNECT_TIMEOUT_S", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{silent.getsockname()[1]}")
        for name in ("DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"):
            monkeypatch.delenv(name, raising=False)

        async def main() -> None:
            with pytest.raises(LaunchFailed, match="timed out"):
                await choose("docker", tmp_path, "one")

        run(main())


# --- docker: options, states, figures ---------------------------------------------------------------------

ENGINE = {"MemTotal": 512 * MIB, "NCPU": 4, "Runtimes": {"runc": {}}}


def test_a_container_gets_no_more_than_the_engines_machine_has(order: Any, tmp_path: Path) -> None:
    options = run_options(order(), ENGINE, tmp_path, "one")
    assert options["mem_limit"] == options["memswap_limit"] == 512 * MIB
    assert options["nano_cpus"] == 10**9


def test_a_container_gets_gpus_where_the_engine_has_nvidias_runtime(order: Any, tmp_path: Path) -> None:
    (request,) = run_options(
        order(gpus=2), {**ENGINE, "Runtimes": {"runc": {}, "nvidia": {}}}, tmp_path, "one"
    )["device_requests"]
    assert (request.count, request.capabilities) == (2, [["gpu"]])


def test_a_container_without_gpus_that_were_wanted_says_so_in_its_log(order: Any, tmp_path: Path) -> None:
    given = order(gpus=2)
    assert run_options(given, ENGINE, tmp_path, "one")["device_requests"] == []
    assert "The instance type has 2 GPUs, but the container engine offers none" in given.log.read_text()


def test_a_container_of_a_model_that_is_in_its_image_has_no_mount(order: Any, tmp_path: Path) -> None:
    assert run_options(order(multi_model=False), ENGINE, tmp_path, "one")["mounts"] == []


@pytest.mark.parametrize(
    ("state", "how"),
    [
        ({"ExitCode": 0}, "exited with code 0"),
        ({"ExitCode": 1, "OOMKilled": False, "Error": ""}, "exited with code 1"),
        ({"ExitCode": 139}, "was killed by SIGSEGV (a crash in native code)"),
        (
            {"ExitCode": 137, "OOMKilled": True},
            "was killed by SIGKILL: out of memory, the limit is 1,024 bytes (OOMKilled)",
        ),
        (
            {"ExitCode": 1, "OOMKilled": True},
            "exited with code 1: out of memory, the limit is 1,024 bytes (OOMKilled)",
        ),
        ({"ExitCode": 127, "Error": "no such command"}, "exited with code 127: no such command"),
    ],
)
def test_the_engines_state_in_words(state: dict[str, Any], how: str) -> None:
    assert describe_state(state, 1024) == how


@pytest.mark.parametrize(
    "counters", [{"total_inactive_file": 300, "inactive_file": 1}, {"inactive_file": 300}], ids=["v1", "v2"]
)
def test_page_cache_is_no_use_in_either_version_of_cgroups(counters: dict[str, int]) -> None:
    cpu = {"cpu_usage": {"total_usage": 1_500_000_000}}
    stats = {"memory_stats": {"usage": 1000, "stats": counters}, "cpu_stats": cpu}
    assert usage_of(stats, 4096, GpuUse(50, 25)) == Usage(700, 4096, 1.5, 50, 25)


def test_a_container_that_does_not_run_has_no_usage() -> None:
    assert usage_of({"memory_stats": {}, "cpu_stats": {"cpu_usage": {"total_usage": 0}}}, 4096) is None


@pytest.mark.parametrize(
    ("chunks", "lines"),
    [
        ([], b""),
        ([(1, b"a\nb"), (2, b"x\n"), (1, b"c\n")], b"a\nx\nbc\n"),
        ([(1, b"a"), (2, b"x")], b"a\nx\n"),
        ([(1, b"a" * MAX_LINE_BYTES), (1, b"b"), (1, b"c\n")], b"a" * MAX_LINE_BYTES + b"b\nc\n"),
    ],
    ids=["empty", "two streams", "no newline at the end", "a line without end is cut"],
)
def test_lines_of_two_streams_stay_whole(chunks: list[tuple[int, bytes]], lines: bytes) -> None:
    assert b"".join(whole_lines(chunks)) == lines


@pytest.mark.parametrize(
    ("digests", "name", "resolved"),
    [
        ([], "stub:1", "sha256:1"),
        (["hub/stub@sha256:2"], "hub/stub:1", "hub/stub@sha256:2"),
        (["other@sha256:3", "stub@sha256:2"], "stub", "stub@sha256:2"),
        (["other@sha256:3"], "stub", "other@sha256:3"),
    ],
)
def test_an_image_is_resolved_to_its_digest(digests: list[str], name: str, resolved: str) -> None:
    image = SimpleNamespace(attrs={"RepoDigests": digests}, id="sha256:1")
    assert resolved_name(image, name) == resolved


def test_a_state_folder_is_served_while_its_lock_is_held(tmp_path: Path) -> None:
    assert not is_served(tmp_path / "gone")
    assert not is_served(tmp_path)
    with open(tmp_path / "lock", "w") as lock:
        assert not is_served(tmp_path)
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert is_served(tmp_path)
    assert not is_served(tmp_path)


# --- GPUs ---------------------------------------------------------------------------------------------


def _driver(folder: Path, monkeypatch: pytest.MonkeyPatch, prints: str) -> None:
    """Put an nvidia-smi in place of this machine's."""
    (folder / "nvidia-smi").write_text(f"#!/bin/sh\nprintf '{prints}'\n")
    (folder / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_gpu_use_is_summed_over_the_instances_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _driver(tmp_path, monkeypatch, r"40, 1000, 4000\n100, 3000, 4000\n7, 0, 4000\n")
    assert gpu_use(1) == GpuUse(40, 25)
    assert gpu_use(2) == GpuUse(140, 100)
    assert gpu_use(0) is None


@pytest.mark.parametrize("prints", ["", r"[N/A], 1000, 4000\n"])
def test_gpu_use_that_the_driver_does_not_say_is_not_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prints: str
) -> None:
    _driver(tmp_path, monkeypatch, prints)
    assert gpu_use(1) is None


def test_without_a_driver_there_is_no_gpu_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu_use(1) is None
