"""The docker launcher of the local endpoint with a real engine: a stub image, and mmekit's own."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import http.client
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from mmekit_endpoint.definitions import ContainerSpec
from mmekit_endpoint.errors import LaunchFailed
from mmekit_endpoint.fleet.launchers import Launcher, Order, Resources, Running
from mmekit_endpoint.fleet.launchers.choice import choose
from mmekit_endpoint.fleet.launchers.docker import DockerLauncher
from mmekit_endpoint.fleet.launchers.docker_container import RunningContainer
from tests.image.containers import build, docker

MIB = 1024 * 1024
BASE = "python:3.11-slim-bookworm"
STUB = "mmekit-test:launcher-stub"
LABEL = "com.amazonaws.sagemaker.capabilities.multi-models"
#: A part of the names of containers: an earlier run that was killed may have left some.
RUN = secrets.token_hex(4)

STUB_SOURCE = """
import http.server, json, os, signal, socket, sys, time

signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))

def look():
    found = {"argv": sys.argv[1:], "environ": dict(os.environ), "hostname": socket.gethostname()}
    for folder in ("models", "model"):
        if os.path.isdir(f"/opt/ml/{folder}"):
            found[folder] = sorted(os.listdir(f"/opt/ml/{folder}"))
            try:
                open(f"/opt/ml/{folder}/written", "w")
                found["writable"] = True
            except OSError:
                found["writable"] = False
    return found

def started():
    # A container that ends before its launch is over is a failed launch, and `wait` tells nothing of it.
    while not os.path.exists("/opt/ml/models/started"):
        time.sleep(0.05)

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"" if self.path == "/ping" else json.dumps(look()).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass

exec(os.environ.get("DO", ""))
print("serving", flush=True)
http.server.HTTPServer(("", 8080), Handler).serve_forever()
"""


@pytest.fixture(scope="session")
def stub(engine: None, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image of a small server; the variable DO is Python that it runs first."""
    folder = tmp_path_factory.mktemp("stub")
    (folder / "stub.py").write_text(STUB_SOURCE)
    lines = [f"FROM {BASE}", "COPY stub.py /stub.py", f"LABEL {LABEL}=true"]
    lines += ["VOLUME /kept", 'ENTRYPOINT ["python", "/stub.py"]']
    (folder / "Dockerfile").write_text("\n".join(lines) + "\n")
    build(folder, "--tag", STUB)
    return STUB


@pytest.fixture(autouse=True)
def no_container_is_left(engine: None, tmp_path: Path) -> Iterator[None]:
    yield
    left = containers(tmp_path)
    if left:
        docker("rm", "--force", "--volumes", *left)
    assert not left


def containers(tmp_path: Path) -> list[str]:
    """Return the names of the containers whose state folder is one of this test, in order."""
    form = '{{.Names}} {{.Label "mmekit.local.state"}}'
    listed = docker("ps", "--all", "--filter", "label=mmekit.local.state", "--format", form)
    pairs = [line.split() for line in listed.splitlines()]
    return sorted(name for name, state in pairs if Path(state).is_relative_to(tmp_path))


@pytest.fixture
def order(tmp_path: Path) -> Callable[..., Order]:
    def make(number: int = 1, image: str = STUB, do: str = "", **other: Any) -> Order:
        folder = tmp_path / "instances" / f"i-{number}"
        (folder / "models").mkdir(parents=True)
        (folder / "model").mkdir()
        spec = {"image": image, "multi_model": True, "environment": {"DO": do} if do else {}}
        resources = Resources(1, other.pop("memory_bytes", 256 * MIB), other.pop("gpus", 0))
        container = ContainerSpec(**{**spec, **other})
        return Order(f"i-{number}", "churn", "AllTraffic", container, resources, folder, folder / "log")

    return make


def run(main: Coroutine[Any, Any, None]) -> None:
    uvloop.run(asyncio.wait_for(main, 120))


class RememberingLauncher(DockerLauncher):
    """Knows what it has started."""

    def __init__(self, state: Path, service: str, stop_timeout_s: float) -> None:
        super().__init__(state, service, stop_timeout_s)
        self.started: list[RunningContainer] = []

    async def launch(self, order: Order) -> RunningContainer:
        running = await super().launch(order)
        self.started.append(running)
        return running


@contextlib.asynccontextmanager
async def launcher(
    tmp_path: Path, service: str = "one", stop_timeout_s: float = 10
) -> AsyncIterator[RememberingLauncher]:
    """A launcher whose containers are removed at the end."""
    local = RememberingLauncher(tmp_path / "state", f"{service}-{RUN}", stop_timeout_s)
    try:
        yield local
    finally:
        for running in local.started:
            await running.stop()
        await local.close()


async def launched(local: RememberingLauncher, order: Order) -> RunningContainer:
    """Launch a container whose DO waits until it is ``started()``."""
    running = await local.launch(order)
    (order.folder / "models" / "started").touch()
    return running


async def get(running: Running, path: str) -> bytes:
    """Ask until the container's server listens."""

    def ask() -> bytes:
        connection = http.client.HTTPConnection(*running.address, timeout=5)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            if answer.status != 200:
                raise OSError(f"{path} answers {answer.status}")
            return answer.read()
        finally:
            connection.close()

    deadline = time.monotonic() + 30
    while True:
        try:
            return await asyncio.to_thread(ask)
        except (OSError, http.client.HTTPException):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)


def inspect(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(docker("inspect", name))[0]
    return found


# --- a container as SageMaker starts it --------------------------------------------------------------


def test_a_container_serves_with_sagemakers_surroundings(stub: str, order: Any, tmp_path: Path) -> None:
    async def main() -> None:
        async with launcher(tmp_path) as local:
            placed: Launcher = local
            given = order(environment={"TEAM": "risk"}, gpus=0)
            running: Running = await placed.launch(given)
            await get(running, "/ping")
            (given.folder / "models" / "later").mkdir()
            seen = json.loads(await get(running, "/"))
            assert seen["argv"] == ["serve"]
            assert seen["models"] == ["later"]
            assert seen["writable"] is False
            assert seen["hostname"] == "i-1"
            assert seen["environ"]["SAGEMAKER_MULTI_MODEL"] == "true"
            assert seen["environ"]["TEAM"] == "risk"
            assert "SAGEMAKER_BIND_TO_PORT" not in seen["environ"]
            assert running.models_path == "/opt/ml/models"
            assert running.address[0] == "127.0.0.1"

    run(main())


def test_a_container_has_the_instance_types_limits_and_labels(stub: str, order: Any, tmp_path: Path) -> None:
    async def main() -> None:
        async with launcher(tmp_path) as local:
            running = await local.launch(order())
            await get(running, "/ping")
            (name,) = containers(tmp_path)
            details = inspect(name)
            host = details["HostConfig"]
            assert host["Memory"] == host["MemorySwap"] == 256 * MIB
            assert host["NanoCpus"] == 10**9
            (published,) = host["PortBindings"]["8080/tcp"]
            assert published["HostIp"] == "127.0.0.1"
            assert details["Config"]["StopSignal"] == "SIGTERM"
            labels = {
                key.removeprefix("mmekit.local."): value
                for key, value in details["Config"]["Labels"].items()
                if key.startswith("mmekit.local.")
            }
            assert labels.pop("host")
            assert labels == {
                "state": str(tmp_path / "state"),
                "service": f"one-{RUN}",
                "endpoint": "churn",
                "variant": "AllTraffic",
                "instance": "i-1",
            }
            assert running.resolved_image == docker("image", "inspect", "--format", "{{.Id}}", STUB)

    run(main())


def test_a_container_of_one_model_sees_it_where_sagemaker_puts_it(
    stub: str, order: Any, tmp_path: Path
) -> None:
    async def main() -> None:
        async with launcher(tmp_path) as local:
            given = order(multi_model=False, model_data_url="s3://bucket/model.tar.gz")
            (given.folder / "model" / "weights").touch()
            seen = json.loads(await get(await local.launch(given), "/"))
            assert seen["model"] == ["weights"]
            assert "models" not in seen
            assert "SAGEMAKER_MULTI_MODEL" not in seen["environ"]

    run(main())


def test_an_instance_with_gpus_runs_without_where_there_are_none(
    stub: str, order: Any, tmp_path: Path
) -> None:
    if "nvidia" in docker("info", "--format", "{{json .Runtimes}}"):
        pytest.skip("this engine has GPUs")

    async def main() -> None:
        async with launcher(tmp_path) as local:
            given = order(gpus=1)
            await get(await local.launch(given), "/ping")
            assert (
                "The instance type has 1 GPU, but the container engine offers none" in given.log.read_text()
            )

    run(main())


# --- usage, log --------------------------------------------------------------------------------------


def test_usage_is_what_the_container_holds(stub: str, order: Any, tmp_path: Path) -> None:
    do = """
kept = b"x" * (100 << 20)
with open("/tmp/file", "wb") as file:
    file.write(kept[: 64 << 20])
    os.fsync(file.fileno())  # clean page cache of a file, which is no use
"""

    async def main() -> None:
        async with launcher(tmp_path) as local:
            running = await local.launch(order(do=do))
            await get(running, "/ping")
            usage = await running.usage()
            assert usage is not None
            assert 100 * MIB < usage.memory_bytes < 150 * MIB
            assert usage.memory_limit_bytes == 256 * MIB
            assert 0.02 < usage.cpu_seconds < 20
            await running.stop()
            assert await running.usage() is None

    run(main())


def test_both_streams_reach_the_log_line_by_line(stub: str, order: Any, tmp_path: Path) -> None:
    do = """
for number in range(2000):
    sys.stdout.write(f"out {number} ")
    sys.stdout.flush()
    sys.stderr.write(f"err {number} ")
    sys.stderr.flush()
    sys.stdout.write("end\\\\n")
    sys.stdout.flush()
    sys.stderr.write("end\\\\n")
    sys.stderr.flush()
sys.stdout.write("no newline")
sys.exit(0)
""".replace("\\\\", "\\")

    async def main() -> None:
        async with launcher(tmp_path) as local:
            given = order(do="started()\n" + do)
            given.log.write_text("earlier\n")
            running = await launched(local, given)
            assert await running.wait() == "exited with code 0"
            lines = given.log.read_text().splitlines()
            assert lines[0] == "earlier"
            expected = [f"{stream} {number} end" for stream in ("out", "err") for number in range(2000)]
            assert sorted(lines[1:]) == sorted([*expected, "no newline"])

    run(main())


# --- how they end -------------------------------------------------------------------------------------


def test_stop_ends_and_removes_a_container(stub: str, order: Any, tmp_path: Path) -> None:
    async def main() -> None:
        async with launcher(tmp_path, stop_timeout_s=60) as local:
            running = await local.launch(order())
            await get(running, "/ping")
            (name,) = containers(tmp_path)
            volumes = {mount["Name"] for mount in inspect(name)["Mounts"] if mount["Type"] == "volume"}
            assert volumes
            started = time.monotonic()
            await asyncio.gather(running.stop(), running.stop())
            assert time.monotonic() - started < 30
            assert await running.wait() == "exited with code 0"
            assert not containers(tmp_path)
            assert not volumes & set(docker("volume", "ls", "--quiet").split())

    run(main())


def test_a_container_that_ignores_sigterm_is_killed_after_the_time(
    stub: str, order: Any, tmp_path: Path
) -> None:
    async def main() -> None:
        async with launcher(tmp_path, stop_timeout_s=1) as local:
            running = await local.launch(order(do="signal.signal(signal.SIGTERM, signal.SIG_IGN)"))
            await get(running, "/ping")
            started = time.monotonic()
            await running.stop()
            assert 0.9 < time.monotonic() - started < 10
            assert (await running.wait()).startswith("was killed by SIGKILL")

    run(main())


@pytest.mark.parametrize(
    ("do", "how"),
    [
        ("started(); sys.exit(3)", "exited with code 3"),
        ("started(); os._exit(255)", "exited with code 255"),
        (
            "started(); kept = bytearray(1 << 30)",
            f"was killed by SIGKILL: out of memory, the limit is {256 * MIB:,} bytes (OOMKilled)",
        ),
    ],
)
def test_wait_says_how_a_container_ended(stub: str, order: Any, tmp_path: Path, do: str, how: str) -> None:
    async def main() -> None:
        async with launcher(tmp_path) as local:
            running = await launched(local, order(do=do))
            assert await running.wait() == how
            assert await running.usage() is None

    run(main())


def test_a_container_that_is_removed_by_hand_has_ended(stub: str, order: Any, tmp_path: Path) -> None:
    async def main() -> None:
        async with launcher(tmp_path) as local:
            running = await local.launch(order())
            await get(running, "/ping")
            await asyncio.to_thread(docker, "rm", "--force", "--volumes", *containers(tmp_path))
            assert await running.wait() in (
                "was removed",
                "was killed by SIGKILL (often by the kernel, for memory)",
            )
            await running.stop()

    run(main())


# --- containers that cannot be started ------------------------------------------------------------------


def test_a_container_that_ends_at_once_is_a_failed_launch_or_ends(
    stub: str, order: Any, tmp_path: Path
) -> None:
    async def main() -> None:
        async with launcher(tmp_path) as local:
            given = order(do="print('no licence'); sys.stdout.flush(); os._exit(3)")
            try:
                how = await (await local.launch(given)).wait()
            except LaunchFailed as error:
                how = str(error)
            assert "exited with code 3" in how
            assert given.log.read_text() == "no licence\n"

    run(main())


def test_an_image_without_the_label_is_refused_for_many_models(stub: str, order: Any, tmp_path: Path) -> None:
    async def main() -> None:
        async with launcher(tmp_path) as local:
            with pytest.raises(LaunchFailed, match=f"The image {BASE} has no label {LABEL}=true"):
                await local.launch(order(image=BASE))

    run(main())


def test_a_command_that_the_image_lacks_is_a_failed_launch(stub: str, order: Any, tmp_path: Path) -> None:
    async def main() -> None:
        async with launcher(tmp_path) as local:
            with pytest.raises(LaunchFailed, match=f"{BASE} cannot be started: .*serve.*not found"):
                await local.launch(order(image=BASE, multi_model=False))

    run(main())


def test_an_image_that_cannot_be_pulled_is_named(order: Any, tmp_path: Path) -> None:
    image = "127.0.0.1:9/nothing:here"

    async def main() -> None:
        async with launcher(tmp_path) as local:
            with pytest.raises(
                LaunchFailed, match=f"{image} is not on this machine and cannot be pulled: .*127"
            ):
                await local.launch(order(image=image))

    run(main())


def test_a_cancelled_launch_leaves_no_container(stub: str, order: Any, tmp_path: Path) -> None:
    async def main() -> None:
        async with launcher(tmp_path, stop_timeout_s=0.5) as local:
            launch = asyncio.create_task(local.launch(order()))
            while not containers(tmp_path):
                await asyncio.sleep(0)
            launch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await launch

    run(main())


# --- services that were killed ----------------------------------------------------------------------------


def test_clean_removes_what_a_killed_service_left_and_nothing_else(
    stub: str, order: Any, tmp_path: Path
) -> None:
    """State folders: this service's, one that another holds, one whose service is dead, one that is gone."""

    async def main() -> None:
        for folder in ("state", "held", "dead"):
            (tmp_path / folder).mkdir()
            (tmp_path / folder / "lock").touch()
        with open(tmp_path / "held" / "lock") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            earlier = [
                DockerLauncher(tmp_path / state, f"earlier-{RUN}", 1)
                for state in ("state", "held", "dead", "gone")
            ]
            left = [await launcher.launch(order(number)) for number, launcher in enumerate(earlier)]
            async with launcher(tmp_path, "now") as local:
                await local.launch(order(9))
                removed = {name for name in await local.clean() if name.endswith(RUN)}
                assert removed == {f"churn-AllTraffic-i-{number}-earlier-{RUN}" for number in (0, 2, 3)}
                left_alone = [f"churn-AllTraffic-i-{name}-{RUN}" for name in ("1-earlier", "9-now")]
                assert containers(tmp_path) == left_alone
            for running in left:
                await running.stop()
            for one in earlier:
                await one.close()

    run(main())


# --- the choice, mmekit's own image -------------------------------------------------------------------------


def test_auto_is_docker_where_an_engine_answers(engine: None, tmp_path: Path) -> None:
    async def main() -> None:
        chosen = await choose("auto", tmp_path, "one")
        assert chosen.name == "docker"
        await chosen.close()

    run(main())


def test_mmekits_image_is_ready_and_lists_its_models(image: str, order: Any, tmp_path: Path) -> None:
    async def main() -> None:
        async with launcher(tmp_path) as local:
            given = order(image=image, environment={"MMEKIT_PRELOAD": "none"})
            running = await local.launch(given)
            await get(running, "/ping")
            assert json.loads(await get(running, "/models"))["models"] == []
            await running.stop()
            assert await running.wait() == "exited with code 0"
            assert '"Listening on 0.0.0.0:8080' in given.log.read_text()

    run(main())
