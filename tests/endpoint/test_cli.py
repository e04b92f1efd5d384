"""The AWS CLI with nothing but AWS_ENDPOINT_URL: a multi-model endpoint from the bucket to its deletion."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.endpoint.sdk.client import KEY, Outside, environ
from tests.endpoint.service import IMAGE, ROLE, Service, stub_model
from tests.support.server import until


class Cli:
    """Runs `aws` against a service."""

    def __init__(self, service: Service, outside: Outside, home: Path) -> None:
        self.home, self.outside = home, outside
        self._environ = environ(service, outside, home)

    def __call__(self, *arguments: str) -> Any:
        """Return what the command printed, read as JSON where it is; it must succeed."""
        done = self.run(*arguments)
        assert done.returncode == 0, f"aws {' '.join(arguments)}: {done.stderr}"
        assert not done.stderr
        try:
            return json.loads(done.stdout)
        except ValueError:
            return done.stdout

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "awscli", *arguments],
            cwd=self.home,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )


@pytest.fixture
def aws(tmp_path: Path) -> Iterator[Cli]:
    with (
        Service(tmp_path / "state", *KEY, "--metrics-period", "0.5") as service,
        Outside() as outside,
    ):
        yield Cli(service, outside, tmp_path)
        assert len(service.lines) == 2, "the service complains of nothing"


@pytest.mark.timeout(400)  # of two dozen commands, each of which starts Python and imports botocore
def test_an_endpoint_from_the_shell(aws: Cli) -> None:
    (aws.home / "models").mkdir()
    (aws.home / "models/a.tar.gz").write_bytes(stub_model("from a"))
    (aws.home / "models/b.tar.gz").write_bytes(stub_model("from b"))
    (aws.home / "payload.csv").write_bytes(b"1.5,2\n")

    aws("s3", "mb", "s3://models")
    aws("s3", "cp", "--recursive", "models", "s3://models/m/")
    assert [line.split()[-1] for line in aws("s3", "ls", "s3://models/m/").splitlines()] == [
        "a.tar.gz",
        "b.tar.gz",
    ]

    created = aws(
        *("sagemaker", "create-model", "--model-name", "fleet", "--execution-role-arn", ROLE),
        *("--primary-container", f"Image={IMAGE},Mode=MultiModel,ModelDataUrl=s3://models/m/"),
    )
    assert created == {"ModelArn": "arn:aws:sagemaker:us-east-1:123456789012:model/fleet"}
    aws(
        *("sagemaker", "create-endpoint-config", "--endpoint-config-name", "fleet", "--production-variants"),
        "VariantName=AllTraffic,ModelName=fleet,InstanceType=ml.m5.large,InitialInstanceCount=1",
    )
    names = ("--endpoint-name", "fleet")
    aws("sagemaker", "create-endpoint", *names, "--endpoint-config-name", "fleet")
    assert aws("sagemaker", "wait", "endpoint-in-service", *names) == ""
    query = ("--query", "EndpointStatus", "--output", "text")
    assert aws("sagemaker", "describe-endpoint", *names, *query) == "InService\n"

    invoke = ("sagemaker-runtime", "invoke-endpoint", *names)
    answer = aws(
        *(*invoke, "--target-model", "a.tar.gz", "--content-type", "text/csv"),
        *("--body", "fileb://payload.csv", "answer.json"),
    )
    assert answer == {"ContentType": "application/json", "InvokedProductionVariant": "AllTraffic"}
    body = json.loads((aws.home / "answer.json").read_text())
    assert (body["value"], body["body"], body["headers"]["content-type"]) == ("from a", "1.5,2\n", "text/csv")
    failed = aws.run(*invoke, "--target-model", "none.tar.gz", "--body", "fileb://payload.csv", "answer.json")
    assert failed.returncode != 0
    assert "An error occurred (ValidationError) when calling the InvokeEndpoint operation" in failed.stderr

    (model,) = aws("sagemaker", "list-models")["Models"]
    assert model["ModelName"] == "fleet"
    (endpoint,) = aws("sagemaker", "list-endpoints", "--status-equals", "InService")["Endpoints"]
    assert endpoint["EndpointName"] == "fleet"
    of_model = ("--namespace", "AWS/SageMaker", "--metric-name", "ModelCacheHit")
    metrics = until(
        lambda: aws("cloudwatch", "list-metrics", *of_model)["Metrics"], what="a metric of the models"
    )
    assert {"Name": "EndpointName", "Value": "fleet"} in metrics[0]["Dimensions"]
    groups = until(lambda: aws("logs", "describe-log-groups")["logGroups"], what="the group of logs")
    assert [group["logGroupName"] for group in groups] == ["/aws/sagemaker/Endpoints/fleet"]
    assert aws("sts", "get-caller-identity")["Account"] == "123456789012"

    aws("sagemaker", "delete-endpoint", *names)
    assert aws("sagemaker", "wait", "endpoint-deleted", *names) == ""
    aws("sagemaker", "delete-endpoint-config", "--endpoint-config-name", "fleet")
    aws("sagemaker", "delete-model", "--model-name", "fleet")
    gone = aws.run("sagemaker", "describe-model", "--model-name", "fleet")
    assert "An error occurred (ValidationException)" in gone.stderr
    assert "Could not find model" in gone.stderr
    assert aws.outside.asked == set()
