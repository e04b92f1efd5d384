"""The entries of PutMetricData: which there are, with what units and values."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from mmekit_endpoint.fleet.views import VariantView
from mmekit_endpoint.telemetry.cloudwatch import ENDPOINTS, MAX_VALUES, SAGEMAKER, Entries
from mmekit_endpoint.telemetry.series import Series
from mmekit_endpoint.telemetry.statistics import VariantStatistics
from tests.endpoint.telemetry import instance_view, model_view

AT = datetime(2030, 1, 1, tzinfo=timezone.utc)
ENTRIES = Entries("e", "v", AT)


def shown(entries: Any) -> dict[str, tuple[str, str, dict[float, float]]]:
    """Namespace, unit and counts of values by metric."""
    found: dict[str, tuple[str, str, dict[float, float]]] = {}
    for entry in entries:
        datum = entry.datum
        assert datum["Timestamp"] == AT
        assert datum["Dimensions"] == [
            {"Name": "EndpointName", "Value": "e"},
            {"Name": "VariantName", "Value": "v"},
        ]
        values = datum.get("Values", [datum.get("Value")])
        counts = datum.get("Counts", [1.0])
        of_values = found.setdefault(datum["MetricName"], (entry.namespace, datum["Unit"], {}))[2]
        for value, count in zip(values, counts, strict=True):
            of_values[value] = of_values.get(value, 0.0) + count
    return found


def variant(*instances: Any, multi_model: bool = True) -> VariantView:
    return VariantView("v", "m", "ml.m5.large", 1.0, 2, multi_model, list(instances))


def test_without_requests_there_are_zeros_where_only_the_sum_counts() -> None:
    zero = (SAGEMAKER, "None", {0.0: 1.0})
    assert shown(ENTRIES.counted(Series(), 2)) == {"Invocations": zero, "InvocationsPerInstance": zero}


def test_requests_are_flags_and_times() -> None:
    counted = VariantStatistics()
    counted.invocation("a", 200, 1000.0, 100.0, True)
    counted.invocation("a", 200, 3000.0, 100.0, True)
    counted.invocation("a", 404, 1000.0, 100.0, False)
    counted.invocation("a", 503, 1000.0, 100.0, True)
    counted.invocation("a", 429, 0.0, 6e7, False)
    found = shown(ENTRIES.counted(counted.take_window(), 4))
    assert found == {
        "Invocations": (SAGEMAKER, "None", {1.0: 5}),
        "InvocationsPerInstance": (SAGEMAKER, "None", {0.25: 5}),
        "Invocation4XXErrors": (SAGEMAKER, "None", {0.0: 4, 1.0: 1}),
        "Invocation5XXErrors": (SAGEMAKER, "None", {0.0: 4, 1.0: 1}),
        "InvocationModelErrors": (SAGEMAKER, "None", {0.0: 2, 1.0: 3}),
        "ModelCacheHit": (SAGEMAKER, "None", {0.0: 2, 1.0: 3}),
        "ModelLatency": (SAGEMAKER, "Microseconds", {1000.0: 3, 3000.0: 1}),
        "OverheadLatency": (SAGEMAKER, "Microseconds", {100.0: 4, 6e7: 1}),
    }


def test_single_model_variants_have_neither_hits_nor_loads() -> None:
    counted = VariantStatistics()
    counted.invocation(None, 200, 1000.0, 100.0, None)
    assert not any(
        "Cache" in name or "Load" in name for name in shown(ENTRIES.counted(counted.take_window(), 1))
    )
    assert "LoadedModelCount" not in shown(ENTRIES.of_instances(variant(instance_view(), multi_model=False)))


def test_more_values_than_a_datum_takes_are_several() -> None:
    counted = VariantStatistics()
    latencies = [10.0 * 1.05**number for number in range(2 * MAX_VALUES)]
    for latency in latencies:
        counted.invocation("a", 200, latency, 1.0, True)
    entries = [
        entry
        for entry in ENTRIES.counted(counted.take_window(), 1)
        if entry.datum["MetricName"] == "ModelLatency"
    ]
    assert len(entries) >= 2
    assert all(len(entry.datum["Values"]) <= MAX_VALUES for entry in entries)
    assert sum(sum(entry.datum["Counts"]) for entry in entries) == len(latencies)


def test_instances_in_service_are_one_sample_each() -> None:
    loaded = [model_view("a"), model_view("b"), model_view("c", "on disk")]
    view = variant(
        instance_view("i-1", models=loaded, cpu_percent=10.0, gpu_percent=70.0, gpu_memory_percent=5.0),
        instance_view("i-2", cpu_percent=10.0),
        instance_view("i-3", "starting", cpu_percent=99.0),
    )
    assert shown(ENTRIES.of_instances(view)) == {
        "LoadedModelCount": (ENDPOINTS, "None", {2.0: 1, 0.0: 1}),
        "CPUUtilization": (ENDPOINTS, "Percent", {10.0: 2}),
        "MemoryUtilization": (ENDPOINTS, "Percent", {25.0: 2}),
        "DiskUtilization": (ENDPOINTS, "Percent", {10.0: 2}),
        "GPUUtilization": (ENDPOINTS, "Percent", {70.0: 1}),
        "GPUMemoryUtilization": (ENDPOINTS, "Percent", {5.0: 1}),
    }
    assert shown(ENTRIES.of_instances(variant())) == {}


def test_concurrent_requests_are_those_of_an_instance_with_the_waiting_ones() -> None:
    view = variant(
        instance_view("i-1", in_flight=3, models=[model_view("a", in_flight=3, waiting=4)]),
        instance_view("i-2"),
    )
    assert shown(ENTRIES.concurrency(view)) == {
        "ConcurrentRequestsPerModel": (SAGEMAKER, "None", {7.0: 1, 0.0: 1})
    }
