"""Application Auto Scaling of a variant: its scalable target and its one policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmekit_toolkit.deploy.description import Autoscaling
from mmekit_toolkit.deploy.requests import Request

SERVICE = "application-autoscaling"
#: The one policy of ours; its metric may change under the name.
POLICY = "mmekit-target-tracking"
DIMENSION = "sagemaker:variant:DesiredInstanceCount"


def resource_id(endpoint: str, variant: str) -> str:
    """Return what Application Auto Scaling calls a variant."""
    return f"endpoint/{endpoint}/variant/{variant}"


def variant_of(endpoint: str, resource: str) -> str | None:
    """Return the variant that a resource id of this endpoint names, None for any other."""
    prefix = resource_id(endpoint, "")
    return resource.removeprefix(prefix) if resource.startswith(prefix) else None


def register(endpoint: str, variant: str, wanted: Autoscaling) -> Request:
    """Return the request that registers a variant, or changes its limits."""
    limits = {"MinCapacity": wanted.min, "MaxCapacity": wanted.max}
    why = f"let {variant} have {wanted.min} to {wanted.max} instances"
    return Request(SERVICE, "RegisterScalableTarget", {**_target(endpoint, variant), **limits}, why)


def put_policy(endpoint: str, variant: str, wanted: Autoscaling) -> Request:
    """Return the request that creates the policy, or changes it."""
    parameters = {
        "PolicyName": POLICY,
        **_target(endpoint, variant),
        "PolicyType": "TargetTrackingScaling",
        "TargetTrackingScalingPolicyConfiguration": _tracking(endpoint, variant, wanted),
    }
    return Request(SERVICE, "PutScalingPolicy", parameters, f"set the scaling policy of {variant}")


def deregister(endpoint: str, variant: str) -> Request:
    """Return the request that ends the scaling of a variant; its policies go with it."""
    why = f"end the autoscaling of {variant}"
    return Request(SERVICE, "DeregisterScalableTarget", _target(endpoint, variant), why)


def _target(endpoint: str, variant: str) -> dict[str, str]:
    return {
        "ServiceNamespace": "sagemaker",
        "ResourceId": resource_id(endpoint, variant),
        "ScalableDimension": DIMENSION,
    }


def _tracking(endpoint: str, variant: str, wanted: Autoscaling) -> Mapping[str, Any]:
    value, metric = _metric(endpoint, variant, wanted)
    return {
        "TargetValue": float(value),
        **metric,
        "ScaleOutCooldown": wanted.scale_out_cooldown_s,
        "ScaleInCooldown": wanted.scale_in_cooldown_s,
        "DisableScaleIn": not wanted.scale_in,
    }


def _metric(endpoint: str, variant: str, wanted: Autoscaling) -> tuple[float, Mapping[str, Any]]:
    if wanted.invocations_per_instance is not None:
        return wanted.invocations_per_instance, _predefined("SageMakerVariantInvocationsPerInstance")
    if wanted.concurrent_requests_per_model is not None:
        return (
            wanted.concurrent_requests_per_model,
            _predefined("SageMakerVariantConcurrentRequestsPerModelHighResolution"),
        )
    if wanted.memory_percent is None:
        raise ValueError("a description without a target has passed the rules")
    return wanted.memory_percent, {
        "CustomizedMetricSpecification": {
            "Namespace": "/aws/sagemaker/Endpoints",
            "MetricName": "MemoryUtilization",
            "Dimensions": [
                {"Name": "EndpointName", "Value": endpoint},
                {"Name": "VariantName", "Value": variant},
            ],
            "Statistic": "Average",
            "Unit": "Percent",
        }
    }


def _predefined(metric: str) -> Mapping[str, Any]:
    return {"PredefinedMetricSpecification": {"PredefinedMetricType": metric}}
