"""``GET /metrics``: what the server counts and holds, in Prometheus's text format or OpenMetrics.

The numbers are taken on the event loop, in about a millisecond however many models there are; they become
text in a thread, by ``prometheus_client``, which is imported when it is first needed.
"""

from __future__ import annotations

import asyncio
import platform
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, TypeAlias

from mmekit import __version__
from mmekit.server.access import AccessLog
from mmekit.server.fleet import Fleet
from mmekit.server.memory import Memory
from mmekit.server.model import Model, State
from mmekit.server.placement import Kind
from mmekit.server.statistics import OTHER, Histogram, Statistics

if TYPE_CHECKING:
    from prometheus_client import Metric

Labels: TypeAlias = tuple[str, ...]


@dataclass(frozen=True)
class Family:
    """One metric: its type, what it means, the names of its labels, and a value for each set of them."""

    kind: str
    name: str
    meaning: str
    labels: Labels
    values: Mapping[Labels, float | Histogram]


class Exposition:
    """Reads all parts of a server and describes them."""

    def __init__(
        self,
        statistics: Statistics,
        models: Mapping[str, Model],
        fleet: Fleet,
        memory: Memory,
        access: AccessLog | None,
        connections: Callable[[], int],
    ) -> None:
        self._statistics = statistics
        self._models = models
        self._fleet = fleet
        self._memory = memory
        self._access = access
        self._connections = connections

    async def render(self, accept: str) -> tuple[str, bytes]:
        """Return content type and text, in the format that ``accept`` asks for."""
        return await asyncio.to_thread(_render, self.families(), accept)

    def families(self) -> list[Family]:
        """Return the numbers as they are now; what is counted by model is bounded, whatever is loaded."""
        return [*self._requests(), *self._by_model(), *self._loads(), *self._memory_now(), *self._workers()]

    def _requests(self) -> Iterator[Family]:
        counted = self._statistics
        by_model = [*counted.models.items(), (OTHER, counted.other)]
        yield Family(
            "counter",
            "mmekit_requests_total",
            "Answers to predictions; 4xx has those whose client left, too.",
            ("model", "status"),
            {
                (model, f"{digit}xx"): count
                for model, series in by_model
                for digit, count in enumerate(series.answers)
                if count
            },
        )
        yield Family(
            "histogram",
            "mmekit_request_seconds",
            "Time from the arrival of a prediction's whole request to its answer.",
            ("model",),
            {(model,): series.latency.copy() for model, series in by_model},
        )
        yield Family(
            "histogram",
            "mmekit_queue_seconds",
            "Time that predictions waited for a worker.",
            ("model",),
            {(model,): series.queued.copy() for model, series in by_model},
        )
        yield Family(
            "counter",
            "mmekit_answers_total",
            "Answers of the HTTP server to requests of all kinds; 499: the client left before.",
            ("status",),
            {(str(status),): count for status, count in enumerate(counted.statuses) if count},
        )
        yield _counter("answers_cut", "Streamed answers that ended before their end.", counted.cut_answers)
        yield _gauge("http_connections", "Open connections.", self._connections())
        dropped = self._access.dropped if self._access else 0
        yield _counter("access_log_dropped_lines", "Lines of the access log that were not written.", dropped)
        yield Family(
            "info",
            "mmekit_build",
            "Version of the server and of Python.",
            ("version", "python"),
            {(__version__, platform.python_version()): 1},
        )

    def _by_model(self) -> Iterator[Family]:
        models = self._models
        ready = sum(model.state is State.READY for model in models.values())
        leaving = sum(model.state is State.UNLOADING for model in models.values())
        states = {"loading": len(models) - ready - leaving, "ready": ready, "unloading": leaving}
        yield _family("gauge", "models", "Models by state.", "state", states)
        yield self._gauges(
            "queue_requests", "Predictions that wait for a worker.", lambda model: len(model.queue)
        )
        yield self._gauges("running_calls", "Calls that run in workers.", lambda model: model.running)
        yield self._gauges("model_copies", "Workers that hold the model.", lambda model: len(model.workers))
        costs = self._memory.costs()
        own = {name: costs[name] for name in self._statistics.models if name in costs}
        own[OTHER] = sum(costs.values()) - sum(own.values())
        meaning = "Memory that loading the model took, all copies."
        yield _family("gauge", "model_memory_bytes", meaning, "model", own)

    def _gauges(self, name: str, meaning: str, value: Callable[[Model], int]) -> Family:
        """Return a number of the models that are there now; those without series of their own together."""
        models = self._models
        own = {name: value(models[name]) for name in self._statistics.models if name in models}
        own[OTHER] = sum(map(value, models.values())) - sum(own.values())
        return _family("gauge", name, meaning, "model", own)

    def _loads(self) -> Iterator[Family]:
        counted = self._statistics
        loads = _by_status(counted.loads)
        yield _family(
            "counter", "loads_total", "Requests to load a model, by their outcome.", "status", loads
        )
        yield Family(
            "histogram",
            "mmekit_load_seconds",
            "Time to bring a model into a worker, when that succeeded.",
            (),
            {(): counted.load_seconds.copy()},
        )
        yield _counter("unloads", "Models unloaded.", counted.unloads)
        yield _family(
            "counter",
            "reloads_total",
            "Loads of models that had lost their worker, by their outcome.",
            "status",
            _by_status(counted.reloads),
        )
        yield _counter("copies_added", "Copies loaded because a model was hot.", counted.copies_added)
        yield _family(
            "counter", "copies_dropped_total", "Copies taken out.", "reason", dict(counted.copies_dropped)
        )

    def _memory_now(self) -> Iterator[Family]:
        at = self._memory.statement()
        yield _gauge("memory_limit_bytes", "Memory of server and models together.", at.limit_bytes)
        yield _gauge(
            "memory_used_bytes", "Memory used, without what the kernel can take back.", at.used_bytes
        )
        yield _gauge("memory_reserve_bytes", "Memory that loads leave free.", at.reserve_bytes)
        yield _gauge("memory_granted_bytes", "Memory granted to loads that run.", at.held_bytes)

    def _workers(self) -> Iterator[Family]:
        counted = self._statistics
        kinds = Counter({kind.value: 0 for kind in Kind})
        kinds.update(worker.kind.value for worker in self._fleet.workers.values())
        starts, ends = dict(counted.worker_starts), dict(counted.worker_ends)
        yield _family("gauge", "workers", "Worker processes.", "kind", kinds)
        yield _family("counter", "worker_starts_total", "Workers that came up.", "start", starts)
        yield _family("counter", "worker_ends_total", "Workers that ended.", "reason", ends)
        yield _counter("spares_released", "Spare workers ended for their memory.", counted.spares_released)
        yield _counter("template_restarts", "Restarts of the template.", counted.template_restarts)
        yield _counter("stalls", "Calls that made their worker's other models move.", counted.stalls)
        yield _counter("quarantines", "Models quarantined.", counted.quarantines)


def _counter(name: str, meaning: str, value: float) -> Family:
    return Family("counter", f"mmekit_{name}_total", meaning, (), {(): value})


def _gauge(name: str, meaning: str, value: float) -> Family:
    return Family("gauge", f"mmekit_{name}", meaning, (), {(): value})


def _family(kind: str, name: str, meaning: str, label: str, values: Mapping[str, float]) -> Family:
    return Family(kind, f"mmekit_{name}", meaning, (label,), {(key,): value for key, value in values.items()})


def _by_status(counts: Mapping[int, int]) -> dict[str, float]:
    return {str(status): count for status, count in counts.items()}


# --- in a thread -----------------------------------------------------------------------------------


class _Collector:
    """What prometheus_client asks for metrics."""

    def __init__(self, families: Sequence[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        return map(_metric, self._families)


def _render(families: Sequence[Family], accept: str) -> tuple[str, bytes]:
    # It takes 50 ms to import; a server that nobody scrapes does without.
    from prometheus_client.exposition import choose_encoder

    try:
        encode, content_type = choose_encoder(accept)
    except (TypeError, ValueError):  # it compares versions that are none, such as "version=x"
        encode, content_type = choose_encoder("")
    return content_type, encode(_Collector(families))


def _metric(family: Family) -> Metric:
    from prometheus_client import core

    if family.kind == "histogram":
        histogram = core.HistogramMetricFamily(family.name, family.meaning, labels=family.labels)
        for labels, value in family.values.items():
            assert isinstance(value, Histogram)
            histogram.add_metric(labels, _buckets(value), value.total)
        return histogram
    if family.kind == "info":
        info = core.InfoMetricFamily(family.name, family.meaning)
        for labels in family.values:
            info.add_metric((), dict(zip(family.labels, labels, strict=True)))
        return info
    kind = core.CounterMetricFamily if family.kind == "counter" else core.GaugeMetricFamily
    metric = kind(family.name, family.meaning, labels=family.labels)
    for labels, value in family.values.items():
        assert not isinstance(value, Histogram)
        metric.add_metric(labels, value)
    return metric


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    bounds = [*map(str, histogram.bounds), "+Inf"]
    return list(zip(bounds, accumulate(histogram.counts), strict=True))
