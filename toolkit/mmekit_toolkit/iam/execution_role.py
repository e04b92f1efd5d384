"""What SageMaker does with an endpoint's role: fetch archives, pull the image, log, publish metrics.

From AWS, "SageMaker AI execution roles: CreateModel API", "Give SageMaker AI Hosted Endpoints Access to
Resources in Your Amazon VPC", "Auto-Rollback Configuration"; narrowed to what the endpoint has.
"""

from __future__ import annotations

from collections.abc import Iterator

from mmekit_toolkit.aws.log_events import group_of
from mmekit_toolkit.iam import common
from mmekit_toolkit.iam.facts import Facts
from mmekit_toolkit.iam.statements import Statement

SERVICE = "sagemaker.amazonaws.com"


def statements(facts: Facts) -> Iterator[Statement]:
    """Yield what the role must allow."""
    place = facts.place
    yield from common.read_archives(facts)
    yield Statement("SignInToEcr", ["ecr:GetAuthorizationToken"])
    yield Statement("PullTheImage", common.ECR_PULL, facts.repositories)
    group = place.arn("logs", f"log-group:{group_of(facts.name)}")
    yield Statement(
        "WriteLogs",
        ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"],
        [group, f"{group}:*"],
    )
    yield Statement(
        "PublishMetrics",
        ["cloudwatch:PutMetricData"],
        conditions={"StringEquals": {"cloudwatch:namespace": ["AWS/SageMaker", "/aws/sagemaker/Endpoints"]}},
    )
    # SageMaker looks at the alarms that roll an update back.
    yield Statement("WatchUpdates", ["cloudwatch:DescribeAlarms"])
    if facts.subnets:
        yield from _vpc(facts)
    if facts.kms_key:
        yield from common.use_key(facts)


def _vpc(facts: Facts) -> Iterator[Statement]:
    arn = facts.place.arn
    interfaces = arn("ec2", "network-interface/*")
    yield Statement(
        "LookAtTheVpc",
        [
            "ec2:DescribeDhcpOptions",
            "ec2:DescribeNetworkInterfaces",
            "ec2:DescribeSecurityGroups",
            "ec2:DescribeSubnets",
            "ec2:DescribeVpcs",
        ],
    )
    yield Statement(
        "JoinTheVpc",
        ["ec2:CreateNetworkInterface"],
        [
            interfaces,
            *(arn("ec2", f"subnet/{subnet}") for subnet in facts.subnets),
            *(arn("ec2", f"security-group/{group}") for group in facts.security_groups),
        ],
    )
    yield Statement(
        "LeaveTheVpc",
        [
            "ec2:CreateNetworkInterfacePermission",
            "ec2:DeleteNetworkInterface",
            "ec2:DeleteNetworkInterfacePermission",
        ],
        [interfaces],
    )
