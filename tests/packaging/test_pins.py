"""constraints.txt: complete, exact, and what is installed; Dockerfile.gpu's packages resolve with it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent.parent


def _constraints() -> list[Requirement]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def _pins() -> dict[str, str]:
    """Name → version for the Python that runs this."""
    return {
        canonicalize_name(pin.name): next(iter(pin.specifier)).version
        for pin in _constraints()
        if pin.marker is None or pin.marker.evaluate()
    }


def _tree(name: str, extras: set[str], seen: dict[str, str]) -> None:
    """Collect what is installed because of ``name``: name → version without the local label."""
    for line in requires(name) or []:
        requirement = Requirement(line)
        environments = [{"extra": extra} for extra in extras or {""}]
        if requirement.marker and not any(requirement.marker.evaluate(e) for e in environments):
            continue
        key = canonicalize_name(requirement.name)
        try:
            found = distribution(key)
        except PackageNotFoundError:
            continue  # an extra that this environment was made without
        if key not in seen:
            seen[key] = found.version.split("+")[0]
            _tree(key, requirement.extras, seen)


def test_every_pin_is_exact() -> None:
    for pin in _constraints():
        assert [s.operator for s in pin.specifier] == ["=="], f"{pin} is not an exact version"
        assert "*" not in str(pin.specifier), f"{pin} is not an exact version"


def test_what_is_installed_is_what_is_pinned() -> None:
    try:
        distribution("mmekit")
    except PackageNotFoundError:
        pytest.skip("mmekit is on PYTHONPATH but not installed: `make install`")
    installed: dict[str, str] = {}
    _tree("mmekit", {"all", "dev"}, installed)
    pins = _pins()
    wrong = {
        name: (version, pins.get(name)) for name, version in installed.items() if pins.get(name) != version
    }
    assert not wrong, f"installed and pinned versions differ: {wrong}"


def test_torch_is_pinned_without_a_label_so_that_cpu_and_cuda_builds_both_fit() -> None:
    assert _pins()["torch"] == "2.13.0"


def test_xgboost_still_reads_legacy_boosters() -> None:
    assert _pins()["xgboost-cpu"] == "3.0.5"


@pytest.fixture(scope="module")
def gpu_packages() -> dict[str, str]:
    """What ``pip install .[all]`` in Dockerfile.gpu comes to, from PyPI's metadata: no wheel is fetched."""
    pytest.importorskip("uv")
    text = (ROOT / "setup.py").read_text().partition("DEV = [")[0]
    wanted = re.findall(r'^    "([\w-]+[<>=][^"]*)",', text, re.MULTILINE)
    # It comes as source alone; what it needs is installed with `dev`, and compared with the pins above.
    wanted = [line for line in wanted if not line.startswith("sagemaker-inference")]
    assert any(line.startswith("torch") for line in wanted)
    # No find-links, which may offer a CPU build; the index is PyPI's unless the machine names another.
    environ = {name: value for name, value in os.environ.items() if name != "UV_FIND_LINKS"}
    options = ["--no-header", "--no-annotate", "--no-config", "--only-binary", ":all:"]
    target = ["--python-version", "3.11", "--python-platform", "x86_64-manylinux_2_28"]
    command = ["uv", "pip", "compile", *options, *target, "--constraint", "constraints.txt", "-"]
    try:
        done = subprocess.run(
            [sys.executable, "-m", *command],
            input="\n".join(wanted),
            capture_output=True,
            text=True,
            timeout=100,
            env=environ,
            cwd=ROOT,
        )
    except subprocess.TimeoutExpired:
        pytest.skip("the package index took over 100 s")
    trouble = "error (sending request|decoding response body)|dns error|status server error|429 Too|timed out"
    if re.search(trouble, done.stderr):
        pytest.skip(f"no package index can be reached: {done.stderr.strip()[-300:]}")
    assert done.returncode == 0, done.stderr
    return dict(line.split("==") for line in done.stdout.split())


def test_the_gpu_image_gets_the_cuda_build_of_the_pinned_torch(gpu_packages: dict[str, str]) -> None:
    assert gpu_packages["torch"] == "2.13.0"
    assert any(name.startswith("nvidia-cublas") for name in gpu_packages)


def test_every_package_of_the_gpu_image_is_pinned(gpu_packages: dict[str, str]) -> None:
    pins = {canonicalize_name(pin.name) for pin in _constraints()}
    unpinned = sorted(name for name in gpu_packages if canonicalize_name(name) not in pins)
    assert not unpinned, f"add to constraints.txt: {', '.join(f'{n}=={gpu_packages[n]}' for n in unpinned)}"
