"""examples/custom-framework without a container: the handler on PYTHONPATH, named by SAGEMAKER_HANDLER."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import lightgbm  # noqa: F401  # left out where the example's framework is missing (tests/conftest.py)
import pytest

from tests.support.mms import free_port

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "custom-framework"


def _request(port: int, method: str, path: str, body: str = "", content_type: str = "") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body or None, {"Content-Type": content_type} if content_type else {})
        reply = connection.getresponse()
        return reply.status, reply.read()
    finally:
        connection.close()


@pytest.fixture
def port() -> Iterator[int]:
    """The port of a multi-model server with the example's handler; stopped with SIGTERM at the end."""
    number = free_port()
    environ = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(EXAMPLE), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "SAGEMAKER_HANDLER": "lightgbm_handler:LightGBMHandler",
        "SAGEMAKER_MULTI_MODEL": "true",
        "SAGEMAKER_BIND_TO_PORT": str(number),
    }
    server = subprocess.Popen(
        [sys.executable, "-c", "from mmekit.cli import main; main()", "serve"], env=environ
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            assert server.poll() is None, f"the server ended with {server.returncode}"
            assert time.monotonic() < deadline, "the server was not ready within 60 s"
            try:
                if _request(number, "GET", "/ping")[0] == 200:
                    break
            except OSError:
                pass
            time.sleep(0.05)
        yield number
    finally:
        server.terminate()
        assert server.wait(30) == 0


def test_the_example_predicts_as_lightgbm_does_and_names_a_wrong_width(port: int, tmp_path: Path) -> None:
    folder = tmp_path / "diabetes"
    trained = subprocess.run(
        [sys.executable, EXAMPLE / "train.py", folder], capture_output=True, text=True, check=True, timeout=60
    )
    expected = json.loads(trained.stdout)
    load = json.dumps({"model_name": "diabetes", "url": str(folder)})
    status, body = _request(port, "POST", "/models", load, "application/json")
    assert status == 200, body

    row = ",".join(map(str, expected["row"]))
    status, body = _request(port, "POST", "/models/diabetes/invoke", row, "text/csv")
    assert status == 200, body
    assert float(body.strip(b"[]\n")) == pytest.approx(expected["prediction"])

    status, body = _request(port, "POST", "/models/diabetes/invoke", "1,2,3", "text/csv")
    assert status == 400, body
    assert b"10 features" in body


def test_a_folder_without_a_booster_is_named(port: int, tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("no model here")
    load = json.dumps({"model_name": "empty", "url": str(tmp_path)})
    status, body = _request(port, "POST", "/models", load, "application/json")
    assert status in (400, 500), body
    assert b"expected one booster" in body
