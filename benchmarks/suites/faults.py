"""What a model's crash or hang costs the models that share its worker."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace

from benchmarks.bench import Bench
from benchmarks.load import LoadFailed, Probe
from benchmarks.models import Model
from benchmarks.servers import Native, ServerFailed, invoke_path, invoke_target

#: Enough that every shared worker holds some, so one of them shares with the faulty model.
_RESIDENTS = 6

#: The faulty model's own deadline; its neighbours must not wait that long.
_DEADLINE_S = 3

#: Longer than what placement calls busy.
_IDLE_S = 1.5

_HANDLER = "faulty_handler:handle"


def neighbour(bench: Bench) -> None:
    """Worst answer of residents, one of them asked every 2 ms, around a crash, a hang, and neither."""
    if not bench.wants(Native):
        return
    models = [replace(model, handler=_HANDLER) for model in bench.store.copies("xgboost", _RESIDENTS)]
    original = replace(bench.store.get("xgboost"), handler=_HANDLER)
    with ExitStack() as stack:
        server = bench.start(stack, Native, {"SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS": str(_DEADLINE_S)})
        for number, model in enumerate(models):
            own_ms = server.load(model) + server.check(model)
            bench.record("neighbour", "own", Native.name, "load and first predict", "ms", number, own_ms)
        for number in range(bench.plan.faults):
            for fault in ("control", "crash", "hang"):
                bench.say(f"{fault} {number + 1} of {bench.plan.faults}")
                loaded = _load_beside(server, models, original, f"faulty-{fault}-{number}")
                try:
                    _fault(bench, server, models, loaded[-1], fault, number)
                except LoadFailed as error:
                    bench.note_invalid("neighbour", fault, Native.name, error)
                for model in loaded:
                    server.unload(model)


def _load_beside(server: Native, models: list[Model], original: Model, name: str) -> list[Model]:
    """Load a faulty model until one shares a worker with a resident; return all, that one last.

    Under new names each time: a model that keeps failing is set apart, as it should be.
    """
    for model in models:
        server.check(model)
    # A slow load does not go beside models that were just called.
    time.sleep(_IDLE_S)
    taken = set().union(*(server.workers_of(model) for model in models))
    loaded = []
    for attempt in range(8):
        loaded.append(replace(original, name=f"{name}-{attempt}"))
        server.load(loaded[-1])
        if server.workers_of(loaded[-1]) & taken:
            server.check(loaded[-1])
            return loaded
    raise ServerFailed(f"no worker of a resident took {name}: nothing to measure")


def _fault(bench: Bench, server: Native, models: list[Model], faulty: Model, fault: str, number: int) -> None:
    body = faulty.body if fault == "control" else fault.encode()
    with (
        Probe(server.url, [invoke_target(model) for model in models], 0.002) as probe,
        ThreadPoolExecutor(1) as pool,
    ):
        time.sleep(0.5)
        answer: Future[tuple[int, bytes]] = pool.submit(
            server.request, "POST", invoke_path(faulty.name), body, faulty.headers
        )
        time.sleep(1.0)
        seen = probe.stop()
        status, _ = answer.result()
    for share, metric in ((0.5, "p50"), (1.0, "worst")):
        bench.record("neighbour", fault, Native.name, metric, "ms", number, seen.percentile_ms(share))
    bench.record("neighbour", fault, Native.name, "errors", "", number, len(seen.errors))
    bench.record("neighbour", fault, Native.name, "faulty model's status", "", number, status)
    if seen.errors:
        bench.say(f"errors of other models: {seen.errors[:3]}")
