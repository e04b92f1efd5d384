"""What a container uses, from its control group's files, where the engine runs on this machine.

Engines before 25 answer for stats in up to a second (moby/moby#46448), for which each load would wait.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


class ContainerGroup:
    """The groups of one container: of cgroup v1 with a folder a controller, or of v2 with one for all."""

    def __init__(self, memory: Path, cpu: Path) -> None:
        self._memory = memory
        self._cpu = cpu

    def stats(self) -> dict[str, Any]:
        """Return memory and CPU time as the engine's stats have them; {} where the container has ended."""
        try:
            return {"memory_stats": self._memory_stats(), "cpu_stats": {"cpu_usage": self._cpu_usage()}}
        except OSError:
            return {}

    def _memory_stats(self) -> dict[str, Any]:
        usage = self._memory / "memory.usage_in_bytes"
        if not usage.exists():
            usage = self._memory / "memory.current"
        return {"usage": int(usage.read_text()), "stats": _counters(self._memory / "memory.stat")}

    def _cpu_usage(self) -> dict[str, int]:
        if (self._cpu / "cpuacct.usage").exists():
            return {"total_usage": int((self._cpu / "cpuacct.usage").read_text())}
        return {"total_usage": _counters(self._cpu / "cpu.stat")["usage_usec"] * 1000}


def find_group(
    container_id: str, pid: int, root: Path = Path("/sys/fs/cgroup"), proc: Path = Path("/proc")
) -> ContainerGroup | None:
    """Return the group of a container whose first process is ``pid``; None where it cannot be seen.

    Where the engine runs on another machine, or in a virtual one, nobody or somebody else has that number
    here: the container's id is not in the names of his groups (cgroups(7), /proc/PID/cgroup).
    """
    folders: dict[str, Path] = {}
    try:
        for line in (proc / str(pid) / "cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if container_id in path:
                folders |= {name: root / name / path.lstrip("/") for name in controllers.split(",")}
    except OSError:
        return None
    memory, cpu = (folders.get(name, folders.get("")) for name in ("memory", "cpuacct"))
    if memory is None or cpu is None:
        return None
    group = ContainerGroup(memory, cpu)
    return group if group.stats() else None


def _counters(path: Path) -> dict[str, int]:
    return {name: int(value) for name, value in map(str.split, path.read_text().splitlines())}
