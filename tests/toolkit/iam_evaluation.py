"""What IAM would say to a call: the part of its grammar that our policies use, and each call's demands.

Demands are written from AWS's "Service Authorization Reference", not from the policies.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from tests.toolkit.recorder import Call

#: Parameters of CreateVpcEndpoint → the kind of resource in ARNs.
_EC2_KINDS = {
    "VpcId": "vpc",
    "SubnetId": "subnet",
    "SecurityGroupId": "security-group",
    "RouteTableId": "route-table",
}
ACCOUNT, REGION = "123456789012", "us-east-1"


@dataclass(frozen=True)
class Demand:
    """One action on one resource, with what the request tells for conditions."""

    action: str
    resource: str = "*"
    context: Mapping[str, str] = field(default_factory=dict)


def allows(policy: Mapping[str, Any], demand: Demand) -> bool:
    """Say whether a statement of the policy allows the action on the resource."""
    return any(_statement_allows(statement, demand) for statement in policy["Statement"])


def _statement_allows(statement: Mapping[str, Any], demand: Demand) -> bool:
    assert statement["Effect"] == "Allow"
    return (
        any(fnmatch.fnmatchcase(demand.action, action) for action in _listed(statement["Action"]))
        and any(_matches(demand.resource, resource) for resource in _listed(statement["Resource"]))
        and all(
            _holds(operator, demand.context.get(key), _listed(values))
            for operator, keys in statement.get("Condition", {}).items()
            for key, values in keys.items()
        )
    )


def _holds(operator: str, value: str | None, wanted: list[str]) -> bool:
    if value is None:
        return False
    if operator in ("StringEquals", "ForAnyValue:StringEquals", "Bool"):
        return value in wanted
    assert operator == "StringLike"
    return any(_matches(value, pattern) for pattern in wanted)


def _matches(value: str, pattern: str) -> bool:
    """Match as IAM does: brackets are no wildcards there."""
    return fnmatch.fnmatchcase(value, pattern.replace("[", "[[]"))


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def demands(call: Call) -> Iterator[Demand]:
    """Yield what a call that was made demands."""
    yield from _DEMANDS[call.service](call)


def _arn(service: str, resource: str) -> str:
    return f"arn:aws:{service}:{REGION}:{ACCOUNT}:{resource}"


def _sagemaker(call: Call) -> Iterator[Demand]:
    action, asked = f"sagemaker:{call.operation}", call.parameters
    kinds = {"EndpointName": "endpoint", "EndpointConfigName": "endpoint-config", "ModelName": "model"}
    # SageMaker's ARNs are in lower case.
    named = [_arn("sagemaker", f"{kind}/{asked[key]}".lower()) for key, kind in kinds.items() if key in asked]
    if "ResourceArn" in asked:
        named.append(asked["ResourceArn"])
    assert named or call.operation.startswith("List"), call
    for resource in named or ["*"]:
        yield Demand(action, resource)
    if asked.get("Tags"):
        yield Demand("sagemaker:AddTags", named[0])
    if role := asked.get("ExecutionRoleArn"):
        yield Demand("iam:PassRole", role, {"iam:PassedToService": "sagemaker.amazonaws.com"})
    if key := asked.get("KmsKeyId"):
        yield Demand("kms:CreateGrant", key, {"kms:GrantIsForAWSResource": "true"})
        yield Demand("kms:DescribeKey", key)


def _runtime(call: Call) -> Iterator[Demand]:
    name = call.path.split("/")[2]
    target = call.headers["X-Amzn-SageMaker-Target-Model"]
    yield Demand(
        "sagemaker:InvokeEndpoint", _arn("sagemaker", f"endpoint/{name}"), {"sagemaker:TargetModel": target}
    )


def _s3(call: Call) -> Iterator[Demand]:
    path, _, query = call.path.partition("?")
    asked = parse_qs(query, keep_blank_values=True)
    bucket, _, key = path.lstrip("/").partition("/")
    of_bucket, of_object = f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/{key}"
    if call.method == "HEAD" and not key:
        return  # without permission the answer still names the region, which is all that is asked
    if call.method == "GET" and not key:
        yield Demand("s3:ListBucket", of_bucket, {"s3:prefix": asked["prefix"][0]})
    elif call.method == "POST" and "delete" in asked:
        for found in call.xml_texts("Key"):
            yield Demand("s3:DeleteObject", f"{of_bucket}/{found}")
    elif call.method in ("PUT", "POST"):
        yield Demand("s3:PutObject", of_object)
    elif call.method == "DELETE":
        yield Demand("s3:AbortMultipartUpload" if "uploadId" in asked else "s3:DeleteObject", of_object)
    else:
        yield Demand("s3:GetObject", of_object)


def _ecr(call: Call) -> Iterator[Demand]:
    asked = call.parameters
    names = asked.get("repositoryNames") or [asked["repositoryName"]] if asked else ["*"]
    for name in names:
        resource = "*" if call.operation == "GetAuthorizationToken" else _arn("ecr", f"repository/{name}")
        yield Demand(f"ecr:{call.operation}", resource)
    if asked.get("tags"):
        yield Demand("ecr:TagResource", _arn("ecr", f"repository/{names[0]}"))


def _logs(call: Call) -> Iterator[Demand]:
    group = _arn("logs", f"log-group:{call.parameters['logGroupName']}")
    stream = call.parameters.get("logStreamName", "")
    yield Demand(f"logs:{call.operation}", f"{group}:log-stream:{stream}")


def _cloudwatch(call: Call) -> Iterator[Demand]:
    action, asked = f"cloudwatch:{call.operation}", call.parameters
    names = asked.get("AlarmNames") if call.operation == "DeleteAlarms" else None
    if "AlarmName" in asked:
        names = [asked["AlarmName"]]
    resources = [_arn("cloudwatch", f"alarm:{name}") for name in names or []]
    if "ResourceARN" in asked:
        resources = [asked["ResourceARN"]]
    for resource in resources or ["*"]:
        yield Demand(action, resource)
    if asked.get("Tags"):
        yield Demand("cloudwatch:TagResource", resources[0])


def _autoscaling(call: Call) -> Iterator[Demand]:
    asked, action = call.parameters, f"application-autoscaling:{call.operation}"
    if call.operation.startswith("Describe"):
        yield Demand(action)
        return
    context = {
        "application-autoscaling:service-namespace": asked["ServiceNamespace"],
        "application-autoscaling:scalable-dimension": asked["ScalableDimension"],
    }
    # The service never names a target of its own.
    yield Demand(action, _arn("application-autoscaling", "scalable-target/*"), context)
    if call.operation == "RegisterScalableTarget":
        service = "sagemaker.application-autoscaling.amazonaws.com"
        role = f"aws-service-role/{service}/AWSServiceRoleForApplicationAutoScaling_SageMakerEndpoint"
        yield Demand(
            "iam:CreateServiceLinkedRole",
            f"arn:aws:iam::{ACCOUNT}:role/{role}",
            {"iam:AWSServiceName": service},
        )
    if call.operation == "PutScalingPolicy":
        alarm = f"TargetTracking-{asked['ResourceId']}-AlarmHigh-1"
        yield Demand("cloudwatch:PutMetricAlarm", _arn("cloudwatch", f"alarm:{alarm}"))


def _iam(call: Call) -> Iterator[Demand]:
    yield Demand(f"iam:{call.operation}", f"arn:aws:iam::{ACCOUNT}:role/{call.parameters['RoleName']}")


def _ec2(call: Call) -> Iterator[Demand]:
    asked, action = call.parameters, f"ec2:{call.operation}"
    if call.operation.startswith("Describe"):
        yield Demand(action)
        return
    own = _arn("ec2", "vpc-endpoint/vpce-1")
    if call.operation == "DeleteVpcEndpoints":
        yield Demand(action, own, {"ec2:ResourceTag/mmekit:endpoint": call.endpoint_of_tags})
        return
    assert call.operation == "CreateVpcEndpoint"
    yield Demand(action, own)
    for key, value in asked.items():
        if kind := _EC2_KINDS.get(key.split(".")[0]):
            yield Demand(action, _arn("ec2", f"{kind}/{value}"))
    yield Demand("ec2:CreateTags", own, {"ec2:CreateAction": "CreateVpcEndpoint"})
    if asked.get("PrivateDnsEnabled") == "true":
        yield Demand("route53:AssociateVPCWithHostedZone", "arn:aws:route53:::hostedzone/Z1")


_DEMANDS = {
    "application-autoscaling": _autoscaling,
    "ec2": _ec2,
    "ecr": _ecr,
    "iam": _iam,
    "logs": _logs,
    "monitoring": _cloudwatch,
    "runtime": _runtime,
    "s3": _s3,
    "sagemaker": _sagemaker,
    "sts": lambda _: iter(()),  # GetCallerIdentity needs no permission
}


def shown(demand: Demand) -> str:
    """Return a demand for a failure's message."""
    return json.dumps([demand.action, demand.resource, dict(demand.context)])
