"""Models: CreateModel, DescribeModel, ListModels, DeleteModel."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.endpoint.control import (
    ControlPlane,
    arn,
    control_plane,
    multi_model,
    refusal,
    refused,
    without_metadata,
)

ROLE = "arn:aws:iam::123456789012:role/Service"


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with control_plane(tmp_path_factory.mktemp("state")) as started:
        yield started


@pytest.fixture(scope="module")
def sagemaker(plane: ControlPlane) -> Any:
    return plane.client("sagemaker")


def test_describe_answers_what_create_was_given(sagemaker: Any) -> None:
    request = {
        "ModelName": "Echo",
        "PrimaryContainer": multi_model(
            ContainerHostname="host",
            Environment={"A": "1"},
            ImageConfig={"RepositoryAccessMode": "Platform"},
            MultiModelConfig={"ModelCacheSetting": "Disabled"},
        ),
        "ExecutionRoleArn": ROLE,
        "VpcConfig": {"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-1", "subnet-2"]},
        "EnableNetworkIsolation": True,
    }
    assert sagemaker.create_model(**request, Tags=[{"Key": "k", "Value": "v"}])["ModelArn"] == arn(
        "model", "echo"
    )
    answer = without_metadata(sagemaker.describe_model(ModelName="Echo"))
    created = answer.pop("CreationTime")
    assert created.timestamp() > 0
    assert answer == request | {"ModelArn": arn("model", "echo")}
    assert sagemaker.list_tags(ResourceArn=answer["ModelArn"])["Tags"] == [{"Key": "k", "Value": "v"}]


def test_defaults_are_described(sagemaker: Any) -> None:
    sagemaker.create_model(ModelName="defaults", Containers=[{"Image": "image:1"}])
    answer = sagemaker.describe_model(ModelName="defaults")
    assert answer["Containers"] == [{"Image": "image:1", "Mode": "SingleModel", "Environment": {}}]
    assert answer["EnableNetworkIsolation"] is False


def test_a_name_is_there_once_whatever_its_case_and_region(plane: ControlPlane, sagemaker: Any) -> None:
    sagemaker.create_model(ModelName="Once", PrimaryContainer=multi_model())
    elsewhere = plane.client("sagemaker", "us-west-2")
    for client, name in [(sagemaker, "Once"), (sagemaker, "oNCE"), (elsewhere, "Once")]:
        message = refused(client.create_model, ModelName=name, PrimaryContainer=multi_model())
        assert message == f'Cannot create already existing model "{arn("model", "once")}".'


def test_the_region_is_that_of_the_signature(plane: ControlPlane) -> None:
    client = plane.client("sagemaker", "ap-south-1")
    answer = client.create_model(ModelName="regional", PrimaryContainer=multi_model())
    assert answer["ModelArn"] == arn("model", "regional", "ap-south-1")


def test_a_request_without_a_signature_has_the_region_of_the_service(plane: ControlPlane) -> None:
    body = {"ModelName": "unsigned", "PrimaryContainer": multi_model()}
    answer = plane.send(json.dumps(body).encode())
    assert (answer.status, json.loads(answer.body)) == (
        200,
        {"ModelArn": arn("model", "unsigned", "us-east-1")},
    )


def test_what_is_not_there_could_not_be_found(sagemaker: Any) -> None:
    expected = f'Could not find model "{arn("model", "none")}".'
    assert refused(sagemaker.describe_model, ModelName="none") == expected
    assert refused(sagemaker.delete_model, ModelName="None") == expected


def test_a_deleted_model_is_gone_with_its_tags(sagemaker: Any) -> None:
    tags = [{"Key": "k", "Value": "v"}]
    sagemaker.create_model(ModelName="gone", PrimaryContainer=multi_model(), Tags=tags)
    sagemaker.delete_model(ModelName="gone")
    assert "Could not find model" in refused(sagemaker.describe_model, ModelName="gone")
    sagemaker.create_model(ModelName="gone", PrimaryContainer=multi_model())
    assert sagemaker.list_tags(ResourceArn=arn("model", "gone"))["Tags"] == []


S3_DATA = {
    "S3DataSource": {"S3Uri": "s3://b/k/", "S3DataType": "S3Prefix", "CompressionType": "None"},
}


@pytest.mark.parametrize(
    ("members", "text"),
    [
        ({}, "A model needs a PrimaryContainer"),
        ({"Containers": []}, "A model needs a PrimaryContainer"),
        (
            {"PrimaryContainer": multi_model(), "Containers": [multi_model()]},
            "either a PrimaryContainer or Containers",
        ),
        (
            {"Containers": [multi_model(), multi_model()]},
            "A model of more than one container is not supported by the local endpoint; give",
        ),
        ({"PrimaryContainer": {"Mode": "SingleModel"}}, "needs an Image"),
        ({"PrimaryContainer": {"Image": "i", "Mode": "MultiModel"}}, "needs a ModelDataUrl"),
        (
            {"PrimaryContainer": {"Image": "i", "MultiModelConfig": {"ModelCacheSetting": "Enabled"}}},
            "MultiModelConfig is for containers with Mode MultiModel only",
        ),
        (
            {"PrimaryContainer": {"Image": "i", "ModelDataSource": S3_DATA}},
            "ModelDataSource is not supported by the local endpoint; give ModelDataUrl",
        ),
        (
            {
                "PrimaryContainer": {
                    "Image": "i",
                    "AdditionalModelDataSources": [{"ChannelName": "c", **S3_DATA}],
                }
            },
            "AdditionalModelDataSources is not supported by the local endpoint; put",
        ),
        (
            {"PrimaryContainer": {"ModelPackageName": "package"}},
            "ModelPackageName is not supported by the local endpoint; give Image",
        ),
        (
            {"PrimaryContainer": {"Image": "i", "InferenceSpecificationName": "name"}},
            "InferenceSpecificationName is not supported",
        ),
        (
            {
                "PrimaryContainer": multi_model(
                    ContainerMetricsConfig={"MetricsEndpoints": [{"MetricsEndpointPath": "/metrics"}]}
                )
            },
            "ContainerMetricsConfig is not supported",
        ),
        (
            {"Containers": [multi_model()], "InferenceExecutionConfig": {"Mode": "Direct"}},
            "InferenceExecutionConfig with Mode Direct is not supported",
        ),
        (
            {"PrimaryContainer": multi_model(Environment={f"A{i}": "x" * 1000 for i in range(40)})},
            "at most 32768 bytes together",
        ),
        ({"PrimaryContainer": multi_model(ModelDataUrl="ftp://x/")}, "at 'primaryContainer.modelDataUrl'"),
        ({"PrimaryContainer": multi_model(), "Tags": [{"Key": "aws:x", "Value": ""}]}, "only AWS may use"),
        ({"PrimaryContainer": multi_model(), "Tags": [{"Key": "k", "Value": ""}] * 2}, "is given twice"),
    ],
)
def test_what_cannot_be_run_is_refused(sagemaker: Any, members: dict[str, Any], text: str) -> None:
    assert text in refused(sagemaker.create_model, ModelName="refused", **members)
    assert "Could not find" in refused(sagemaker.describe_model, ModelName="refused")


def test_other_operations_of_sagemaker_are_refused(sagemaker: Any) -> None:
    code, message = refusal(sagemaker.describe_training_job, TrainingJobName="job")
    assert code == "UnknownOperationException"
    assert message.startswith("DescribeTrainingJob is not offered by the local endpoint. It has models")
    assert "CreateModel" in message
    assert refusal(sagemaker.list_notebook_instances)[0] == "UnknownOperationException"


# --- the label, with an engine that has two images


class Engine(BaseHTTPRequestHandler):
    """What docker's client asks an engine when it looks at an image."""

    def do_GET(self) -> None:
        labels = {"/good:1/": {"com.amazonaws.sagemaker.capabilities.multi-models": "true"}, "/bad:1/": None}
        found = [labels[name] for name in labels if name.replace(":1/", ":1") in self.path]
        if self.path == "/version":
            self.answer(200, {"ApiVersion": "1.44"})
        elif found:
            self.answer(200, {"Id": "sha256:1", "Config": {"Labels": found[0]}})
        else:
            self.answer(404, {"message": "No such image"})

    def answer(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def engine() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Engine)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"tcp://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_an_image_without_the_label_is_refused_for_multi_model(tmp_path: Path) -> None:
    with (
        engine() as host,
        control_plane(
            tmp_path,
            "--launcher",
            "docker",
            environment={"DOCKER_HOST": host, "DOCKER_TLS_VERIFY": "", "DOCKER_CERT_PATH": ""},
        ) as plane,
    ):
        client = plane.client("sagemaker")
        bad = multi_model(Image="bad:1")
        assert refused(client.create_model, ModelName="bad", PrimaryContainer=bad) == (
            "Your Ecr Image bad:1 does not contain required "
            "com.amazonaws.sagemaker.capabilities.multi-models=true Docker label(s)."
        )
        client.create_model(ModelName="single", PrimaryContainer={"Image": "bad:1"})
        client.create_model(ModelName="good", PrimaryContainer=multi_model(Image="good:1"))
        client.create_model(ModelName="absent", PrimaryContainer=multi_model(Image="absent:1"))
        assert plane.log.read_text() == ""


def test_dockers_client_is_imported_before_moto_is_by_another_thread(tmp_path: Path) -> None:
    environment = {"DOCKER_HOST": "tcp://127.0.0.1:9", "PYTHONPROFILEIMPORTTIME": "1"}
    with control_plane(tmp_path, "--launcher", "docker", environment=environment) as plane:
        plane.client("sts").get_caller_identity()  # is answered once moto is there
        plane.client("sagemaker").create_model(ModelName="m", PrimaryContainer=multi_model())
        imported = [line.rpartition("|")[2].strip() for line in plane.log.read_text().splitlines()]
    assert imported.index("docker.client") < imported.index("moto")


def test_an_engine_that_does_not_answer_refuses_nothing(tmp_path: Path) -> None:
    environment = {"DOCKER_HOST": "tcp://127.0.0.1:9"}
    with control_plane(tmp_path, "--launcher", "docker", environment=environment) as plane:
        plane.client("sagemaker").create_model(ModelName="m", PrimaryContainer=multi_model())
        assert "does not say which labels mmekit:cpu has" in plane.log.read_text()
