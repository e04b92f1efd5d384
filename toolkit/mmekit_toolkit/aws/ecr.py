"""Amazon ECR: addresses of registries, repositories and their images, the token that docker signs in with."""

from __future__ import annotations

import base64
import fnmatch
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mmekit_toolkit.aws.clients import Aws
from mmekit_toolkit.errors import ToolkitError

#: 123456789012.dkr.ecr.us-east-1.amazonaws.com, those of China and GovCloud, FIPS, and with IPv6
#: 123456789012.dkr-ecr.us-east-1.on.aws (AWS: Amazon ECR endpoints and quotas).
_HOST = re.compile(r"(?P<account>\d{12})\.dkr[.-]ecr(-fips)?\.(?P<region>[a-z0-9-]+)\.[a-z0-9.-]+")
#: botocore: RepositoryName.
_REPOSITORY = re.compile(r"(?:[a-z0-9]+(?:[._-][a-z0-9]+)*/)*[a-z0-9]+(?:[._-][a-z0-9]+)*")

Json = Mapping[str, Any]  # Any: values of many types, as boto3 returns them


@dataclass(frozen=True)
class Address:
    """Whose registry a host is, and where."""

    account: str
    region: str


@dataclass(frozen=True)
class Login:
    """What docker signs in with; ECR's are good for twelve hours."""

    username: str
    password: str = field(repr=False)


def address(host: str | None) -> Address | None:
    """Return what the host's name says, None for a registry that is not ECR."""
    found = _HOST.fullmatch(host or "")
    return Address(found["account"], found["region"]) if found else None


def check_repository(name: str) -> str:
    """Return the name. Raises ToolkitError for what ECR does not take."""
    if not (2 <= len(name) <= 256 and _REPOSITORY.fullmatch(name)):
        raise ToolkitError(
            f"{name!r} cannot be a repository of ECR. Expected 2 to 256 lower-case letters and digits, with "
            "'.', '_', '-' or '/' between them, such as team/churn. --repository gives it another name."
        )
    return name


def repository(aws: Aws, name: str, account: str | None = None) -> Json | None:
    """Return the repository's description, None if it is not there. ``account``: its owner's."""
    client = aws.client("ecr")
    owner = {"registryId": account} if account else {}
    try:
        answer = client.describe_repositories(repositoryNames=[name], **owner)
    except client.exceptions.RepositoryNotFoundException:
        return None
    found: Json = answer["repositories"][0]
    return found


def is_immutable(repository: Json, tag: str) -> bool:
    """Say whether the repository keeps this tag from being moved (botocore: ImageTagMutability)."""
    kind = repository.get("imageTagMutability", "MUTABLE")
    filters = repository.get("imageTagMutabilityExclusionFilters", ())
    excluded = kind.endswith("_WITH_EXCLUSION") and any(
        fnmatch.fnmatchcase(tag, each["filter"]) for each in filters
    )
    return kind.startswith("IMMUTABLE") is not excluded


def login(aws: Aws) -> Login:
    """Return a new token for the caller's registries."""
    token = aws.client("ecr").get_authorization_token()["authorizationData"][0]["authorizationToken"]
    username, _, password = base64.b64decode(token).decode().partition(":")
    return Login(username, password)


def own_host(aws: Aws) -> str:
    """Return the host of the caller's registry in the region."""
    data = aws.client("ecr").get_authorization_token()["authorizationData"][0]
    return str(data["proxyEndpoint"]).removeprefix("https://")


def config_digest(aws: Aws, repository: Json, tag: str) -> str | None:
    """Return the digest of a tagged image's configuration, docker's image id; None if there is none."""
    answer = aws.client("ecr").batch_get_image(
        registryId=repository["registryId"],
        repositoryName=repository["repositoryName"],
        imageIds=[{"imageTag": tag}],
    )
    for image in answer["images"]:
        config = json.loads(image["imageManifest"]).get("config") or {}
        return config.get("digest")  # an index has none
    return None


def scan_findings(aws: Aws, repository: Json, digest: str) -> dict[str, int] | None:
    """Return severity → number of what the scan of an image has found.

    None while it runs, and where the caller may not know: it is news, nothing that a push depends on.
    """
    from botocore.exceptions import ClientError

    try:
        answer = aws.client("ecr").describe_image_scan_findings(
            registryId=repository["registryId"],
            repositoryName=repository["repositoryName"],
            imageId={"imageDigest": digest},
            maxResults=1,
        )
    except ClientError:
        return None
    if answer.get("imageScanStatus", {}).get("status") not in ("COMPLETE", "ACTIVE"):
        return None
    return dict(answer.get("imageScanFindings", {}).get("findingSeverityCounts", {}))
