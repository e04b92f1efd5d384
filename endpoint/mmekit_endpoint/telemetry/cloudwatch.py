"""Makes CloudWatch's metrics of what was counted: SageMaker's names, units, dimensions and statistics.

AWS: "Amazon SageMaker AI metrics in Amazon CloudWatch", "CloudWatch Metrics for Multi-Model Endpoint
Deployments". Where those leave a choice:

- Without requests there are zeros for Invocations and InvocationsPerInstance alone: only their sum means
  something, and zeros let scale-in happen. A zero beside requests would change the average of the others.
- ModelLoadingWaitTime is of requests that waited; one whose model was loaded is no sample.
- InvocationModelErrors has all requests without a 2xx answer; the 4XX and 5XX errors only those that a
  container answered so.
- ConcurrentRequestsPerModel has one sample an instance, as have all metrics of instances.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, TypeAlias

from mmekit_endpoint.fleet.views import InstanceView, VariantView
from mmekit_endpoint.telemetry.distribution import Distribution
from mmekit_endpoint.telemetry.series import Series
from mmekit_endpoint.telemetry.shares import concurrent_requests, disk_percent, memory_percent

SAGEMAKER = "AWS/SageMaker"
ENDPOINTS = "/aws/sagemaker/Endpoints"

#: Different values of one datum (PutMetricData: Values).
MAX_VALUES = 150

#: A MetricDatum, as boto3 takes it.
Datum: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """One datum and where it belongs."""

    namespace: str
    datum: Datum


class Entries:
    """Makes the entries of one variant and moment."""

    def __init__(self, endpoint_name: str, variant_name: str, at: datetime) -> None:
        self._base = {
            "Dimensions": [
                {"Name": "EndpointName", "Value": endpoint_name},
                {"Name": "VariantName", "Value": variant_name},
            ],
            "Timestamp": at,
        }

    def counted(self, window: Series, active_instances: int) -> Iterator[Entry]:
        """Yield the metrics of requests and models; ``window`` has what was counted since the last time."""
        invocations = window.invocations
        if invocations:
            yield from self._requests(window, invocations, max(1, active_instances))
        else:
            yield self._sagemaker("Invocations", "None", {"Value": 0.0})
            yield self._sagemaker("InvocationsPerInstance", "None", {"Value": 0.0})
        for name, times in (
            ("ModelLatency", window.latency),
            ("OverheadLatency", window.overhead),
            ("ModelLoadingWaitTime", window.waiting),
            ("ModelDownloadingTime", window.downloading),
            ("ModelLoadingTime", window.loading),
            ("ModelUnloadingTime", window.unloading),
        ):
            yield from self._times(name, times)

    def of_instances(self, view: VariantView) -> Iterator[Entry]:
        """Yield what instances in service use and hold, one sample each."""
        active = in_service(view)
        if view.multi_model:
            yield from self._samples("LoadedModelCount", "None", (i.loaded_count for i in active))
        yield from self._samples("CPUUtilization", "Percent", (i.cpu_percent for i in active))
        yield from self._samples("MemoryUtilization", "Percent", map(memory_percent, active))
        yield from self._samples("DiskUtilization", "Percent", map(disk_percent, active))
        yield from self._samples("GPUUtilization", "Percent", (i.gpu_percent for i in active))
        yield from self._samples("GPUMemoryUtilization", "Percent", (i.gpu_memory_percent for i in active))

    def concurrency(self, view: VariantView) -> Iterator[Entry]:
        """Yield ConcurrentRequestsPerModel."""
        for values in _values(_by_value(map(concurrent_requests, in_service(view)))):
            yield self._sagemaker("ConcurrentRequestsPerModel", "None", values)

    def _requests(self, window: Series, invocations: int, active_instances: int) -> Iterator[Entry]:
        yield self._flags("Invocations", invocations, 0)
        share = 1 / active_instances
        yield self._sagemaker(
            "InvocationsPerInstance", "None", {"Values": [share], "Counts": [float(invocations)]}
        )
        for name, errors in (
            ("Invocation4XXErrors", window.answers[4]),
            ("Invocation5XXErrors", window.answers[5]),
            ("InvocationModelErrors", window.model_errors),
        ):
            yield self._flags(name, errors, invocations - errors)
        if window.hits or window.misses:
            yield self._flags("ModelCacheHit", window.hits, window.misses)

    def _flags(self, name: str, ones: int, zeros: int) -> Entry:
        counts = {value: float(count) for value, count in ((0.0, zeros), (1.0, ones)) if count}
        return self._sagemaker(name, "None", {"Values": [*counts], "Counts": [*counts.values()]})

    def _times(self, name: str, times: Distribution) -> Iterator[Entry]:
        for values in _values(times.values()):
            yield self._sagemaker(name, "Microseconds", values)

    def _samples(self, name: str, unit: str, samples: Iterable[float | None]) -> Iterator[Entry]:
        for values in _values(_by_value(samples)):
            yield self._entry(ENDPOINTS, name, unit, values)

    def _sagemaker(self, name: str, unit: str, values: Datum) -> Entry:
        return self._entry(SAGEMAKER, name, unit, values)

    def _entry(self, namespace: str, name: str, unit: str, values: Datum) -> Entry:
        return Entry(namespace, {"MetricName": name, "Unit": unit, **self._base, **values})


def in_service(view: VariantView) -> list[InstanceView]:
    """Return the instances that count as active."""
    return [instance for instance in view.instances if instance.state == "in service"]


def _by_value(samples: Iterable[float | None]) -> Iterable[tuple[float, int]]:
    return Counter(float(sample) for sample in samples if sample is not None).items()


def _values(values: Iterable[tuple[float, int]]) -> Iterator[Datum]:
    """Yield values with their counts, as many as fit into one datum each."""
    remaining = iter(values)
    while some := list(islice(remaining, MAX_VALUES)):
        yield {"Values": [value for value, _ in some], "Counts": [float(count) for _, count in some]}
