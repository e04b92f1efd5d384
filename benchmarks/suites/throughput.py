"""Requests a second, latency and CPU: one warm model, Zipf traffic over many, /ping under load."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from benchmarks.bench import Bench, rotated
from benchmarks.load import LoadFailed, Target, probe, wrk, zipf_weights
from benchmarks.servers import Server, invoke_target

_PING = Target("GET", "/ping", {})


def warm(bench: Bench) -> None:
    """Each model alone at each concurrency; the servers take turns within a round."""
    with ExitStack() as stack:
        servers: list[Server] = [bench.start(stack, kind) for kind in bench.kinds()]
        models = [bench.store.get(name) for name in bench.plan.models]
        for model in models:
            for server in servers:
                server.load(model)
                bench.warm_up(server, model)
        for model in models:
            for connections in bench.plan.connections:
                case = f"{model.name} c{connections}"
                bench.say(case)
                for number in range(bench.plan.rounds):
                    for server in rotated(servers, number):
                        bench.measure("warm", case, server, [invoke_target(model)], connections, number)


def zipf(bench: Bench) -> None:
    """Traffic over many small XGBoost models at concurrency 16, the n-th with share 1/n."""
    count = bench.plan.zipf_models
    models = bench.store.copies("xgboost", count)
    targets = [
        invoke_target(model, weight) for model, weight in zip(models, zipf_weights(count), strict=True)
    ]
    with ExitStack() as stack:
        servers = []
        for kind in bench.kinds():
            bench.say(f"{count} models into {kind.name}")
            server: Server = bench.start(stack, kind)
            for model in models:
                server.load(model)
                server.check(model)
            servers.append(server)
        for server in servers:
            wrk(server.url, targets, 16, bench.plan.seconds)
        for number in range(bench.plan.rounds):
            bench.say(f"round {number + 1} of {bench.plan.rounds}")
            for server in rotated(servers, number):
                bench.measure("zipf", f"{count} models c16", server, targets, 16, number)


def ping(bench: Bench) -> None:
    """/ping every 5 ms while 32 connections keep one model busy."""
    with ExitStack() as stack:
        servers: list[Server] = [bench.start(stack, kind) for kind in bench.kinds(lean=False)]
        for name in ("xgboost", "forest"):
            if name not in bench.plan.models:
                continue
            bench.say(name)
            model = bench.store.get(name)
            for server in servers:
                server.load(model)
                bench.warm_up(server, model)
            for number in range(bench.plan.rounds):
                for server in rotated(servers, number):
                    _ping_under_load(bench, server, name, invoke_target(model), number)


def _ping_under_load(bench: Bench, server: Server, case: str, target: Target, number: int) -> None:
    seconds = bench.plan.seconds + 1
    try:
        with ThreadPoolExecutor(1) as pool:
            load = pool.submit(wrk, server.url, [target], 32, seconds)
            seen = probe(server.url, [_PING], 0.005, seconds - 0.5)
            load.result()
    except LoadFailed as error:
        bench.note_invalid("ping", case, server.name, error)
        return
    for share, metric in ((0.5, "p50"), (0.99, "p99"), (1.0, "max")):
        bench.record("ping", case, server.name, metric, "ms", number, seen.percentile_ms(share))
    bench.record("ping", case, server.name, "errors", "", number, len(seen.errors))
