"""The deployer's policy allows each call that the commands make: all are recorded and looked up in it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from mmekit_toolkit.aws.clients import Aws
from mmekit_toolkit.images.ecr_repository import EcrRepository
from tests.endpoint.service import Service, stub_model
from tests.support.server import until
from tests.toolkit.commands import Mmekit, described, local
from tests.toolkit.iam_evaluation import allows, demands, shown
from tests.toolkit.moto_server import MotoServer
from tests.toolkit.recorder import Call, Recorder

VARIANT = {
    "instance_type": "ml.m5.large",
    "instances": 2,
    "autoscaling": {"min": 2, "max": 4, "invocations_per_instance": 100},
    "alarms": {"errors_5xx_percent": 1, "cache_hit_percent": 50},
}


def refused(policy: Any, calls: Iterable[Call]) -> list[str]:
    """Return what the calls demand and the policy does not allow."""
    return sorted({shown(d) for call in calls for d in demands(call) if not allows(policy, d)})


def operations(calls: Iterable[Call]) -> set[str]:
    return {call.operation for call in calls if call.operation}


def deployer(file: Path) -> Any:
    return json.loads(Mmekit()("iam", "deployer", file).stdout)


def caller(file: Path) -> Any:
    return json.loads(Mmekit()("iam", "caller", file).stdout)


def test_deploying_watching_and_deleting_on_aws(moto: MotoServer, tmp_path: Path) -> None:
    moto.reset()
    with Recorder(moto.url) as recorder:
        parts = _surroundings(moto)
        file = described(tmp_path, "churn", "s3://models/churn/", **parts)
        document = json.loads(local(moto.url)("iam", "deployer", file).stdout)
        mmekit = local(recorder.url)
        mmekit("deploy", file, timeout_s=100)
        mmekit("deploy", file, timeout_s=100)
        bare = {name: value for name, value in VARIANT.items() if name not in ("autoscaling", "alarms")}
        mmekit("update", _changed(file, variants=[bare]), timeout_s=100)
        mmekit("update", _changed(file, variants=[VARIANT]), timeout_s=100)
        mmekit("delete", "churn", "--yes", timeout_s=100)
        calls = list(recorder.calls)
    assert operations(calls) >= {
        "CreateEndpoint",
        "CreateVpcEndpoint",
        "DeleteAlarms",
        "DeleteEndpoint",
        "DeleteModel",
        "DeleteVpcEndpoints",
        "DeregisterScalableTarget",
        "GetRole",
        "PutMetricAlarm",
        "PutScalingPolicy",
        "RegisterScalableTarget",
    }
    assert not refused(document, calls)


def _surroundings(moto: MotoServer) -> dict[str, Any]:
    """Make what a deployment finds, and return the rest of the file."""
    clients = {name: moto.client(name) for name in ("s3", "iam", "ecr", "ec2")}
    clients["s3"].create_bucket(Bucket="models")
    clients["iam"].create_role(RoleName="churn", AssumeRolePolicyDocument="{}")
    clients["ecr"].create_repository(repositoryName="churn")
    media_type = "application/vnd.docker.distribution.manifest.v2+json"
    config = {"mediaType": "application/vnd.docker.container.image.v1+json", "digest": "sha256:" + "0" * 64}
    manifest = {"schemaVersion": 2, "mediaType": media_type, "config": {**config, "size": 1}, "layers": []}
    clients["ecr"].put_image(repositoryName="churn", imageManifest=json.dumps(manifest), imageTag="1.0")
    vpc = clients["ec2"].create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnet = clients["ec2"].create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/24")["Subnet"]["SubnetId"]
    group = clients["ec2"].create_security_group(GroupName="a", Description="a", VpcId=vpc)["GroupId"]
    table = clients["ec2"].create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
    for client in clients.values():
        client.close()
    return {
        "role": "churn",
        "region": "us-east-1",
        "kms_key": "arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab",
        "vpc": {"subnets": [subnet], "security_groups": [group]},
        "private_link": {
            "vpc": vpc,
            "subnets": [subnet],
            "security_groups": [group],
            "services": ["runtime", "api", "s3"],
            "route_tables": [table],
        },
        "variants": [VARIANT],
    }


def test_updating_an_endpoint_and_its_models(tmp_path: Path) -> None:
    archive = tmp_path / "churn.tar.gz"
    archive.write_bytes(stub_model("1"))
    file = described(tmp_path, "churn", "s3://models/churn/", region="us-east-1")
    with Service(tmp_path / "state") as service, Recorder(service.url) as recorder:
        service.s3.create_bucket(Bucket="models")
        mmekit = local(recorder.url)
        mmekit("deploy", file, timeout_s=100)
        mmekit("update", _changed(file, environment={"A": "1"}), timeout_s=100)
        variant = {"instance_type": "ml.m5.large", "instances": 2}
        mmekit("update", _changed(file, variants=[variant]), timeout_s=100)
        mmekit("models", "add", file, archive, "--no-check")
        mmekit("models", "list", "churn")
        mmekit("models", "sync", file, _folder(tmp_path), "--no-check", "--delete", "--yes")
        mmekit("models", "remove", "churn", "other", "--yes")
        mmekit("status", "churn")
        (target,) = mmekit("models", "add", file, archive, "--no-check").lines
        mmekit("invoke", "churn", target, "--data", "1", "--content-type", "text/csv")
        until(lambda: _has_logs(service), what="the log group")
        mmekit("logs", "churn")
        mmekit("delete", "churn", "--yes", timeout_s=100)
        calls = list(recorder.calls)
    assert operations(calls) >= {
        "FilterLogEvents",
        "GetMetricData",
        "UpdateEndpoint",
        "UpdateEndpointWeightsAndCapacities",
    }
    runtime = [call for call in calls if call.service == "runtime"]
    assert not refused(deployer(file), [call for call in calls if call.service != "runtime"])
    assert runtime
    assert not refused(caller(file), runtime)


def _changed(file: Path, **more: Any) -> Path:
    file.write_text(json.dumps({**json.loads(file.read_text()), **more}))
    return file


def _folder(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "other.tar.gz").write_bytes(stub_model("2"))
    return folder


def _has_logs(service: Service) -> bool:
    found = service.client("logs").describe_log_groups(logGroupNamePrefix="/aws/sagemaker/Endpoints/churn")
    return bool(found["logGroups"])


def test_what_a_push_asks_of_ecr_itself(
    moto: MotoServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without docker: its own calls are of the next test."""
    moto.reset()
    document = deployer(described(tmp_path, "churn", "s3://models/churn/", region="us-east-1"))
    with Recorder(moto.url) as recorder:
        for name, value in local(recorder.url).environ.items():
            monkeypatch.setenv(name, value)
        aws = Aws()
        repository = EcrRepository(aws, "churn", host=None, stand_in=None, kms_key=None)
        repository.make()
        repository.sign_in()
        repository.image_id("1.0")
        repository.scan_findings("sha256:" + "0" * 64)
        aws.client("ecr").close()
    assert operations(recorder.calls) == {
        "BatchGetImage",
        "CreateRepository",
        "DescribeImageScanFindings",
        "DescribeRepositories",
        "GetAuthorizationToken",
    }
    assert not refused(document, recorder.calls)


def test_what_docker_asks_of_the_registry_is_among_the_actions(tmp_path: Path) -> None:
    """ECR's registry checks docker's own calls by these (AWS: "IAM permissions for pushing an image")."""
    document = deployer(described(tmp_path, "churn", "s3://models/churn/", region="us-east-1"))
    actions = {action for statement in document["Statement"] for action in statement["Action"]}
    assert actions >= {
        "ecr:BatchCheckLayerAvailability",
        "ecr:CompleteLayerUpload",
        "ecr:GetAuthorizationToken",
        "ecr:InitiateLayerUpload",
        "ecr:PutImage",
        "ecr:UploadLayerPart",
    }
