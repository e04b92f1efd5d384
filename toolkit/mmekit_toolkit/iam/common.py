"""Statements that more than one policy has."""

from __future__ import annotations

from collections.abc import Iterator

from mmekit_toolkit.aws.s3 import Location
from mmekit_toolkit.iam.facts import Facts
from mmekit_toolkit.iam.statements import Statement

ECR_PULL = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]


def read_archives(facts: Facts) -> Iterator[Statement]:
    """Yield listing and reading below the prefixes, and nowhere else in their buckets."""
    yield Statement("ReadArchives", ["s3:GetObject"], objects(facts))
    for number, (bucket, prefixes) in enumerate(_by_bucket(facts).items()):
        yield Statement(
            f"ListArchives{number or ''}",
            ["s3:ListBucket"],
            [facts.place.of_bucket(Location(bucket, ""))],
            {"StringLike": {"s3:prefix": [f"{prefix}*" for prefix in prefixes]}},
        )


def objects(facts: Facts) -> list[str]:
    """Return the ARNs of all objects below the prefixes."""
    return [facts.place.of_bucket(prefix, prefix.key + "*") for prefix in facts.prefixes]


def use_key(facts: Facts) -> Iterator[Statement]:
    """Yield what encrypting volumes takes: grants on the key, for AWS's own use only."""
    key = facts.kms_key or ""
    arn, conditions = facts.place.arn("kms", f"key/{key}"), {}
    if key.startswith("arn:") and ":alias/" not in key:
        arn = key
    elif "alias/" in key:
        # Policies cannot name a key by its alias; they can ask which aliases a key has.
        arn = facts.place.arn("kms", "key/*")
        alias = "alias/" + key.partition("alias/")[2]
        conditions = {"ForAnyValue:StringEquals": {"kms:ResourceAliases": [alias]}}
    yield Statement("FindTheKey", ["kms:DescribeKey"], [arn], conditions)
    for_aws = {"Bool": {"kms:GrantIsForAWSResource": "true"}}
    yield Statement("EncryptVolumes", ["kms:CreateGrant"], [arn], {**conditions, **for_aws})


def _by_bucket(facts: Facts) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for prefix in facts.prefixes:
        found.setdefault(prefix.bucket, []).append(prefix.key)
    return found
