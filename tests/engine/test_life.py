"""Starting, stopping and refusing to start Multi Model Server."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.engine.support import MmsServer
from tests.support.framework_models import xgboost_model
from tests.support.server import COMMAND


def _serve(**environ: str) -> subprocess.CompletedProcess[str]:
    values = {"PATH": os.environ["PATH"], "HOME": "/", "MMEKIT_ENGINE": "mms", **environ}
    return subprocess.run([COMMAND, "serve"], env=values, capture_output=True, text=True, timeout=60)


def test_without_the_packages_the_start_fails_and_says_how_to_get_them() -> None:
    ended = _serve()
    assert ended.returncode == 78
    assert "no multi-model-server" in ended.stderr
    assert "--build-arg ENGINE=mms" in ended.stderr
    assert "mmekit[mms]" in ended.stderr


def test_without_java_the_start_fails_and_says_so(tmp_path: Path) -> None:
    ended = _serve(JAVA_HOME=str(tmp_path))
    assert ended.returncode == 78
    assert f"no Java runtime ({tmp_path}/bin/java)" in ended.stderr


@pytest.mark.mms
def test_sigterm_ends_java_and_all_workers_and_the_exit_code_is_0(tmp_path: Path) -> None:
    with MmsServer() as server:
        assert server.load("m", xgboost_model(tmp_path / "m").folder).status == 200
        assert len(server.family()) >= 4  # this command, its starter, Java, the model's process
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        # Leaving the block fails if a process of the family is left.


@pytest.mark.mms
@pytest.mark.parametrize("signals", [(signal.SIGTERM, signal.SIGINT), (signal.SIGINT, signal.SIGTERM)])
def test_a_second_signal_ends_at_once_what_does_not_stop(signals: tuple[int, int]) -> None:
    with MmsServer(MMEKIT_STOP_TIMEOUT_SECONDS="600") as server:
        for pid in server.family() - {server.pid}:
            os.kill(pid, signal.SIGSTOP)
        # At once: the kernel has another thread take the second.
        for number in signals:
            server.signal(number)
        assert server.wait() == 0


@pytest.mark.mms
def test_settings_reach_multi_model_server(tmp_path: Path) -> None:
    settings = {
        "SAGEMAKER_MAX_REQUEST_SIZE": "1000",
        "SAGEMAKER_MODEL_SERVER_WORKERS": "2",
        "SAGEMAKER_MODEL_JOB_QUEUE_SIZE": "7",
        "MMEKIT_CORS_ALLOWED_ORIGIN": "https://example.com",
    }
    with MmsServer(**settings) as server:
        assert server.load("m", xgboost_model(tmp_path / "m").folder).status == 200
        assert server.get("/models/m").json["minWorkers"] == 2
        assert server.invoke("m", b"1,2,3,4\n" * 200, "text/csv").status == 413
        answer = server.invoke("m", b"1,2,3,4", "text/csv")
        assert answer.headers["access-control-allow-origin"] == "https://example.com"


@pytest.mark.mms
def test_the_model_of_a_single_model_endpoint_answers_invocations(tmp_path: Path) -> None:
    model = xgboost_model(tmp_path / "model")
    with MmsServer(SAGEMAKER_MULTI_MODEL="false", SAGEMAKER_BASE_DIR=str(tmp_path)) as server:
        answer = server.request("POST", "/invocations", b"1,2,3,4", {"Content-Type": "text/csv"})
        assert answer.status == 200, answer.body
        assert float(answer.body.strip(b"[]\n")) == pytest.approx(
            model.predict(np.array([[1.0, 2, 3, 4]]))[0]
        )


@pytest.mark.mms
def test_a_port_that_is_taken_ends_the_start_with_1() -> None:
    server = MmsServer()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", server.port))
        taken.listen()
        server.start(ready=False)
        assert server.wait() == 1
    server.close()
    assert server.told("Multi Model Server ended by itself")
    assert any("Failed to bind to address" in line for line in server.raw)


@pytest.mark.mms
def test_a_port_that_multi_model_server_refuses_is_named() -> None:
    server = MmsServer(SAGEMAKER_BIND_TO_PORT="40000")
    server.start(ready=False)
    assert server.wait() == 78
    server.close()
    assert any("SAGEMAKER_BIND_TO_PORT" in line and "32766" in line for line in server.raw)


@pytest.mark.mms
def test_a_config_properties_starts_it_with_the_models_of_its_store(tmp_path: Path) -> None:
    xgboost_model(tmp_path / "store" / "booster")
    server = MmsServer()
    properties = tmp_path / "config.properties"
    properties.write_text(
        f"model_store={tmp_path}/store\nload_models=ALL\ndefault_workers_per_model=1\n"
        f"management_address=http://127.0.0.1:{server.port}\n"
    )
    server.environ["MMS_CONFIG_FILE"] = str(properties)
    with server:
        assert server.models() == ["booster"]
        answer = server.request("POST", "/predictions/booster", b"1,2,3,4", {"Content-Type": "text/csv"})
        assert answer.status == 200, answer.body
