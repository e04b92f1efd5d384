"""What else than memory is limited: CPUs, CPU time, processes, descriptors."""

from __future__ import annotations

import math
import os
import resource
from collections.abc import Iterator
from pathlib import Path

from mmekit.server.cgroup import Hierarchy, find_hierarchy

_ROOT = Path("/")


def cpus_available(root: Path = _ROOT) -> int:
    """Return how many CPUs this process can use: its affinity or the cgroup's quota, rounded up."""
    cpus = float(len(os.sched_getaffinity(0)))
    hierarchy = find_hierarchy("cpu", root)
    if hierarchy is not None:
        cpus = min([cpus, *(quota for _, quota in _quotas(hierarchy))])
    return max(1, math.ceil(cpus))


def _quotas(hierarchy: Hierarchy) -> Iterator[tuple[Path, float]]:
    """Yield the levels that have a CPU quota, with the CPUs it amounts to."""
    for level in hierarchy.levels:
        if hierarchy.version == 2:
            quota, _, period = (hierarchy.read(level, "cpu.max") or "max 100000").partition(" ")
        else:
            quota = hierarchy.read(level, "cpu.cfs_quota_us") or "-1"
            period = hierarchy.read(level, "cpu.cfs_period_us") or "100000"
        if quota not in ("max", "-1"):
            yield level, int(quota) / int(period)


class CpuThrottle:
    """How long the kernel has kept this container off the CPU for its quota; clocks may leave that out."""

    def __init__(self, stat_fds: list[int]) -> None:
        self._stat_fds = stat_fds

    @classmethod
    def find(cls, root: Path = _ROOT) -> CpuThrottle:
        """Open ``cpu.stat`` of each level that has a quota."""
        hierarchy = find_hierarchy("cpu", root)
        levels = [level for level, _ in _quotas(hierarchy)] if hierarchy is not None else []
        stats = [level / "cpu.stat" for level in levels if (level / "cpu.stat").is_file()]
        return cls([os.open(stat, os.O_RDONLY | os.O_CLOEXEC) for stat in stats])

    def read(self) -> int | None:
        """Return the time throttled in nanoseconds, None where there is no quota.

        It is the sum over the CPUs that were held, so it can grow faster than the clock, and the
        kernel adds to it when a CPU runs again, up to a period (100 ms) late: a caller takes from
        a span of time at most that span.
        """
        if not self._stat_fds:
            return None
        return sum(_throttled_ns(os.pread(fd, 4096, 0)) for fd in self._stat_fds)

    def close(self) -> None:
        """Close the files that are kept open."""
        for fd in self._stat_fds:
            os.close(fd)
        self._stat_fds = []


def _throttled_ns(stat: bytes) -> int:
    words = stat.split()
    counters = dict(zip(words[::2], words[1::2], strict=False))
    if b"throttled_usec" in counters:  # v2
        return int(counters[b"throttled_usec"]) * 1000
    return int(counters.get(b"throttled_time", 0))


def pids_headroom(root: Path = _ROOT) -> int | None:
    """Return how many more processes and threads may start; None when nothing tells.

    The limits are pids.max of each cgroup level and the kernel's own for the machine.
    RLIMIT_NPROC is left out: it does not hold for root, and counts a user's processes outside of
    this container too.
    """
    left = list(_kernel_pids(root))
    hierarchy = find_hierarchy("pids", root)
    for level in hierarchy.levels if hierarchy is not None else ():
        assert hierarchy is not None
        limit = hierarchy.read(level, "pids.max")
        current = hierarchy.read(level, "pids.current")
        if limit and current and limit != "max":
            left.append(int(limit) - int(current))
    return max(0, min(left)) if left else None


def _kernel_pids(root: Path) -> Iterator[int]:
    try:
        # "0.20 0.18 0.12 1/80 11206": 80 tasks on the machine (proc(5)).
        tasks = int((root / "proc/loadavg").read_text().split()[3].partition("/")[2])
        for name in ("pid_max", "threads-max"):
            yield int((root / "proc/sys/kernel" / name).read_text()) - tasks
    except OSError:
        return


def descriptor_headroom() -> int:
    """Return how many more descriptors this process may open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Linux 6.2 and later give the number of open descriptors as the size of the folder.
    used = os.stat("/proc/self/fd").st_size or len(os.listdir("/proc/self/fd"))
    return max(0, soft - used)
