"""The engine, the image under test, models of all frameworks, and containers that are always removed.

MMEKIT_IMAGE_TEST=required   no engine is a failure, not a reason to skip
MMEKIT_IMAGE=NAME            test this image instead of building Dockerfile.cpu
MMEKIT_DOCKER_BUILD=COMMAND  build with this in place of ``docker build``
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.image.containers import Container, build, docker
from tests.image.models import ModelFolder, make_models

ROOT = Path(__file__).parent.parent.parent
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.image)
            item.add_marker(pytest.mark.timeout(1500))


@pytest.fixture(scope="session")
def engine() -> None:
    """A container engine that answers."""
    if shutil.which("docker") is None:
        reason = "there is no docker command"
    else:
        done = subprocess.run(["docker", "info"], capture_output=True, text=True, timeout=60)
        if done.returncode == 0:
            return
        reason = f"no container engine answers: {done.stderr.strip()[-200:]}"
    if os.environ.get("MMEKIT_IMAGE_TEST") == "required":
        pytest.fail(f"image tests were asked for, but {reason}", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def image(engine: None) -> str:
    """The CPU image with all frameworks."""
    if name := os.environ.get("MMEKIT_IMAGE"):
        return name
    build(ROOT, "--file", "Dockerfile.cpu", "--tag", "mmekit-test:cpu")
    return "mmekit-test:cpu"


@pytest.fixture(scope="session")
def mms_image(engine: None) -> str:
    """The CPU image with the real Multi Model Server; XGBoost alone keeps it small."""
    arguments = ("--build-arg=ENGINE=mms", "--build-arg=FRAMEWORKS=xgboost")
    build(ROOT, "--file=Dockerfile.cpu", *arguments, "--tag=mmekit-test:mms")
    return "mmekit-test:mms"


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelFolder]:
    """Name → model; their folders lie in one that is mounted at /opt/ml/models."""
    return make_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def mount(models: dict[str, ModelFolder]) -> str:
    """The --volume argument that mounts all models read-only."""
    folder = next(iter(models.values())).path.parent.parent
    return f"{folder}:/opt/ml/models:ro"


Start = Callable[..., Container]


@pytest.fixture(scope="module")
def start_shared(image: str) -> Iterator[Start]:
    yield from _starter(image)


@pytest.fixture
def start(image: str) -> Iterator[Start]:
    """Start containers of the image; they are removed after the test."""
    yield from _starter(image)


def _starter(image: str) -> Iterator[Start]:
    containers: list[Container] = []

    def start(*arguments: str, name: str = image, ready: bool = True, **options: object) -> Container:
        container = Container(name, *arguments, **options)  # type: ignore[arg-type]  # passed on as they are
        containers.append(container)
        if ready:
            container.wait_ready()
        return container

    yield start
    for container in containers:
        container.remove()


@pytest.fixture(scope="session")
def trusted_base(image: str) -> str:
    """The image with this machine's PIP_CERT, where it has one, so that pip reaches its index in a build."""
    certificates = os.environ.get("PIP_CERT")
    if not certificates:
        return image
    text = f"FROM {image}\nENV PIP_CERT={certificates}\n"
    docker("build", "--tag", "mmekit-test:trusted", "-", text=text, timeout_s=120)
    return "mmekit-test:trusted"
