"""What was counted, as plain values for tables and the admin routes; times are milliseconds."""

from __future__ import annotations

import msgspec

from mmekit_endpoint.telemetry.distribution import Distribution, percentile
from mmekit_endpoint.telemetry.series import NO_ANSWER, UNSENT, Series


class Times(msgspec.Struct, frozen=True):
    """How long something took; percentiles are right within 5 %."""

    count: int
    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    max: float


class ModelSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """What was counted of one target model, or of all those without a series of their own."""

    target_model: str
    invocations: int
    #: Not answered with 2xx.
    errors: int
    #: Share of requests whose model was loaded; None without requests.
    hit_ratio: float | None
    loads: int
    load_failures: int
    evictions: int
    latency_ms: Times | None
    load_ms: Times | None


class VariantSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """What was counted of one variant; times are None where there were none."""

    invocations: int
    #: By the container's status.
    errors_4xx: int
    errors_5xx: int
    #: Timeouts, broken connections, malformed answers.
    no_answers: int
    #: Requests that the container never got, such as those whose model was not loaded in time.
    unsent: int
    hit_ratio: float | None
    downloads: int
    downloaded_bytes: int
    loads: int
    load_failures: int
    unloads: int
    #: From memory.
    evictions: int
    evictions_from_disk: int
    latency_ms: Times | None
    overhead_ms: Times | None
    #: How long requests waited that came before their model was loaded.
    wait_ms: Times | None
    download_ms: Times | None
    load_ms: Times | None
    unload_ms: Times | None
    models: list[ModelSnapshot]


def variant_snapshot(series: Series, models: list[ModelSnapshot]) -> VariantSnapshot:
    """Return the numbers of a variant."""
    return VariantSnapshot(
        invocations=series.invocations,
        errors_4xx=series.answers[4],
        errors_5xx=series.answers[5],
        no_answers=series.answers[NO_ANSWER],
        unsent=series.answers[UNSENT],
        hit_ratio=_hit_ratio(series),
        downloads=series.downloading.count,
        downloaded_bytes=series.downloaded_bytes,
        loads=series.loading.count,
        load_failures=series.load_failures,
        unloads=series.unloading.count,
        evictions=series.evicted_from_memory,
        evictions_from_disk=series.evicted_from_disk,
        latency_ms=_times(series.latency),
        overhead_ms=_times(series.overhead),
        wait_ms=_times(series.waiting),
        download_ms=_times(series.downloading),
        load_ms=_times(series.loading),
        unload_ms=_times(series.unloading),
        models=models,
    )


def model_snapshot(name: str, series: Series) -> ModelSnapshot:
    """Return the numbers of a target model."""
    return ModelSnapshot(
        target_model=name,
        invocations=series.invocations,
        errors=series.model_errors,
        hit_ratio=_hit_ratio(series),
        loads=series.loading.count,
        load_failures=series.load_failures,
        evictions=series.evicted_from_memory,
        latency_ms=_times(series.latency),
        load_ms=_times(series.loading),
    )


def _hit_ratio(series: Series) -> float | None:
    known = series.hits + series.misses
    return series.hits / known if known else None


def _times(distribution: Distribution) -> Times | None:
    values = list(distribution.values())
    if not values:
        return None

    def at(percent: float) -> float:
        return _ms(percentile(values, percent) or 0.0)

    count = distribution.count
    mean = _ms(distribution.total / count)
    return Times(count, mean, at(50), at(90), at(95), at(99), _ms(distribution.maximum))


def _ms(us: float) -> float:
    return round(us / 1000, 3)
