"""``context.metrics``: numbers that a handler reports, collected by call (MMS: mms/metrics)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

_TIME_UNITS = {"ms": "Milliseconds", "s": "Seconds"}
_SIZE_UNITS = {"MB": "Megabytes", "kB": "Kilobytes", "GB": "Gigabytes", "B": "Bytes"}


@dataclass(frozen=True)
class Dimension:
    name: str
    value: str


@dataclass
class Metric:
    """One number; ``request_id`` is None for those of the whole batch."""

    name: str
    value: float
    unit: str
    dimensions: Sequence[Dimension]
    request_id: str | None = None
    metric_method: str | None = None

    def update(self, value: float) -> None:
        """Add to a counter, replace anything else."""
        self.value = self.value + value if self.metric_method == "counter" else value


@dataclass
class MetricsStore:
    """Collects metrics in ``store``, one entry a name, unit, request and set of dimensions.

    ``idx`` is a request's place in the batch, None for the batch as a whole.
    """

    request_ids: Mapping[int, str]
    model_name: str
    store: list[Metric] = field(default_factory=list)

    def add_counter(
        self, name: str, value: float, idx: int | None = None, dimensions: Sequence[Dimension] | None = None
    ) -> None:
        self._add(name, value, idx, "Count", dimensions, "counter")

    def add_time(
        self,
        name: str,
        value: float,
        idx: int | None = None,
        unit: str = "ms",
        dimensions: Sequence[Dimension] | None = None,
    ) -> None:
        """Raises ``ValueError`` for a unit other than ms and s."""
        self._add(name, value, idx, _unit(unit, _TIME_UNITS), dimensions)

    def add_size(
        self,
        name: str,
        value: float,
        idx: int | None = None,
        unit: str = "MB",
        dimensions: Sequence[Dimension] | None = None,
    ) -> None:
        """Raises ``ValueError`` for a unit other than B, kB, MB and GB."""
        self._add(name, value, idx, _unit(unit, _SIZE_UNITS), dimensions)

    def add_percent(
        self, name: str, value: float, idx: int | None = None, dimensions: Sequence[Dimension] | None = None
    ) -> None:
        self._add(name, value, idx, "Percent", dimensions)

    def add_error(self, name: str, value: float, dimensions: Sequence[Dimension] | None = None) -> None:
        self._add(name, value, None, "", [*(dimensions or ()), Dimension("Level", "Error")])

    def add_metric(
        self,
        name: str,
        value: float,
        idx: int | None = None,
        unit: str = "",
        dimensions: Sequence[Dimension] | None = None,
    ) -> None:
        self._add(name, value, idx, unit, dimensions)

    def _add(
        self,
        name: str,
        value: float,
        idx: int | None,
        unit: str,
        dimensions: Sequence[Dimension] | None,
        method: str | None = None,
    ) -> None:
        request_id = None if idx is None else self.request_ids.get(idx)
        common = [Dimension("ModelName", self.model_name), Dimension("Level", "Model")]
        all_dimensions = [*(dimensions or ()), *common]
        for metric in self.store:
            same_place = metric.request_id == request_id and metric.dimensions == all_dimensions
            if metric.name == name and metric.unit == unit and same_place:
                metric.update(value)
                return
        self.store.append(Metric(name, value, unit, all_dimensions, request_id, method))


def _unit(unit: str, known: Mapping[str, str]) -> str:
    if unit not in known:
        raise ValueError(f"the unit {unit!r} is not one of {', '.join(known)}")
    return known[unit]
