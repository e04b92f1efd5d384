"""``context.metrics``: numbers that a handler reports, collected by call (MMS: mms/metrics).

Unlike MMS, the caller's dimensions are kept for every kind of metric, and lists that are passed in
are not changed.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


class Units:
    """Short names of units and what is reported for them (MMS: unit.py)."""

    def __init__(self) -> None:
        self.units: dict[str | None, str] = {
            "ms": "Milliseconds",
            "s": "Seconds",
            "percent": "Percent",
            "count": "Count",
            "MB": "Megabytes",
            "GB": "Gigabytes",
            "kB": "Kilobytes",
            "B": "Bytes",
            None: "unit",
        }


_UNITS = Units().units


@dataclass
class Dimension:
    name: str
    value: str

    def __str__(self) -> str:
        return f"{self.name}:{self.value}"

    def to_dict(self) -> dict[str, str]:
        return {"Name": self.name, "Value": self.value}


@dataclass
class Metric:
    """One number; ``request_id`` is None for what belongs to no request, ``a,b`` for a batch."""

    name: str
    value: Any
    unit: str | None
    dimensions: Sequence[Dimension]
    request_id: str | None = None
    metric_method: str | None = None

    def __post_init__(self) -> None:
        self.unit = _UNITS.get(self.unit, self.unit)

    def update(self, value: Any) -> None:
        """Add to a counter, replace anything else."""
        self.value = self.value + value if self.metric_method == "counter" else value

    def __str__(self) -> str:
        """Return the line that MMS logs (Metric.java): ``Name.Unit:value|#Dim:v,…|#hostname:h,…``."""
        dimensions = ",".join(str(dimension) for dimension in self.dimensions)
        request = f",requestID:{self.request_id}" if self.request_id else ""
        place = f"hostname:{socket.gethostname()}{request},timestamp:{int(time.time())}"
        return f"{self.name}.{self.unit}:{self.value}|#{dimensions}|#{place}"

    def to_dict(self) -> dict[str, Any]:
        """Return the fields under MMS's names; the timestamp is in whole seconds."""
        return {
            "MetricName": self.name,
            "Value": self.value,
            "Unit": self.unit,
            "Dimensions": self.dimensions,
            "Timestamp": int(time.time()),
            "HostName": socket.gethostname(),
            "RequestId": self.request_id,
        }


class MetricEncoder(json.JSONEncoder):
    """For ``json.dumps(metric, cls=MetricEncoder)``."""

    def default(self, o: Any) -> Any:
        return o.to_dict() if isinstance(o, Metric | Dimension) else super().default(o)


@dataclass
class MetricsStore:
    """Collects metrics in ``store``, one entry a name, unit, request and set of dimensions.

    ``idx`` is a request's place in the batch; without it a metric is of all of them.
    """

    request_ids: Mapping[int, str] | None
    model_name: str
    store: list[Metric] = field(default_factory=list)
    _known: dict[tuple[Any, ...], Metric] = field(default_factory=dict, repr=False, compare=False)

    def add_counter(
        self, name: str, value: float, idx: int | None = None, dimensions: Sequence[Dimension] | None = None
    ) -> None:
        self._add(name, value, idx, "count", dimensions, "counter")

    def add_time(
        self,
        name: str,
        value: float,
        idx: int | None = None,
        unit: str = "ms",
        dimensions: Sequence[Dimension] | None = None,
    ) -> None:
        """Raises ``ValueError`` for a unit other than ms and s."""
        self._add(name, value, idx, _one_of(unit, ("ms", "s")), dimensions)

    def add_size(
        self,
        name: str,
        value: float,
        idx: int | None = None,
        unit: str = "MB",
        dimensions: Sequence[Dimension] | None = None,
    ) -> None:
        """Raises ``ValueError`` for a unit other than MB, kB, GB and B."""
        self._add(name, value, idx, _one_of(unit, ("MB", "kB", "GB", "B")), dimensions)

    def add_percent(
        self, name: str, value: float, idx: int | None = None, dimensions: Sequence[Dimension] | None = None
    ) -> None:
        self._add(name, value, idx, "percent", dimensions)

    def add_error(self, name: str, value: Any, dimensions: Sequence[Dimension] | None = None) -> None:
        """Report a text or number that is of no request."""
        self._put(name, value, None, "", [*(dimensions or ()), Dimension("Level", "Error")])

    def add_metric(
        self,
        name: str,
        value: float,
        idx: int | None = None,
        unit: str | None = None,
        dimensions: Sequence[Dimension] | None = None,
    ) -> None:
        self._add(name, value, idx, unit, dimensions)

    def _add(
        self,
        name: str,
        value: Any,
        idx: int | None,
        unit: str | None,
        dimensions: Sequence[Dimension] | None,
        method: str | None = None,
    ) -> None:
        common = (Dimension("ModelName", self.model_name), Dimension("Level", "Model"))
        self._put(name, value, self._request_id(idx), unit, [*(dimensions or ()), *common], method)

    def _put(
        self,
        name: str,
        value: Any,
        request_id: str | None,
        unit: str | None,
        dimensions: list[Dimension],
        method: str | None = None,
    ) -> None:
        key = (name, unit, request_id, *map(str, dimensions))
        if known := self._known.get(key):
            known.update(value)
            return
        self._known[key] = metric = Metric(name, value, unit, dimensions, request_id, method)
        self.store.append(metric)

    def _request_id(self, idx: int | None) -> str | None:
        ids = self.request_ids or {}
        if idx is not None and idx in ids:
            return ids[idx]
        return ",".join(ids.values()) or None


#: Those that were asked for in the call that runs: a worker runs one at a time and takes them at its end.
reported: list[MetricsStore] = []


def _one_of(unit: str, known: Sequence[str]) -> str:
    if unit not in known:
        raise ValueError(f"the unit {unit!r} is not one of {', '.join(known)}")
    return unit
