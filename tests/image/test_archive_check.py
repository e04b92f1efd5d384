"""``mmekit archive check --image``: versions and modules are compared with what the image itself has."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.archive.models import folder, sklearn_bytes, xgboost_bytes
from tests.image.containers import containers, docker
from tests.support.server import COMMAND

#: An image without Python.
_OURS = "label=mmekit=archive-check"
_NO_PYTHON = "FROM scratch\nCOPY Dockerfile /Dockerfile\n"


def check(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [COMMAND, "archive", "check", "--json", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def report_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    (report,) = json.loads(done.stdout)
    assert isinstance(report, dict)
    return report


@pytest.fixture(autouse=True)
def no_container_is_left(engine: None) -> Iterator[None]:
    before = containers(_OURS)  # those of an earlier run that was killed
    yield
    assert containers(_OURS) <= before


def test_a_model_that_the_image_can_load_has_no_faults(image: str, tmp_path: Path) -> None:
    path = folder(tmp_path / "m", {"model.ubj": xgboost_bytes(), "requirements.txt": "numpy>=1\n"})
    done = check("--image", image, path)
    assert done.returncode == 0, done.stdout + done.stderr
    compared = report_of(done)["compared_with"]
    assert compared["image"] == image
    assert {"mmekit", "numpy"} <= compared["packages"].keys()


def test_what_the_image_lacks_is_a_fault(image: str, tmp_path: Path) -> None:
    files = {
        "model.pkl": sklearn_bytes(),
        "code/inference.py": "import no_such_module\ndef model_fn(model_dir): ...\n",
        "requirements.txt": "no-such-package\nnumpy<1\n",
    }
    done = check("--image", image, folder(tmp_path / "m", files))
    assert done.returncode == 3
    faults = [f for f in report_of(done)["findings"] if f["level"] == "fault"]
    assert sorted(fault["name"] for fault in faults) == ["module-missing", "requirement", "requirement"]
    assert all(f"the image {image}" in fault["message"] for fault in faults)


def test_an_image_with_python_alone_has_no_framework(engine: None, tmp_path: Path) -> None:
    name = "python:3.11-slim-bookworm"
    if not docker("images", "--quiet", name, timeout_s=60):
        pytest.skip(f"the engine has no {name}")
    done = check("--image", name, folder(tmp_path / "m", {"model.ubj": xgboost_bytes()}))
    assert done.returncode == 3
    found = {finding["name"] for finding in report_of(done)["findings"]}
    assert {"framework-missing", "other-server"} <= found


def test_an_image_that_is_not_there_is_not_pulled(engine: None, tmp_path: Path) -> None:
    done = check("--image", "no-such-image:1", folder(tmp_path / "m", {"model.ubj": xgboost_bytes()}))
    assert (done.returncode, done.stdout) == (7, "")
    assert "the engine has no image no-such-image:1" in done.stderr


def test_an_image_without_python_is_said(engine: None, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(_NO_PYTHON)
    name = "mmekit-test:no-python"
    docker("build", "--tag", name, str(tmp_path), timeout_s=120)
    try:
        done = check("--image", name, folder(tmp_path / "m", {"model.ubj": xgboost_bytes()}))
        assert done.returncode == 1, done.stderr
        assert "did not say what is installed in it" in done.stderr
    finally:
        docker("rmi", name, timeout_s=60)
