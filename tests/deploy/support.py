"""Descriptions and AWS's answers about them, as values; nothing here speaks to anything."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmekit_toolkit.deploy import definitions, file
from mmekit_toolkit.deploy.description import Description
from mmekit_toolkit.deploy.draft import Draft
from mmekit_toolkit.deploy.observed import Endpoint, Observed, Resource
from mmekit_toolkit.deploy.surroundings import Surroundings

IMAGE = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/churn:1.0"
DIGEST = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/churn@sha256:" + "ab" * 32
ROLE = "arn:aws:iam::123456789012:role/churn"

MINIMAL = f"""\
name: churn
image: {IMAGE}
role: {ROLE}
models: s3://models/churn/
variants:
  - instance_type: ml.m5.xlarge
"""
SCALED = MINIMAL + "    autoscaling: {min: 1, max: 4, invocations_per_instance: 600}\n"
ARN = "arn:aws:sagemaker:eu-west-1:123456789012:endpoint/churn"
AROUND = Surroundings(region="eu-west-1", role_arn=ROLE, images={IMAGE: DIGEST})


def describe(tmp_path: Path, text: str) -> Description:
    """Return what a file with this text describes."""
    path = tmp_path / "endpoint.yaml"
    path.write_text(text)
    return file.read(path)


def running(
    description: Description,
    *,
    status: str = "InService",
    counts: Mapping[str, int] | None = None,
    weights: Mapping[str, float] | None = None,
    around: Surroundings = AROUND,
    **more: Any,
) -> Observed:
    """Return what AWS shows of an endpoint that was deployed so, without what stands around it."""
    wanted = definitions.define(description, around)
    variants = [
        {
            "VariantName": variant.name,
            "DesiredInstanceCount": (counts or {}).get(variant.name, variant.instances),
            "DesiredWeight": (weights or {}).get(variant.name, variant.weight),
        }
        for variant in description.variants
    ]
    described = {
        "EndpointName": description.name,
        "EndpointArn": ARN,
        "EndpointStatus": status,
        "EndpointConfigName": wanted.config_name,
        "ProductionVariants": variants,
    }
    return Observed(
        endpoint=Endpoint(described), **{"models": models(wanted), "configs": configs(wanted), **more}
    )


def arn(name: str) -> str:
    """Return an ARN that AWS would take; which kind of resource it names makes no difference here."""
    return f"arn:aws:sagemaker:eu-west-1:123456789012:model/{name}"


def models(wanted: definitions.Definitions) -> dict[str, Resource]:
    return {name: Resource(name, arn(name), model) for name, model in wanted.models.items()}


def configs(wanted: definitions.Definitions) -> dict[str, Resource]:
    name = wanted.config_name
    return {name: Resource(name, arn(name), wanted.config)}


def operations(plan: Draft) -> list[str]:
    """Return the operations of a plan, in order."""
    return [request.operation for request in plan.requests]


def parameters(plan: Draft, operation: str) -> Any:
    """Return the parameters of the one request of that operation."""
    (found,) = [request for request in plan.requests if request.operation == operation]
    return found.parameters
