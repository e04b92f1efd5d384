"""Requests as text and as JSON, and what botocore's models say of them before they are sent."""

from __future__ import annotations

import json
import shlex

import pytest

from mmekit_toolkit.aws.clients import Aws
from mmekit_toolkit.deploy import requests, shapes
from mmekit_toolkit.deploy.requests import Request, Wait
from mmekit_toolkit.errors import BadDescription

REQUEST = Request(
    "sagemaker",
    "CreateModel",
    {"ModelName": "it's", "PrimaryContainer": {"Environment": {"A": 'über "$HOME" `x`\n'}}},
    "create the model",
)


def test_a_request_is_a_command_that_a_shell_takes_as_it_is() -> None:
    command = REQUEST.command(Aws(region="eu-west-1"))
    assert "\n" not in command
    words = shlex.split(command)
    assert words[:5] == ["aws", "sagemaker", "create-model", "--region", "eu-west-1"]
    assert words[5] == "--cli-input-json"
    assert json.loads(words[6]) == REQUEST.parameters


def test_a_command_names_what_the_caller_named() -> None:
    aws = Aws(region="eu-west-1", profile="prod", endpoint_url="http://127.0.0.1:8000")
    words = shlex.split(Wait("endpoint_in_service", "churn", "wait").command(aws))
    assert words == [
        *("aws", "sagemaker", "wait", "endpoint-in-service", "--region", "eu-west-1", "--profile", "prod"),
        *("--endpoint-url", "http://127.0.0.1:8000", "--endpoint-name", "churn"),
    ]


def test_s3_is_called_s3api_by_the_aws_cli() -> None:
    request = Request("s3", "PutObject", {"Bucket": "b", "Key": "k"}, "put")
    assert request.command(Aws(region="eu-west-1")).startswith("aws s3api put-object ")


def test_steps_are_told_before_their_commands() -> None:
    lines = requests.as_commands([REQUEST], Aws(region="eu-west-1")).splitlines()
    assert lines[0] == "# create the model"
    assert requests.as_commands([], Aws(region="eu-west-1")) == "# nothing to do"


def test_steps_are_a_json_list_for_programs() -> None:
    told = json.loads(requests.as_json([REQUEST, Wait("endpoint_deleted", "churn", "wait")]))
    assert told == [
        {
            "service": "sagemaker",
            "operation": "CreateModel",
            "parameters": REQUEST.parameters,
            "why": "create the model",
        },
        {
            "service": "sagemaker",
            "waiter": "endpoint_deleted",
            "parameters": {"EndpointName": "churn"},
            "why": "wait",
        },
    ]


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({}, 'Missing required parameter in input: "ModelName"'),
        ({"ModelName": 7}, "Invalid type for parameter ModelName"),
        ({"ModelName": "m", "Modes": []}, 'Unknown parameter in input: "Modes"'),
        ({"ModelName": "m" * 64}, "ModelName: expected at most 63 characters, found 64"),
        ({"ModelName": "m_"}, "ModelName: expected text of the form"),
        (
            {"ModelName": "m", "PrimaryContainer": {"Mode": "Multimodel"}},
            'PrimaryContainer.Mode: "Multimodel" is none that AWS knows; did you mean MultiModel?',
        ),
        (
            {"ModelName": "m", "VpcConfig": {"Subnets": ["subnet-1"], "SecurityGroupIds": ["sg"] * 6}},
            "VpcConfig.SecurityGroupIds: expected at most 5 entries, found 6",
        ),
        (
            {"ModelName": "m", "Tags": [{"Key": "k", "Value": "!"}]},
            "Tags[0].Value: expected text of the form",
        ),
    ],
)
def test_what_aws_would_refuse_is_told_first(parameters: dict[str, object], said: str) -> None:
    with pytest.raises(BadDescription) as caught:
        requests.check([Request("sagemaker", "CreateModel", parameters, "")])
    assert said in caught.value.message
    assert caught.value.message.startswith("AWS would refuse this:\n  CreateModel: ")


def test_all_that_aws_would_refuse_is_told_at_once() -> None:
    bad = Request("sagemaker", "DeleteModel", {"ModelName": "_"}, "")
    with pytest.raises(BadDescription) as caught:
        requests.check([bad, REQUEST, bad])
    assert len(caught.value.message.splitlines()) == 4


def test_tags_in_any_script_are_taken() -> None:
    shape = shapes.member("sagemaker", "CreateModel", "Tags[].Value")
    assert shapes.violation(shape, "größe 測試 a.b:c/d=e+f-g@h") is None
    assert shapes.violation(shape, "a\x00") is not None


def test_every_pattern_of_the_operations_we_use_can_be_checked_or_is_left_to_aws() -> None:
    for service, name in (
        ("sagemaker", "CreateModel"),
        ("sagemaker", "CreateEndpointConfig"),
        ("sagemaker", "UpdateEndpoint"),
        ("application-autoscaling", "PutScalingPolicy"),
        ("cloudwatch", "PutMetricAlarm"),
        ("ec2", "CreateVpcEndpoint"),
    ):
        _walk(shapes.operation(service, name).input_shape, ())


def _walk(shape: object, above: tuple[str, ...]) -> None:
    name = shape.name  # type: ignore[attr-defined]  # botocore ships no types
    if name in above:
        return
    match shape.type_name:  # type: ignore[attr-defined]
        case "structure":
            for member in shape.members.values():  # type: ignore[attr-defined]
                _walk(member, (*above, name))
        case "list":
            _walk(shape.member, (*above, name))  # type: ignore[attr-defined]
        case "string":
            shapes.violation(shape, "x")
