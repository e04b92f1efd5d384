"""``/_mmekit/metrics``: what is counted and what the fleet is, in Prometheus's text format.

Names are those of SageMaker's metrics, times are seconds. InvocationsPerInstance is the rate of
``invocations_total`` divided by ``instances{state="in service"}``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

from mmekit_endpoint.fleet.views import EndpointView
from mmekit_endpoint.telemetry.distribution import BUCKETS_PER_DECADE, Distribution, bound
from mmekit_endpoint.telemetry.prometheus_text import Buckets, Family, Sample, expose
from mmekit_endpoint.telemetry.series import NO_ANSWER, UNSENT, Series
from mmekit_endpoint.telemetry.shares import concurrent_requests, disk_percent, memory_percent
from mmekit_endpoint.telemetry.statistics import OTHER, Statistics

_VARIANT = ("endpoint", "variant")
_INSTANCE = (*_VARIANT, "instance")
_MODEL = (*_VARIANT, "target_model")

#: Upper bounds that are shown, three a decade: 0.1 ms to 464 s.
_BOUNDS = range(2 * BUCKETS_PER_DECADE, 9 * BUCKETS_PER_DECADE, BUCKETS_PER_DECADE // 3)

_US = 1e6


def render(statistics: Statistics, views: list[EndpointView]) -> bytes:
    """Return the text; `expose` of `collect`."""
    return expose(collect(statistics, views))


def collect(statistics: Statistics, views: list[EndpointView]) -> list[Family]:
    """Return all numbers as they are now; in the event loop, where they change."""
    totals = [(key, counted.total()) for key, counted in statistics.variants.items()]
    models = [
        ((*key, name), series)
        for key, counted in statistics.variants.items()
        for name, series in counted.by_model()
    ]
    return [
        *_requests(totals),
        *_times(totals),
        *_by_model(models),
        *_fleet(views),
        *_instances(views),
        *_models_now(statistics, views),
    ]


# --- what is counted

_Counted: TypeAlias = Sequence[tuple[tuple[str, ...], Series]]


def _requests(totals: _Counted) -> Iterator[Family]:
    yield Family(
        "counter",
        "invocations",
        "Requests by the container's status; none: timeout, broken connection or malformed answer; unsent: "
        "the container never got it.",
        (*_VARIANT, "status"),
        list(_answers(totals)),
    )

    def counter(name: str, meaning: str, values: Iterable[float]) -> Family:
        samples: list[Sample] = [(key, value) for (key, _), value in zip(totals, values, strict=True)]
        return Family("counter", name, meaning, _VARIANT, samples)

    all_series = [series for _, series in totals]
    yield counter(
        "invocation_4xx_errors", "Answers of containers with 4xx.", (s.answers[4] for s in all_series)
    )
    yield counter(
        "invocation_5xx_errors", "Answers of containers with 5xx.", (s.answers[5] for s in all_series)
    )
    yield counter(
        "invocation_model_errors",
        "Requests that no container answered with 2xx.",
        (s.model_errors for s in all_series),
    )
    yield counter("model_cache_hits", "Requests whose model was loaded.", (s.hits for s in all_series))
    yield counter("model_cache_misses", "Requests whose model was not.", (s.misses for s in all_series))
    yield counter(
        "model_downloaded_bytes", "Bytes of models on disk.", (s.downloaded_bytes for s in all_series)
    )
    yield counter(
        "model_load_failures", "Downloads and loads that failed.", (s.load_failures for s in all_series)
    )
    samples: list[Sample] = []
    for key, series in totals:
        samples.append(((*key, "memory"), series.evicted_from_memory))
        samples.append(((*key, "disk"), series.evicted_from_disk))
    yield Family(
        "counter", "model_evictions", "Models that left memory or disk.", (*_VARIANT, "from"), samples
    )


def _answers(counted: _Counted) -> Iterator[Sample]:
    names = {NO_ANSWER: "none", UNSENT: "unsent"}
    for key, series in counted:
        for place, count in enumerate(series.answers):
            if count:
                yield (*key, names.get(place, f"{place}xx")), count


def _times(totals: _Counted) -> Iterator[Family]:
    def histogram(name: str, meaning: str, values: Iterable[Distribution]) -> Family:
        samples: list[Sample] = [
            (key, _buckets(value)) for (key, _), value in zip(totals, values, strict=True)
        ]
        return Family("histogram", f"{name}_seconds", meaning, _VARIANT, samples)

    all_series = [series for _, series in totals]
    yield histogram(
        "model_latency", "Time in containers, transport included.", (s.latency for s in all_series)
    )
    yield histogram("overhead_latency", "Time of requests without that.", (s.overhead for s in all_series))
    yield histogram(
        "model_loading_wait", "How long requests waited for their model.", (s.waiting for s in all_series)
    )
    yield histogram(
        "model_downloading", "Time to fetch and unpack a model.", (s.downloading for s in all_series)
    )
    yield histogram("model_loading", "Time of a container's load call.", (s.loading for s in all_series))
    yield histogram("model_unloading", "Time of an unload call.", (s.unloading for s in all_series))


def _buckets(values: Distribution) -> Buckets:
    bounds = [f"{bound(index) / _US:.6g}" for index in _BOUNDS]
    counts: list[tuple[str, float]] = [*zip(bounds, values.below(_BOUNDS), strict=True)]
    return Buckets([*counts, ("+Inf", values.count)], values.total / _US)


def _by_model(models: _Counted) -> Iterator[Family]:
    yield Family(
        "counter",
        "target_model_invocations",
        "Requests by target model and status, as invocations_total.",
        (*_MODEL, "status"),
        list(_answers(models)),
    )

    def family(kind: str, name: str, meaning: str, values: Iterable[float | Buckets]) -> Family:
        samples: list[Sample] = [(key, value) for (key, _), value in zip(models, values, strict=True)]
        return Family(kind, f"target_model_{name}", meaning, _MODEL, samples)

    all_series = [series for _, series in models]
    yield family("counter", "cache_hits", "Requests whose model was loaded.", (s.hits for s in all_series))
    yield family("counter", "cache_misses", "Requests whose model was not.", (s.misses for s in all_series))
    yield family("counter", "load_failures", "Loads that failed.", (s.load_failures for s in all_series))
    yield family(
        "counter", "evictions", "How often it left memory.", (s.evicted_from_memory for s in all_series)
    )
    yield family("summary", "latency_seconds", "Time in containers.", (_sum(s.latency) for s in all_series))
    yield family("summary", "loading_seconds", "Time to load.", (_sum(s.loading) for s in all_series))


def _sum(values: Distribution) -> Buckets:
    return Buckets([("+Inf", values.count)], values.total / _US)


# --- what is there now


def _fleet(views: list[EndpointView]) -> Iterator[Family]:
    states: Counter[tuple[str, ...]] = Counter()
    desired: list[Sample] = []
    for endpoint in views:
        for variant in endpoint.variants:
            key = (endpoint.name, variant.name)
            desired.append((key, variant.desired_count))
            states[(*key, "in service")] += 0
            states.update((*key, instance.state) for instance in variant.instances)
    yield Family("gauge", "desired_instances", "Instances that there should be.", _VARIANT, desired)
    yield Family("gauge", "instances", "Instances by state.", (*_VARIANT, "state"), list(states.items()))


def _instances(views: list[EndpointView]) -> Iterator[Family]:
    instances = [
        ((endpoint.name, variant.name, instance.instance_id), instance)
        for endpoint in views
        for variant in endpoint.variants
        for instance in variant.instances
    ]

    def gauge(name: str, meaning: str, values: Iterable[float | None]) -> Family:
        samples: list[Sample] = [
            (key, value) for (key, _), value in zip(instances, values, strict=True) if value is not None
        ]
        return Family("gauge", name, meaning, _INSTANCE, samples)

    shown = [instance for _, instance in instances]
    yield gauge("loaded_models", "Models in memory.", (i.loaded_count for i in shown))
    yield gauge("concurrent_requests", "Requests here, waiting ones too.", map(concurrent_requests, shown))
    yield gauge("memory_bytes", "Memory in use.", (i.memory_bytes for i in shown))
    yield gauge("memory_limit_bytes", "Memory of the instance.", (i.memory_limit_bytes for i in shown))
    yield gauge("disk_bytes", "Models on the volume.", (i.disk_bytes for i in shown))
    yield gauge("volume_bytes", "Size of the volume.", (i.volume_bytes for i in shown))
    yield gauge("cpu_utilization_percent", "100 a CPU.", (i.cpu_percent for i in shown))
    yield gauge("memory_utilization_percent", "Share of memory in use.", map(memory_percent, shown))
    yield gauge("disk_utilization_percent", "Share of the volume in use.", map(disk_percent, shown))
    yield gauge("gpu_utilization_percent", "100 a GPU.", (i.gpu_percent for i in shown))
    yield gauge("gpu_memory_utilization_percent", "100 a GPU.", (i.gpu_memory_percent for i in shown))


def _models_now(statistics: Statistics, views: list[EndpointView]) -> Iterator[Family]:
    copies: Counter[tuple[str, ...]] = Counter()
    in_flight: Counter[tuple[str, ...]] = Counter()
    waiting: Counter[tuple[str, ...]] = Counter()
    for endpoint in views:
        for variant in endpoint.variants:
            counted = statistics.variants.get((endpoint.name, variant.name))
            own = counted.models if counted is not None else {}
            for model in (model for instance in variant.instances for model in instance.models):
                name = model.target_model if model.target_model in own else OTHER
                key = (endpoint.name, variant.name, name)
                copies[key] += model.state == "loaded"
                in_flight[key] += model.in_flight
                waiting[key] += model.waiting
    yield Family(
        "gauge", "target_model_copies", "Instances that have it in memory.", _MODEL, list(copies.items())
    )
    yield Family(
        "gauge", "target_model_in_flight", "Requests in containers.", _MODEL, list(in_flight.items())
    )
    yield Family("gauge", "target_model_waiting", "Requests that wait.", _MODEL, list(waiting.items()))
