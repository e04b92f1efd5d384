"""The toolkit from end to end: every example of every command's help and of docs/deploy.md, as one walk.

build → contract → archive → push → deploy → models → invoke → update → delete, with a real engine, a real
registry, and the local endpoint in AWS's place. The folder is that of examples/deploy.
"""

from __future__ import annotations

import os
import pickle
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.endpoint.service import Service
from tests.image.containers import docker
from tests.image.registries import Registry
from tests.toolkit.examples import commands, examples, walked

ROOT = Path(__file__).parent.parent.parent
SCRIPTS = sysconfig.get_path("scripts")

#: What the local endpoint's ECR gives out for its account (moto: ecr/responses.py).
ECR_PASSWORD = "123456789012-auth-token"

#: The order in which one meets them; a test holds that none is left out.
ORDER = [
    "build",
    "archive check",
    "archive pack",
    "contract",
    "push",
    "deploy",
    "iam execution-role",
    "iam deployer",
    "iam caller",
    "models add",
    "models list",
    "invoke",
    "status",
    "logs",
    "update",
    "models sync",
    "models remove",
    "delete",
]


def test_the_walk_has_every_command() -> None:
    assert sorted(ORDER) == sorted(name for name, _ in commands())


@dataclass
class Walk:
    """The folder of the examples, with a shell in which ``mmekit`` and AWS's variables are set."""

    folder: Path
    environ: dict[str, str]
    endpoint: Service
    registry: Registry

    def run(self, line: str, timeout_s: float = 600) -> str:
        """Run a line as a person does; return what it printed on stdout. Any exit code but 0 fails."""
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=self.folder,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
        print(f"$ {line}\n{done.stdout}{done.stderr}")
        assert done.returncode == 0, f"{line}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        assert "Traceback" not in done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def registry(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A real registry that wants the password which ECR's API gives out here."""
    with Registry(tmp_path_factory.mktemp("registry"), ECR_PASSWORD) as running:
        yield running


@pytest.fixture(scope="module")
def endpoint(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The local endpoint, in AWS's place."""
    options = ("--launcher", "docker")
    with Service(tmp_path_factory.mktemp("endpoint") / "state", *options, program=None) as running:
        running.s3.create_bucket(Bucket="churn-models")
        yield running


@pytest.fixture(scope="module")
def walk(
    image: str, registry: Registry, endpoint: Service, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Walk]:
    folder = tmp_path_factory.mktemp("walk") / "deploy"
    shutil.copytree(ROOT / "examples" / "deploy", folder)
    for name, old, new in (
        ("Dockerfile", "mmekit:cpu", image),
        ("endpoint.yaml", "123456789012.dkr.ecr.us-east-1.amazonaws.com", registry.host),
    ):
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))
    environ = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "MMEKIT_", "SAGEMAKER_"))},
        "PATH": f"{SCRIPTS}:{os.environ['PATH']}",
        "AWS_ENDPOINT_URL": endpoint.url,
        "AWS_ACCESS_KEY_ID": "any",
        "AWS_SECRET_ACCESS_KEY": "any",
        "AWS_REGION": "us-east-1",
        "MMEKIT_REGISTRY": registry.host,
        "COLUMNS": "110",
    }
    subprocess.run([sys.executable, "train.py"], cwd=folder, check=True, timeout=120)
    yield Walk(folder, environ, endpoint, registry)
    for name in docker("images", "--format", "{{.Repository}}:{{.Tag}}").split():
        if name.startswith(("churn:", f"{registry.host}/churn:")):
            docker("rmi", name, check=False)


@pytest.mark.parametrize("name", ORDER)
def test_its_examples_run_as_they_stand(name: str, walk: Walk) -> None:
    (command,) = [command for each, command in commands() if each == name]
    lines = examples(command)
    for line in [*lines, *(line for line in walked(name) if line not in lines)]:
        walk.run(line)
    if check := CHECKS.get(name):
        check(walk)


# --- what the walk has led to, by the command after whose examples it is looked at --------------------


def _pushed(walk: Walk) -> None:
    first, second = walk.run("mmekit push churn:1.0"), walk.run("mmekit push churn:1.0")
    assert first == second
    assert first.startswith(f"{walk.registry.host}/churn@sha256:")
    assert first.strip().endswith(walk.registry.digest("churn", "1.0"))


def _deployed(walk: Walk) -> None:
    assert walk.endpoint.status("churn") == "InService"
    assert "nothing to do" in walk.run("mmekit deploy endpoint.yaml 2>&1")


def _invoked(walk: Walk) -> None:
    answer = walk.run("mmekit invoke churn churn-model --file payload.csv")
    model = pickle.loads((walk.folder / "churn-model/model.pkl").read_bytes())
    rows = [[float(n) for n in line.split(",")] for line in (walk.folder / "payload.csv").read_text().split()]
    assert [float(number) for number in re.findall(r"[0-9.]+", answer)] == model.predict(rows).tolist()


def _updated(walk: Walk) -> None:
    """After a number of instances, which changes in place: a new image, which is a new fleet."""
    variant = walk.endpoint.sagemaker.describe_endpoint(EndpointName="churn")["ProductionVariants"][0]
    assert variant["CurrentInstanceCount"] == 2
    file = walk.folder / "endpoint.yaml"
    before = walk.endpoint.sagemaker.describe_endpoint(EndpointName="churn")["EndpointConfigName"]
    text = file.read_text()
    walk.run("mmekit build --tag churn:1.1 --no-start -- --label version=1.1")
    pushed = walk.run("mmekit push churn:1.1").strip()
    file.write_text(text.replace(f"{walk.registry.host}/churn:1.0", pushed))
    walk.run("mmekit update endpoint.yaml")
    described = walk.endpoint.sagemaker.describe_endpoint(EndpointName="churn")
    assert described["EndpointStatus"] == "InService"
    assert described["EndpointConfigName"] != before
    assert described["ProductionVariants"][0]["DeployedImages"][0]["ResolvedImage"] == pushed
    assert described["ProductionVariants"][0]["CurrentInstanceCount"] == 1, "as the file says"
    _invoked(walk)
    # What the earlier file describes is still there, so going back makes nothing but the move.
    file.write_text(text)
    assert "create-" not in walk.run("mmekit update endpoint.yaml --dry-run")
    walk.run("mmekit update endpoint.yaml")
    assert walk.endpoint.sagemaker.describe_endpoint(EndpointName="churn")["EndpointConfigName"] == before


def _deleted(walk: Walk) -> None:
    sagemaker = walk.endpoint.sagemaker
    assert sagemaker.list_endpoints()["Endpoints"] == []
    assert sagemaker.list_endpoint_configs()["EndpointConfigs"] == []
    assert sagemaker.list_models()["Models"] == []
    assert walk.endpoint.s3.list_objects_v2(Bucket="churn-models")["KeyCount"], "archives stay"


CHECKS: dict[str, Callable[[Walk], None]] = {
    "push": _pushed,
    "deploy": _deployed,
    "invoke": _invoked,
    "update": _updated,
    "delete": _deleted,
}
