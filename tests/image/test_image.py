"""What the image is: labels, entry point, no compiler, compiled byte code, its users."""

from __future__ import annotations

import json

import pytest

from tests.image.containers import docker


def _config(image: str) -> dict[str, object]:
    config: dict[str, object] = json.loads(docker("image", "inspect", "--format", "{{json .Config}}", image))
    return config


def _run(image: str, entrypoint: str, *arguments: str, options: tuple[str, ...] = ()) -> str:
    return docker("run", "--rm", "--network", "none", *options, "--entrypoint", entrypoint, image, *arguments)


def test_sagemaker_reads_both_labels(image: str) -> None:
    labels = _config(image)["Labels"]
    assert isinstance(labels, dict)
    assert labels["com.amazonaws.sagemaker.capabilities.multi-models"] == "true"
    assert labels["com.amazonaws.sagemaker.capabilities.accept-bind-to-port"] == "true"
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"


def test_the_entry_point_is_the_server_itself_and_serve_its_default(image: str) -> None:
    config = _config(image)
    assert config["Entrypoint"] == ["mmekit"]
    assert config["Cmd"] == ["serve"]
    assert config["ExposedPorts"] == {"8080/tcp": {}}
    assert not config.get("User")
    assert not config.get("Healthcheck")


def test_the_image_bakes_no_choice_of_the_platform(image: str) -> None:
    names = {setting.split("=")[0] for setting in _config(image)["Env"]}  # type: ignore[attr-defined]  # a list
    # Which engine an image has is its own business.
    assert not {name for name in names if name.startswith(("SAGEMAKER_", "MMEKIT_"))} - {"MMEKIT_ENGINE"}


def test_no_compiler_is_left_inside(image: str) -> None:
    tools = "gcc cc g++ c++ clang ld as ar make cmake nvcc strip"
    found = _run(image, "sh", "-c", f"for tool in {tools}; do command -v $tool; done; true")
    assert found == ""


def test_no_package_cache_is_left_inside(image: str) -> None:
    found = _run(
        image,
        "sh",
        "-c",
        "ls -A /root/.cache /var/cache/apt/archives /src /install 2>/dev/null | grep -v ^lock; true",
    )
    assert "pip" not in found
    assert ".deb" not in found


def test_all_byte_code_is_compiled_and_needs_no_check(image: str) -> None:
    """Sources without byte code are compiled again by every process of a read-only container."""
    program = """
import importlib.util, pathlib, sysconfig
site = pathlib.Path(sysconfig.get_path("purelib"))
missing, checked, ours = [], [], 0
for source in site.rglob("*.py"):
    package = source.relative_to(site).parts[0]
    if package in ("pip", "_distutils_hack"):
        continue
    compiled = pathlib.Path(importlib.util.cache_from_source(str(source)))
    if not compiled.exists():
        missing.append(str(source))
        continue
    ours += package.startswith("mmekit")
    if int.from_bytes(compiled.read_bytes()[4:8], "little") != 1:  # PEP 552: hash-based, unchecked
        checked.append(str(source))
print(len(missing), len(checked), ours > 10, *(missing + checked)[:5])
"""
    assert _run(image, "python", "-c", program) == "0 0 True"


def test_the_standard_library_is_compiled(image: str) -> None:
    """python:slim comes without byte code."""
    program = (
        "import asyncio, json, os; print(os.path.exists(asyncio.__cached__), os.path.exists(json.__cached__))"
    )
    assert _run(image, "python", "-c", program) == "True True"


@pytest.mark.parametrize("name", ["multi-model-server", "mxnet-model-server"])
def test_the_commands_of_multi_model_server_are_mmekits(image: str, name: str) -> None:
    options = ("--read-only", "--user", "1000:1000", "--tmpfs", "/tmp")
    assert "mmekit" in _run(image, name, "--version", options=options)
    assert "not currently running" in _run(image, name, "--stop", options=options)


def test_tracebacks_name_the_installed_sources(image: str) -> None:
    program = (
        "import mmekit.errors as e; print(e.MmekitError.message.fget.__code__.co_filename == e.__file__)"
    )
    assert _run(image, "python", "-c", program) == "True"


def test_frameworks_predict_after_their_libraries_were_stripped(image: str) -> None:
    program = """
import io, numpy as np, torch, xgboost, pandas, scipy.stats, scipy.sparse, skops.io
from sklearn.ensemble import RandomForestClassifier
from torch import nn
from sklearn.compose import ColumnTransformer
X = np.random.default_rng(1).random((40, 3)); y = X[:, 0] > .5
booster = xgboost.train({"nthread": 1}, xgboost.DMatrix(X, label=y), 5)
assert ((booster.predict(xgboost.DMatrix(X)) > .5) == y).mean() > .9
forest = RandomForestClassifier(5, random_state=1).fit(X, y)
assert forest.score(X, y) > .9
columns = ColumnTransformer([("a", "passthrough", ["a"])])
assert columns.fit_transform(pandas.DataFrame({"a": [1.0]})).shape == (1, 1)
assert np.allclose(np.linalg.inv(np.eye(3)), np.eye(3)) and scipy.stats.norm.cdf(0) == .5
net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(18, 2)).eval()
x = torch.ones(1, 1, 5, 5)
buffer = io.BytesIO(); torch.jit.save(torch.jit.trace(net, x), buffer); buffer.seek(0)
assert torch.allclose(torch.jit.load(buffer)(x), net(x))
exported = torch.export.export(net, (x,))
assert torch.allclose(exported.module()(x), net(x))
print("ok")
"""
    options = ("--read-only", "--user", "12345:12345", "--tmpfs", "/tmp")
    assert _run(image, "python", "-W", "ignore", "-c", program, options=options).endswith("ok")


@pytest.mark.parametrize("user", ["0:0", "1000:1000", "54321:0"])
def test_the_command_runs_for_any_user_on_a_read_only_root(image: str, user: str) -> None:
    options = ("--read-only", "--user", user)
    assert "serve" in docker("run", "--rm", "--network", "none", *options, image, "--help")
