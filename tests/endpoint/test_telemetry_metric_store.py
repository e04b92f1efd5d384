"""The store behind CloudWatch's reads: periods, units, percentiles, bounds."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmekit_endpoint.telemetry import metric_store
from mmekit_endpoint.telemetry.metric_store import Metric, MetricStore, Point, merge, statistic_set

METRIC = Metric("n", "m", frozenset({("a", "b")}))
NOW = time.time() // 3600 * 3600

VALUES = st.lists(st.floats(-1e9, 1e9).filter(lambda v: v == 0 or abs(v) > 1e-9), min_size=1, max_size=50)


def put(store: MetricStore, at: float, unit: str | None = None, **datum: object) -> None:
    store.put(METRIC, Point(at, statistic_set(datum), unit))


@given(st.lists(VALUES, min_size=1, max_size=5))
def test_merged_sets_have_the_statistics_of_all_values(parts: list[list[float]]) -> None:
    merged = merge([statistic_set({"Values": part}) for part in parts])
    values = sorted(value for part in parts for value in part)
    assert merged.statistic("SampleCount") == len(values)
    assert merged.statistic("Sum") == pytest.approx(sum(values), rel=1e-9, abs=1e-3)
    assert merged.statistic("Average") == pytest.approx(sum(values) / len(values), rel=1e-9, abs=1e-3)
    assert (merged.statistic("Minimum"), merged.statistic("Maximum")) == (values[0], values[-1])
    assert merged.statistic("p0") == values[0]
    assert merged.statistic("p100") == values[-1]
    assert merged.statistic("p50") == values[(len(values) + 1) // 2 - 1]


def test_percentiles_need_values() -> None:
    ends = {"SampleCount": 3, "Sum": 6, "Minimum": 1, "Maximum": 3}
    assert statistic_set({"StatisticValues": ends}).statistic("p50") is None
    assert statistic_set({"StatisticValues": ends}).statistic("Average") == 2
    same = {"SampleCount": 3, "Sum": 6, "Minimum": 2, "Maximum": 2}
    assert statistic_set({"StatisticValues": same}).statistic("p50") == 2
    both = merge([statistic_set({"StatisticValues": ends}), statistic_set({"Value": 9.0})])
    assert both.statistic("p50") is None
    assert both.statistic("Maximum") == 9


def test_sets_of_nothing_change_nothing() -> None:
    nothing = statistic_set({"StatisticValues": {"SampleCount": 0, "Sum": 0, "Minimum": 0, "Maximum": 0}})
    assert nothing.statistic("Average") is None
    merged = merge(
        [nothing, statistic_set({"Value": 5.0}), statistic_set({"Values": [1.0], "Counts": [0.0]})]
    )
    assert (merged.samples, merged.minimum) == (1, 5)


def test_periods_begin_at_the_start_rounded_down() -> None:
    store = MetricStore()
    for second in (0, 59, 60, 125):
        put(store, NOW + second, Value=1.0)
    found = [(p.time - NOW, p.data.samples) for p in store.read(METRIC, NOW + 30, NOW + 200, 60)]
    assert found == [(0, 2), (60, 1), (120, 1)]
    found = [(p.time - NOW, p.data.samples) for p in store.read(METRIC, NOW + 65, NOW + 200, 120)]
    assert found == [(60, 2)]
    found = [(p.time - NOW, p.data.samples) for p in store.read(METRIC, NOW + 57, NOW + 70, 10)]
    assert found == [(50, 1), (60, 1)]


def test_a_period_that_begins_before_the_end_is_whole() -> None:
    store = MetricStore()
    put(store, NOW + 50, Value=1.0)
    put(store, NOW + 60, Value=1.0)
    assert [p.data.samples for p in store.read(METRIC, NOW, NOW + 1, 60)] == [1]
    assert list(store.read(METRIC, NOW + 120, NOW + 180, 60)) == []


def test_points_come_in_any_order_and_are_kept_in_that_of_time() -> None:
    store = MetricStore()
    for second in (30, 10, 20):
        put(store, NOW + second, Value=float(second))
    assert [p.data.total for p in store.read(METRIC, NOW, NOW + 60, 10)] == [10, 20, 30]


def test_units_are_told_apart() -> None:
    store = MetricStore()
    put(store, NOW, "Seconds", Value=1.0)
    put(store, NOW, "Bytes", Value=2.0)
    found = [(p.unit, p.data.total) for p in store.read(METRIC, NOW, NOW + 60, 60)]
    assert found == [("Bytes", 2), ("Seconds", 1)]
    assert [p.unit for p in store.read(METRIC, NOW, NOW + 60, 60, "Seconds")] == ["Seconds"]


def test_it_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metric_store, "MAX_POINTS", 3)
    monkeypatch.setattr(metric_store, "MAX_SERIES", 2)
    store = MetricStore()
    put(store, NOW - metric_store.RETENTION_S - 7200, Value=1.0)
    assert list(store.read(METRIC, 0, NOW, 3600)) == []
    for second in range(5):
        put(store, NOW + second, Value=float(second))
    assert [p.data.minimum for p in store.read(METRIC, NOW, NOW + 60, 60)] == [2]
    others = [Metric("n", name, frozenset()) for name in ("x", "y")]
    for metric in others:
        store.put(metric, Point(NOW, statistic_set({"Value": 1.0}), None))
    assert store.metrics() == others
