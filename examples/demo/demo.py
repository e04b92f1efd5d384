"""Three models of three frameworks behind one container: trained, packed, served, compared.

Run it with `make demo`. It exits with 0 only when every answer equals the framework's own.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from training import Trained, train_all

from endpoint import Container, container, pack, unpack

CALLS = 200


@dataclass(frozen=True)
class Result:
    """One row of the table."""

    model: Trained
    load_ms: float
    p50_ms: float
    memory_mib: float
    served: list[float]
    expected: list[float]
    agrees: bool


def main() -> int:
    """Run the demo; return its exit code."""
    console = Console(width=120)
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        console.print("Training three models …")
        trained = train_all(base / "training")
        with container(base / "server.log") as server:
            console.print(f"Server at {server.url}, process {server.pid}")
            results = [try_model(server, model, base / "opt/ml/models") for model in trained]
            names = server.models()
            console.print(
                f"GET /models lists {len(names)} models: {', '.join(name[:8] + '…' for name in names)}"
            )
            for name in names:
                server.call("DELETE", f"/models/{name}")
            empty = server.models() == []
    console.print(table(results))
    agree = all(result.agrees for result in results) and len(names) == len(trained) and empty
    console.print("All answers agree." if agree else "[red]Some answers differ.[/red]")
    return 0 if agree else 1


def try_model(server: Container, model: Trained, models: Path) -> Result:
    """Pack, unpack, load, invoke with CSV and JSON, compare."""
    name, folder = unpack(pack(model.folder), models)
    load_ms = server.load(name, folder)
    expected = np.asarray(model.predict(model.rows), dtype=float)
    csv = "\n".join(",".join(map(repr, row.tolist())) for row in model.rows).encode()
    as_json = json.dumps({"instances": model.rows.tolist()}).encode()
    from_csv = json.loads(server.invoke(name, csv, "text/csv", "application/json"))
    from_json = parse_csv(server.invoke(name, as_json, "application/json", "text/csv"), expected.shape)
    agrees = np.allclose(from_csv, expected, rtol=1e-5) and np.allclose(from_json, expected, rtol=1e-5)
    one_row = csv.split(b"\n")[0]
    times = [timed(server, name, one_row) for _ in range(CALLS)]
    memory_mib = sum(worker["memoryUsage"] for worker in server.describe(name)["workers"]) / 2**20
    served = np.ravel(from_csv).tolist()
    return Result(
        model, load_ms, statistics.median(times), memory_mib, served, expected.ravel().tolist(), agrees
    )


def timed(server: Container, name: str, body: bytes) -> float:
    """Milliseconds of one call, a new connection included."""
    started = time.perf_counter()
    server.invoke(name, body, "text/csv", "application/json")
    return (time.perf_counter() - started) * 1000


def parse_csv(answer: bytes, shape: tuple[int, ...]) -> np.ndarray:
    """CSV answers are one row a line, or all values on one line (XGBoost, as AWS writes it)."""
    values = answer.decode().replace("\n", ",").strip(",").split(",")
    return np.array(values, dtype=float).reshape(shape)


def table(results: list[Result]) -> Table:
    """The results, as they are printed."""
    shown = Table("model", "framework", "load ms", "p50 ms", "memory MiB", "served", "framework itself", "")
    for result in results:
        shown.add_row(
            result.model.name,
            result.model.framework,
            f"{result.load_ms:.1f}",
            f"{result.p50_ms:.2f}",
            f"{result.memory_mib:.2f}",
            ", ".join(f"{value:.4f}" for value in result.served[:3]),
            ", ".join(f"{value:.4f}" for value in result.expected[:3]),
            "✓" if result.agrees else "✗",
        )
    return shown


if __name__ == "__main__":
    sys.exit(main())
