"""Distributions: exact in count, sum and ends, within 5 % in between."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmekit_endpoint.telemetry.distribution import BUCKETS_PER_DECADE, Distribution, bound, bucket, percentile

#: Microseconds up to an hour.
TIMES = st.lists(st.floats(min_value=0.0, max_value=3.6e9), min_size=1, max_size=300)


def distribution(values: list[float]) -> Distribution:
    found = Distribution()
    for value in values:
        found.add(value)
    return found


def nearest_rank(values: list[float], percent: float) -> float:
    return sorted(values)[max(0, math.ceil(percent / 100 * len(values)) - 1)]


@given(TIMES, st.sampled_from([0.0, 1.0, 50.0, 90.0, 95.0, 99.0, 99.9, 100.0]))
def test_percentiles_are_within_5_percent_of_the_sorted_values(values: list[float], percent: float) -> None:
    found = distribution(values).percentile(percent)
    # below 1 µs all is equal
    assert found == pytest.approx(nearest_rank(values, percent), rel=0.05, abs=1.0)


@given(TIMES)
def test_what_stands_for_the_values_has_their_count_sum_minimum_and_maximum(values: list[float]) -> None:
    shown = list(distribution(values).values())
    assert [value for value, _ in shown] == sorted(value for value, _ in shown)
    assert sum(count for _, count in shown) == len(values)
    assert sum(value * count for value, count in shown) == pytest.approx(sum(values), rel=1e-6, abs=1e-6)
    assert (shown[0][0], shown[-1][0]) == (min(values), max(values))


@given(TIMES, TIMES)
def test_merged_distributions_are_that_of_all_values(first: list[float], second: list[float]) -> None:
    merged = distribution(first)
    merged.merge(distribution(second))
    both = distribution(first + second)
    assert merged.counts == both.counts
    assert merged.total == pytest.approx(both.total)
    assert (merged.minimum, merged.maximum) == (both.minimum, both.maximum)


@given(TIMES)
def test_counts_below_bounds_are_exact(values: list[float]) -> None:
    indexes = range(0, 10 * BUCKETS_PER_DECADE, 16)
    buckets = [bucket(value) for value in values]
    expected = [sum(one <= index for one in buckets) for index in indexes]
    assert distribution(values).below(indexes) == expected


@given(st.floats(min_value=1.001, max_value=1e12))
def test_a_value_lies_between_the_bounds_of_its_bucket(value: float) -> None:
    index = bucket(value)
    assert bound(index - 1) * (1 - 1e-12) <= value <= bound(index) * (1 + 1e-12)


def test_nothing_has_no_percentile() -> None:
    assert Distribution().percentile(50) is None
    assert list(Distribution().values()) == []
    assert percentile([], 50) is None
