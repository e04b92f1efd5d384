"""The commands multi-model-server and mxnet-model-server: start, stop, and what is told when they cannot."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.mms import free_port
from tests.support.server import until

MARK = b"com.amazonaws.ml.mms.ModelServer"
SERVICE = (
    "def handle(data, context):\n    return None if data is None else ['served by ' + context.model_name]\n"
)


class Place:
    """A folder with a model store, a config.properties, a temporary folder and the command on PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runs = 0
        self.port = free_port()
        self.temp = folder / "tmp"
        self.temp.mkdir()
        model = folder / "store" / "first"
        model.mkdir(parents=True)
        (model / "service.py").write_text(SERVICE)
        (model / "MAR-INF").mkdir()
        manifest = {"runtime": "python", "model": {"modelName": "first", "handler": "service:handle"}}
        (model / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(manifest))
        self.config = folder / "mms.properties"
        self.config.write_text(
            f"inference_address=http://127.0.0.1:{self.port}\nmanagement_address=http://127.0.0.1:{self.port}\n"
            "default_workers_per_model=1\nmetric_time_interval=0\n"
        )
        commands = folder / "bin"
        commands.mkdir()
        for name in ("multi-model-server", "mxnet-model-server"):
            command = commands / name
            command.write_text(
                f"#!{sys.executable}\nimport sys\nfrom mmekit.model_server import main\nsys.exit(main())\n"
            )
            command.chmod(0o755)
        foreign = ("SAGEMAKER_", "MMEKIT_", "MMS_", "TEMP")
        self.environ = {
            **{name: text for name, text in os.environ.items() if not name.startswith(foreign)},
            "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}",
            "TMPDIR": str(self.temp),
            "MMEKIT_PRELOAD": "none",
        }

    def run(self, *args: object, command: str = "multi-model-server") -> subprocess.CompletedProcess[str]:
        """Run a command in the folder; a server that it starts writes to the same output."""
        self.runs += 1
        output = self.output
        with output.open("w+") as log:
            done = subprocess.run(
                [command, *map(str, args)],
                env=self.environ,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                timeout=60,
            )
        return subprocess.CompletedProcess(args, done.returncode, output.read_text())

    @property
    def output(self) -> Path:
        """What the last run wrote, and the server that it started."""
        return self.folder / f"output-{self.runs}.log"

    @property
    def pid_file(self) -> Path:
        return self.temp / ".model_server.pid"

    @property
    def pid(self) -> int:
        return int(self.pid_file.read_text())

    def get(self, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def ready(self) -> bool:
        return self.get("/ping")[0] == 200


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.run("--stop")


def is_running(pid: int) -> bool:
    try:
        return MARK in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False


def catches_sigterm(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught, 16) & 1 << signal.SIGTERM - 1)


def test_start_returns_when_the_server_listens_and_stop_ends_it(place: Place) -> None:
    started = place.run(
        "--start", "--mms-config", place.config, "--model-store", "store", "--models", "first"
    )
    assert started.returncode == 0, started.stdout
    pid = place.pid
    assert is_running(pid)
    until(place.ready, what="/ping answering 200")
    assert place.get("/predictions/first") == (200, b"served by first")
    stopped = place.run("--stop")
    assert (stopped.returncode, stopped.stdout.splitlines()[-1]) == (0, "Model server stopped.")
    assert not is_running(pid)
    assert not place.pid_file.exists()


def test_a_second_start_is_refused(place: Place) -> None:
    assert place.run("--mms-config", place.config).returncode == 0
    again = place.run("--start", "--mms-config", place.config)
    assert again.returncode == 1
    assert "already running" in again.stdout
    assert "--stop" in again.stdout


def test_a_pid_file_of_a_dead_server_does_not_stand_in_the_way(place: Place) -> None:
    assert place.run("--mms-config", place.config).returncode == 0
    pid = place.pid
    os.kill(pid, signal.SIGKILL)
    until(lambda: not is_running(pid))
    assert place.run("--mms-config", place.config).returncode == 0
    assert place.pid != pid


def test_a_pid_file_with_the_number_of_another_process_does_not_end_that(place: Place) -> None:
    other = subprocess.Popen(["sleep", "60"])
    try:
        place.pid_file.write_text(str(other.pid))
        assert place.run("--stop").stdout == "Model server already stopped.\n"
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_stop_without_a_server_says_so(place: Place) -> None:
    stopped = place.run("--stop")
    assert (stopped.returncode, stopped.stdout) == (0, "Model server is not currently running.\n")


def test_in_the_foreground_it_is_one_process_until_sigterm(place: Place) -> None:
    process = subprocess.Popen(
        ["multi-model-server", "--foreground", "--mms-config", str(place.config)],
        env=place.environ,
        cwd=place.folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: place.pid_file.exists() and place.pid_file.read_text())  # it is there before its text
        assert place.pid == process.pid
        until(lambda: is_running(process.pid))
        process.terminate()
        assert process.wait(30) == 0
        assert not place.pid_file.exists()
    finally:
        process.kill()
        process.wait()


def test_all_words_after_models_are_models(place: Place) -> None:
    started = place.run(
        "--models", "a=first", "b=first", "--mms-config", place.config, "--model-store", "store"
    )
    assert started.returncode == 0, started.stdout
    until(place.ready)
    names = [model["modelName"] for model in json.loads(place.get("/models")[1])["models"]]
    assert names == ["a", "b"]


def test_the_old_name_works_and_says_that_it_is_old(place: Place) -> None:
    started = place.run("--start", "--mms-config", place.config, command="mxnet-model-server")
    assert started.returncode == 0
    assert "multi-model-server" in started.stdout.splitlines()[0]


def test_config_properties_of_the_working_folder_is_taken(place: Place) -> None:
    place.config.rename(place.folder / "config.properties")
    assert place.run("--start").returncode == 0
    until(place.ready)


WRONG = [
    (["--start", "--models", "--mms-config", "x"], "--models"),
    (["--mms-config", "missing.properties"], "missing.properties cannot be read"),
    (["--model-store", "missing"], "--model-store directory not found: missing"),
    (["--models", "first"], "--model-store is required to load model locally: first"),
    (["--log-config", "missing.xml"], "--log-config file not found: missing.xml"),
    (["--start", "--stop"], "exclude each other"),
]


@pytest.mark.parametrize(("args", "says"), WRONG)
def test_what_cannot_be_started_is_an_error_in_one_sentence(place: Place, args: list[str], says: str) -> None:
    done = place.run(*args)
    assert done.returncode in (1, 2)  # 2: a wrong command line
    assert says in done.stdout.splitlines()[-1]
    assert "Traceback" not in done.stdout


def test_a_temporary_folder_that_is_not_there_is_named(place: Place) -> None:
    place.environ["TEMP"] = "/not/there"
    done = place.run("--start")
    assert (done.returncode, "/not/there" in done.stdout) == (1, True)
    del place.environ["TEMP"]


def test_a_pid_file_that_cannot_be_written_is_told_and_no_obstacle(place: Place) -> None:
    place.pid_file.mkdir()
    with place.output.open("w") as log:
        process = subprocess.Popen(
            ["multi-model-server", "--foreground", "--mms-config", str(place.config)],
            env=place.environ,
            cwd=place.folder,
            stdout=subprocess.DEVNULL,
            stderr=log,
        )
    try:
        until(lambda: "Listening on" in place.output.read_text())
        assert "cannot be written" in place.output.read_text().splitlines()[0]
        assert "Traceback" not in place.output.read_text()
    finally:
        process.terminate()
        assert process.wait(30) == 0
        place.pid_file.rmdir()


def test_a_port_that_is_taken_fails_the_start(place: Place) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", place.port))
        taken.listen()
        done = place.run("--start", "--mms-config", place.config)
    assert done.returncode == 1
    assert str(place.port) in done.stdout
    assert not place.pid_file.exists()


def test_log4j_files_and_keys_about_the_jvm_are_accepted_with_a_warning(place: Place) -> None:
    (place.folder / "log4j.xml").write_text("<Configuration/>")
    place.config.write_text(place.config.read_text() + "vmargs=-Xmx1g\n")
    started = place.run("--mms-config", place.config, "--log-config", "log4j.xml")
    assert started.returncode == 0
    until(lambda: "log4j.xml has no effect" in place.output.read_text())
    until(lambda: "vmargs" in place.output.read_text())


ENTRY_POINT = """
import sys
from sagemaker_inference import model_server
model_server.MMS_CONFIG_FILE = sys.argv[1]
model_server.start_model_server(handler_service="service:handle")
"""


def test_the_start_of_aws_inference_toolkit_finds_the_server_and_passes_sigterm_on(place: Place) -> None:
    """``dockerd-entrypoint.py`` of AWS's samples does just this; the file it writes is elsewhere here."""
    environ = {
        **place.environ,
        "SAGEMAKER_MULTI_MODEL": "true",
        "SAGEMAKER_BIND_TO_PORT": str(place.port),
        "SAGEMAKER_BASE_DIR": str(place.folder),
        "PYTHONPATH": str(place.folder / "store" / "first"),
        "PYTHONWARNINGS": "ignore",
    }
    log = place.output.open("w")
    process = subprocess.Popen(
        [sys.executable, "-c", ENTRY_POINT, str(place.folder / "written.properties")],
        env=environ,
        cwd=place.folder,
        stdout=log,
        stderr=log,
    )
    try:
        until(place.pid_file.exists, 30)
        until(lambda: "Listening on" in place.output.read_text(), 30)
        until(place.ready, 30)
        connection = http.client.HTTPConnection("127.0.0.1", place.port, timeout=30)
        model = place.folder / "bare"
        model.mkdir()
        (model / "weights").write_text("1")
        body = json.dumps({"model_name": "m", "url": str(model)})
        connection.request("POST", "/models", body, {"Content-Type": "application/json"})
        assert connection.getresponse().read() == b'{\n  "status": "Workers scaled"\n}\n'
        connection.request("POST", "/models/m/invoke", b"")
        assert connection.getresponse().read() == b"served by m"
        connection.close()
        pid = place.pid
        until(lambda: catches_sigterm(process.pid), what="the entry point passing SIGTERM on")
        process.terminate()
        assert process.wait(30) == 0
        until(lambda: not is_running(pid))
    finally:
        process.kill()
        process.wait()
        log.close()
