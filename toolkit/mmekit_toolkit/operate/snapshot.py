"""All that can be read of an endpoint at one moment; what may not be read, or is not there, says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

from mmekit_toolkit.aws import explanations, s3
from mmekit_toolkit.aws.clients import Aws
from mmekit_toolkit.errors import ToolkitError
from mmekit_toolkit.operate import endpoint as endpoints
from mmekit_toolkit.operate import findings, metrics
from mmekit_toolkit.operate.metrics import Metrics

_QUARTER = timedelta(minutes=15)
_HOUR = timedelta(hours=1)

T = TypeVar("T")


@dataclass(frozen=True)
class Unavailable:
    """What stands in the place of a part that could not be read."""

    unavailable: str


@dataclass(frozen=True)
class StoredModels:
    """Archives below a variant's prefix."""

    variant: str
    prefix: str
    count: int
    size_bytes: int


@dataclass(frozen=True)
class Snapshot:
    """An endpoint; ``described`` is DescribeEndpoint's answer."""

    described: Mapping[str, Any]
    config: Mapping[str, Any] | Unavailable
    models: list[StoredModels] | Unavailable
    autoscaling: list[dict[str, Any]] | Unavailable
    alarms: list[dict[str, Any]] | Unavailable
    quarter: Mapping[str, Metrics] | Unavailable
    hour: Mapping[str, Metrics] | Unavailable
    findings: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Return it for programs; what is unavailable says why."""
        return {
            "endpoint": _answer(self.described),
            "config": self.config if isinstance(self.config, Unavailable) else _answer(self.config),
            "models": self.models,
            "autoscaling": self.autoscaling,
            "alarms": self.alarms,
            "metrics": {"last_15_minutes": self.quarter, "last_hour": self.hour},
            "findings": self.findings,
        }


def take(aws: Aws, name: str) -> Snapshot:
    """Read all there is of an endpoint. Raises NotFound without it; nothing else that is missing raises."""
    described = endpoints.describe(aws, name)
    config = _tried(lambda: endpoints.config_of(aws, described))
    variants = _variants(described, config)
    alarms = _tried(lambda: list(_alarms(aws, name)))
    quarter = _tried(lambda: metrics.read(aws, name, variants, _QUARTER))
    hour = _tried(lambda: metrics.read(aws, name, variants, _HOUR))
    found = list(findings.of_endpoint(described))
    if not isinstance(alarms, Unavailable):
        found += findings.of_alarms(alarms)
    if not isinstance(quarter, Unavailable) and not isinstance(hour, Unavailable):
        for variant in variants:
            found += findings.of_variant(variant, quarter[variant], hour[variant])
    return Snapshot(
        described=described,
        config=config,
        models=_tried(lambda: list(_models(aws, name))),
        autoscaling=_tried(lambda: list(_autoscaling(aws, name, variants))),
        alarms=alarms,
        quarter=quarter,
        hour=hour,
        findings=found,
    )


def _tried(read: Callable[[], T]) -> T | Unavailable:
    """Return what was read, or why it could not be: other parts are shown all the same."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        return read()
    except ToolkitError as error:
        return Unavailable(error.message)
    except (BotoCoreError, ClientError) as error:
        explained = explanations.explain(error)
        return Unavailable(explained.message if explained else str(error))


def _answer(found: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name != "ResponseMetadata"}


def _variants(described: Mapping[str, Any], config: Mapping[str, Any] | Unavailable) -> list[str]:
    """Return the names; an endpoint that is being created has them in its configuration only."""
    found = described.get("ProductionVariants")
    if found is None and not isinstance(config, Unavailable):
        found = config["ProductionVariants"]
    return [variant["VariantName"] for variant in found or ()]


def _models(aws: Aws, endpoint: str) -> Iterator[StoredModels]:
    for models in endpoints.of_service(aws, endpoint):
        sizes = [found.size_bytes for found in s3.list_objects(aws, models.prefix)]
        yield StoredModels(models.variant, str(models.prefix), len(sizes), sum(sizes))


def _autoscaling(aws: Aws, endpoint: str, variants: Sequence[str]) -> Iterator[dict[str, Any]]:
    if not variants:
        return  # a question that names none is answered with those of all endpoints
    client = aws.client("application-autoscaling")
    resources = {f"endpoint/{endpoint}/variant/{variant}": variant for variant in variants}
    targets = client.describe_scalable_targets(ServiceNamespace="sagemaker", ResourceIds=list(resources))
    for target in targets["ScalableTargets"]:
        policies = client.describe_scaling_policies(
            ServiceNamespace="sagemaker", ResourceId=target["ResourceId"]
        )
        yield {
            "variant": resources[target["ResourceId"]],
            "min": target["MinCapacity"],
            "max": target["MaxCapacity"],
            "policies": [_policy(policy) for policy in policies["ScalingPolicies"]],
        }


def _policy(policy: Mapping[str, Any]) -> dict[str, Any]:
    tracking = policy.get("TargetTrackingScalingPolicyConfiguration", {})
    return {
        "name": policy["PolicyName"],
        "type": policy["PolicyType"],
        "metric": tracking.get("PredefinedMetricSpecification", {}).get("PredefinedMetricType")
        or tracking.get("CustomizedMetricSpecification", {}).get("MetricName"),
        "target": tracking.get("TargetValue"),
    }


def _alarms(aws: Aws, endpoint: str) -> Iterator[dict[str, Any]]:
    """Yield the alarms on the endpoint's metrics, whoever made them; there is no search by dimension."""
    for page in aws.client("cloudwatch").get_paginator("describe_alarms").paginate():
        for alarm in page["MetricAlarms"]:
            if endpoint in _endpoints_of(alarm):
                yield {
                    "name": alarm["AlarmName"],
                    "state": alarm["StateValue"],
                    "reason": alarm.get("StateReason", ""),
                    # Target tracking's own: that one of them rings is how it works.
                    "scales": alarm["AlarmName"].startswith("TargetTracking-"),
                }


def _endpoints_of(alarm: Mapping[str, Any]) -> set[str]:
    stats = [query["MetricStat"]["Metric"] for query in alarm.get("Metrics", ()) if "MetricStat" in query]
    return {
        dimension["Value"]
        for metric in (alarm, *stats)
        for dimension in metric.get("Dimensions", ())
        if dimension["Name"] == "EndpointName"
    }
