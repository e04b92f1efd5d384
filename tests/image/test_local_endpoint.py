"""`mmekit local` with containers: mmekit's own image, a stricter one of somebody else, and their ends."""

from __future__ import annotations

import json
import shutil
import statistics
import time
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.endpoint.service import PROGRAMS, ROLE, Service, archive, stub_model
from tests.endpoint.walk import walk
from tests.image.containers import build, docker
from tests.support.server import until

MIB = 1024 * 1024
BASE = "python:3.11-slim-bookworm"
STRICT = "mmekit-test:strict"
LABEL = "com.amazonaws.sagemaker.capabilities.multi-models"

DOCKER = ("--launcher", "docker")

#: Code of a model that keeps MIB of memory, its number in each place.
LARGE = """
import os, pathlib
import numpy as np

def model_fn(model_dir):
    number = float(pathlib.Path(model_dir, "number").read_text())
    return np.full({mib} * 131072, number)

def predict_fn(data, model):
    return [float(model[0])]
"""


@pytest.fixture(scope="session")
def strict_image(engine: None, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A foreign image: a container that is stricter than the contract, as Triton is."""
    folder = tmp_path_factory.mktemp("strict")
    for name in ("stub.py", "triton_like.py"):
        shutil.copy(PROGRAMS / name, folder)
    lines = [f"FROM {BASE}", "COPY *.py /opt/server/", f"LABEL {LABEL}=true", "ENV MMEKIT_HOST=0.0.0.0"]
    lines += ["EXPOSE 8080", 'ENTRYPOINT ["python", "-u", "/opt/server/triton_like.py"]', 'CMD ["serve"]']
    (folder / "Dockerfile").write_text("\n".join(lines) + "\n")
    build(folder, "--tag", STRICT)
    return STRICT


@pytest.fixture(autouse=True)
def no_container_is_left(engine: None, tmp_path: Path) -> Iterator[None]:
    yield
    left = containers(tmp_path)
    if left:
        docker("rm", "--force", "--volumes", *left)
    assert not left


def containers(tmp_path: Path) -> list[str]:
    """Return the ids of all containers of this test's service, ended ones too."""
    label = f"label=mmekit.local.state={(tmp_path / 'state').resolve()}"
    return docker("ps", "--all", "--quiet", "--no-trunc", "--filter", label).split()


def inspect(container: str) -> Any:
    (found,) = json.loads(docker("inspect", container))
    return found


def local(tmp_path: Path, *options: str) -> Service:
    return Service(tmp_path / "state", *DOCKER, *options, program=None)


def create(service: Service, name: str, image: str, wait: bool = True, **environment: str) -> Any:
    """Create an endpoint of an image, in the smallest instance there is."""
    service.sagemaker.create_model(
        ModelName=name,
        ExecutionRoleArn=ROLE,
        PrimaryContainer={
            "Image": image,
            "Mode": "MultiModel",
            "ModelDataUrl": "s3://models/m/",
            "Environment": environment,
        },
    )
    service.configure(name, [(name, "AllTraffic", 1, 1.0, {"InstanceType": "ml.t2.medium"})])
    service.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    if wait:
        until(lambda: service.status(name) != "Creating", 120, "the end of Creating")
    return service.sagemaker.describe_endpoint(EndpointName=name)


def in_service(service: Service, name: str) -> None:
    until(lambda: service.status(name) == "InService", 120, f"{name} in service")


# --- images ----------------------------------------------------------------------------------------


def test_a_notebooks_walk_with_our_image(image: str, tmp_path: Path) -> None:
    with local(tmp_path) as service:
        walk(service, image)
        # Those that an update has replaced may still be ending.
        until(lambda: not containers(tmp_path), 30, "the end of all containers")
        assert "Traceback" not in service.log


def test_a_foreign_image_that_is_stricter_than_the_contract(strict_image: str, tmp_path: Path) -> None:
    with local(tmp_path) as service:
        service.upload(a=stub_model("first"), b=stub_model("second"))
        service.upload(prefix="m/team/", c=stub_model("third"))
        create(service, "foreign", strict_image, STUB_CAPACITY="2")
        values = {"a.tar.gz": "first", "b.tar.gz": "second", "team/c.tar.gz": "third"}
        for _ in range(2):
            for target, value in values.items():
                assert service.invoke("foreign", target)["value"] == value
        assert [len(loaded) for loaded in service.loaded("foreign")] == [2]
        assert service.invoke("foreign", "a.tar.gz")["url"].startswith("/opt/ml/models/")


def test_a_cold_model_waits_for_its_own_download_and_load_alone(strict_image: str, tmp_path: Path) -> None:
    """The engine's stats, which take up to a second, are not in its way."""
    with local(tmp_path) as service:
        service.upload(**{f"m{number}": stub_model(str(number)) for number in range(7)})
        create(service, "cold", strict_image)
        service.invoke("cold", "m0.tar.gz")
        times = []
        for number in range(1, 7):
            begun = time.monotonic()
            service.invoke("cold", f"m{number}.tar.gz")
            times.append(time.monotonic() - begun)
        assert statistics.median(times) < 0.3, times


def test_an_image_without_the_label_is_refused_at_once(engine: None, tmp_path: Path) -> None:
    with local(tmp_path) as service:
        with pytest.raises(ClientError, match=f"{BASE}.*{LABEL}=true") as caught:
            create(service, "plain", BASE)
        assert caught.value.response["Error"]["Code"] == "ValidationException"
        assert service.sagemaker.list_models()["Models"] == []


def test_an_image_that_cannot_be_had_is_a_failure_reason(engine: None, tmp_path: Path) -> None:
    absent = "127.0.0.1:9/nothing:here"
    with local(tmp_path) as service:
        service.s3.create_bucket(Bucket="models")
        described = create(service, "absent", absent)
        assert described["EndpointStatus"] == "Failed"
        assert f"{absent} is not on this machine and cannot be pulled" in described["FailureReason"]
        service.sagemaker.delete_endpoint(EndpointName="absent")


# --- real memory -----------------------------------------------------------------------------------


def test_models_leave_a_full_memory_least_recently_used_first(image: str, tmp_path: Path) -> None:
    """ml.t2.medium has 4 GiB: eighteen models of 300 MiB are more than that."""
    models = {
        f"m{number}.tar.gz": archive({"code/inference.py": LARGE.format(mib=300), "number": str(number)})
        for number in range(18)
    }
    # The share of memory from which room is made beforehand is out of reach: the container's 507 decides.
    with local(tmp_path, "--memory-percent", "100") as service:
        service.upload(**{target.removesuffix(".tar.gz"): data for target, data in models.items()})
        create(service, "small", image)
        (container,) = containers(tmp_path)
        assert inspect(container)["HostConfig"]["Memory"] == 4096 * MIB
        recent: OrderedDict[str, None] = OrderedDict()
        seen = 0
        order = [*models, "m17.tar.gz", "m12.tar.gz", "m16.tar.gz", "m0.tar.gz", "m1.tar.gz", "m2.tar.gz"]
        for target in order:
            answer = service.runtime.invoke_endpoint(
                EndpointName="small", TargetModel=target, ContentType="text/csv", Body=b"1,2"
            )
            assert json.loads(answer["Body"].read()) == [float(target[1:-7])]
            unloaded = service.events("unloaded")
            for event in unloaded[seen:]:
                assert event["model"] == recent.popitem(last=False)[0]
                assert event["text"].endswith("was answered with 507")
            seen = len(unloaded)
            recent[target] = None
            recent.move_to_end(target)
        assert seen >= 6
        assert service.loaded("small") == [sorted(recent)]
        assert containers(tmp_path) == [container]
        assert not inspect(container)["State"]["OOMKilled"]


# --- how they end ----------------------------------------------------------------------------------


def test_sigterm_removes_all_containers(strict_image: str, tmp_path: Path) -> None:
    with local(tmp_path) as service:
        service.upload(a=stub_model("a"))
        create(service, "ends", strict_image)
        assert service.invoke("ends", "a.tar.gz")["value"] == "a"
        assert len(containers(tmp_path)) == 1
        assert service.stop() == 0
        assert containers(tmp_path) == []


def test_after_a_sigkill_the_next_service_has_the_definitions_and_no_orphans(
    strict_image: str, tmp_path: Path
) -> None:
    with local(tmp_path) as service:
        service.upload(a=stub_model("a"))
        create(service, "killed", strict_image)
        assert service.invoke("killed", "a.tar.gz")["value"] == "a"
        (orphan,) = containers(tmp_path)
        service.kill()
    with local(tmp_path) as service:
        in_service(service, "killed")
        assert service.invoke("killed", "a.tar.gz")["value"] == "a"
        (container,) = containers(tmp_path)
        assert container != orphan
        assert orphan not in docker("ps", "--all", "--quiet", "--no-trunc").split()


def test_a_container_that_is_killed_is_replaced(strict_image: str, tmp_path: Path) -> None:
    with local(tmp_path) as service:
        service.upload(a=stub_model("a"))
        create(service, "replaced", strict_image)
        assert service.invoke("replaced", "a.tar.gz")["value"] == "a"
        (killed,) = containers(tmp_path)
        docker("kill", killed)
        until(lambda: _others(tmp_path, killed) and service.instances("replaced"), 60, "another container")
        assert service.invoke("replaced", "a.tar.gz")["value"] == "a"
        # It is removed beside the start of the other.
        until(lambda: killed not in containers(tmp_path), 30, "the end of the killed container")
        assert service.status("replaced") == "InService"


def _others(tmp_path: Path, container: str) -> bool:
    return any(other != container for other in containers(tmp_path))


# --- logs ------------------------------------------------------------------------------------------


def test_what_a_container_prints_is_in_cloudwatch_logs_and_on_disk(strict_image: str, tmp_path: Path) -> None:
    with local(tmp_path) as service:
        service.upload(a=stub_model("a"))
        create(service, "talks", strict_image)
        service.invoke("talks", "a.tar.gz")
        (instance,) = service.instances("talks")
        logs = service.client("logs")
        group = "/aws/sagemaker/Endpoints/talks"

        def lines() -> list[str]:
            try:
                (stream,) = logs.describe_log_streams(logGroupName=group)["logStreams"]
            except (logs.exceptions.ResourceNotFoundException, ValueError):
                return []
            assert stream["logStreamName"] == f"AllTraffic/{instance['instance_id']}"
            events = logs.get_log_events(
                logGroupName=group, logStreamName=stream["logStreamName"], startFromHead=True
            )["events"]
            return [event["message"] for event in events]

        until(lambda: any("/invoke 200" in line for line in lines()), 30, "the invocation in the log")
        assert "Listening on port 8080." in lines()[0]
        file = tmp_path / "state/logs/talks/AllTraffic" / f"{instance['instance_id']}.log"
        assert "/invoke 200" in file.read_text()
