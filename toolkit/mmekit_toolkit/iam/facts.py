"""What policies of an endpoint are made of: read from its file, or from AWS where it has none."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from mmekit_toolkit.aws import ecr, s3
from mmekit_toolkit.aws.clients import Aws
from mmekit_toolkit.aws.s3 import Location
from mmekit_toolkit.deploy.description import Description, PrivateLink
from mmekit_toolkit.deploy.reference import Reference
from mmekit_toolkit.images import name as image_name
from mmekit_toolkit.operate import endpoint as endpoints

_ROLE = re.compile(r"arn:(?P<partition>[\w-]+):iam::(?P<account>\d{12}):role/.+")


@dataclass(frozen=True)
class Place:
    """Where ARNs are."""

    partition: str
    region: str
    account: str

    def arn(self, service: str, resource: str) -> str:
        """Return the ARN of a resource of the account in the region."""
        return f"arn:{self.partition}:{service}:{self.region}:{self.account}:{resource}"

    def of_bucket(self, location: Location, key: str | None = None) -> str:
        """Return the ARN of a bucket, or of objects in it."""
        return f"arn:{self.partition}:s3:::{location.bucket}" + (f"/{key}" if key is not None else "")


@dataclass(frozen=True)
class Facts:
    """An endpoint, as far as policies are about it."""

    name: str
    place: Place
    #: The execution role's ARN.
    role: str
    #: ARNs of the ECR repositories of its images.
    repositories: tuple[str, ...]
    #: Where its archives lie.
    prefixes: tuple[Location, ...]
    subnets: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()
    kms_key: str | None = None
    autoscaling: bool = False
    private_link: PrivateLink | None = None

    def endpoint_arns(self) -> list[str]:
        """Return the endpoint's ARN, as SageMaker writes it.

        SageMaker writes ARNs in lower case, and IAM compares case: a name with capitals gets both.
        """
        return self.sagemaker_arns("endpoint", self.name)

    def sagemaker_arns(self, kind: str, name: str) -> list[str]:
        """Return the ARNs of a SageMaker resource of this name, which may end with a star."""
        return [self.place.arn("sagemaker", f"{kind}/{each}") for each in sorted({name, name.lower()})]


def find(aws: Aws, reference: Reference) -> Facts:
    """Return the facts of an endpoint. AWS is asked only for what the file leaves out.

    Raises
    ------
    NotFound
        When an endpoint without a file is not there.
    ToolkitError
        When it is no multi-model endpoint.
    """
    if reference.description:
        return of_description(reference.description, aws)
    return _of_service(aws, reference.name)


def of_description(description: Description, aws: Aws) -> Facts:
    """Return the facts of an endpoint's file."""
    place = _place(aws, description.role)
    vpc = description.vpc
    return Facts(
        name=description.name,
        place=place,
        role=_role_arn(aws, description.role, place),
        repositories=_repositories(
            place, [description.image, *(variant.image for variant in description.variants if variant.image)]
        ),
        prefixes=tuple(dict.fromkeys(models.prefix for models in endpoints.of_description(description))),
        subnets=tuple(vpc.subnets) if vpc else (),
        security_groups=tuple(vpc.security_groups) if vpc else (),
        kms_key=description.kms_key,
        autoscaling=any(variant.autoscaling for variant in description.variants),
        private_link=description.private_link,
    )


def _of_service(aws: Aws, name: str) -> Facts:
    config = endpoints.config_of(aws, endpoints.describe(aws, name))
    found = [endpoints.model_of(aws, name, variant) for variant in config["ProductionVariants"]]
    models = [model for model, _ in found]
    place = _place(aws, models[0]["ExecutionRoleArn"])
    vpcs = [model["VpcConfig"] for model in models if model.get("VpcConfig")]
    return Facts(
        name=name,
        place=place,
        role=models[0]["ExecutionRoleArn"],
        repositories=_repositories(place, [container["Image"] for _, container in found]),
        prefixes=tuple(dict.fromkeys(s3.parse_prefix(container["ModelDataUrl"]) for _, container in found)),
        subnets=tuple(dict.fromkeys(subnet for vpc in vpcs for subnet in vpc["Subnets"])),
        security_groups=tuple(dict.fromkeys(group for vpc in vpcs for group in vpc["SecurityGroupIds"])),
        kms_key=config.get("KmsKeyId"),
        # What scales it is not the endpoint's own: without its file, the policy is to have room for it.
        autoscaling=True,
    )


def _place(aws: Aws, role: str) -> Place:
    """Return the role's account, or else the caller's: an ARN needs no call."""
    region = aws.region_name
    found = _ROLE.fullmatch(role)
    if found:
        return Place(found["partition"], region, found["account"])
    return Place(aws.partition, region, aws.account)


def _role_arn(aws: Aws, role: str, place: Place) -> str:
    """Return a role's ARN; that of one which is only named has a path, if any, that IAM alone knows."""
    if role.startswith("arn:"):
        return role
    from botocore.exceptions import ClientError

    try:
        return str(aws.client("iam").get_role(RoleName=role)["Role"]["Arn"])
    except ClientError:  # it is not there yet, or may not be looked at
        return f"arn:{place.partition}:iam::{place.account}:role/{role}"


def _repositories(place: Place, images: Iterable[str]) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for image in images:
        name = image_name.parse(image)
        # SageMaker pulls from ECR alone; what stands in its place, such as a local registry, counts as one.
        owner = ecr.address(name.registry) or ecr.Address(place.account, place.region)
        arn = f"arn:{place.partition}:ecr:{owner.region}:{owner.account}:repository/{name.repository}"
        found[arn] = None
    return tuple(found)
