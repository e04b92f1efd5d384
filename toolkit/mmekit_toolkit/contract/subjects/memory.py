"""What processes hold, page cache left out: of a container's control group, or of a family of processes."""

from __future__ import annotations

from pathlib import Path

from mmekit.process_table import family_memory

#: Where control groups and processes are seen.
_GROUPS = Path("/sys/fs/cgroup")
_PROC = Path("/proc")


def of_container(container_id: str, pid: int) -> int | None:
    """Return the anonymous memory of a container in bytes; None where its group cannot be seen from here.

    Where the engine runs elsewhere, or in a virtual machine, nobody or somebody else has that pid here: the
    container's id is not in the names of his groups (cgroups(7), /proc/PID/cgroup).
    """
    try:
        lines = (_PROC / str(pid) / "cgroup").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if container_id not in path or not {"memory", ""} & set(controllers.split(",")):
            continue
        for top in (_GROUPS / "memory", _GROUPS):
            try:
                return anonymous(_counters((top / path.lstrip("/") / "memory.stat").read_text()))
            except OSError:
                continue
    return None


def anonymous(stat: dict[str, int]) -> int | None:
    """Return what processes hold, from the counters of ``memory.stat``: ``total_rss`` (v1), ``anon`` (v2)."""
    return stat.get("total_rss", stat.get("anon"))


def of_family(leader: int) -> int | None:
    """Return the anonymous memory of a process and all that it has started, in bytes.

    None where the kernel does not say, and where it never holds still: any sum is wrong then.
    """
    memory = family_memory(leader, "Pss_Anon")
    return memory.size_bytes if memory.settled else None


def available() -> int | None:
    """Return how much memory new processes can have, in bytes; None where /proc is missing."""
    try:
        for line in (_PROC / "meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass  # no Linux
    return None


def _counters(text: str) -> dict[str, int]:
    return {name: int(value) for name, value in map(str.split, text.splitlines())}
