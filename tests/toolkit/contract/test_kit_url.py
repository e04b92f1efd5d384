"""The kit over a server that runs: it leaves the server, and what others have loaded, as they were."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmekit_toolkit.contract import probe
from tests.support.mms import free_port
from tests.support.server import Server, until
from tests.toolkit.contract.kit_runs import COMMAND, contract, environment, program


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
def url(server: Server) -> str:
    return f"http://127.0.0.1:{server.port}"


def test_what_needs_a_start_or_an_end_is_skipped_and_all_else_is_checked(
    server: Server, url: str, tmp_path: Path
) -> None:
    chosen = ("sigterm", "starts-with-serve", "unload-frees-memory", "list-empty", "load", "unload-churn")
    result = contract(tmp_path, url, clauses=chosen)
    assert result.code == 0, result.output
    assert result.json["form"] == "URL"
    assert result.verdicts == {
        "starts-with-serve": "skipped",
        "sigterm": "skipped",
        "list-empty": "passed",
        "load": "passed",
        "unload-churn": "passed",
        "unload-frees-memory": "skipped",
    }
    assert "nothing is started or ended at a URL" in result.clause("sigterm")["reason"]
    assert server.models() == []


def test_models_of_others_stay_and_skip_what_needs_none(server: Server, url: str, tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    probe.write(folder, "theirs")
    assert server.load("theirs", folder).status == 200
    try:
        result = contract(tmp_path, url, clauses=("list-empty", "ping-without-models", "list-one", "unload"))
        assert result.verdicts == {
            "ping-without-models": "skipped",
            "list-empty": "skipped",
            "list-one": "passed",
            "unload": "passed",
        }
        assert "models are loaded that are not the kit's" in result.clause("list-empty")["reason"]
        assert server.models() == ["theirs"]
    finally:
        server.unload("theirs")


def test_models_go_where_the_server_sees_them(server: Server, url: str, tmp_path: Path) -> None:
    seen, here = tmp_path / "seen", tmp_path / "here"
    here.mkdir()
    seen.symlink_to(here)  # the server's path of the same folder
    result = contract(tmp_path, f"--models-dir={here}:{seen}", url, clauses=("get",))
    assert result.code == 0, result.output
    assert [*here.iterdir()] == []


def test_a_folder_that_the_server_does_not_see_is_told(server: Server, url: str, tmp_path: Path) -> None:
    result = contract(tmp_path, f"--models-dir={tmp_path}:/nowhere", url, clauses=("get",))
    assert result.code == 1
    assert "/nowhere/mmekit-contract-" in result.remarks
    assert "the load was answered with 404" in result.remarks


def test_an_interrupted_run_unloads_what_it_loaded(server: Server, url: str, tmp_path: Path) -> None:
    kit = subprocess.Popen(
        # The second is for where this process is slow to interrupt the first.
        [COMMAND, "contract", "--clause=list-many", "--clause=ping-under-load", url],
        env=environment(TMPDIR=str(tmp_path)),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        until(lambda: len(server.models()) > 3, 60, "some of 250 models")
        kit.send_signal(signal.SIGINT)
        _, remarks = kit.communicate(timeout=60)
    finally:
        kit.kill()
        kit.wait()
    assert kit.returncode == 130
    assert "what was loaded unloaded" in remarks
    assert server.models() == []
    assert [*tmp_path.iterdir()] == []


def test_an_address_where_nothing_listens_is_told(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        result = contract(tmp_path, url)
    assert result.code == 1
    assert f"mmekit contract: {url} accepts no connection" in result.remarks
    assert "Expected a model server that runs there." in result.remarks
    assert result.output == ""


def test_what_a_server_broke_before_it_ended_is_told(tmp_path: Path) -> None:
    source = program(tmp_path, "if path == '/ping': os._exit(9)")
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, source], env=environment(SAGEMAKER_BIND_TO_PORT=str(port)), stdout=subprocess.DEVNULL
    )
    try:
        until(lambda: _listens(port), 20, "the server")
        url = f"http://127.0.0.1:{port}"
        result = contract(tmp_path, url, clauses=("connect-time", "ping-idle", "list-empty", "load"))
    finally:
        process.kill()
        process.wait()
    assert result.code == 1
    assert result.verdicts == {"connect-time": "passed", "ping-idle": "failed"}
    assert "ping-idle: /ping answers within 2 s" in result.output
    assert f"{url} accepts no connection" in result.remarks


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8080/endpoints/churn", "http://[::1", "http://127.0.0.1:99999", "http://"]
)
def test_an_address_that_is_none_of_a_server_is_refused(url: str, tmp_path: Path) -> None:
    result = contract(tmp_path, url)
    assert result.code == 1
    assert "Expected http://HOST:PORT, without a path." in result.remarks


# --- images that cannot be had ---------------------------------------------------------------------


def test_without_an_engine_an_image_ends_with_6(tmp_path: Path) -> None:
    result = contract(tmp_path, "churn:1.0", env={"DOCKER_HOST": f"unix://{tmp_path}/no.sock"})
    assert result.code == 6
    assert "no container engine answers" in result.remarks


@pytest.mark.skipif(shutil.which("docker") is None, reason="there is no docker command")
def test_an_image_that_is_not_there_ends_with_7(tmp_path: Path) -> None:
    result = contract(tmp_path, "no-such-image:1.0")
    if result.code == 6:
        pytest.skip("no container engine answers")
    assert result.code == 7
    assert (
        "the engine has no image no-such-image:1.0. Expected an image that was built or pulled"
        in result.remarks
    )
