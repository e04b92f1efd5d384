"""The models and the endpoint configuration that a description becomes, as parameters of their requests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mmekit_toolkit.deploy import ownership
from mmekit_toolkit.deploy.description import Description, VariantDescription
from mmekit_toolkit.deploy.naming import named
from mmekit_toolkit.deploy.requests import Request
from mmekit_toolkit.deploy.surroundings import Surroundings

Parameters = Mapping[str, Any]

#: Members of a variant that this module gives; what else DescribeEndpointConfig shows are AWS's defaults.
_OF_A_FLEET = (
    "VariantName",
    "ModelName",
    "InstanceType",
    "VolumeSizeInGB",
    "ModelDataDownloadTimeoutInSeconds",
    "ContainerStartupHealthCheckTimeoutInSeconds",
)


@dataclass(frozen=True)
class Definitions:
    """What must be there before an endpoint can be."""

    #: Name → parameters of CreateModel. Variants with equal containers share one.
    models: Mapping[str, Parameters]
    #: Variant → name of its model.
    model_of: Mapping[str, str]
    #: Parameters of CreateEndpointConfig.
    config: Parameters

    @property
    def config_name(self) -> str:
        """The configuration's name."""
        return str(self.config["EndpointConfigName"])


def define(
    description: Description, surroundings: Surroundings, counts: Mapping[str, int] | None = None
) -> Definitions:
    """Return the definitions; ``counts`` (variant → instances) stand for those of the file."""
    tags = ownership.tags(description.name, description.tags)
    models: dict[str, Parameters] = {}
    model_of = {}
    for variant in description.variants:
        content = _model(description, variant, surroundings)
        name = named(description.name, content)
        model_of[variant.name] = name
        models[name] = {"ModelName": name, **content, "Tags": tags}
    counts = counts or {}
    content = {
        "ProductionVariants": [
            _variant(variant, model_of[variant.name], counts.get(variant.name, variant.instances))
            for variant in description.variants
        ],
        **({"KmsKeyId": description.kms_key} if description.kms_key else {}),
    }
    config = {"EndpointConfigName": named(description.name, content), **content, "Tags": tags}
    return Definitions(models, model_of, config)


def same_fleets(one: Parameters, other: Parameters) -> bool:
    """Say whether two configurations (as created, or as described) differ in counts and weights at most."""
    return bool(_fleets(one) == _fleets(other))


def create_model(parameters: Parameters) -> Request:
    """Return the request that creates a model."""
    return Request("sagemaker", "CreateModel", parameters, f"create the model {parameters['ModelName']}")


def create_config(parameters: Parameters) -> Request:
    """Return the request that creates an endpoint configuration."""
    name = parameters["EndpointConfigName"]
    return Request(
        "sagemaker", "CreateEndpointConfig", parameters, f"create the endpoint configuration {name}"
    )


def _fleets(config: Parameters) -> Any:
    variants = [
        {member: variant.get(member) for member in _OF_A_FLEET} for variant in config["ProductionVariants"]
    ]
    return sorted(variants, key=lambda variant: str(variant["VariantName"])), config.get("KmsKeyId")


def _model(
    description: Description, variant: VariantDescription, surroundings: Surroundings
) -> dict[str, Any]:
    container = {
        "Image": surroundings.images[variant.image or description.image],
        "Mode": "MultiModel",
        "ModelDataUrl": variant.models or description.models,
        "Environment": {**description.environment, **(variant.environment or {})},
        "MultiModelConfig": {"ModelCacheSetting": "Enabled" if description.cache else "Disabled"},
    }
    model: dict[str, Any] = {
        "PrimaryContainer": container,
        "ExecutionRoleArn": surroundings.role_arn,
        "EnableNetworkIsolation": description.network_isolation,
    }
    if vpc := description.vpc:
        model["VpcConfig"] = {"Subnets": vpc.subnets, "SecurityGroupIds": vpc.security_groups}
    return model


def _variant(variant: VariantDescription, model: str, count: int) -> dict[str, Any]:
    members = {
        "VariantName": variant.name,
        "ModelName": model,
        "InstanceType": variant.instance_type,
        "InitialInstanceCount": count,
        "InitialVariantWeight": variant.weight,
        "VolumeSizeInGB": variant.volume_gb,
        "ModelDataDownloadTimeoutInSeconds": variant.download_timeout_s,
        "ContainerStartupHealthCheckTimeoutInSeconds": variant.startup_timeout_s,
    }
    return {member: value for member, value in members.items() if value is not None}
