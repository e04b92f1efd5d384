"""Start and stop: signals, single-model mode, a taken port, model folders that stay as they are."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.gated import gated_model
from tests.support.looking import module
from tests.support.server import (
    COMMAND,
    MODELS,
    Server,
    image_environ,
    image_server,
    plain_model,
    until,
)

SINGLE = {"SAGEMAKER_MULTI_MODEL": "false"}


@contextlib.contextmanager
def started(*options: str, ready: bool = True, **environ: str) -> Iterator[Server]:
    """A server that need not be ready; ended afterwards."""
    server = Server(*options, **environ).start(ready)
    try:
        yield server
    finally:
        server.close()


def refuses(server: Server) -> bool:
    try:
        socket.create_connection(("127.0.0.1", server.port), timeout=1).close()
    except OSError:
        return True
    return False


def gone(family: set[int]) -> bool:
    """Whether none of these processes is left, zombies aside."""
    return not any(_runs(pid) for pid in family)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# --- stop ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_an_idle_server_with_exit_code_0(tmp_path: Path, number: int) -> None:
    with image_server(tmp_path, ["a"]) as server:
        family = server.family()
        assert len(family) >= 3
        started_at = time.monotonic()
        server.signal(number)
        assert server.wait() == 0
        assert time.monotonic() - started_at < 20
        until(lambda: gone(family), what="all processes ending")


def test_sigterm_answers_what_is_in_flight_and_refuses_what_is_new(tmp_path: Path) -> None:
    with image_server(tmp_path, ["a", "b"], MMEKIT_WORKERS="1") as server:
        runs, streams = tmp_path / "runs", tmp_path / "streams"
        running = server.later(server.invoke, "a", f"stay {runs}")
        until(runs.exists)
        queued = server.later(server.invoke, "a", "echo after it")
        until(lambda: server.waiting("a"))
        streamed = server.later(server.invoke, "b", f"halves {streams}")
        until(streams.exists)
        server.signal(signal.SIGTERM)
        until(lambda: refuses(server), what="new connections being refused")
        assert not running.done()
        runs.unlink()
        streams.unlink()
        assert running.result().text == "stayed"
        assert running.result().headers["connection"] == "close"
        assert queued.result().text == "after it"
        assert streamed.result().text == "first half, second half"
        assert server.wait() == 0


def test_a_kept_connection_gets_its_last_answer_and_no_load(tmp_path: Path) -> None:
    import http.client

    with image_server(tmp_path, ["a"]) as server:
        runs = tmp_path / "runs"
        running = server.later(server.invoke, "a", f"stay {runs}")
        until(runs.exists)
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        with contextlib.closing(connection):
            connection.putrequest("POST", "/models?model_name=b&url=/nowhere")
            connection.putheader("Content-Length", "5")
            connection.endheaders(b"1234")
            until(lambda: server.get("/ping").status == 200)
            server.signal(signal.SIGTERM)
            until(lambda: refuses(server))
            connection.send(b"5")
            response = connection.getresponse()
            assert response.status == 503
            assert b"The server is stopping and loads no more models." in response.read()
        runs.unlink()
        assert running.result().status == 200
        assert server.wait() == 0


def test_sigterm_waits_no_longer_than_its_deadline(tmp_path: Path) -> None:
    with image_server(tmp_path, ["a"], MMEKIT_STOP_TIMEOUT_SECONDS="1") as server:
        family = server.family()
        runs = tmp_path / "runs"
        hanging = server.later(server.invoke, "a", f"stay {runs}")
        until(runs.exists)
        started_at = time.monotonic()
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert 0.9 < time.monotonic() - started_at < 20
        with pytest.raises((OSError, Exception)):
            hanging.result()
        until(lambda: gone(family), what="all processes ending")


def test_the_second_signal_ends_at_once(tmp_path: Path) -> None:
    with image_server(tmp_path, ["a"], MMEKIT_STOP_TIMEOUT_SECONDS="1000") as server:
        family = server.family()
        runs = tmp_path / "runs"
        server.later(server.invoke, "a", f"stay {runs}")
        until(runs.exists)
        started_at = time.monotonic()
        server.signal(signal.SIGTERM)
        until(lambda: refuses(server))
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert time.monotonic() - started_at < 20
        until(lambda: gone(family), what="all processes ending")


def test_sigterm_lets_a_load_end(tmp_path: Path) -> None:
    path, gate = gated_model(tmp_path, "slow")
    with started() as server:
        load = server.later(server.load, "slow", path)
        gate.wait_for_load()
        server.signal(signal.SIGTERM)
        server.told("Stopping")
        gate.open()
        assert load.result().status == 200
        assert server.wait() == 0


def test_sigterm_during_an_endless_load_ends_in_time_and_leaves_nothing(tmp_path: Path) -> None:
    with started(MMEKIT_STOP_TIMEOUT_SECONDS="1") as server:
        load = server.later(server.load, "endless", MODELS / "endless_import")
        until(lambda: "loading" in server.invoke("endless", b"").text)
        time.sleep(0.3)
        family = server.family()
        started_at = time.monotonic()
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert time.monotonic() - started_at < 20
        assert load.exception() is not None or load.result().status == 503
        until(lambda: gone(family), what="all processes ending")


@pytest.mark.parametrize("requests", [0, 1])
def test_sigterm_during_a_load_in_the_background_calls_it_no_crash(tmp_path: Path, requests: int) -> None:
    path, gate = gated_model(tmp_path, "m")
    with started(MMEKIT_STOP_TIMEOUT_SECONDS="0.2") as server:
        assert server.load("m", path, synchronous=False).status == 202
        gate.wait_for_load()
        calls = [server.later(server.invoke, "m", "1") for _ in range(requests)]
        if requests:
            until(lambda: 'mmekit_queue_requests{model="m"} 1.0' in server.get("/metrics").text)
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert all(call.exception() or call.result().status == 503 for call in calls)
        loud = [line["message"] for line in server.lines if line["level"] not in ("DEBUG", "INFO")]
        assert loud == []


def test_sigterm_before_the_server_is_ready_stops_it(tmp_path: Path) -> None:
    imports = tmp_path / "imports"
    module(tmp_path, "takes_long", f"import time; open({str(imports)!r}, 'w').close(); time.sleep(100)\n")
    with started(ready=False, MMEKIT_PRELOAD="takes_long", PYTHONPATH=str(tmp_path)) as server:
        until(imports.exists)
        assert server.get("/ping").status == 503
        family = server.family()
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        until(lambda: gone(family), what="all processes ending, the template in its imports too")


def test_sigterm_while_the_command_still_imports_stops_it() -> None:
    """As process 1 a signal without a handler would be lost."""
    code = (
        "import os, signal, sys; from mmekit import cli; import click\n"
        "real = cli._resolution\n"
        "def resolution(options):\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    return real(options)\n"
        "cli._resolution = resolution\n"
        "cli.main(['serve', '--port', '0', '--host', '127.0.0.1', '--multi-model', 'true'])\n"
    )
    python = COMMAND.parent / "python"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "Stopping" in done.stderr


def test_when_the_server_is_killed_its_workers_end_too(tmp_path: Path) -> None:
    with image_server(tmp_path, ["a"]) as server:
        runs = tmp_path / "runs"
        server.later(server.invoke, "a", f"stay {runs}")
        until(runs.exists)
        family = server.family()
        server.signal(signal.SIGKILL)
        assert server.wait() == -signal.SIGKILL
        until(lambda: gone(family), what="all processes ending")


# --- single-model mode ---------------------------------------------------------------------------------


def single(base: Path, model: Path | None = None) -> dict[str, str]:
    """Lay out SAGEMAKER_BASE_DIR with this model and return the settings."""
    if model:
        shutil.copytree(model, base / "model")
    return {**SINGLE, "SAGEMAKER_BASE_DIR": str(base)}


def test_single_model_mode_serves_the_model_of_the_base_dir(tmp_path: Path) -> None:
    with started(**single(tmp_path, MODELS / "echo")) as server:
        assert server.request("POST", "/invocations", "hello").text == "hello"
        described = server.get("/models/model").json
        assert described["modelUrl"] == str(tmp_path / "model")
        assert described["loadedAtStartup"] is True
        assert server.get("/ping").json == {"status": "Healthy"}


def test_single_model_mode_with_the_images_handler(tmp_path: Path) -> None:
    plain_model(tmp_path, "model")
    with started(**image_environ(**single(tmp_path))) as server:
        assert server.request("POST", "/invocations", "echo hello").text == "hello"


def test_ping_is_503_until_the_model_is_loaded(tmp_path: Path) -> None:
    gate = gated_model(tmp_path, "model")[1]
    with started(ready=False, **single(tmp_path)) as server:
        gate.wait_for_load()
        loading = server.get("/ping")
        assert (loading.status, loading.json) == (503, {"status": "Unhealthy"})
        early = server.request("POST", "/invocations", b"")
        assert early.status == 404
        assert early.message == "Model not found: model (it is loading at the moment)"
        gate.open()
        until(lambda: server.get("/ping").status == 200)
        assert server.request("POST", "/invocations", "'there'").json == "there"


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("raises_on_load", "ValueError: no weights in this folder (inference.py:2)"),
        ("syntax_error", "SyntaxError"),
        ("exit_on_import", "exit(3)"),
        (None, "No such file or directory"),
    ],
)
def test_a_model_that_cannot_be_loaded_ends_the_server_with_the_reason(
    tmp_path: Path, model: str | None, says: str
) -> None:
    server = Server(**single(tmp_path, MODELS / model if model else None))
    with contextlib.suppress(AssertionError):  # it may have ended before it was seen listening
        server.start(ready=False)
    assert server.wait() == 1
    last = [line for line in server.lines if line["level"] in ("CRITICAL", "ERROR")]
    assert any(
        str(line["message"]).startswith(f"The model in {tmp_path / 'model'} cannot be loaded: ")
        and says in str(line["message"])
        for line in last
    ), server.raw
    server.close()


def test_sigterm_while_the_single_model_loads_stops_the_server(tmp_path: Path) -> None:
    with started(ready=False, **single(tmp_path, MODELS / "endless_import")) as server:
        until(lambda: len(server.family()) >= 3)
        time.sleep(0.5)
        started_at = time.monotonic()
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert time.monotonic() - started_at < 20


# --- the surroundings ----------------------------------------------------------------------------------


def test_a_taken_port_is_said_with_exit_code_1() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        environ = {**os.environ, "SAGEMAKER_BIND_TO_PORT": str(port), "MMEKIT_HOST": "127.0.0.1"}
        done = subprocess.run(
            [COMMAND, "serve"], env=environ, capture_output=True, text=True, timeout=60, check=False
        )
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1].lower()
    assert f"mmekit: the server cannot listen on http://127.0.0.1:{port} (sagemaker_bind_to_port): " in last
    assert "address already in use" in last
    assert "Traceback" not in done.stderr


def test_an_address_that_is_not_here_is_said() -> None:
    done = subprocess.run(
        [COMMAND, "serve", "--host", "192.0.2.1", "--port", "0"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "The server cannot listen on http://192.0.2.1:0 (SAGEMAKER_BIND_TO_PORT): " in done.stderr
    assert "Traceback" not in done.stderr


def everything_below(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*")}


def test_model_folders_are_not_written_to(tmp_path: Path) -> None:
    """/opt/ml/models may be mounted read-only: no byte code, no lock, no unpacking in place."""
    names = ["code_dir", "own_utils_a", "class_style", "streams", "raises_on_load", "echo"]
    for name in names:
        shutil.copytree(MODELS / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    before = everything_below(tmp_path)
    with started() as server:
        for name in names:
            answer = server.load(name, tmp_path / name)
            if answer.status == 200:
                server.invoke(name, b"1", "application/json")
                assert server.unload(name).status == 200
    assert everything_below(tmp_path) == before


def test_a_read_only_model_folder_is_served(tmp_path: Path) -> None:
    """In a mount namespace of its own, where that can be had: root writes through permissions."""
    folder = tmp_path / "model"
    shutil.copytree(MODELS / "own_utils_a", folder)
    unshare = shutil.which("unshare")
    script = f"mount --bind {folder} {folder} && mount -o remount,bind,ro {folder} && exec {COMMAND} serve"
    trial = unshare and subprocess.run(
        [unshare, "-m", "sh", "-c", f"mount --bind {folder} {folder}"], capture_output=True, check=False
    )
    if not trial or trial.returncode:
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        with started() as server:
            assert server.load("m", folder).status == 200
            assert server.invoke("m", b"").text == "a a late a"
        return
    server = Server()
    popen = subprocess.Popen(
        [unshare, "-m", "sh", "-c", script],
        env=server.environ, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    try:
        assert popen.stderr
        line = next(line for line in popen.stderr if "Listening on" in line)
        server.port = int(line.partition("Listening on 127.0.0.1:")[2].partition(".")[0])
        until(lambda: server.get("/ping").status == 200)
        assert server.load("m", folder).status == 200
        assert server.invoke("m", b"").text == "a a late a"
    finally:
        popen.terminate()
        popen.communicate(timeout=20)
    assert popen.returncode == 0
