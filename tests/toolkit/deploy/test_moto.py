"""deploy, update and delete against moto: what stands around an endpoint, and AWS at its worst."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from mmekit_toolkit.aws.clients import Aws
from mmekit_toolkit.deploy import waiting
from mmekit_toolkit.deploy.progress import Progress
from mmekit_toolkit.deploy.requests import Wait
from mmekit_toolkit.deploy.waiting import Waiting
from mmekit_toolkit.errors import ToolkitError
from tests.toolkit.deploy.conftest import Mmekit
from tests.toolkit.deploy.proxy import Answer, Proxy
from tests.toolkit.moto_server import ACCOUNT, MotoServer

REGISTRY = f"{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com"


_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DIGEST, OTHER_DIGEST = "sha256:" + "ab" * 32, "sha256:" + "cd" * 32


@pytest.fixture
def account(moto_server: MotoServer, at_moto: Mmekit) -> None:
    """An account with a role, an image and a bucket: what a file needs to name."""
    iam, ecr, s3 = (moto_server.client(name) for name in ("iam", "ecr", "s3"))
    iam.create_role(RoleName="churn-execution", AssumeRolePolicyDocument="{}", Path="/ml/")
    ecr.create_repository(repositoryName="churn")
    put_image(ecr, DIGEST)
    s3.create_bucket(Bucket="models")
    for client in (iam, ecr, s3):
        client.close()


def put_image(ecr: Any, digest: str) -> None:
    manifest = json.dumps({"schemaVersion": 2, "mediaType": _MANIFEST, "config": {"digest": digest}})
    ecr.put_image(repositoryName="churn", imageManifest=manifest, imageTag="1.0", imageDigest=digest)


@pytest.fixture
def private_link(account: None, moto_server: MotoServer) -> str:
    """The part of a file that is about a VPC, which is there."""
    ec2 = moto_server.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.1.0/24")["Subnet"]["SubnetId"]
    group = ec2.create_security_group(GroupName="g", Description="g", VpcId=vpc)["GroupId"]
    table = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
    ec2.close()
    return (
        f"private_link:\n  vpc: {vpc}\n  subnets: [{subnet}]\n  security_groups: [{group}]\n"
        f"  route_tables: [{table}]\n  services: [runtime, api, s3]\n"
    )


SIMPLE = f"""\
name: churn
image: {REGISTRY}/churn:1.0
role: churn-execution
models: s3://models/churn/
variants:
  - instance_type: ml.m5.large
"""
SCALED = (
    SIMPLE
    + """\
    autoscaling: {min: 1, max: 4, invocations_per_instance: 600}
    alarms: {model_latency_p99_ms: 250, errors_5xx_percent: 1, cache_hit_percent: 80}
"""
)


def scaling(moto_server: MotoServer) -> tuple[list[Any], list[Any]]:
    client = moto_server.client("application-autoscaling")
    targets = client.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]
    policies = client.describe_scaling_policies(ServiceNamespace="sagemaker")["ScalingPolicies"]
    client.close()
    return targets, policies


def alarm_names(moto_server: MotoServer) -> set[str]:
    client = moto_server.client("cloudwatch")
    found = client.describe_alarms()["MetricAlarms"]
    client.close()
    return {alarm["AlarmName"] for alarm in found}


def vpc_services(moto_server: MotoServer) -> set[str]:
    client = moto_server.client("ec2")
    found = client.describe_vpc_endpoints()["VpcEndpoints"]
    client.close()
    return {endpoint["ServiceName"] for endpoint in found if endpoint["State"] == "available"}


def test_all_that_stands_around_an_endpoint_lives_with_it(
    private_link: str, at_moto: Mmekit, moto_server: MotoServer
) -> None:
    file = at_moto.write(SCALED + private_link)
    with Proxy(moto_server.url) as proxy:
        mmekit = at_moto.at(proxy.url)
        mmekit("deploy", file)
        assert proxy.writes == [
            *["CreateVpcEndpoint"] * 3,
            *("CreateModel", "CreateEndpointConfig"),
            *["PutMetricAlarm"] * 3,
            *("CreateEndpoint", "RegisterScalableTarget", "PutScalingPolicy"),
        ]
        sagemaker = moto_server.client("sagemaker")
        (model,) = sagemaker.list_models()["Models"]
        created = sagemaker.describe_model(ModelName=model["ModelName"])
        assert created["PrimaryContainer"]["Image"] == f"{REGISTRY}/churn@{DIGEST}"
        assert created["ExecutionRoleArn"] == f"arn:aws:iam::{ACCOUNT}:role/ml/churn-execution"
        sagemaker.close()
        (target,), (policy,) = scaling(moto_server)
        assert (target["MinCapacity"], target["MaxCapacity"]) == (1, 4)
        assert target["ResourceId"] == policy["ResourceId"] == "endpoint/churn/variant/AllTraffic"
        assert policy["TargetTrackingScalingPolicyConfiguration"]["TargetValue"] == 600
        prefix = "com.amazonaws.us-east-1."
        services = {prefix + name for name in ("sagemaker.runtime", "sagemaker.api", "s3")}
        assert vpc_services(moto_server) == services

        proxy.seen.clear()
        assert mmekit("deploy", file).stdout.startswith("nothing to do")
        assert mmekit("update", file).stdout.startswith("nothing to do")
        assert proxy.writes == []

        at_moto.write(
            (SCALED + private_link)
            .replace("max: 4", "max: 6")
            .replace("p99_ms: 250, errors_5xx_percent: 1", "p99_ms: 300")
        )
        assert mmekit("deploy", file, code=3).stdout.splitlines() == [
            "the alarm churn-AllTraffic-model-latency-p99",
            "variant AllTraffic: autoscaling",
            "the alarm churn-AllTraffic-5xx-errors: not in the file",
        ]
        assert proxy.writes == []
        mmekit("update", file)
        assert proxy.writes == ["PutMetricAlarm", "RegisterScalableTarget", "DeleteAlarms"]
        assert scaling(moto_server)[0][0]["MaxCapacity"] == 6
        assert mmekit("update", file).stdout.startswith("nothing to do")

        # What cannot be deleted keeps nothing else, and the next run has only that to do.
        proxy.answers.append(Answer("DeleteModel", "AccessDeniedException", "not authorized"))
        proxy.seen.clear()
        done = mmekit("delete", "churn", "--yes", code=5)
        assert "Other endpoints may be called through these VPC endpoints, too." in done.stderr
        assert "Done:\n  end the autoscaling of AllTraffic\n  delete the endpoint churn\n" in done.stderr
        assert "Not done, or not to the end:\n  delete the model churn-" in done.stderr
        mmekit("delete", "churn", "--yes")
        assert proxy.writes == [
            *("DeregisterScalableTarget", "DeleteEndpoint", "DeleteEndpointConfig", "DeleteModel"),
            *("DeleteAlarms", "DeleteVpcEndpoints", "DeleteModel"),
        ]
        assert scaling(moto_server)[0] == []
        assert alarm_names(moto_server) == set()
        assert vpc_services(moto_server) == set()


def test_the_printed_commands_do_what_deploy_does(
    account: None, at_moto: Mmekit, moto_server: MotoServer, tmp_path: Path
) -> None:
    file = at_moto.write(SCALED.replace(", errors_5xx_percent: 1, cache_hit_percent: 80", ""))
    script = at_moto("deploy", file, "--dry-run").stdout
    assert [line.split()[2] for line in script.splitlines() if line.startswith("aws ")] == [
        *("create-model", "create-endpoint-config", "put-metric-alarm", "create-endpoint", "wait"),
        *("register-scalable-target", "put-scaling-policy"),
    ]
    aws = f'aws() {{ "{sys.executable}" -m awscli "$@"; }}\nset -e\n'
    subprocess.run(
        ["sh", "-c", aws + script], env=at_moto.environ, check=True, timeout=100, stdout=subprocess.DEVNULL
    )
    assert at_moto("deploy", file).stdout.startswith("nothing to do")


def test_a_dry_run_only_reads(private_link: str, at_moto: Mmekit, moto_server: MotoServer) -> None:
    file = at_moto.write(SCALED + private_link)
    with Proxy(moto_server.url) as proxy:
        mmekit = at_moto.at(proxy.url)
        told = json.loads(mmekit("deploy", file, "--dry-run", "--json").stdout)
        assert {"service", "operation", "parameters", "why"} == set(told[0])
        assert proxy.writes == []
        mmekit("deploy", file)
        proxy.seen.clear()
        assert mmekit("deploy", file, "--dry-run").stdout == "# nothing to do\n"
        assert "aws sagemaker delete-endpoint " in mmekit("delete", "churn", "--dry-run").stdout
        assert proxy.seen
        assert proxy.writes == []
    assert "--json goes with --dry-run" in at_moto("deploy", file, "--json", code=2).stderr


def test_an_alarm_of_our_name_that_is_not_ours_is_left_as_it_is(
    account: None, at_moto: Mmekit, moto_server: MotoServer
) -> None:
    client = moto_server.client("cloudwatch")
    client.put_metric_alarm(
        AlarmName="churn-AllTraffic-5xx-errors",
        Namespace="AWS/SageMaker",
        MetricName="Invocation5XXErrors",
        Dimensions=[{"Name": "EndpointName", "Value": "churn"}],
        Statistic="Sum",
        Period=60,
        EvaluationPeriods=1,
        Threshold=7,
        ComparisonOperator="GreaterThanThreshold",
    )
    file = at_moto.write(SCALED)
    done = at_moto("deploy", file, code=1)
    assert "the alarm churn-AllTraffic-5xx-errors is there already and is not mmekit's" in done.stderr
    at_moto("delete", "churn", "--yes")
    (alarm,) = client.describe_alarms()["MetricAlarms"]
    client.close()
    assert alarm["Threshold"] == 7


#: What of SIMPLE is otherwise, the exit code, and what is said.
MISTAKES = [
    (
        (f"{REGISTRY}/churn:1.0", f"{REGISTRY.replace('us-east-1', 'eu-west-1')}/churn:1.0"),
        78,
        "is in eu-west-1, the endpoint would be in us-east-1",
    ),
    (("churn:1.0", "churn:2.0"), 7, f"ECR has no image {REGISTRY}/churn:2.0"),
    (("/churn:1.0", "/other:1.0"), 7, f"ECR has no image {REGISTRY}/other:1.0"),
    (
        ("s3://models", "s3://elsewhere"),
        78,
        "the bucket elsewhere is in eu-west-1, the endpoint would be in us",
    ),
    (("s3://models", "s3://none"), 7, "there is no bucket none. Create it: aws s3 mb s3://none --region us-"),
    (("churn-execution", "none"), 7, f"there is no role none in account {ACCOUNT}"),
    (
        ("churn-execution", "arn:aws:iam::999999999999:role/x"),
        78,
        f"belongs to account 999999999999, the credentials to {ACCOUNT}",
    ),
]


def test_what_is_not_there_or_elsewhere_is_told_before_anything_is_created(
    account: None, at_moto: Mmekit, moto_server: MotoServer
) -> None:
    client = moto_server.client("s3")
    client.create_bucket(Bucket="elsewhere", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    client.close()
    with Proxy(moto_server.url) as proxy:
        mmekit = at_moto.at(proxy.url)
        runs = [
            mmekit.start("deploy", mmekit.write(SIMPLE.replace(*mistake), f"{number}.yaml"))
            for number, (mistake, _, _) in enumerate(MISTAKES)
        ]
        done = [(run.communicate(timeout=100)[1], run.returncode) for run in runs]
        for (stderr, returncode), (_, code, said) in zip(done, MISTAKES, strict=True):
            assert said in stderr
            assert returncode == code
        assert proxy.writes == []


def test_a_tag_that_moves_is_a_change(account: None, at_moto: Mmekit, moto_server: MotoServer) -> None:
    file = at_moto.write(SIMPLE)
    at_moto("deploy", file)
    client = moto_server.client("ecr")
    put_image(client, OTHER_DIGEST)
    client.close()
    done = at_moto("deploy", file, code=3)
    assert f"variant AllTraffic: image: {REGISTRY}/churn@{DIGEST} → {REGISTRY}/churn@{OTHER_DIGEST}" in (
        done.stdout
    )


def test_without_credentials_or_a_region_it_says_what_to_set(at_moto: Mmekit) -> None:
    file = at_moto.write(SIMPLE)
    done = at_moto("deploy", file, code=5, AWS_ACCESS_KEY_ID=None, AWS_SECRET_ACCESS_KEY=None)
    assert "no AWS credentials were found" in done.stderr
    done = at_moto("deploy", file, code=1, AWS_REGION=None)
    assert "no AWS region is set: give --region" in done.stderr


def test_the_region_of_the_file_is_used(account: None, at_moto: Mmekit) -> None:
    file = at_moto.write("region: us-east-1\n" + SIMPLE)
    script = at_moto("deploy", file, "--dry-run", AWS_REGION=None).stdout
    assert set(re.findall(r"--region (\S+)", script)) == {"us-east-1"}


def test_expired_credentials_are_told_with_what_was_done(
    account: None, at_moto: Mmekit, moto_server: MotoServer
) -> None:
    file = at_moto.write(SIMPLE)
    expired = Answer("CreateEndpointConfig", "ExpiredTokenException", "The security token has expired")
    with Proxy(moto_server.url, [expired]) as proxy:
        done = at_moto.at(proxy.url)("deploy", file, code=5)
        assert "the credentials have expired" in done.stderr
        assert "Done:\n  create the model churn-" in done.stderr
        proxy.seen.clear()
        at_moto.at(proxy.url)("deploy", file)
        assert proxy.writes == ["CreateEndpointConfig", "CreateEndpoint"]


def test_an_image_without_the_label_is_told_with_the_label(
    account: None, at_moto: Mmekit, moto_server: MotoServer
) -> None:
    label = "com.amazonaws.sagemaker.capabilities.multi-models=true"
    text = f"Your Ecr Image {REGISTRY}/churn:1.0 does not contain required {label} Docker label(s)."
    with Proxy(moto_server.url, [Answer("CreateModel", "ValidationException", text)]) as proxy:
        done = at_moto.at(proxy.url)("deploy", at_moto.write(SIMPLE), code=1)
    assert text in done.stderr
    assert 'write: LABEL com.amazonaws.sagemaker.capabilities.multi-models="true"' in done.stderr
    assert "Nothing was changed." in done.stderr


def test_calls_that_are_not_allowed_name_the_policy(
    account: None, at_moto: Mmekit, moto_server: MotoServer
) -> None:
    file = at_moto.write(SIMPLE)
    denied = Answer(
        "CreateModel", "AccessDeniedException", "User is not authorized to perform: sagemaker:CreateModel"
    )
    with Proxy(moto_server.url, [denied]) as proxy:
        done = at_moto.at(proxy.url)("deploy", file, code=5)
        assert "sagemaker:CreateModel" in done.stderr
        assert "mmekit iam deployer" in done.stderr
    denied = Answer("DescribeImages", "AccessDeniedException", "no")
    with Proxy(moto_server.url, [denied]) as proxy:
        done = at_moto.at(proxy.url)("deploy", file, "--dry-run")
        assert "is taken as it is: looking it up is not allowed (ecr:DescribeImages)" in done.stderr
        assert f'"Image": "{REGISTRY}/churn:1.0"' in done.stdout


def test_an_interrupted_request_is_not_called_undone(
    account: None, at_moto: Mmekit, moto_server: MotoServer
) -> None:
    def interrupt(operation: str) -> None:
        if operation == "CreateModel":
            process.send_signal(signal.SIGINT)

    with Proxy(moto_server.url, intercept=interrupt) as proxy:
        process = at_moto.at(proxy.url).start("deploy", at_moto.write(SIMPLE))
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Nothing was changed" not in said
    assert "interrupted.\nNot done, or not to the end:\n  create the model churn-" in said
    assert at_moto("deploy", "endpoint.yaml").stdout.startswith("churn is InService")


def test_alarms_that_cannot_guard_an_update_are_told(
    account: None, at_moto: Mmekit, moto_server: MotoServer
) -> None:
    at_moto("deploy", at_moto.write(SCALED))
    client = moto_server.client("cloudwatch")
    name = "churn-AllTraffic-5xx-errors"
    client.set_alarm_state(AlarmName=name, StateValue="ALARM", StateReason="the old fleet errs")
    client.close()
    file = at_moto.write(SCALED + "environment: {A: x}\nupdate: {wait_s: 300}\n")
    done = at_moto("update", file, "--dry-run")
    assert f"note: the alarm {name} is in ALARM, and SageMaker rolls updates back while it is" in done.stderr
    assert "note: alarms that take 5 minutes come too late to roll an update back" in done.stderr


def test_autoscaling_that_an_update_ended_is_told_when_it_is_rolled_back(
    account: None, at_moto: Mmekit, moto_server: MotoServer
) -> None:
    at_moto("deploy", at_moto.write(SCALED))

    def roll_back(operation: str) -> bytes | None:  # in moto's place, which has no updates
        if operation == "UpdateEndpoint":
            return b"{}"
        if operation == "DescribeEndpoint" and "UpdateEndpoint" in proxy.seen:
            before = json.loads(proxy.last["DescribeEndpoint"])
            changed = {"LastModifiedTime": before["LastModifiedTime"] + 1, "FailureReason": "no ping"}
            return json.dumps({**before, **changed}).encode()
        return None

    with Proxy(moto_server.url, intercept=roll_back) as proxy:
        file = at_moto.write(SCALED.replace("ml.m5.large", "ml.r5.large"))
        done = at_moto.at(proxy.url)("update", file, code=4)
        assert proxy.writes == ["CreateEndpointConfig", "DeregisterScalableTarget", "UpdateEndpoint"]
    assert "SageMaker rolled the update of churn back" in done.stderr
    assert "Autoscaling of AllTraffic was ended for this update, and is off now" in done.stderr
    at_moto("update", at_moto.write(SCALED))
    assert len(scaling(moto_server)[0]) == 1


def test_an_endpoint_that_does_not_go_is_not_waited_for_to_the_end(
    account: None, at_moto: Mmekit, moto_server: MotoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_moto("deploy", at_moto.write(SIMPLE))
    for name, value in at_moto.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(waiting, "_STALE_S", 0.5)
    gone = Waiting(Aws(), Progress(), timeout_s=60)
    with pytest.raises(ToolkitError, match="churn is InService and not deleted"):
        gone.after(Wait("endpoint_deleted", "churn", "wait"), None, 0)


def test_an_address_that_is_none_is_told(at_moto: Mmekit) -> None:
    done = at_moto("delete", "churn", "--dry-run", "--endpoint-url", "localhost:1", code=1)
    assert "Expected an address such as http://127.0.0.1:8765 in --endpoint-url" in done.stderr
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=_answer_otherwise, args=(server,), daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        done = at_moto("delete", "churn", "--dry-run", "--endpoint-url", url, code=1)
    assert "Check the region's name, --endpoint-url or AWS_ENDPOINT_URL" in done.stderr


def _answer_otherwise(server: socket.socket) -> None:
    """Answer every connection with something else than HTTP, until the socket is closed."""
    with contextlib.suppress(OSError):
        while True:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"SSH-2.0-other\r\n")


def test_what_can_be_no_name_is_told_before_anything_is_asked(at_moto: Mmekit) -> None:
    for text in ("", "two words", "./"):
        done = at_moto("delete", text, "--yes", code=2)
        assert f'"{text}" is neither an endpoint\'s name nor a file that ends with .yaml' in done.stderr


def test_help_and_schema_need_no_credentials(at_moto: Mmekit) -> None:
    bare = {"AWS_ACCESS_KEY_ID": None, "AWS_REGION": None, "PATH": os.environ["PATH"]}
    assert json.loads(at_moto("deploy", "--schema", **bare).stdout)["$defs"]
    assert at_moto("deploy", "--schema", "--markdown", **bare).stdout.startswith("# The file that describes")
