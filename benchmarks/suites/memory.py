"""Memory of many loaded models, and of a server that has none."""

from __future__ import annotations

import re
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.processes import anonymous_mib
from benchmarks.servers import Inline, MultiModelServer, Native, Server, ServerFailed

#: Trimming after a load and the kernel's own counters come a moment later.
_SETTLE_S = 1.0


#: What a run leaves to the rest of the machine.
_RESERVE_MIB = 2048

#: One model more is counted from this many on: the first in each worker also brings what all use.
_BASE = 10


def memory(bench: Bench) -> None:
    """Memory with 1, 10, … loaded models, each asked once; a server of its own for each case."""
    counts = bench.plan.resident_counts
    plans: list[tuple[type[Server], str, str, tuple[int, ...]]] = [
        (Native, "xgboost, shared worker", "xgboost", counts),
        (Native, "sklearn, shared worker", "sklearn", counts),
        (Native, "xgboost, own worker", "xgboost-own-code", counts),
        (Inline, "xgboost, shared worker", "xgboost", counts),
        (MultiModelServer, "xgboost, shared worker", "xgboost", bench.plan.mms_resident_counts),
    ]
    for kind, case, model, marks in plans:
        if bench.wants(kind):
            _fill(bench, kind, case, model, marks)


def _fill(bench: Bench, kind: type[Server], case: str, model_kind: str, marks: tuple[int, ...]) -> None:
    models = bench.store.copies(model_kind, max(marks))
    with ExitStack() as stack:
        server = bench.start(stack, kind)
        time.sleep(_SETTLE_S)
        empty_mib = server.processes.used_mib()
        bench.record("memory", case, kind.name, "0 models", "MiB", 0, empty_mib)
        started = time.monotonic()
        base: tuple[int, float] | None = None
        for number, model in enumerate(models, 1):
            try:
                _check_room()
                server.load(model)
                server.check(model)
            except ServerFailed as error:
                bench.note_invalid("memory", f"{case}, model {number}", kind.name, error)
                return
            if number not in marks:
                continue
            time.sleep(_SETTLE_S)
            used_mib = server.processes.used_mib()
            bench.record("memory", case, kind.name, f"{number} models", "MiB", 0, used_mib)
            after_s = time.monotonic() - started
            bench.say(f"{kind.name}, {case}: {number} models, {used_mib:.0f} MiB, {after_s:.0f} s")
            if base is not None:
                marginal = (used_mib - base[1]) / (number - base[0])
                bench.record("memory", case, kind.name, f"marginal, {number} models", "MiB", 0, marginal)
            if base is None or number == _BASE:
                base = number, used_mib


def _check_room() -> None:
    """Stop before the machine itself runs out of memory: other processes are on it too."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    available_kib = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    if available_kib < _RESERVE_MIB * 1024:
        raise ServerFailed(f"less than {_RESERVE_MIB} MiB of the machine's memory are left")


def empty(bench: Bench) -> None:
    """Start with no model: time to the first 200 of /ping against the template's imports; idle memory."""
    if not bench.wants(Native):
        return
    for number in range(bench.plan.starts):
        bench.say(f"start {number + 1} of {bench.plan.starts}")
        with ExitStack() as stack:
            server = bench.start(stack, Native)
            time.sleep(_SETTLE_S)
            template = server.template_pid()
            idle_mib = server.processes.used_mib()
            template_mib = anonymous_mib(template)
            imports_s = _imports_s(server.processes.log)
        figures = {
            "ready": ("s", server.ready_s),
            "imports": ("s", imports_s),
            "ready beyond imports": ("s", server.ready_s - imports_s),
            "idle": ("MiB", idle_mib),
            "template": ("MiB", template_mib),
            "idle beyond template": ("MiB", idle_mib - template_mib),
        }
        for metric, (unit, value) in figures.items():
            bench.record("empty", "no model", Native.name, metric, unit, number, value)


def _imports_s(log: Path) -> float:
    """Return what this very start spent on imports, as the server logs it; a second process would differ."""
    found = re.search(r"imports took (\d+) ms", log.read_text(errors="replace"))
    if found is None:
        raise ServerFailed("mmekit's log does not say how long the template's imports took")
    return int(found[1]) / 1000
