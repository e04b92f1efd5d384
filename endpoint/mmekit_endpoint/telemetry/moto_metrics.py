"""moto's CloudWatch, with metrics that are bounded and read as from AWS: `metric_store` in moto's place.

Alarms, dashboards and all else stay moto's.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from datetime import datetime, timezone
from typing import Any

from moto.cloudwatch.exceptions import InvalidParameterCombination, InvalidParameterValue, ValidationError
from moto.cloudwatch.metric_data_expression_parser import parse_expression
from moto.cloudwatch.models import CloudWatchBackend, MetricDatumBase
from moto.cloudwatch.responses import CloudWatchResponse
from moto.core.responses import ActionResult

from mmekit_endpoint.telemetry.metric_store import STATISTICS, Metric, MetricStore, Point, statistic_set

#: AWS: GetMetricStatistics: Period.
_SHORT_PERIODS = (1, 5, 10, 20, 30)

_PERCENTILE = re.compile(r"p(100|\d{1,2}(\.\d{1,10})?)")

# Any: moto's backends and responses, whose methods these are in `install`.


def install() -> None:
    """Put this in the place of moto's own; before the first request, once or more."""
    backend: Any = CloudWatchBackend
    backend.put_metric_data = _put_metric_data
    backend.get_metric_data = _get_metric_data
    backend.get_filtered_metrics = _get_filtered_metrics
    response: Any = CloudWatchResponse
    response.get_metric_statistics = _get_metric_statistics


def _store(backend: Any) -> MetricStore:
    # In the backend's own dictionary, which moto empties when it resets it.
    store: MetricStore = backend.__dict__.setdefault("mmekit_metrics", MetricStore())
    return store


def _put_metric_data(backend: Any, namespace: str, metric_data: list[dict[str, Any]]) -> None:
    for number, datum in enumerate(metric_data, 1):
        backend._validate_parameters_put_metric_data(datum, number)
    store = _store(backend)
    for datum in metric_data:
        at = datum.get("Timestamp")
        point = Point(_epoch(at) if at else time.time(), statistic_set(datum), datum.get("Unit"))
        store.put(Metric(namespace, datum["MetricName"], _dimensions(datum.get("Dimensions"))), point)


def _get_metric_statistics(response: Any) -> ActionResult:
    ask = response._get_params()
    statistics, extended = ask.get("Statistics") or [], ask.get("ExtendedStatistics") or []
    if not statistics and not extended:
        raise InvalidParameterCombination("Must specify either Statistics or ExtendedStatistics")
    for name in [*statistics, *extended]:
        _check_statistic(name)
    start, end = _epoch(ask["StartTime"]), _epoch(ask["EndTime"])
    if start >= end:
        raise InvalidParameterValue("The parameter StartTime must be less than the parameter EndTime.")
    period_s = _period(ask["Period"])
    metric = Metric(ask["Namespace"], ask["MetricName"], _dimensions(ask.get("Dimensions")))
    found = []
    for point in _store(response.cloudwatch_backend).read(metric, start, end, period_s, ask.get("Unit")):
        shown: dict[str, Any] = {"Timestamp": _datetime(point.time), "Unit": point.unit or "None"}
        shown |= {name: point.data.statistic(name) for name in statistics}
        known = {name: point.data.statistic(name) for name in extended}
        shown["ExtendedStatistics"] = {name: value for name, value in known.items() if value is not None}
        found.append({name: value for name, value in shown.items() if value not in (None, {})})
    return ActionResult({"Label": metric.name, "Datapoints": found})


def _get_metric_data(
    backend: Any,
    queries: list[dict[str, Any]],
    start_time: datetime,
    end_time: datetime,
    scan_by: str = "TimestampAscending",
) -> list[dict[str, Any]]:
    start, end = _epoch(start_time), _epoch(end_time)
    if start > end:
        raise ValidationError("The parameter EndTime must be greater than StartTime.")
    if start == end:
        raise ValidationError("The parameter StartTime must not equal parameter EndTime.")
    results = {
        query["Id"]: _read(_store(backend), query, start, end, scan_by == "TimestampDescending")
        for query in queries
        if "MetricStat" in query
    }
    for query in queries:
        if "MetricStat" not in query:
            # moto knows one expression: the name of another query.
            values, timestamps = parse_expression(query["Expression"], list(results.values()))
            results[query["Id"]] = _result(query["Id"], query.get("Label"), values, timestamps)
    return [results[query["Id"]] for query in queries if query.get("ReturnData", True)]


def _read(
    store: MetricStore, query: dict[str, Any], start: float, end: float, newest_first: bool
) -> dict[str, Any]:
    ask = query["MetricStat"]
    named = ask["Metric"]
    metric = Metric(named.get("Namespace"), named.get("MetricName"), _dimensions(named.get("Dimensions")))
    statistic = ask["Stat"]
    _check_statistic(statistic)
    values, timestamps = [], []
    for point in store.read(metric, start, end, _period(ask["Period"]), ask.get("Unit")):
        value = point.data.statistic(statistic)
        if value is not None:
            values.append(value)
            timestamps.append(_datetime(point.time))
    if newest_first:
        values.reverse()
        timestamps.reverse()
    return _result(query["Id"], query.get("Label") or f"{metric.name} {statistic}", values, timestamps)


def _result(id_: str, label: str | None, values: Any, timestamps: Any) -> dict[str, Any]:
    return {
        "id": id_,
        "label": label or id_,
        "values": values,
        "timestamps": timestamps,
        "status_code": "Complete",
    }


def _get_filtered_metrics(
    backend: Any, metric_name: str | None, namespace: str | None, dimensions: list[dict[str, str]]
) -> list[MetricDatumBase]:
    """Return the metrics that ListMetrics shows: with these dimensions among theirs."""
    wanted = [(one["Name"], one.get("Value")) for one in dimensions or []]

    def fits(metric: Metric) -> bool:
        of_metric = dict(metric.dimensions)
        return (
            namespace in (None, metric.namespace)
            and metric_name in (None, metric.name)
            and all(name in of_metric and value in (None, of_metric[name]) for name, value in wanted)
        )

    return [
        MetricDatumBase(
            metric.namespace,
            metric.name,
            [{"Name": name, "Value": value} for name, value in sorted(metric.dimensions)],
            None,
        )
        for metric in _store(backend).metrics()
        if fits(metric)
    ]


def _check_statistic(name: str) -> None:
    if name not in STATISTICS and not _PERCENTILE.fullmatch(name):
        raise InvalidParameterValue(
            f"The statistic {name} is not one of the local endpoint's: expected {', '.join(STATISTICS)} or a "
            "percentile such as p99.9."
        )


def _period(given: Any) -> int:
    period_s = int(given)
    if period_s in _SHORT_PERIODS or (period_s > 0 and period_s % 60 == 0):
        return period_s
    raise InvalidParameterValue(
        f"Period is {period_s}: expected one of {', '.join(map(str, _SHORT_PERIODS))}, or a multiple of 60."
    )


def _dimensions(given: Iterable[dict[str, str]] | None) -> frozenset[tuple[str, str]]:
    return frozenset((one["Name"], one["Value"]) for one in given or ())


def _epoch(at: datetime) -> float:
    """Return seconds since the epoch, whole; moto's times are UTC, most of them naive."""
    return float(int((at if at.tzinfo else at.replace(tzinfo=timezone.utc)).timestamp()))


def _datetime(epoch: float) -> datetime:
    return datetime.fromtimestamp(epoch, timezone.utc)
