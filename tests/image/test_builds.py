"""Builds other than the default: fewer frameworks, the GPU file, people's own framework on top."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.image.conftest import ROOT, Start
from tests.image.containers import build, docker

EXAMPLE = ROOT / "examples" / "custom-framework"


def _modules(image: str, *names: str) -> list[bool]:
    program = f"import importlib.util as u; print(*(u.find_spec(n) is not None for n in {names!r}))"
    out = docker("run", "--rm", "--network=none", "--entrypoint=python", image, "-c", program)
    return [word == "True" for word in out.split()]


def _size_mb(image: str) -> float:
    return int(docker("image", "inspect", "--format", "{{.Size}}", image)) / 1e6


def test_a_subset_of_frameworks_leaves_the_others_out(engine: None) -> None:
    build(ROOT, "--file=Dockerfile.cpu", "--build-arg=FRAMEWORKS=xgboost,sklearn", "--tag=mmekit-test:small")
    assert _modules("mmekit-test:small", "xgboost", "sklearn", "torch") == [True, True, False]
    base = _size_mb(docker("image", "inspect", "--format", "{{.Id}}", "python:3.11-slim-bookworm"))
    own = _size_mb("mmekit-test:small") - base
    print(f"mmekit with xgboost and scikit-learn: {own:.0f} MB on a base of {base:.0f} MB")
    assert own < 330, "the small image has grown; see docker/trim.sh"


def test_no_framework_at_all_is_a_server_for_peoples_own(engine: None, start: Start) -> None:
    build(ROOT, "--file=Dockerfile.cpu", "--build-arg=FRAMEWORKS=", "--tag=mmekit-test:bare")
    assert _modules("mmekit-test:bare", "numpy", "xgboost", "mmekit") == [False, False, True]
    container = start(
        "--read-only", "--user=1000:1000", "--env=SAGEMAKER_MULTI_MODEL=true", name="mmekit-test:bare"
    )
    assert container.request("GET", "/models").json["models"] == []


def test_the_gpu_file_builds_and_serves_where_no_gpu_is(engine: None, start: Start) -> None:
    """Without PyTorch: its CUDA wheels are 3 GB; tests/packaging resolves them from metadata."""
    build(ROOT, "--file=Dockerfile.gpu", "--build-arg=FRAMEWORKS=", "--tag=mmekit-test:gpu")
    config = json.loads(docker("image", "inspect", "--format", "{{json .Config}}", "mmekit-test:gpu"))
    assert {"NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_DRIVER_CAPABILITIES=compute,utility"} <= set(config["Env"])
    assert config["Labels"]["com.amazonaws.sagemaker.capabilities.multi-models"] == "true"
    assert config["Entrypoint"] == ["mmekit"]
    container = start("--env=SAGEMAKER_MULTI_MODEL=true", name="mmekit-test:gpu")
    assert container.request("GET", "/ping").status == 200


def test_a_framework_of_ones_own_is_a_handler_and_a_few_lines_on_top(
    start: Start, trusted_base: str, tmp_path: Path
) -> None:
    build(EXAMPLE, f"--build-arg=BASE={trusted_base}", "--tag=mmekit-test:lightgbm")
    folder = tmp_path / "models" / "diabetes" / "model"
    trained = subprocess.run(
        [sys.executable, EXAMPLE / "train.py", folder], capture_output=True, text=True, timeout=100
    )
    assert trained.returncode == 0, trained.stderr
    expected = json.loads(trained.stdout)
    for path in [tmp_path / "models", *(tmp_path / "models").rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)

    container = start(
        "--read-only",
        "--user=1000:1000",
        "--env=SAGEMAKER_MULTI_MODEL=true",
        f"--volume={tmp_path / 'models'}:/opt/ml/models:ro",
        name="mmekit-test:lightgbm",
    )
    loaded = container.load("diabetes", "/opt/ml/models/diabetes/model")
    assert loaded.status == 200, loaded.body
    answer = container.invoke("diabetes", ",".join(map(str, expected["row"])))
    assert answer.numbers() == pytest.approx([expected["prediction"]])
    assert container.invoke("diabetes", "1,2").status == 400
