"""What can be measured, by the name it has on the command line and in results."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.bench import Bench
from benchmarks.suites import breakdown, endpoint, faults, loading, memory, throughput

#: In the order they run.
SUITES: dict[str, Callable[[Bench], None]] = {
    "warm": throughput.warm,
    "breakdown": breakdown.breakdown,
    "zipf": throughput.zipf,
    "ping": throughput.ping,
    "loads": loading.loads,
    "residents": loading.residents,
    "neighbour": faults.neighbour,
    "memory": memory.memory,
    "empty": memory.empty,
    "endpoint": endpoint.endpoint,
}
