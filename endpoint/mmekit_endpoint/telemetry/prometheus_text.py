"""Numbers as Prometheus's text: what they are made of, and ``prometheus_client``, which writes it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from prometheus_client import Metric

#: Values of labels, and what belongs to them.
Sample: TypeAlias = tuple[tuple[str, ...], "float | Buckets"]

_PREFIX = "mmekit_endpoint_"


@dataclass(frozen=True)
class Buckets:
    """A histogram: cumulative counts by upper bound, and the sum; seconds."""

    counts: list[tuple[str, float]]
    total: float


@dataclass(frozen=True)
class Family:
    """One metric with all its samples."""

    kind: str
    name: str
    meaning: str
    labels: tuple[str, ...]
    samples: list[Sample]


def expose(families: Sequence[Family]) -> bytes:
    """Return numbers as text; it may take tens of milliseconds, in any thread."""
    # It takes 50 ms to import; a service that nobody scrapes does without.
    from prometheus_client.exposition import generate_latest

    collector: Any = _Collector(families)  # all that is asked of a registry is `collect`
    text: bytes = generate_latest(collector)
    return text


class _Collector:
    """What prometheus_client asks for metrics."""

    def __init__(self, families: Sequence[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        return map(_metric, self._families)


def _metric(family: Family) -> Metric:
    from prometheus_client import core

    name = _PREFIX + family.name
    if family.kind == "histogram":
        histogram = core.HistogramMetricFamily(name, family.meaning, labels=family.labels)
        for labels, value in family.samples:
            assert isinstance(value, Buckets)
            histogram.add_metric(labels, value.counts, value.total)
        return histogram
    if family.kind == "summary":
        summary = core.SummaryMetricFamily(name, family.meaning, labels=family.labels)
        for labels, value in family.samples:
            assert isinstance(value, Buckets)
            summary.add_metric(labels, int(value.counts[-1][1]), value.total)
        return summary
    kind = core.CounterMetricFamily if family.kind == "counter" else core.GaugeMetricFamily
    metric = kind(name, family.meaning, labels=family.labels)
    for labels, value in family.samples:
        assert not isinstance(value, Buckets)
        metric.add_metric(labels, value)
    return metric
