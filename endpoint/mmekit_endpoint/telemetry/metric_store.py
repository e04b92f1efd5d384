"""Metrics as CloudWatch keeps and reads them: by series, bounded, with all statistics of any period.

moto's own list grows for ever, has no percentiles, and counts periods from the first datum on. The rules that
are kept here are those of GetMetricStatistics in AWS's reference.
"""

from __future__ import annotations

import threading
import time
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, groupby
from typing import Any, NamedTuple

from mmekit_endpoint.telemetry.distribution import percentile

#: Data is kept for 15 days (AWS: that of one minute), and so many points of one series: 14 hours of one every
#: 10 s, with up to 2 KB for the distribution of each.
RETENTION_S = 15 * 24 * 3600
MAX_POINTS = 5_000

#: Series of one region and account; the one written longest ago goes first.
MAX_SERIES = 10_000


class Metric(NamedTuple):
    """What names a metric."""

    namespace: str
    name: str
    dimensions: frozenset[tuple[str, str]]


#: Statistics beside percentiles.
STATISTICS = ("SampleCount", "Average", "Sum", "Minimum", "Maximum")


@dataclass(frozen=True, slots=True)
class StatisticSet:
    """What is known of some values."""

    samples: float
    total: float
    minimum: float
    maximum: float
    #: Value, count, value, count, … in ascending order; None where they are not known.
    values: array[float] | None

    def statistic(self, name: str) -> float | None:
        """Return a statistic by CloudWatch's name, one of STATISTICS or p99.9; None where it is not known."""
        if name.startswith("p"):
            return None if self.values is None else percentile(_pairs(self.values), float(name[1:]))
        if name == "Average":
            return self.total / self.samples if self.samples else None
        return {
            "SampleCount": self.samples,
            "Sum": self.total,
            "Minimum": self.minimum,
            "Maximum": self.maximum,
        }[name]


class Point(NamedTuple):
    """The data of one moment, in seconds since the epoch, or of a period that begins then."""

    time: float
    data: StatisticSet
    unit: str | None


def statistic_set(datum: Mapping[str, Any]) -> StatisticSet:
    """Return what a MetricDatum says: Values and Counts, StatisticValues, or Value."""
    if given := datum.get("Values"):
        values = [float(value) for value in given]
        counts = [float(count) for count in datum.get("Counts") or [1.0] * len(values)]
        return _of_values(zip(values, counts, strict=True))
    if given := datum.get("StatisticValues"):
        count, total = float(given["SampleCount"]), float(given["Sum"])
        minimum, maximum = float(given["Minimum"]), float(given["Maximum"])
        # AWS: percentiles need values, or a set that stands for one.
        known = array("d", (minimum, count)) if minimum == maximum else None
        return StatisticSet(count, total, minimum, maximum, known)
    return _of_values([(float(datum.get("Value", 0.0)), 1.0)])


def merge(sets: list[StatisticSet]) -> StatisticSet:
    """Return what is known of all their values together."""
    sets = [one for one in sets if one.samples] or sets[:1]
    if len(sets) == 1:
        return sets[0]
    known = [_pairs(one.values) for one in sets if one.values is not None]
    return StatisticSet(
        sum(one.samples for one in sets),
        sum(one.total for one in sets),
        min(one.minimum for one in sets),
        max(one.maximum for one in sets),
        _joined(pair for values in known for pair in values) if len(known) == len(sets) else None,
    )


class MetricStore:
    """The metrics of one account and region; all threads may use it."""

    def __init__(self) -> None:
        self._series: dict[Metric, list[Point]] = {}
        self._lock = threading.Lock()

    def put(self, metric: Metric, point: Point) -> None:
        """Keep a point; points may come in any order."""
        with self._lock:
            series = self._series.pop(metric, [])
            self._series[metric] = series  # the last in the order of writing
            if series and point.time < series[-1].time:
                series.insert(bisect_right(series, point.time, key=_time_of), point)
            else:
                series.append(point)
            oldest = bisect_left(series, time.time() - RETENTION_S, key=_time_of)
            del series[: max(oldest, len(series) - MAX_POINTS)]
            if len(self._series) > MAX_SERIES:
                del self._series[next(iter(self._series))]

    def metrics(self) -> list[Metric]:
        """Return all metrics of which there is data."""
        with self._lock:
            return list(self._series)

    def read(
        self, metric: Metric, start: float, end: float, period_s: int, unit: str | None = None
    ) -> Iterator[Point]:
        """Yield the periods that begin from ``start`` on and before ``end`` and have data, by unit.

        Periods are counted from ``start``, which is rounded down to a minute, or to a period below that.
        """
        start -= start % min(period_s, 60)
        with self._lock:
            series = self._series.get(metric, [])
            points = series[bisect_left(series, start, key=_time_of) :]
        end_of_last = start + -(-(end - start) // period_s) * period_s
        chosen = [p for p in points if p.time < end_of_last and (unit is None or p.unit == unit)]

        def place(point: Point) -> tuple[float, str]:
            return start + (point.time - start) // period_s * period_s, point.unit or ""

        for (begin, its_unit), together in groupby(sorted(chosen, key=place), key=place):
            yield Point(begin, merge([point.data for point in together]), its_unit or None)


def _time_of(point: Point) -> float:
    return point.time


def _of_values(pairs: Iterable[tuple[float, float]]) -> StatisticSet:
    values = _joined(pair for pair in pairs if pair[1])
    if not values:
        return StatisticSet(0.0, 0.0, 0.0, 0.0, None)
    known = _pairs(values)
    total = sum(value * count for value, count in known)
    return StatisticSet(sum(values[1::2]), total, values[0], values[-2], values)


def _joined(pairs: Iterable[tuple[float, float]]) -> array[float]:
    """Return value, count, … in ascending order, each value once."""
    counts: dict[float, float] = {}
    for value, count in pairs:
        counts[value] = counts.get(value, 0.0) + count
    return array("d", chain.from_iterable(sorted(counts.items())))


def _pairs(values: array[float]) -> list[tuple[float, float]]:
    return list(zip(values[::2], values[1::2], strict=True))
