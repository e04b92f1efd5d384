"""AWS's services around the endpoint, those that are not there, and who is asked for what."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from mmekit_endpoint.api.control.dispatch import Scope, scope_of
from mmekit_endpoint.api.control.metadata_names import keep_metadata_names
from tests.endpoint.control import ControlPlane, control_plane, multi_model, refusal


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with control_plane(tmp_path_factory.mktemp("state")) as started:
        yield started


def test_sts_says_who_asks(plane: ControlPlane) -> None:
    assert plane.client("sts").get_caller_identity()["Account"] == "123456789012"


def test_iam_has_roles_that_were_created(plane: ControlPlane) -> None:
    iam = plane.client("iam")
    with pytest.raises(ClientError) as caught:
        iam.get_role(RoleName="SageMaker")
    assert caught.value.response["Error"]["Code"] == "NoSuchEntity"
    iam.create_role(RoleName="SageMaker", AssumeRolePolicyDocument="{}")
    assert iam.get_role(RoleName="SageMaker")["Role"]["Arn"] == "arn:aws:iam::123456789012:role/SageMaker"


def test_ecr_has_repositories_and_tokens(plane: ControlPlane) -> None:
    ecr = plane.client("ecr")
    ecr.create_repository(repositoryName="models")
    (token,) = ecr.get_authorization_token()["authorizationData"]
    assert token["authorizationToken"]
    assert ecr.describe_images(repositoryName="models")["imageDetails"] == []


def test_logs_keep_events(plane: ControlPlane) -> None:
    logs = plane.client("logs")
    logs.create_log_group(logGroupName="/aws/sagemaker/Endpoints/e")
    names = {"logGroupName": "/aws/sagemaker/Endpoints/e", "logStreamName": "v/i-1"}
    logs.create_log_stream(**names)
    now_ms = int(time.time() * 1000)  # events of more than 14 days ago are dropped
    logs.put_log_events(**names, logEvents=[{"timestamp": now_ms, "message": "hello"}])
    (event,) = logs.get_log_events(**names)["events"]
    assert (event["timestamp"], event["message"]) == (now_ms, "hello")
    groups = logs.describe_log_groups()["logGroups"]
    assert [group["logGroupName"] for group in groups] == ["/aws/sagemaker/Endpoints/e"]


def test_cloudwatch_keeps_metrics(plane: ControlPlane) -> None:
    cloudwatch = plane.client("cloudwatch")
    data = [
        {"MetricName": "Invocations", "Value": 3.0, "Dimensions": [{"Name": "EndpointName", "Value": "e"}]}
    ]
    cloudwatch.put_metric_data(Namespace="AWS/SageMaker", MetricData=data)
    (metric,) = cloudwatch.list_metrics(Namespace="AWS/SageMaker")["Metrics"]
    assert metric["MetricName"] == "Invocations"


def test_cloudwatch_takes_forms_as_older_clients_send_them(plane: ControlPlane) -> None:
    body = b"Action=ListMetrics&Version=2010-08-01&Namespace=AWS%2FNone"
    authorization = SIGNED.format("monitoring")
    request = urllib.request.Request(plane.url, body, {"Authorization": authorization})
    with urllib.request.urlopen(request, timeout=30) as response:
        assert b"<ListMetricsResponse" in response.read()
        assert response.headers["x-amzn-RequestId"]


def test_s3_has_buckets_in_the_host_too(plane: ControlPlane) -> None:
    s3 = plane.client("s3", "us-east-1")
    s3.create_bucket(Bucket="hosted")
    authorization = SIGNED.format("s3")
    headers = {
        "Host": f"hosted.localhost:{plane.port}",
        "Authorization": authorization,
        "Content-Type": "application/octet-stream",
    }
    request = urllib.request.Request(f"{plane.url}/key", b"body", headers, method="PUT")
    with urllib.request.urlopen(request, timeout=30) as response:
        assert response.status == 200
    assert s3.get_object(Bucket="hosted", Key="key")["Body"].read() == b"body"


def test_s3_lists_as_the_sagemaker_sdk_asks_for(plane: ControlPlane) -> None:
    s3 = plane.client("s3", "us-east-1")
    s3.create_bucket(Bucket="models")
    s3.put_object(Bucket="models", Key="all/a.tar.gz", Body=b"archive")
    answer = s3.list_objects(Bucket="models", Prefix="all/")
    assert [entry["Key"] for entry in answer["Contents"]] == ["all/a.tar.gz"]
    with pytest.raises(ClientError) as caught:
        s3.head_object(Bucket="models", Key="none")
    assert caught.value.response["Error"]["Code"] == "404"


def test_presigned_urls_are_s3s(plane: ControlPlane) -> None:
    s3 = plane.client("s3", "us-east-1", signature_version="s3v4")
    s3.create_bucket(Bucket="presigned")
    s3.put_object(Bucket="presigned", Key="k", Body=b"body")
    url = s3.generate_presigned_url("get_object", Params={"Bucket": "presigned", "Key": "k"})
    assert url.startswith(plane.url)
    with urllib.request.urlopen(url, timeout=30) as response:
        assert response.read() == b"body"


def test_moto_itself_cannot_be_reached(plane: ControlPlane) -> None:
    """These are buckets that do not exist."""
    for path in ("/moto-api", "/moto-api/data.json", "/moto-api/config", "/latest/meta-data/"):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(plane.url + path, timeout=30)
        assert caught.value.code == 404
        assert b"<Code>NoSuchBucket</Code>" in caught.value.read()
        caught.value.close()


@pytest.mark.parametrize(
    ("service", "call", "members"),
    [
        (
            "application-autoscaling",  # JSON
            "describe_scalable_targets",
            {"ServiceNamespace": "sagemaker"},
        ),
        ("sqs", "list_queues", {}),  # JSON
        ("lambda", "list_functions", {}),  # REST, JSON
        ("sns", "list_topics", {}),  # forms, XML
        ("ec2", "describe_instances", {}),  # forms, XML of its own kind
        ("route53", "list_hosted_zones", {}),  # REST, XML
    ],
)
def test_other_services_are_refused_in_their_own_form(
    plane: ControlPlane, service: str, call: str, members: dict[str, Any]
) -> None:
    code, message = refusal(getattr(plane.client(service), call), **members)
    assert code == "ValidationException"
    assert message.startswith(f"The local endpoint does not offer the service {service}.")
    assert "s3, sts, iam, ecr, logs, monitoring" in message


def test_cbor_is_refused_as_cbor(plane: ControlPlane) -> None:
    headers = {"Smithy-Protocol": "rpc-v2-cbor"}
    answer = plane.send(b"", "AnyScaleFrontendService.X", **headers)
    assert (answer.status, answer.headers["Content-Type"]) == (400, "application/cbor")
    assert answer.body.startswith(b"\xa2\x79\x00\x06__type\x79\x00\x13ValidationException")


def test_runtime_paths_are_not_the_control_planes(plane: ControlPlane) -> None:
    runtime = plane.client("sagemaker-runtime")
    code, message = refusal(runtime.invoke_endpoint, EndpointName="e", Body=b"")
    assert code == "UnknownOperationException"
    assert "has nothing at POST /endpoints/e/invocations" in message


def test_another_object_store_is_named(tmp_path: Path) -> None:
    with control_plane(tmp_path, "--s3-endpoint-url", "http://minio:9000") as plane:
        s3 = plane.client("s3")
        for call, members in [(s3.list_buckets, {}), (s3.put_object, {"Bucket": "bucket", "Key": "k"})]:
            code, message = refusal(call, **members)
            assert code == "ValidationException"
            assert "Set AWS_ENDPOINT_URL_S3=http://minio:9000" in message
        assert plane.client("sts").get_caller_identity()["Account"] == "123456789012"
        plane.client("sagemaker").create_model(ModelName="m", PrimaryContainer=multi_model())
        assert not (tmp_path / "s3").exists()


SIGNED = (
    "AWS4-HMAC-SHA256 Credential=AKID/20260102/eu-west-1/{}/aws4_request, SignedHeaders=host, Signature=0"
)


@pytest.mark.parametrize(
    ("environ", "scope"),
    [
        ({"HTTP_AUTHORIZATION": SIGNED.format("iam")}, Scope("iam", "eu-west-1")),
        (
            {"HTTP_AUTHORIZATION": SIGNED.format("sagemaker"), "HTTP_X_AMZ_TARGET": "SageMaker.ListModels"},
            Scope("sagemaker", "eu-west-1", "ListModels"),
        ),
        ({"HTTP_X_AMZ_TARGET": "GraniteServiceVersion20100801.X"}, Scope("monitoring", None, "X")),
        ({"HTTP_X_AMZ_TARGET": "AWSCognitoIdentityService.X"}, Scope("awscognitoidentityservice", None, "X")),
        (
            {"QUERY_STRING": "X-Amz-Credential=AKID%2F20260102%2Feu-west-1%2Fs3%2Faws4_request"},
            Scope("s3", "eu-west-1"),
        ),
        ({"HTTP_AUTHORIZATION": "AWS AKID:signature"}, Scope("s3", None)),
        ({"HTTP_AUTHORIZATION": "Credential=//"}, Scope("s3", None)),
        ({}, Scope("s3", None)),
    ],
)
def test_header_and_signature_name_the_service(environ: dict[str, str], scope: Scope) -> None:
    assert scope_of(environ) == scope


def test_names_with_underscores_pose_as_no_others() -> None:
    fields = [
        ("HOST", "h"),
        ("X_AMZ_TARGET", "SageMaker.CreateModel"),
        ("X-AMZ-META-A_B", "1"),
        ("X-AMZ-META-A-B", "2"),
        ("X-AMZ-META-C_D", "3"),
        ("X-MMEKIT-METADATA-NAMES", "HOST"),
    ]
    assert keep_metadata_names(fields) == [
        ("HOST", "h"),
        ("X-AMZ-META-A-B", "2"),
        ("X-AMZ-META-C_D", "3"),
        ("X-MMEKIT-METADATA-NAMES", "X-AMZ-META-C_D"),
    ]
