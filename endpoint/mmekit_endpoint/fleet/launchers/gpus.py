"""How busy this machine's NVIDIA GPUs are, as the driver's own tool says."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass

_COMMAND = [
    "nvidia-smi",
    "--query-gpu=utilization.gpu,memory.used,memory.total",
    "--format=csv,noheader,nounits",
]
_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class GpuUse:
    """Percent of one GPU, summed over GPUs."""

    percent: float
    memory_percent: float


def gpu_use(count: int) -> GpuUse | None:
    """Return the use of the first ``count`` GPUs; None where there are none or the driver does not say.

    What other instances and programs do on the same GPUs counts too.
    """
    if not count:
        return None
    try:
        done = subprocess.run(_COMMAND, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)
        rows = [[float(field) for field in line.split(",")] for line in done.stdout.splitlines()]
    except (OSError, subprocess.SubprocessError, ValueError):  # ValueError: "[N/A]", such as under MIG
        return None
    rows = rows[:count]
    if not rows:
        return None
    return GpuUse(sum(busy for busy, _, _ in rows), sum(100 * used / total for _, used, total in rows))
