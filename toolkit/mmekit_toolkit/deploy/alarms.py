"""CloudWatch alarms of a variant, as parameters of PutMetricAlarm.

Namespaces, units and statistics are those of "Metrics for monitoring SageMaker AI with CloudWatch": errors
and cache hits are 0 or 1 a call, so that their average is a share; latencies are in microseconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mmekit_toolkit.deploy import ownership
from mmekit_toolkit.deploy.description import Description, VariantDescription
from mmekit_toolkit.deploy.requests import Request

_CALLS = "AWS/SageMaker"
_INSTANCES = "/aws/sagemaker/Endpoints"
#: Seconds of one value; "minutes" counts them.
_PERIOD_S = 60
#: An update begins with empty caches: this alarm would roll back each.
_NOT_FOR_ROLLBACK = "cache-hit"


def alarms(description: Description) -> dict[str, Mapping[str, Any]]:
    """Return the alarms of an endpoint: name → parameters of PutMetricAlarm."""
    found = (alarm for variant in description.variants for alarm in _of_variant(description, variant))
    return {alarm["AlarmName"]: alarm for alarm in found}


def rollback_alarms(description: Description) -> list[str]:
    """Return the names of the alarms that roll an update back."""
    return [name for name in alarms(description) if not name.endswith(_NOT_FOR_ROLLBACK)]


def put(parameters: Mapping[str, Any]) -> Request:
    """Return the request that creates or changes an alarm."""
    return Request("cloudwatch", "PutMetricAlarm", parameters, f"set the alarm {parameters['AlarmName']}")


def delete(names: list[str]) -> Request:
    """Return the request that deletes alarms."""
    return Request(
        "cloudwatch", "DeleteAlarms", {"AlarmNames": names}, f"delete the alarms {', '.join(names)}"
    )


def _of_variant(description: Description, variant: VariantDescription) -> Iterator[dict[str, Any]]:
    wanted = variant.alarms
    if wanted is None:
        return
    dimensions = [
        {"Name": "EndpointName", "Value": description.name},
        {"Name": "VariantName", "Value": variant.name},
    ]
    for name, threshold, how in (
        ("model-latency-p99", wanted.model_latency_p99_ms, _latency),
        ("5xx-errors", wanted.errors_5xx_percent, _share("Invocation5XXErrors")),
        ("4xx-errors", wanted.errors_4xx_percent, _share("Invocation4XXErrors")),
        (_NOT_FOR_ROLLBACK, wanted.cache_hit_percent, _cache_hit),
        ("memory", wanted.memory_percent, _of_instances("MemoryUtilization")),
        ("disk", wanted.disk_percent, _of_instances("DiskUtilization")),
    ):
        if threshold is None:
            continue
        yield {
            "AlarmName": f"{description.name}-{variant.name}-{name}",
            **how(threshold, dimensions),
            "EvaluationPeriods": wanted.minutes,
            "DatapointsToAlarm": wanted.minutes,
            "TreatMissingData": "notBreaching",
            "AlarmActions": wanted.notify,
            "OKActions": wanted.notify,
            "Tags": ownership.tags(description.name, description.tags),
        }


def _latency(threshold_ms: float, dimensions: list[dict[str, str]]) -> dict[str, Any]:
    return {
        "AlarmDescription": f"99 of 100 calls took the container more than {threshold_ms:g} ms.",
        "Namespace": _CALLS,
        "MetricName": "ModelLatency",
        "Dimensions": dimensions,
        "ExtendedStatistic": "p99",
        "Unit": "Microseconds",
        "Period": _PERIOD_S,
        "ComparisonOperator": "GreaterThanThreshold",
        "Threshold": threshold_ms * 1000,
    }


def _share(metric: str) -> Any:  # Any: a function as `_latency`
    def errors(percent: float, dimensions: list[dict[str, str]]) -> dict[str, Any]:
        return {
            "AlarmDescription": f"More than {percent:g} % of the calls count as {metric}.",
            "Namespace": _CALLS,
            "MetricName": metric,
            "Dimensions": dimensions,
            "Statistic": "Average",
            "Period": _PERIOD_S,
            "ComparisonOperator": "GreaterThanThreshold",
            "Threshold": percent / 100,
        }

    return errors


def _of_instances(metric: str) -> Any:  # Any: a function as `_latency`
    def fullest(percent: float, dimensions: list[dict[str, str]]) -> dict[str, Any]:
        return {
            "AlarmDescription": f"{metric} of the fullest instance is above {percent:g} %.",
            "Namespace": _INSTANCES,
            "MetricName": metric,
            "Dimensions": dimensions,
            "Statistic": "Maximum",
            "Unit": "Percent",
            "Period": _PERIOD_S,
            "ComparisonOperator": "GreaterThanThreshold",
            "Threshold": float(percent),
        }

    return fullest


def _cache_hit(percent: float, dimensions: list[dict[str, str]]) -> dict[str, Any]:
    """Return an alarm on the share of hits in minutes that have calls.

    SageMaker publishes zeros for minutes without traffic, which must not read as misses.
    """
    return {
        "AlarmDescription": f"Less than {percent:g} % of the calls found their model in memory.",
        "Metrics": [
            {"Id": "hits", "MetricStat": _stat("ModelCacheHit", "Average", dimensions), "ReturnData": False},
            {"Id": "calls", "MetricStat": _stat("Invocations", "Sum", dimensions), "ReturnData": False},
            {
                "Id": "share",
                "Expression": "IF(calls > 0, 100 * hits)",
                "Label": "cache hits, percent of calls",
                "ReturnData": True,
            },
        ],
        "ComparisonOperator": "LessThanThreshold",
        "Threshold": float(percent),
    }


def _stat(metric: str, stat: str, dimensions: list[dict[str, str]]) -> dict[str, Any]:
    return {
        "Metric": {"Namespace": _CALLS, "MetricName": metric, "Dimensions": dimensions},
        "Period": _PERIOD_S,
        "Stat": stat,
    }
