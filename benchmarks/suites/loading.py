"""How long a load takes, and what loads cost the models that are already there."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from benchmarks.bench import Bench, rotated
from benchmarks.load import LoadFailed, Probe
from benchmarks.models import Model
from benchmarks.servers import MultiModelServer, Native, Server, invoke_target

_PARALLEL = 10
_RESIDENTS = 8

#: (case, kind of model): own code means a worker of the model's own in mmekit.
_CASES = (
    ("xgboost ubj, shared worker", "xgboost"),
    ("xgboost json, shared worker", "xgboost-json"),
    ("xgboost, own worker", "xgboost-own-code"),
    ("sklearn, shared worker", "sklearn"),
    ("torch, shared worker", "torch"),
)


def loads(bench: Bench) -> None:
    """Load and first prediction of one model after the other, all kept; MMS loads fewer, being slow."""
    with ExitStack() as stack:
        servers: list[Server] = [bench.start(stack, kind) for kind in bench.kinds(lean=False)]
        copies = {case: bench.store.copies(kind, bench.plan.loads) for case, kind in _CASES}
        for number in range(bench.plan.loads):
            if number % 10 == 0:
                bench.say(f"load {number + 1} of {bench.plan.loads}")
            for server in rotated(servers, number):
                if isinstance(server, MultiModelServer) and number >= bench.plan.mms_loads:
                    continue
                for case, kind in _CASES:
                    if isinstance(server, MultiModelServer) and kind != "xgboost":
                        continue
                    _record_load(bench, server, case, copies[case][number], number)


def _record_load(bench: Bench, server: Server, case: str, model: Model, number: int) -> None:
    bench.record("loads", case, server.name, "load", "ms", number, server.load(model))
    bench.record("loads", case, server.name, "first predict", "ms", number, server.check(model))


def residents(bench: Bench) -> None:
    """Answers of resident models, probed every 2 ms, during bursts of ten parallel loads."""
    with ExitStack() as stack:
        servers: list[Server] = [
            bench.start(stack, kind)
            for kind, bursts in ((Native, bench.plan.bursts), (MultiModelServer, bench.plan.mms_bursts))
            if bursts and bench.wants(kind)
        ]
        models = [
            model.renamed(f"resident-{model.name}") for model in bench.store.copies("xgboost", _RESIDENTS)
        ]
        for server in servers:
            for model in models:
                server.load(model)
                server.check(model)
        newcomers = {
            "xgboost, shared worker": bench.store.copies("xgboost", _PARALLEL),
            "xgboost, own worker": bench.store.copies("xgboost-own-code", _PARALLEL),
        }
        for number in range(bench.plan.rounds):
            bench.say(f"round {number + 1} of {bench.plan.rounds}")
            for server in servers:
                # Ten loads take MMS most of a minute here: once is enough.
                if isinstance(server, MultiModelServer) and number > 0:
                    continue
                for case, burst in newcomers.items():
                    if isinstance(server, Native) or case == "xgboost, shared worker":
                        _record_burst(bench, server, models, case, burst, number)


def _record_burst(
    bench: Bench, server: Server, models: Sequence[Model], case: str, burst: Sequence[Model], number: int
) -> None:
    bursts = bench.plan.bursts if isinstance(server, Native) else bench.plan.mms_bursts
    spans, quiet = [], []
    try:
        with (
            Probe(server.url, [invoke_target(model) for model in models], 0.002) as probe,
            ThreadPoolExecutor(_PARALLEL) as pool,
        ):
            for _ in range(bursts):
                began = time.monotonic()
                time.sleep(0.5)
                quiet.append((began + 0.1, began + 0.45))
                began = time.monotonic()
                list(pool.map(server.load, burst))
                spans.append((began, time.monotonic()))
                list(pool.map(server.unload, burst))
            seen = probe.stop()
        calm, busy = seen.during(quiet), seen.during(spans)
    except LoadFailed as error:
        bench.note_invalid("residents", case, server.name, error)
        return
    for metric, result in (("quiet", calm), ("during loads", busy)):
        bench.record("residents", case, server.name, f"p50 {metric}", "ms", number, result.percentile_ms(0.5))
        bench.record(
            "residents", case, server.name, f"p99 {metric}", "ms", number, result.percentile_ms(0.99)
        )
    delta = busy.percentile_ms(0.99) - calm.percentile_ms(0.99)
    bench.record("residents", case, server.name, "p99 added", "ms", number, delta)
    took = sum(end - start for start, end in spans) / len(spans)
    bench.record("residents", case, server.name, "ten loads", "ms", number, took * 1000)
    bench.record("residents", case, server.name, "errors", "", number, len(seen.errors))
