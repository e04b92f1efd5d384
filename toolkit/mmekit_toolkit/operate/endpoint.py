"""What SageMaker runs under an endpoint's name, and where its variants' models lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmekit_toolkit.aws import s3
from mmekit_toolkit.aws.clients import Aws
from mmekit_toolkit.aws.s3 import Location
from mmekit_toolkit.deploy.description import Description
from mmekit_toolkit.deploy.reference import Reference
from mmekit_toolkit.errors import NotFound, ToolkitError

#: What to do where there is no such thing.
_ADVICE = {"endpoint": "Check the name, --region and --profile."}
_DELETED = "It was deleted while the endpoint runs it: name the endpoint by its YAML file."

Container = Mapping[str, Any]


@dataclass(frozen=True)
class Models:
    """Where a variant's models lie."""

    variant: str
    prefix: Location
    #: Of its instances; None where the instance type decides.
    volume_gb: int | None


def describe(aws: Aws, endpoint: str) -> Mapping[str, Any]:
    """Return what DescribeEndpoint says. Raises NotFound."""
    return _describe(aws, "endpoint", "describe_endpoint", EndpointName=endpoint)


def config_of(aws: Aws, described: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the configuration that an endpoint runs. Raises NotFound, also when it was deleted."""
    name = described.get("EndpointConfigName")
    if not name:  # DescribeEndpoint need not have it
        raise NotFound(f"the endpoint {described['EndpointName']} has no configuration.")
    return _describe(aws, "endpoint configuration", "describe_endpoint_config", EndpointConfigName=name)


def model_of(aws: Aws, endpoint: str, variant: Mapping[str, Any]) -> tuple[Mapping[str, Any], Container]:
    """Return a variant's model, and the container of it that has many models.

    Raises NotFound, and ToolkitError for a variant that has none.
    """
    name = variant.get("ModelName")  # variants of inference components have none
    model = _describe(aws, "model", "describe_model", ModelName=name) if name else {}
    containers = [model.get("PrimaryContainer", {}), *model.get("Containers", ())]
    for container in containers:
        if container.get("Mode") == "MultiModel":
            return model, container
    raise ToolkitError(
        f"the endpoint {endpoint} serves one model only (variant {variant['VariantName']}): there are none "
        "to add, list or name. A multi-model endpoint has models with Mode MultiModel."
    )


def models_of(aws: Aws, reference: Reference, variant: str | None = None) -> Models:
    """Return where the models of an endpoint lie: as its file says, else as SageMaker runs it.

    Raises
    ------
    NotFound
        When the endpoint or the variant is not there.
    ToolkitError
        When variants have different prefixes and none was named, or the endpoint has one model only.
    """
    if reference.description:
        found = of_description(reference.description)
    else:
        found = of_service(aws, reference.name)
    return choose(found, variant)


def of_description(description: Description) -> list[Models]:
    """Return where each variant's models lie, as the file says."""
    return [
        Models(variant.name, s3.parse_prefix(variant.models or description.models), variant.volume_gb)
        for variant in description.variants
    ]


def choose(found: Sequence[Models], variant: str | None) -> Models:
    """Return the variant's models; without a variant, those of all if they share a prefix."""
    if variant is not None:
        for models in found:
            if models.variant == variant:
                return models
        names = ", ".join(models.variant for models in found)
        raise NotFound(f"there is no variant {variant}. The endpoint has {names}.")
    if len({models.prefix for models in found}) > 1:
        listed = "".join(f"\n  --variant {models.variant}   {models.prefix}" for models in found)
        raise ToolkitError(f"the variants have models of their own: name one of them.{listed}")
    # An archive must fit into the smallest volume.
    return min(found, key=lambda models: models.volume_gb or float("inf"))


def of_service(aws: Aws, endpoint: str) -> list[Models]:
    """Return where each variant's models lie, as SageMaker runs them. Raises as `models_of`."""
    found = []
    for variant in config_of(aws, describe(aws, endpoint))["ProductionVariants"]:
        _, container = model_of(aws, endpoint, variant)
        prefix = s3.parse_prefix(container["ModelDataUrl"])
        found.append(Models(variant["VariantName"], prefix, variant.get("VolumeSizeInGB")))
    return found


def _describe(aws: Aws, kind: str, operation: str, **named: str) -> Mapping[str, Any]:
    from botocore.exceptions import ClientError

    sagemaker = aws.client("sagemaker")
    try:
        answer: Mapping[str, Any] = getattr(sagemaker, operation)(**named)
    except ClientError as error:
        # SageMaker says so with a ValidationException, whatever it describes.
        if "Could not find" not in error.response["Error"].get("Message", ""):
            raise
        (name,) = named.values()
        raise NotFound(
            f"there is no {kind} {name} in {sagemaker.meta.region_name} ({sagemaker.meta.endpoint_url}). "
            f"{_ADVICE.get(kind, _DELETED)}"
        ) from error
    return answer
