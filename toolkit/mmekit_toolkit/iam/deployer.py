"""What mmekit's commands call for an endpoint: push, deploy, update, delete, models, status, logs.

tests/toolkit/iam holds that each call which the commands make is allowed, and by a resource of the endpoint's
own wherever IAM lets that be said. Actions and their resources are AWS's "Service Authorization Reference".
"""

from __future__ import annotations

from collections.abc import Iterator

from mmekit_toolkit.aws.log_events import group_of
from mmekit_toolkit.deploy import scaling
from mmekit_toolkit.deploy.description import PrivateLink
from mmekit_toolkit.deploy.ownership import ENDPOINT_TAG
from mmekit_toolkit.iam import common, execution_role
from mmekit_toolkit.iam.facts import Facts
from mmekit_toolkit.iam.statements import Statement

#: What Application Auto Scaling acts with; AWS makes it when the first variant is registered.
_SCALING_SERVICE = "sagemaker.application-autoscaling.amazonaws.com"
_SCALING_ROLE = (
    f"role/aws-service-role/{_SCALING_SERVICE}/AWSServiceRoleForApplicationAutoScaling_SageMakerEndpoint"
)


def statements(facts: Facts) -> Iterator[Statement]:
    """Yield what the deployer must be allowed."""
    yield from _endpoint(facts)
    yield from _role(facts)
    yield from common.read_archives(facts)
    yield Statement(
        "ChangeArchives",
        ["s3:AbortMultipartUpload", "s3:DeleteObject", "s3:PutObject"],
        common.objects(facts),
    )
    yield from _images(facts)
    yield from _watching(facts)
    yield from _scaling(facts)
    if facts.kms_key:
        yield from common.use_key(facts)
    if facts.private_link:
        yield from _private_link(facts, facts.private_link)


def _endpoint(facts: Facts) -> Iterator[Statement]:
    definitions = [
        *facts.sagemaker_arns("endpoint-config", f"{facts.name}-*"),
        *facts.sagemaker_arns("model", f"{facts.name}-*"),
    ]
    yield Statement(
        "Endpoint",
        [
            "sagemaker:AddTags",
            "sagemaker:CreateEndpoint",
            "sagemaker:CreateEndpointConfig",
            "sagemaker:CreateModel",
            "sagemaker:DeleteEndpoint",
            "sagemaker:DeleteEndpointConfig",
            "sagemaker:DeleteModel",
            "sagemaker:DescribeEndpoint",
            "sagemaker:DescribeEndpointConfig",
            "sagemaker:DescribeModel",
            "sagemaker:ListTags",
            "sagemaker:UpdateEndpoint",
            "sagemaker:UpdateEndpointWeightsAndCapacities",
        ],
        [*facts.endpoint_arns(), *definitions],
    )
    yield Statement("FindModels", ["sagemaker:ListEndpointConfigs", "sagemaker:ListModels"])


def _role(facts: Facts) -> Iterator[Statement]:
    yield Statement("LookAtTheRole", ["iam:GetRole"], [facts.role])
    yield Statement(
        "PassTheRole",
        ["iam:PassRole"],
        [facts.role],
        {"StringEquals": {"iam:PassedToService": execution_role.SERVICE}},
    )


def _images(facts: Facts) -> Iterator[Statement]:
    yield Statement("SignInToEcr", ["ecr:GetAuthorizationToken"])
    yield Statement(
        "PushImages",
        [
            *common.ECR_PULL,
            "ecr:CompleteLayerUpload",
            "ecr:CreateRepository",
            "ecr:DescribeImageScanFindings",
            "ecr:DescribeImages",
            "ecr:DescribeRepositories",
            "ecr:InitiateLayerUpload",
            "ecr:PutImage",
            "ecr:TagResource",
            "ecr:UploadLayerPart",
        ],
        facts.repositories,
    )


def _watching(facts: Facts) -> Iterator[Statement]:
    arn = facts.place.arn
    group = arn("logs", f"log-group:{group_of(facts.name)}")
    yield Statement(
        "ReadLogs",
        ["logs:DescribeLogStreams", "logs:FilterLogEvents", "logs:GetLogEvents"],
        [group, f"{group}:*"],
    )
    yield Statement(
        "SetAlarms",
        [
            "cloudwatch:DeleteAlarms",
            "cloudwatch:ListTagsForResource",
            "cloudwatch:PutMetricAlarm",
            "cloudwatch:TagResource",
        ],
        # Target tracking sets alarms of its own in the caller's name.
        [
            arn("cloudwatch", f"alarm:{facts.name}-*"),
            *(
                [arn("cloudwatch", f"alarm:TargetTracking-endpoint/{facts.name}/*")]
                if facts.autoscaling
                else []
            ),
        ],
    )
    yield Statement("ReadMetricsAndAlarms", ["cloudwatch:DescribeAlarms", "cloudwatch:GetMetricData"])


def _scaling(facts: Facts) -> Iterator[Statement]:
    yield Statement(
        "LookAtScaling",
        [
            "application-autoscaling:DescribeScalableTargets",
            "application-autoscaling:DescribeScalingPolicies",
        ],
    )
    if not facts.autoscaling:
        return
    yield Statement(
        "Scale",
        [
            "application-autoscaling:DeleteScalingPolicy",
            "application-autoscaling:DeregisterScalableTarget",
            "application-autoscaling:PutScalingPolicy",
            "application-autoscaling:RegisterScalableTarget",
        ],
        # Targets have no names in IAM: all it can tell is what is scaled.
        [facts.place.arn("application-autoscaling", "scalable-target/*")],
        {
            "StringEquals": {
                "application-autoscaling:service-namespace": "sagemaker",
                "application-autoscaling:scalable-dimension": scaling.DIMENSION,
            }
        },
    )
    yield Statement(
        "LetAwsScale",
        ["iam:CreateServiceLinkedRole"],
        [f"arn:{facts.place.partition}:iam::{facts.place.account}:{_SCALING_ROLE}"],
        {"StringEquals": {"iam:AWSServiceName": _SCALING_SERVICE}},
    )


def _private_link(facts: Facts, link: PrivateLink) -> Iterator[Statement]:
    arn = facts.place.arn
    endpoints = arn("ec2", "vpc-endpoint/*")
    yield Statement(
        "LookAtVpcEndpoints",
        [
            "ec2:DescribeSecurityGroups",
            "ec2:DescribeSubnets",
            "ec2:DescribeVpcEndpoints",
            "ec2:DescribeVpcs",
        ],
    )
    yield Statement(
        "CreateVpcEndpoints",
        ["ec2:CreateVpcEndpoint"],
        [
            endpoints,
            arn("ec2", f"vpc/{link.vpc}"),
            *(arn("ec2", f"subnet/{subnet}") for subnet in link.subnets),
            *(arn("ec2", f"security-group/{group}") for group in link.security_groups),
            *(arn("ec2", f"route-table/{table}") for table in link.route_tables),
        ],
    )
    yield Statement(
        "TagVpcEndpoints",
        ["ec2:CreateTags"],
        [endpoints],
        {"StringEquals": {"ec2:CreateAction": "CreateVpcEndpoint"}},
    )
    yield Statement(
        "DeleteOwnVpcEndpoints",
        ["ec2:DeleteVpcEndpoints"],
        [endpoints],
        {"StringEquals": {f"ec2:ResourceTag/{ENDPOINT_TAG}": facts.name}},
    )
    if link.private_dns:
        yield Statement(
            "NameVpcEndpoints",
            ["route53:AssociateVPCWithHostedZone"],
            [f"arn:{facts.place.partition}:route53:::hostedzone/*"],
        )
