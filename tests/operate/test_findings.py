"""Which figures are worth a sentence."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mmekit_toolkit.operate import findings
from mmekit_toolkit.operate.metrics import Metrics

CALM = Metrics(
    invocations=1000,
    errors_4xx=0,
    errors_5xx=0,
    cache_lookups=1000,
    cache_hits=990,
    unloads=2,
    memory_percent=60,
    disk_percent=30,
)
CALM_HOUR = replace(CALM, invocations=4000, cache_lookups=4000, cache_hits=3960, unloads=8)


def found(quarter: Metrics, hour: Metrics = CALM_HOUR) -> str:
    return "\n".join(findings.of_variant("AllTraffic", quarter, hour))


def test_an_endpoint_that_does_well_gets_no_sentence() -> None:
    assert not found(CALM)
    assert not found(Metrics(), Metrics())
    assert not found(replace(CALM, cache_hits=1000, unloads=None))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"cache_hits": 900, "unloads": 50},
            "thrashes: 90% of calls found their model in memory (99% in the hour)",
        ),
        ({"errors_5xx": 20}, "20 of 1000 calls were answered 5XX"),
        ({"errors_4xx": 500}, "500 of 1000 calls were answered 4XX"),
        ({"memory_percent": 95}, "memory is 95 % full"),
        ({"disk_percent": 91}, "the disk is 91 % full"),
    ],
)
def test_what_is_wrong_gets_a_sentence_with_its_figures(change: dict[str, float], said: str) -> None:
    assert said in found(replace(CALM, **change))


def test_steady_thrash_is_seen_without_a_fall() -> None:
    quarter = replace(CALM, cache_hits=300, unloads=600)
    hour = replace(CALM_HOUR, cache_hits=1200, unloads=2400)
    assert "thrashes: 30%" in found(quarter, hour)


@pytest.mark.parametrize(
    "change",
    [
        {"cache_lookups": 10, "cache_hits": 1, "unloads": 9},  # too few calls
        {"cache_hits": 900, "unloads": 0},  # new models are loaded, none leaves
        {"errors_5xx": 5},
    ],
)
def test_little_is_not_called_wrong(change: dict[str, float]) -> None:
    assert not found(replace(CALM, **change))


@pytest.mark.parametrize(
    ("described", "said"),
    [
        ({"EndpointStatus": "Failed", "FailureReason": "no capacity"}, ["Failed: no capacity"]),
        (
            {"EndpointStatus": "InService", "FailureReason": "the ping failed"},
            ["The last update was rolled back; what ran before goes on: the ping failed"],
        ),
        (
            {
                "EndpointStatus": "InService",
                "ProductionVariants": [
                    {"VariantName": "a", "CurrentInstanceCount": 1, "DesiredInstanceCount": 3},
                    {"VariantName": "b", "CurrentInstanceCount": 2, "DesiredInstanceCount": 2},
                ],
            },
            ["Variant a has 1 of 3 instances."],
        ),
        ({"EndpointStatus": "Creating"}, []),
    ],
)
def test_states_of_the_endpoint(described: dict[str, Any], said: list[str]) -> None:
    assert list(findings.of_endpoint(described)) == said


def test_alarms_that_scale_may_ring() -> None:
    alarm = {"name": "churn-5xx", "state": "ALARM", "reason": "3 of 3", "scales": False}
    assert list(findings.of_alarms([alarm])) == ["The alarm churn-5xx is in ALARM: 3 of 3"]
    assert not list(findings.of_alarms([{**alarm, "scales": True}, {**alarm, "state": "OK"}]))
