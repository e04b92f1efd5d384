"""What SageMaker has and the local endpoint does not: refused with a reason, never ignored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from mmekit_endpoint.errors import ValidationException

#: Member of ContainerDefinition → what to do.
CONTAINER = {
    "ModelDataSource": "give ModelDataUrl",
    "AdditionalModelDataSources": "put all that the container needs into the archive at ModelDataUrl",
    "ModelPackageName": "give Image and ModelDataUrl, which DescribeModelPackage names",
    "InferenceSpecificationName": "it belongs to model packages; give Image and ModelDataUrl",
    "ContainerMetricsConfig": "leave it out",
}

#: Member of ProductionVariant → what to do.
VARIANT = {
    "ServerlessConfig": "give InstanceType and InitialInstanceCount",
    "InstancePools": "give InstanceType and InitialInstanceCount",
    "AcceleratorType": "leave it out: Elastic Inference has ended",
    "ManagedInstanceScaling": "scale with UpdateEndpointWeightsAndCapacities",
    "CapacityReservationConfig": "leave it out",
    "AcceleratorPartitionLayouts": "leave it out",
    "CoreDumpConfig": "leave it out",
}

#: Member of CreateEndpointConfig → what to do.
ENDPOINT_CONFIG = {
    "ShadowProductionVariants": "send the requests to a second endpoint from your test",
    "ExplainerConfig": "leave it out",
    "CrossRegionTrafficConfig": "leave it out",
}


def refuse(what: str, instead: str) -> NoReturn:
    """Raise the ValidationException that says what is not supported and what to do."""
    raise ValidationException(f"{what} is not supported by the local endpoint; {instead}.")


def refuse_members(given: Mapping[str, Any], refused: Mapping[str, str]) -> None:
    """Raise a ValidationException where a request has a member that is refused; empty ones say nothing."""
    for member, instead in refused.items():
        if given.get(member):
            refuse(member, instead)
