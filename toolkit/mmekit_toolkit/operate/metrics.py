"""What CloudWatch has of a variant in a window of time.

Metrics and their units: AWS, "CloudWatch Metrics for Multi-Model Endpoint Deployments". There are none by
model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from mmekit_toolkit.aws.clients import Aws

_SERVICE = "AWS/SageMaker"
_INSTANCES = "/aws/sagemaker/Endpoints"
_MICROSECONDS_PER_MS = 1000.0


@dataclass(frozen=True)
class Metrics:
    """A variant in one window; None where CloudWatch has nothing."""

    invocations: float | None = None
    errors_4xx: float | None = None
    errors_5xx: float | None = None
    latency_p50_ms: float | None = None
    latency_p99_ms: float | None = None
    #: Calls, and those of them whose model was in memory.
    cache_lookups: float | None = None
    cache_hits: float | None = None
    loads: float | None = None
    loading_ms: float | None = None
    unloads: float | None = None
    #: An instance has so many on average.
    loaded_models: float | None = None
    #: The highest of any instance.
    memory_percent: float | None = None
    disk_percent: float | None = None

    @property
    def cache_hit_ratio(self) -> float | None:
        """Share of calls whose model was in memory."""
        return (
            self.cache_hits / self.cache_lookups
            if self.cache_lookups and self.cache_hits is not None
            else None
        )


@dataclass(frozen=True)
class _Query:
    field: str
    namespace: str
    metric: str
    statistic: str
    #: A window may fall into two periods of CloudWatch's.
    joined: Callable[[Iterable[float]], float] = sum
    divisor: float = 1.0


_QUERIES = (
    _Query("invocations", _SERVICE, "Invocations", "Sum"),
    _Query("errors_4xx", _SERVICE, "Invocation4XXErrors", "Sum"),
    _Query("errors_5xx", _SERVICE, "Invocation5XXErrors", "Sum"),
    _Query("latency_p50_ms", _SERVICE, "ModelLatency", "p50", max, _MICROSECONDS_PER_MS),
    _Query("latency_p99_ms", _SERVICE, "ModelLatency", "p99", max, _MICROSECONDS_PER_MS),
    _Query("cache_lookups", _SERVICE, "ModelCacheHit", "SampleCount"),
    _Query("cache_hits", _SERVICE, "ModelCacheHit", "Sum"),
    _Query("loads", _SERVICE, "ModelLoadingTime", "SampleCount"),
    _Query("loading_ms", _SERVICE, "ModelLoadingTime", "Average", max, _MICROSECONDS_PER_MS),
    _Query("unloads", _SERVICE, "ModelUnloadingTime", "SampleCount"),
    _Query("loaded_models", _INSTANCES, "LoadedModelCount", "Average", max),
    _Query("memory_percent", _INSTANCES, "MemoryUtilization", "Maximum", max),
    _Query("disk_percent", _INSTANCES, "DiskUtilization", "Maximum", max),
)


def read(aws: Aws, endpoint: str, variants: Sequence[str], window: timedelta) -> dict[str, Metrics]:
    """Return the metrics of each variant in the window that ends now."""
    # Whole minutes: SageMaker publishes by the minute.
    end = datetime.now(timezone.utc).replace(second=0, microsecond=0) + timedelta(minutes=1)
    asked = [(variant, query) for variant in variants for query in _QUERIES]
    if not asked:
        return {}
    pages = (
        aws.client("cloudwatch")
        .get_paginator("get_metric_data")
        .paginate(
            MetricDataQueries=[
                _asked(f"q{number}", endpoint, variant, query, window)
                for number, (variant, query) in enumerate(asked)
            ],
            StartTime=end - window,
            EndTime=end,
        )
    )
    values: dict[str, list[float]] = {}
    for page in pages:
        for result in page["MetricDataResults"]:
            values.setdefault(result["Id"], []).extend(result["Values"])
    found: dict[str, dict[str, float]] = {variant: {} for variant in variants}
    for number, (variant, query) in enumerate(asked):
        if points := values.get(f"q{number}"):
            found[variant][query.field] = query.joined(points) / query.divisor
    return {variant: Metrics(**fields) for variant, fields in found.items()}


def _asked(id_: str, endpoint: str, variant: str, query: _Query, window: timedelta) -> Mapping[str, Any]:
    dimensions = {"EndpointName": endpoint, "VariantName": variant}
    return {
        "Id": id_,
        "MetricStat": {
            "Metric": {
                "Namespace": query.namespace,
                "MetricName": query.metric,
                "Dimensions": [{"Name": name, "Value": value} for name, value in dimensions.items()],
            },
            "Period": int(window.total_seconds()),
            "Stat": query.statistic,
        },
    }
