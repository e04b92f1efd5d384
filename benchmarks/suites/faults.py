"""What a model's crash or hang costs the models that share its worker."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace

from benchmarks.bench import Bench
from benchmarks.load import LoadFailed, Probe
from benchmarks.models import Model
from benchmarks.servers import Native, invoke_path, invoke_target

#: Enough that every shared worker holds some, so one of them shares with the faulty model.
_RESIDENTS = 6

#: The faulty model's own deadline; its neighbours must not wait that long.
_DEADLINE_S = 3

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
                # Another name each time: a model that keeps failing would be set apart, as it should be.
                faulty = replace(original, name=f"faulty-{fault}-{number}")
                server.load(faulty)
                server.check(faulty)
                try:
                    _fault(bench, server, models, faulty, fault, number)
                except LoadFailed as error:
                    bench.note_invalid("neighbour", fault, Native.name, error)
                server.unload(faulty)


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
