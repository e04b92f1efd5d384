"""What is wrong with an endpoint, in sentences; decided from what was read, nothing is asked here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mmekit_toolkit.operate.metrics import Metrics

#: Fewer calls say nothing about a ratio.
_FEWEST_CALLS = 20
#: The last quarter of an hour against the hour that it is part of: a hit ratio that fell by so much …
_HIT_RATIO_FALL = 0.05
#: … while models are unloaded so much more often. AWS: "Instance recommendations for multi-model endpoints".
_UNLOADS_RISE = 1.25
#: Steady thrash: so few hits, and so many unloads a call.
_LOW_HIT_RATIO = 0.6
_UNLOADS_PER_CALL = 0.1
#: Percent of memory or disk from which on models leave for others.
_FULL_PERCENT = 90.0
#: Share of calls with errors that is worth a sentence.
_ERROR_SHARE = 0.01


def of_endpoint(described: Mapping[str, Any]) -> Iterator[str]:
    """Yield what DescribeEndpoint tells of: failures, rolled back updates, missing instances."""
    status, reason = described["EndpointStatus"], described.get("FailureReason")
    if reason and status == "InService":
        yield f"The last update was rolled back; what ran before goes on: {reason}"
    elif reason:
        yield f"{status}: {reason}"
    for variant in described.get("ProductionVariants", ()):
        current, desired = variant.get("CurrentInstanceCount"), variant.get("DesiredInstanceCount")
        if status == "InService" and None not in (current, desired) and current < desired:
            yield f"Variant {variant['VariantName']} has {current} of {desired} instances."


def of_alarms(alarms: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the alarms that ring."""
    for alarm in alarms:
        if alarm["state"] == "ALARM" and not alarm["scales"]:
            yield f"The alarm {alarm['name']} is in ALARM: {alarm['reason']}"


def of_variant(name: str, quarter: Metrics, hour: Metrics) -> Iterator[str]:
    """Yield what the metrics of the last 15 minutes and the last hour show of a variant."""
    for what, metrics in (("5XX", quarter.errors_5xx), ("4XX", quarter.errors_4xx)):
        if metrics and quarter.invocations and metrics / quarter.invocations >= _ERROR_SHARE:
            yield (
                f"Variant {name}: {metrics:.0f} of {quarter.invocations:.0f} calls were answered {what} in "
                "the last 15 minutes; `mmekit logs` shows why."
            )
    if _thrashes(quarter, hour):
        yield (
            f"Variant {name} thrashes: {quarter.cache_hit_ratio or 0:.0%} of calls found their model in "
            f"memory ({hour.cache_hit_ratio or 0:.0%} in the hour), {quarter.unloads:.0f} were unloaded in "
            "15 minutes. More models are in use than memory holds: take a larger instance type, more "
            "instances, or autoscaling by memory_percent."
        )
    if (quarter.memory_percent or 0) >= _FULL_PERCENT:
        yield (
            f"Variant {name}: memory is {quarter.memory_percent:.0f} % full. Models leave it when others "
            "come; a larger instance type or more instances keep them."
        )
    if (quarter.disk_percent or 0) >= _FULL_PERCENT:
        yield (
            f"Variant {name}: the disk is {quarter.disk_percent:.0f} % full. Archives are deleted from it "
            "and downloaded again; a larger volume_gb keeps them."
        )


def _thrashes(quarter: Metrics, hour: Metrics) -> bool:
    now, usual = quarter.cache_hit_ratio, hour.cache_hit_ratio
    if now is None or usual is None or not quarter.unloads or (quarter.cache_lookups or 0) < _FEWEST_CALLS:
        return False
    falls = now <= usual - _HIT_RATIO_FALL and quarter.unloads >= (hour.unloads or 0) / 4 * _UNLOADS_RISE
    unloads_per_call = quarter.unloads / (quarter.cache_lookups or 1)
    return falls or (now < _LOW_HIT_RATIO and unloads_per_call >= _UNLOADS_PER_CALL)
