"""Counts what endpoints do, in the event loop: for ever, and since the last publication to CloudWatch.

A call costs about a microsecond. Each target model has a series of its own as long as a variant has not more
than ``MAX_MODELS``; the models that came later share one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from mmekit_endpoint.telemetry.distribution import bucket
from mmekit_endpoint.telemetry.series import UNSENT, Series
from mmekit_endpoint.telemetry.snapshots import (
    ModelSnapshot,
    VariantSnapshot,
    model_snapshot,
    variant_snapshot,
)

#: Target models of a variant with a series of their own.
MAX_MODELS = 256

#: The name of what the other models share.
OTHER = "other"

#: Last windows of deleted endpoints that wait for their publication; without a publisher they end here.
_MAX_FORGOTTEN = 1000


class VariantStatistics:
    """What is counted of one variant; times are microseconds."""

    def __init__(self) -> None:
        self.models: dict[str, Series] = {}
        self.other = Series()
        self._published = Series()
        self._window = Series()

    # --- the hot path

    def invocation(
        self, model: str | None, status: int, latency_us: float, overhead_us: float, hit: bool | None
    ) -> None:
        """Count one request when it ends.

        ``status`` is the container's, or 0 for a timeout, a broken connection and a malformed answer. Where
        ``latency_us`` is 0 and it was not answered with 2xx, the container never got it: it has no
        ModelLatency then, and ``status`` is the service's own. ``hit`` is None for single-model endpoints.
        """
        place = status // 100
        if latency_us <= 0.0 and place != 2:
            place = UNSENT
        latency = bucket(latency_us), latency_us
        overhead = bucket(overhead_us), overhead_us
        self._window.invocation(place, latency, overhead, hit)
        if model is not None:
            (self.models.get(model) or self._of(model)).invocation(place, latency, overhead, hit)

    # --- models

    def waited(self, model: str | None, us: float) -> None:
        """Count how long a request waited for its model; those whose model was there have not waited."""
        for series in self._both(model):
            series.waiting.add(us)

    def downloaded(self, model: str, us: float, size_bytes: int) -> None:
        """Count a download; the size is the model's on disk."""
        for series in self._both(model):
            series.downloading.add(us)
            series.downloaded_bytes += size_bytes

    def loaded(self, model: str, us: float) -> None:
        """Count a load that the container ended well."""
        for series in self._both(model):
            series.loading.add(us)

    def load_failed(self, model: str) -> None:
        """Count a download or load that failed."""
        for series in self._both(model):
            series.load_failures += 1

    def unloaded(self, model: str, us: float) -> None:
        """Count an unload."""
        for series in self._both(model):
            series.unloading.add(us)

    def evicted(self, model: str, from_: Literal["memory", "disk"]) -> None:
        """Count a model that left memory or disk."""
        for series in self._both(model):
            if from_ == "memory":
                series.evicted_from_memory += 1
            else:
                series.evicted_from_disk += 1

    # --- reading

    def take_window(self) -> Series:
        """Return what was counted since the last call, which is then published."""
        window, self._window = self._window, Series()
        self._published.merge(window)
        return window

    def total(self) -> Series:
        """Return a copy of all that was counted."""
        total = Series()
        total.merge(self._published)
        total.merge(self._window)
        return total

    def by_model(self) -> Iterator[tuple[str, Series]]:
        """Yield the models' series, and at last OTHER if there are models without their own."""
        yield from self.models.items()
        if len(self.models) == MAX_MODELS or not self.other.is_empty:
            yield OTHER, self.other

    def snapshot(self) -> VariantSnapshot:
        """Return all numbers for people to read."""
        return variant_snapshot(self.total(), [*self._model_snapshots()])

    def _model_snapshots(self) -> Iterator[ModelSnapshot]:
        return (model_snapshot(name, series) for name, series in self.by_model())

    # ---

    def _both(self, model: str | None) -> tuple[Series, ...]:
        if model is None:
            return (self._window,)
        return self._window, self._of(model)

    def _of(self, model: str) -> Series:
        series = self.models.get(model)
        if series is None:
            if len(self.models) == MAX_MODELS or model == OTHER:
                return self.other
            series = self.models[model] = Series()
        return series


class Statistics:
    """What is counted of all variants, by endpoint and variant."""

    def __init__(self) -> None:
        self.variants: dict[tuple[str, str], VariantStatistics] = {}
        self._forgotten: list[tuple[str, str, Series]] = []

    def variant(self, endpoint_name: str, variant_name: str) -> VariantStatistics:
        """Return a variant's, which begin at zero when the endpoint is new."""
        return self.variants.setdefault((endpoint_name, variant_name), VariantStatistics())

    def forget(self, endpoint_name: str) -> None:
        """Leave out an endpoint that was deleted; what was not yet published still will be."""
        for endpoint, variant in [key for key in self.variants if key[0] == endpoint_name]:
            window = self.variants.pop((endpoint, variant)).take_window()
            if not window.is_empty:
                self._forgotten.append((endpoint, variant, window))
        del self._forgotten[:-_MAX_FORGOTTEN]

    def take_forgotten(self) -> list[tuple[str, str, Series]]:
        """Return the last windows of deleted endpoints, each with endpoint and variant, once."""
        forgotten, self._forgotten = self._forgotten, []
        return forgotten

    def snapshots(self) -> dict[str, VariantSnapshot]:
        """Return the numbers of all variants, by "endpoint/variant"."""
        return {
            f"{endpoint}/{variant}": counted.snapshot()
            for (endpoint, variant), counted in self.variants.items()
        }
