"""Where the distance between a bare prediction and an answer over HTTP goes, one request at a time."""

from __future__ import annotations

import json
import subprocess
from contextlib import ExitStack
from pathlib import Path

from benchmarks import environments
from benchmarks.bench import Bench
from benchmarks.models import Model
from benchmarks.servers import Inline, Native, Server, invoke_target

_PROGRAM = environments.PROGRAMS / "in_process.py"


def breakdown(bench: Bench) -> None:
    """Bare call, handler in process, handler behind HTTP, and mmekit, in the same rounds."""
    with ExitStack() as stack:
        servers: list[Server] = [bench.start(stack, kind) for kind in (Inline, Native)]
        models = [bench.store.get(name) for name in bench.plan.models if name != "forest"]
        for model in models:
            for server in servers:
                server.load(model)
                bench.warm_up(server, model)
        for number in range(bench.plan.rounds):
            bench.say(f"round {number + 1} of {bench.plan.rounds}")
            for model in models:
                for step, value in _in_process(model, bench.installations.native / "python").items():
                    bench.record("breakdown", model.name, step, "p50", "µs", number, value)
                for server in servers:
                    bench.measure("breakdown", model.name, server, [invoke_target(model)], 1, number)


def _in_process(model: Model, python: Path) -> dict[str, float]:
    settings = {
        "folder": str(model.folder),
        "handler": model.handler,
        "headers": model.headers,
        "body": model.body.decode(),
    }
    done = subprocess.run(
        [python, _PROGRAM],
        input=json.dumps(settings),
        env={**environments.clean_environ(), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{_PROGRAM.name} ended with {done.returncode}: {done.stderr[-2000:]}")
    steps: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return steps
