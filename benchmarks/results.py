"""What was measured: cells of values by round, with the machine, as one JSON file."""

from __future__ import annotations

import datetime
import json
import platform
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Key:
    """What a cell is about; ``case`` is the model, the concurrency, or what else varies in a suite."""

    suite: str
    case: str
    server: str
    metric: str


@dataclass
class Cell:
    """Values of one quantity by round (or by load, where each is measured); ``unit`` as printed."""

    key: Key
    unit: str
    values: dict[int, float] = field(default_factory=dict)

    @property
    def median(self) -> float:
        return statistics.median(self.values.values())

    @property
    def spread(self) -> tuple[float, float]:
        return min(self.values.values()), max(self.values.values())


class Results:
    """All cells of one run."""

    def __init__(self, about: dict[str, Any]) -> None:
        self.about = about
        self.cells: dict[Key, Cell] = {}
        self.invalid: list[str] = []

    def record(self, key: Key, unit: str, number: int, value: float) -> None:
        self.cells.setdefault(key, Cell(key, unit)).values[number] = value

    def get(self, suite: str, case: str, server: str, metric: str) -> Cell | None:
        return self.cells.get(Key(suite, case, server, metric))

    def cases(self, suite: str, metric: str) -> list[str]:
        """Return the cases of a suite that have this metric, in the order they were measured."""
        found = [key.case for key in self.cells if key.suite == suite and key.metric == metric]
        return list(dict.fromkeys(found))

    def save(self, path: Path) -> None:
        """Write everything, also median, minimum, maximum and n of each cell for other readers."""
        cells = [
            {
                **asdict(cell.key),
                "unit": cell.unit,
                "median": cell.median,
                "min": cell.spread[0],
                "max": cell.spread[1],
                "n": len(cell.values),
                "values": cell.values,
            }
            for cell in self.cells.values()
        ]
        text = json.dumps({"about": self.about, "invalid": self.invalid, "cells": cells}, indent=1)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")

    @classmethod
    def read(cls, path: Path) -> Results:
        data = json.loads(path.read_text())
        results = cls(data["about"])
        results.invalid = data["invalid"]
        for row in data["cells"]:
            key = Key(row["suite"], row["case"], row["server"], row["metric"])
            values = {int(number): value for number, value in row["values"].items()}
            results.cells[key] = Cell(key, row["unit"], values)
        return results


def paired(first: Cell | None, second: Cell | None) -> list[tuple[float, float]]:
    """Return the values of two cells that were measured in the same rounds."""
    if first is None or second is None:
        return []
    return [(first.values[n], second.values[n]) for n in sorted(first.values) if n in second.values]


def machine() -> dict[str, Any]:
    """Describe the machine as far as figures depend on it."""
    info = Path("/proc/cpuinfo").read_text().splitlines()
    models = {line.partition(":")[2].strip() for line in info if line.startswith("model name")}
    cores = sum(line.startswith("processor") for line in info)
    memory = next(
        line.split()[1] for line in Path("/proc/meminfo").read_text().splitlines() if "MemTotal" in line
    )
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": ", ".join(sorted(models)),
        "cores": cores,
        "memory_gib": round(int(memory) / 1024 / 1024, 1),
        "kernel": platform.release(),
        "system": _system(),
    }


def _system() -> str:
    release = Path("/etc/os-release")
    lines = release.read_text().splitlines() if release.exists() else []
    return next((line.split("=", 1)[1].strip('"') for line in lines if line.startswith("PRETTY_NAME=")), "")
