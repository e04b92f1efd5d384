"""The Prometheus text: parses, escapes, and says the same as what was counted."""

from __future__ import annotations

from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from mmekit_endpoint.telemetry import prometheus
from mmekit_endpoint.telemetry.statistics import Statistics
from tests.endpoint.telemetry import endpoint_view, instance_view, model_view

STRANGE = 'a"b\\c\nd/é.tar.gz'


def parsed(statistics: Statistics, views: list[Any]) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    text = prometheus.render(statistics, views).decode()
    return {
        (sample.name.removeprefix("mmekit_endpoint_"), frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def labels(**more: str) -> frozenset[tuple[str, str]]:
    return frozenset({"endpoint": "e", "variant": "AllTraffic", **more}.items())


def test_it_says_what_was_counted() -> None:
    statistics = Statistics()
    counted = statistics.variant("e", "AllTraffic")
    counted.invocation(STRANGE, 200, 150_000.0, 1.0, True)
    counted.invocation(STRANGE, 500, 1_500_000.0, 1.0, False)
    counted.invocation(STRANGE, 429, 0.0, 6e7, False)
    counted.invocation(STRANGE, 0, 6e7, 1.0, True)
    counted.downloaded(STRANGE, 2e6, 1000)
    counted.loaded(STRANGE, 1e6)
    counted.waited(STRANGE, 3e6)
    counted.unloaded(STRANGE, 1e5)
    counted.load_failed(STRANGE)
    counted.evicted(STRANGE, "disk")
    found = parsed(statistics, [])
    for status in ("2xx", "5xx", "unsent", "none"):
        assert found["invocations_total", labels(status=status)] == 1
        assert found["target_model_invocations_total", labels(status=status, target_model=STRANGE)] == 1
    assert found["invocation_4xx_errors_total", labels()] == 0
    assert found["invocation_5xx_errors_total", labels()] == 1
    assert found["invocation_model_errors_total", labels()] == 3
    assert found["model_cache_hits_total", labels()] == found["model_cache_misses_total", labels()] == 2
    assert found["model_latency_seconds_count", labels()] == 3
    assert found["model_latency_seconds_sum", labels()] == 61.65
    assert found["model_latency_seconds_bucket", labels(le="0.1")] == 0
    assert found["model_latency_seconds_bucket", labels(le="1")] == 1
    assert found["model_latency_seconds_bucket", labels(le="10")] == 2
    assert found["model_latency_seconds_bucket", labels(le="+Inf")] == 3
    assert found["overhead_latency_seconds_count", labels()] == 4
    for name, seconds in (("wait", 3), ("", 1)):
        middle = f"model_loading_{name}_seconds" if name else "model_loading_seconds"
        assert found[f"{middle}_sum", labels()] == seconds
    assert found["model_downloading_seconds_sum", labels()] == 2
    assert found["model_unloading_seconds_sum", labels()] == 0.1
    assert found["model_downloaded_bytes_total", labels()] == 1000
    assert found["model_load_failures_total", labels()] == 1
    assert found["model_evictions_total", labels(**{"from": "disk"})] == 1
    assert found["target_model_latency_seconds_count", labels(target_model=STRANGE)] == 3
    assert found["target_model_loading_seconds_sum", labels(target_model=STRANGE)] == 1


def test_it_says_what_the_fleet_is() -> None:
    statistics = Statistics()
    statistics.variant("e", "AllTraffic").invocation("known", 200, 1.0, 1.0, True)
    models = [model_view("known", in_flight=2, waiting=3), model_view("x"), model_view("y", "on disk")]
    views = [
        endpoint_view(
            "e",
            instance_view("i-1", models=models, in_flight=2, gpu_percent=50.0, gpu_memory_percent=10.0),
            instance_view("i-2", "starting", memory_limit_bytes=0),
        ),
        endpoint_view("creating", variants=[]),
    ]
    found = parsed(statistics, views)
    assert found["desired_instances", labels()] == 2
    assert found["instances", labels(state="in service")] == found["instances", labels(state="starting")] == 1
    first = labels(instance="i-1")
    assert found["loaded_models", first] == 2
    assert found["concurrent_requests", first] == 5
    assert found["cpu_utilization_percent", first] == 150
    assert found["memory_utilization_percent", first] == 25
    assert found["disk_utilization_percent", first] == 10
    assert found["gpu_utilization_percent", first] == 50
    assert found["gpu_memory_utilization_percent", first] == 10
    assert ("gpu_utilization_percent", labels(instance="i-2")) not in found
    assert ("memory_utilization_percent", labels(instance="i-2")) not in found
    assert found["target_model_copies", labels(target_model="known")] == 1
    assert found["target_model_in_flight", labels(target_model="known")] == 2
    assert found["target_model_waiting", labels(target_model="known")] == 3
    # models without a series of their own together
    assert found["target_model_copies", labels(target_model="other")] == 1


def test_nothing_is_a_text_too() -> None:
    assert parsed(Statistics(), []) == {}
