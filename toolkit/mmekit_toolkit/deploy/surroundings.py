"""What a description names and AWS must have: the role, the images, the buckets. Nothing is created here."""

from __future__ import annotations

import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

from botocore.exceptions import ClientError

from mmekit_toolkit.aws import ecr
from mmekit_toolkit.aws.clients import Aws, is_amazon
from mmekit_toolkit.aws.explanations import DENIED, code
from mmekit_toolkit.deploy.description import Description
from mmekit_toolkit.errors import BadDescription, NotFound
from mmekit_toolkit.images import name as image_name

#: A route that only a local endpoint has.
_LOCAL_ROUTE = "/_mmekit/ping"
_LOCAL_TIMEOUT_S = 10


@dataclass(frozen=True)
class Surroundings:
    """What was found out before a plan is made."""

    region: str
    role_arn: str
    #: Image as the file has it → as requests have it, by its digest where that is known.
    images: Mapping[str, str]
    #: The endpoint is `mmekit local`, which has no autoscaling and one way to update.
    local: bool = False
    #: What a person should know; it does not stop anything.
    remarks: tuple[str, ...] = ()


def look(description: Description, aws: Aws) -> Surroundings:
    """Look up what a description names.

    Raises
    ------
    BadDescription
        When an image, a bucket or the role is in another region or account than the endpoint.
    NotFound
        When the role, an image or a bucket is not there.
    """
    return _Look(description, aws).surroundings()


def is_local(aws: Aws) -> bool:
    """Say whether SageMaker's address is that of a local endpoint."""
    url = str(aws.client("sagemaker").meta.endpoint_url)
    if is_amazon(url):
        return False
    try:
        with urllib.request.urlopen(url.rstrip("/") + _LOCAL_ROUTE, timeout=_LOCAL_TIMEOUT_S) as answer:
            return bool(answer.status == 200)
    except (OSError, HTTPException):
        return False  # where nothing answers, or something else than HTTP, the first call will tell


class _Look:
    """One look, with the remarks that it leaves."""

    def __init__(self, description: Description, aws: Aws) -> None:
        self._description = description
        self._aws = aws
        self._region = aws.region_name
        self._local = is_local(aws)
        self._remarks: list[str] = []

    def surroundings(self) -> Surroundings:
        variants = self._description.variants
        images = dict.fromkeys(variant.image or self._description.image for variant in variants)
        prefixes = dict.fromkeys(variant.models or self._description.models for variant in variants)
        by_digest = {image: self._resolve(image) for image in images}
        for bucket in dict.fromkeys(str(urlsplit(prefix).hostname) for prefix in prefixes):
            self._check_bucket(bucket)
        role = self._role(self._description.role)
        return Surroundings(self._region, role, by_digest, self._local, tuple(self._remarks))

    # --- images ----------------------------------------------------------------------------------

    def _resolve(self, image: str) -> str:
        """Return an image of ECR by its digest, any other as it is."""
        name = image_name.parse(image)
        owner = ecr.address(name.registry)
        if owner is None:
            return image
        if owner.region != self._region:
            raise BadDescription(
                f"the image {image} is in {owner.region}, the endpoint would be in {self._region}. "
                "SageMaker pulls from the endpoint's own region: push it there (`mmekit push`), or give the "
                f"endpoint region {owner.region}."
            )
        wanted = {"imageDigest": name.digest} if name.digest else {"imageTag": name.tag or "latest"}
        try:
            answer = self._aws.client("ecr").describe_images(
                registryId=owner.account, repositoryName=name.repository, imageIds=[wanted]
            )
        except ClientError as error:
            self._without_digest(image, error)
            return image
        digest = answer["imageDetails"][0]["imageDigest"]
        return f"{name.address}@{digest}"

    def _without_digest(self, image: str, error: ClientError) -> None:
        """Go on without the digest where that can be right; raise where the image is not there."""
        if code(error) in DENIED:
            self._remarks.append(
                f"{image} is taken as it is: looking it up is not allowed (ecr:DescribeImages). A tag that "
                "moves is not noticed then."
            )
        elif code(error) not in ("ImageNotFoundException", "RepositoryNotFoundException"):
            raise error
        elif self._local:
            self._remarks.append(f"{image} is taken as it is: the local endpoint's ECR does not have it.")
        else:
            raise NotFound(
                f"ECR has no image {image}. `mmekit push` brings it there; the tag or digest must be right."
            ) from error

    # --- buckets ---------------------------------------------------------------------------------

    def _check_bucket(self, bucket: str) -> None:
        region = self._bucket_region(bucket)
        if region is not None and region != self._region:
            raise BadDescription(
                f"the bucket {bucket} is in {region}, the endpoint would be in {self._region}. SageMaker "
                f"fetches archives from the endpoint's own region: use a bucket there, or region {region}."
            )

    def _bucket_region(self, bucket: str) -> str | None:
        """Return the region that S3 says, None where it does not."""
        try:
            answer = self._aws.client("s3").head_bucket(Bucket=bucket)
        except ClientError as error:
            if code(error) in ("404", "NoSuchBucket"):
                raise NotFound(
                    f"there is no bucket {bucket}. Create it: aws s3 mb s3://{bucket} --region {self._region}"
                ) from error
            if region := _region_header(error.response):
                return region
            self._remarks.append(f"the bucket {bucket} could not be looked at ({code(error)}).")
            return None
        return answer.get("BucketRegion") or _region_header(answer)

    # --- the role --------------------------------------------------------------------------------

    def _role(self, role: str) -> str:
        """Return the role's ARN."""
        if role.startswith("arn:"):
            account = role.split(":")[4]
            if not self._local and account != self._aws.account:
                raise BadDescription(
                    f"the role {role} belongs to account {account}, the credentials to {self._aws.account}. "
                    "SageMaker takes roles of the caller's account."
                )
            return role
        try:
            return str(self._aws.client("iam").get_role(RoleName=role)["Role"]["Arn"])
        except ClientError as error:
            if code(error) in DENIED:
                raise BadDescription(
                    f"the role {role} cannot be looked up: iam:GetRole is not allowed. Give its ARN instead."
                ) from error
            if code(error) != "NoSuchEntity":
                raise
            if self._local:
                return f"arn:aws:iam::{self._aws.account}:role/{role}"
            raise NotFound(
                f"there is no role {role} in account {self._aws.account}. `mmekit iam --help` tells which "
                "policies an execution role needs."
            ) from error


def _region_header(answer: Mapping[str, Any]) -> str | None:
    region: str | None = answer["ResponseMetadata"]["HTTPHeaders"].get("x-amz-bucket-region")
    return region
