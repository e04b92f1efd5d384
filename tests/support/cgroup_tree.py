"""Writes the files of /proc and /sys/fs/cgroup as a kernel shows them, for layouts this machine lacks."""

from __future__ import annotations

from pathlib import Path

MIB = 1024 * 1024
#: What v1 shows where no limit is set (PAGE_COUNTER_MAX in bytes).
NO_LIMIT_V1 = 9223372036854771712


class Tree:
    """A root folder with ``proc`` and ``sys``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.write("proc/meminfo", meminfo(total=16 * 1024 * MIB, available=12 * 1024 * MIB))

    def write(self, path: str, text: object) -> None:
        target = self.root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(f"{text}\n")

    def process(self, cgroup: str, *mounts: str) -> None:
        self.write("proc/self/cgroup", cgroup)
        self.write("proc/self/mountinfo", "\n".join(("22 1 8:1 / / rw - ext4 /dev/vda rw", *mounts)))

    def v2(self, group: str, limit: object, usage: int, high: object = "max", **stat: int) -> None:
        self.write(f"{group}/memory.max", limit)
        self.write(f"{group}/memory.high", high)
        self.write(f"{group}/memory.current", usage)
        self.write(f"{group}/memory.stat", stat_text({"anon": usage, **stat}))

    def v1(self, group: str, limit: int, usage: int, hierarchical: int | None = None, **stat: int) -> None:
        self.write(f"{group}/memory.limit_in_bytes", limit)
        self.write(f"{group}/memory.usage_in_bytes", usage)
        lowest = limit if hierarchical is None else hierarchical
        counters = {"cache": 7, "inactive_file": 5, "hierarchical_memory_limit": lowest, **stat}
        self.write(f"{group}/memory.stat", stat_text(counters))


def stat_text(counters: dict[str, int]) -> str:
    return "\n".join(f"{key} {value}" for key, value in counters.items())


def meminfo(total: int, available: int) -> str:
    lines = {"MemTotal": total, "MemFree": available // 2, "MemAvailable": available}
    return (
        "\n".join(f"{key}:{value // 1024:>15} kB" for key, value in lines.items())
        + "\nHugePages_Total:       0"
    )


def mount_v2(point: str = "/sys/fs/cgroup", root: str = "/") -> str:
    return f"31 22 0:27 {root} {point} ro,nosuid shared:9 - cgroup2 cgroup rw,nsdelegate"


def mount_v1(controllers: str, point: str, root: str = "/") -> str:
    return f"33 22 0:29 {root} {point} rw,relatime - cgroup cgroup rw,{controllers}"
