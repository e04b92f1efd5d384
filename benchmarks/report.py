"""Markdown from a results file: the goals beside what was measured, then a table for each suite."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from benchmarks.goals import GOALS, Values, marginal
from benchmarks.results import Cell, Results, paired

_SERVERS = ("mmekit", "inline", "mms", "mms-lean")


def markdown(results: Results) -> str:
    """Return all sections; a suite that was not run has none."""
    sections = [
        _about(results),
        _goals(results),
        *_warm(results),
        _breakdown(results),
        _zipf(results),
        _plain(results, "ping", "/ping while one model is saturated (32 connections)"),
        _loads(results),
        _plain(results, "residents", "Resident models during ten parallel loads"),
        _plain(results, "neighbour", "A neighbour's crash or hang"),
        _memory(results),
        _plain(results, "empty", "A server without models"),
        _plain(results, "endpoint", "A warm model through a local endpoint and at its container"),
        _plain(results, "crowd", "A warm model of a local endpoint while 2,000 callers wait for a cold one"),
        _invalid(results),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


# --- formatting ------------------------------------------------------------------------------------


def number(value: float) -> str:
    """Return about three significant digits, never in exponent form."""
    if value == 0:
        return "0"
    size = abs(value)
    digits = 0 if size >= 100 else 1 if size >= 10 else 2
    return f"{value:,.{digits}f}".replace(",", " ")


def spread(values: Iterable[float]) -> str:
    """Return the median with minimum and maximum."""
    found = list(values)
    if not found:
        return "–"
    median = number(statistics.median(found))
    if len(found) == 1:
        return median
    return f"{median} ({number(min(found))}–{number(max(found))})"


def _cell(cell: Cell | None) -> str:
    return spread(cell.values.values()) if cell else "–"


def _table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]], level: int = 3) -> str:
    lines = [f"{'#' * level} {title}", "", f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(lines)


def _ratio(first: Cell | None, second: Cell | None) -> str:
    return spread(a / b for a, b in paired(first, second))


# --- sections --------------------------------------------------------------------------------------


def _about(results: Results) -> str:
    about = results.about
    machine = about["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    return "\n".join(
        [
            "### The run",
            "",
            f"- {machine['date']}, `{about['command']}`, {about['minutes']} minutes",
            f"- {machine['cores']} cores ({machine['cpu']}), {machine['memory_gib']} GiB, "
            f"{machine['system']}, Linux {machine['kernel']}; wrk on the same cores",
            f"- {versions}",
            f"- values: median (minimum–maximum) of rounds; memory: {about['memory_from']}",
        ]
    )


def _goals(results: Results) -> str:
    def row(what: str, bound: str, values: Values, met: str) -> list[str]:
        return [what, bound, spread(values), met]

    rows = []
    for goal in GOALS:
        values = goal.values(results)
        met = "not measured" if not values else "met" if goal.met(values) else "**missed**"
        rows.append(row(goal.what, goal.bound, values, met))
    return _table("Goals", ("what", "goal", "measured", ""), rows)


def _warm(results: Results) -> list[str]:
    servers = _present(results, "warm")
    if not servers:
        return []
    rate, times, cpu = [], [], []
    for case in results.cases("warm", "throughput"):
        cells = {
            (server, metric): results.get("warm", case, server, metric)
            for server in servers
            for metric in ("throughput", "p50", "p99", "cpu")
        }
        ratios = [
            _ratio(cells.get(("mmekit", "throughput")), cells.get((other, "throughput")))
            for other in servers
            if other != "mmekit"
        ]
        rate.append([case, *(_cell(cells[server, "throughput"]) for server in servers), *ratios])
        times.append(
            [case, *(_cell(cells[server, metric]) for metric in ("p50", "p99") for server in servers)]
        )
        cpu.append([case, *(_cell(cells[server, "cpu"]) for server in servers)])
    others = [f"mmekit / {server}" for server in servers if server != "mmekit"]
    latency_head = [f"{metric} {server}" for metric in ("p50", "p99") for server in servers]
    return [
        _table("One warm model: requests a second", ["model, connections", *servers, *others], rate),
        _table("One warm model: latency, µs", ["model, connections", *latency_head], times),
        _table("One warm model: server CPU a request, µs", ["model, connections", *servers], cpu),
    ]


def _breakdown(results: Results) -> str:
    rows = []
    for case in results.cases("breakdown", "p50"):
        front, workers = (
            results.get("breakdown", case, "mmekit", f"cpu {part}") for part in ("front", "workers")
        )
        steps = ("bare prediction", "handler", "inline", "mmekit")
        rows.append(
            [
                case,
                *(_cell(results.get("breakdown", case, step, "p50")) for step in steps),
                _cell(results.get("breakdown", case, "inline", "cpu")),
                _cell(front),
                _cell(workers),
            ]
        )
    head = (
        "model",
        "bare prediction",
        "+ parse, encode",
        "+ HTTP (inline)",
        "+ worker (mmekit)",
        "CPU inline",
        "CPU server process",
        "CPU worker",
    )
    return _table("From a bare prediction to an answer, one at a time: p50 µs", head, rows) if rows else ""


def _zipf(results: Results) -> str:
    rows = []
    for case in results.cases("zipf", "throughput"):
        for server in _present(results, "zipf"):
            metrics = ("throughput", "p50", "p99", "max", "cpu")
            rows.append([case, server, *(_cell(results.get("zipf", case, server, m)) for m in metrics)])
    head = ("case", "server", "req/s", "p50 µs", "p99 µs", "max µs", "CPU µs/req")
    return _table("Zipf traffic", head, rows) if rows else ""


def _loads(results: Results) -> str:
    rows = []
    for case in results.cases("loads", "load"):
        for server in _present(results, "loads"):
            load = results.get("loads", case, server, "load")
            first = results.get("loads", case, server, "first predict")
            if load and first:
                rows.append([case, server, str(len(load.values)), _cell(load), _cell(first)])
    head = ("model", "server", "loads", "load ms", "first predict ms")
    return _table("Loads", head, rows) if rows else ""


def _memory(results: Results) -> str:
    found = {key: cell for key, cell in results.cells.items() if key.suite == "memory"}
    marks = list(dict.fromkeys(key.metric for key in found if key.metric.endswith(" models")))
    marks = [mark for mark in marks if not mark.startswith("marginal")]
    marks.sort(key=lambda mark: int(mark.split()[0]))
    rows = []
    for server, case in dict.fromkeys((key.server, key.case) for key in found):
        values = [_cell(results.get("memory", case, server, mark)) for mark in marks]
        rows.append([case, server, *values, _cell(marginal(results, case, server))])
    head = ("case", "server", *marks, "one more")
    return _table("Memory of loaded models, MiB", head, rows) if rows else ""


def _plain(results: Results, suite: str, title: str) -> str:
    found = {key: cell for key, cell in results.cells.items() if key.suite == suite}
    metrics = list(dict.fromkeys((key.metric, cell.unit) for key, cell in found.items()))
    rows = []
    for case, server in dict.fromkeys((key.case, key.server) for key in found):
        values = [_cell(results.get(suite, case, server, metric)) for metric, _ in metrics]
        rows.append([case, server, *values])
    head = ("case", "server", *(f"{metric} {unit}".strip() for metric, unit in metrics))
    return _table(title, head, rows) if rows else ""


def _invalid(results: Results) -> str:
    if not results.invalid:
        return ""
    lines = "\n".join(f"- {' '.join(text.split())[:300]}" for text in results.invalid)
    return f"### Measurements that failed and have no value\n\n{lines}"


def _present(results: Results, suite: str) -> list[str]:
    return [
        server for server in _SERVERS if any(k.suite == suite and k.server == server for k in results.cells)
    ]
