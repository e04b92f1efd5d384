"""One run of the benchmarks: how much to do, where, and the measurements that suites share."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import click

from benchmarks.environments import Installations
from benchmarks.load import LoadFailed, LoadResult, Target, wrk
from benchmarks.models import Model, ModelStore
from benchmarks.results import Key, Results
from benchmarks.servers import SERVERS, LeanMultiModelServer, Server, invoke_target

AnyServer = TypeVar("AnyServer", bound=Server)
Item = TypeVar("Item")


@dataclass(frozen=True)
class Plan:
    """How much is measured. Seconds are whole: wrk knows no others."""

    rounds: int
    seconds: int
    models: tuple[str, ...]
    connections: tuple[int, ...]
    loads: int
    mms_loads: int
    resident_counts: tuple[int, ...]
    mms_resident_counts: tuple[int, ...]
    zipf_models: int
    bursts: int
    mms_bursts: int
    faults: int
    starts: int


FULL = Plan(
    rounds=5,
    seconds=2,
    models=("null", "xgboost", "sklearn", "forest", "torch"),
    connections=(1, 8, 32),
    loads=50,
    mms_loads=10,
    resident_counts=(1, 10, 100, 500, 1000),
    mms_resident_counts=(1, 10),
    zipf_models=50,
    bursts=5,
    mms_bursts=1,
    faults=5,
    starts=5,
)

QUICK = Plan(
    rounds=1,
    seconds=1,
    models=("null", "xgboost"),
    connections=(1, 32),
    loads=5,
    mms_loads=1,
    resident_counts=(1, 10, 50),
    mms_resident_counts=(1, 2),
    zipf_models=5,
    bursts=2,
    mms_bursts=0,
    faults=1,
    starts=1,
)


class Bench:
    """What a suite is given."""

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        results: Results,
        servers: Sequence[str],
        installations: Installations,
    ) -> None:
        self.plan = plan
        self.installations = installations
        self.results = results
        self.store = ModelStore(folder / "models")
        self._folder = folder
        self._servers = servers
        self._started = 0

    def say(self, text: str) -> None:
        click.echo(f"  {text}")

    def kinds(self, lean: bool = True) -> list[type[Server]]:
        """Return the servers to compare; ``lean`` False where MMS's handler makes no difference."""
        kinds = [SERVERS[name] for name in self._servers]
        return [kind for kind in kinds if lean or kind is not LeanMultiModelServer]

    def wants(self, kind: type[Server]) -> bool:
        return kind.name in self._servers

    def start(
        self, stack: ExitStack, kind: type[AnyServer], environ: dict[str, str] | None = None
    ) -> AnyServer:
        """Start a server that ends with ``stack``."""
        self._started += 1
        server = kind(self.installations, self._folder / f"{kind.name}-{self._started}", environ)
        stack.enter_context(server)
        return server

    def record(
        self, suite: str, case: str, server: str, metric: str, unit: str, number: int, value: float
    ) -> None:
        self.results.record(Key(suite, case, server, metric), unit, number, value)

    def note_invalid(self, suite: str, case: str, server: str, error: Exception) -> None:
        """Keep a failed measurement as such: it has no value."""
        text = f"{suite}, {case}, {server}: {error}"
        self.results.invalid.append(text)
        click.secho(f"  INVALID {text}", fg="red")

    def warm_up(self, server: Server, model: Model, seconds: int = 1) -> None:
        """Check a model's answer, then let interpreter and JVM get warm; not recorded."""
        server.check(model)
        try:
            wrk(server.url, [invoke_target(model)], 8, seconds)
        except LoadFailed as error:
            self.note_invalid("warm-up", model.name, server.name, error)

    def measure(
        self, suite: str, case: str, server: Server, targets: Sequence[Target], connections: int, number: int
    ) -> LoadResult | None:
        """Run wrk once; record throughput, latencies and CPU per request. None for an invalid run."""
        before = server.processes.cpu()
        try:
            result = wrk(server.url, targets, connections, self.plan.seconds)
        except LoadFailed as error:
            self.note_invalid(suite, case, server.name, error)
            return None
        after = server.processes.cpu()
        front = server.front_pids()
        others = set(after.seconds) - front
        figures = {
            "throughput": ("req/s", result.per_second),
            "p50": ("µs", result.p50_us),
            "p90": ("µs", result.p90_us),
            "p99": ("µs", result.p99_us),
            "max": ("µs", result.max_us),
            "cpu front": ("µs/req", after.since(before, front) * 1e6 / result.requests),
            "cpu workers": ("µs/req", after.since(before, others) * 1e6 / result.requests),
            "cpu": ("µs/req", after.since(before, after.seconds) * 1e6 / result.requests),
        }
        for metric, (unit, value) in figures.items():
            self.record(suite, case, server.name, metric, unit, number, value)
        return result


def rotated(items: Sequence[Item], number: int) -> list[Item]:
    """Return the items starting with another one each round, so that none always follows the same."""
    shift = number % len(items) if items else 0
    return [*items[shift:], *items[:shift]]
