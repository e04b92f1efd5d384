"""The goals, each with how it is computed from a run's results; the house plan's table in code."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.results import Cell, Results, paired

#: Values of one figure, by round where the rounds compare; empty when it was not measured.
Values = list[float]


@dataclass(frozen=True)
class Goal:
    """A bound on the median of some values; ``at_most`` False means at least."""

    what: str
    limit: float
    unit: str
    values: Callable[[Results], Values]
    at_most: bool = True

    @property
    def bound(self) -> str:
        return f"{'≤' if self.at_most else '≥'} {self.limit:g} {self.unit}".strip()

    def met(self, values: Values) -> bool:
        median = statistics.median(values)
        return median <= self.limit if self.at_most else median >= self.limit


def _values(*key: str) -> Callable[[Results], Values]:
    suite, case, server, metric = key

    def values(results: Results) -> Values:
        cell = results.get(suite, case, server, metric)
        return list(cell.values.values()) if cell else []

    return values


def _compare(
    suite: str, case: str, metric: str, server: str, other: str, function: Callable[[float, float], float]
) -> Callable[[Results], Values]:
    def values(results: Results) -> Values:
        first, second = (results.get(suite, case, name, metric) for name in (server, other))
        return [function(a, b) for a, b in paired(first, second)]

    return values


def _ratio(suite: str, case: str, metric: str, server: str, other: str) -> Callable[[Results], Values]:
    return _compare(suite, case, metric, server, other, lambda a, b: a / b)


def _added(suite: str, case: str, metric: str, server: str, other: str) -> Callable[[Results], Values]:
    return _compare(suite, case, metric, server, other, lambda a, b: a - b)


def _zipf(metric: str) -> Callable[[Results], Values]:
    def values(results: Results) -> Values:
        cases = results.cases("zipf", metric)
        return _ratio("zipf", cases[0], metric, "mmekit", "mms")(results) if cases else []

    return values


def _load_against_mms(results: Results) -> Values:
    case = "xgboost ubj, shared worker"
    ours = results.get("loads", case, "mmekit", "load")
    theirs = results.get("loads", case, "mms", "load")
    return [theirs.median / ours.median] if ours and theirs else []


def marginal(results: Results, case: str, server: str) -> Cell | None:
    """Return the memory of one more model at the largest number that was loaded."""
    found = [
        cell
        for key, cell in results.cells.items()
        if (key.suite, key.case, key.server) == ("memory", case, server) and key.metric.startswith("marginal")
    ]
    return found[-1] if found else None


def _marginal(case: str) -> Callable[[Results], Values]:
    def values(results: Results) -> Values:
        cell = marginal(results, case, "mmekit")
        return [cell.median] if cell else []

    return values


def _memory_against_mms(results: Results) -> Values:
    case = "xgboost, shared worker"
    ours, theirs = (marginal(results, case, server) for server in ("mmekit", "mms"))
    return [theirs.median / ours.median] if ours and theirs else []


def _beyond_own(fault: str) -> Callable[[Results], Values]:
    """Worst answer less what a model's own load and first prediction take anyway."""

    def values(results: Results) -> Values:
        own = results.get("neighbour", "own", "mmekit", "load and first predict")
        worst = results.get("neighbour", fault, "mmekit", "worst")
        return [value - own.median for value in worst.values.values()] if own and worst else []

    return values


GOALS: Sequence[Goal] = (
    Goal(
        "handler that does nothing, c1: p50 beyond inline",
        50,
        "µs",
        _added("warm", "null c1", "p50", "mmekit", "inline"),
    ),
    Goal(
        "handler that does nothing, c1: CPU per request",
        60,
        "µs",
        _values("warm", "null c1", "mmekit", "cpu"),
    ),
    Goal("XGBoost, c1: p50 to inline", 1.3, "×", _ratio("warm", "xgboost c1", "p50", "mmekit", "inline")),
    Goal(
        "XGBoost, c32: throughput to inline",
        4,
        "×",
        _ratio("warm", "xgboost c32", "throughput", "mmekit", "inline"),
        at_most=False,
    ),
    Goal(
        "XGBoost, c32: throughput to MMS",
        15,
        "×",
        _ratio("warm", "xgboost c32", "throughput", "mmekit", "mms"),
        at_most=False,
    ),
    Goal("Zipf, c16: throughput to MMS", 3, "×", _zipf("throughput"), at_most=False),
    Goal("Zipf, c16: p99 to MMS", 0.2, "×", _zipf("p99")),
    Goal(
        "load of XGBoost into a shared worker",
        15,
        "ms",
        _values("loads", "xgboost ubj, shared worker", "mmekit", "load"),
    ),
    Goal("the same, times as fast as MMS", 60, "×", _load_against_mms, at_most=False),
    Goal(
        "load into a worker of its own", 35, "ms", _values("loads", "xgboost, own worker", "mmekit", "load")
    ),
    Goal("memory of one more model, shared worker", 1.5, "MiB", _marginal("xgboost, shared worker")),
    Goal("the same, MMS's to ours", 40, "×", _memory_against_mms, at_most=False),
    Goal("memory of one more model, own worker", 9, "MiB", _marginal("xgboost, own worker")),
    Goal(
        "residents' p99 added by ten parallel loads",
        20,
        "ms",
        _values("residents", "xgboost, shared worker", "mmekit", "p99 added"),
    ),
    Goal(
        "the same, loads into own workers",
        20,
        "ms",
        _values("residents", "xgboost, own worker", "mmekit", "p99 added"),
    ),
    Goal("neighbour's crash: worst answer beyond own load and first predict", 60, "ms", _beyond_own("crash")),
    Goal(
        "neighbour's crash: errors of other models", 0, "", _values("neighbour", "crash", "mmekit", "errors")
    ),
    Goal("neighbour's hang: worst answer beyond own load and first predict", 60, "ms", _beyond_own("hang")),
    Goal("neighbour's hang: errors of other models", 0, "", _values("neighbour", "hang", "mmekit", "errors")),
    Goal(
        "empty server: ready beyond the template's imports",
        0.5,
        "s",
        _values("empty", "no model", "mmekit", "ready beyond imports"),
    ),
    Goal(
        "empty server: memory beyond the template",
        40,
        "MiB",
        _values("empty", "no model", "mmekit", "idle beyond template"),
    ),
    Goal("/ping p99 under saturation", 20, "ms", _values("ping", "xgboost", "mmekit", "p99")),
    Goal(
        "local endpoint, XGBoost, c16: throughput to its container's own",
        0.5,
        "×",
        _ratio("endpoint", "xgboost c16", "throughput", "endpoint", "container"),
        at_most=False,
    ),
)
