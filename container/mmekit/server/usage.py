"""How much memory there is and how much of it is used: cgroup v1 or v2, own processes, the machine.

Whatever bounds this server is a *ceiling* with a limit and a use of its own: every cgroup level
that sets a limit, the limit given as a setting, else the machine. What counts is the one with the
least left. They are found once at start; their files stay open: a quick reading costs 3 to 5 µs a
ceiling, an exact one of a cgroup 20 µs, one of the machine 35 µs.

Used memory is usage less the page cache that the kernel takes back at no cost: inactive file
pages, and active ones that nobody maps. The second part matters for a model server: a file that
is read twice, as at a second load of a model, moves from the inactive to the active list
(measured: 100 MiB read twice, all of it active), and no unloading would ever free it. Mapped file
pages on the active list, libraries and mapped weights in use, count as used.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mmekit.errors import ConfigError
from mmekit.server.cgroup import Hierarchy, find_hierarchy, read_text

_PAGE = os.sysconf("SC_PAGE_SIZE")
#: memory.stat has about 60 lines; one pread must take it whole.
_STAT_BYTES = 16384
#: Page tables and kernel stacks of one process, in bytes; no counter of the process shows them
#: (measured 1.0 to 1.5 MiB for a worker forked from a large template).
_KERNEL_BYTES_PER_PROCESS = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Reading:
    """What one ceiling allows and how much of it is used, in bytes; ``ceiling`` names it."""

    limit_bytes: int
    used_bytes: int
    ceiling: str

    @property
    def free_bytes(self) -> int:
        """What is left; negative when the limit is exceeded."""
        return self.limit_bytes - self.used_bytes


class Ceiling(Protocol):
    """One bound on this server's memory."""

    @property
    def name(self) -> str: ...

    @property
    def limit_bytes(self) -> int: ...

    def usage_bytes(self) -> int:
        """Return a quick reading; it may hold page cache, so it is never below the use."""

    def used_bytes(self) -> int:
        """Return what is used."""

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class GroupCeiling:
    """A cgroup level that sets a limit; ``keys`` are the inactive, active and mapped file counters."""

    name: str
    limit_bytes: int
    usage_fd: int
    stat_fd: int
    keys: tuple[bytes, bytes, bytes]

    def usage_bytes(self) -> int:
        return int(os.pread(self.usage_fd, 32, 0))

    def used_bytes(self) -> int:
        usage = self.usage_bytes()
        counters = _counters(os.pread(self.stat_fd, _STAT_BYTES, 0))
        inactive, active, mapped = (int(counters.get(key, 0)) for key in self.keys)
        return max(0, usage - inactive - max(0, active - mapped))

    def close(self) -> None:
        os.close(self.usage_fd)
        os.close(self.stat_fd)


@dataclass(frozen=True, slots=True)
class MachineCeiling:
    """The machine: what is used is all but ``MemAvailable``. A reading costs 35 µs."""

    name: str
    limit_bytes: int
    meminfo_fd: int

    def usage_bytes(self) -> int:
        counters = _counters(os.pread(self.meminfo_fd, _STAT_BYTES, 0).replace(b" kB", b""))
        return self.limit_bytes - int(counters[b"MemAvailable:"]) * 1024

    def used_bytes(self) -> int:
        return self.usage_bytes()

    def close(self) -> None:
        os.close(self.meminfo_fd)


class ProcessesCeiling:
    """A limit given as a setting, held against this server's own processes alone.

    A process counts with its anonymous memory (statm(5): resident less shared) less what it
    inherited from the template by fork and shares with it still. The descriptor of ``statm``
    belongs to the process, not to its number: a number used again is never mistaken for it.
    """

    def __init__(self, name: str, limit_bytes: int, root: Path = Path("/")) -> None:
        self.name = name
        self.limit_bytes = limit_bytes
        self._root = root
        self._processes: dict[int, tuple[int, int]] = {}

    def watch(self, pid: int, baseline_bytes: int) -> None:
        self.forget(pid)
        try:
            fd = _open(self._root / f"proc/{pid}/statm")
        except FileNotFoundError:
            return  # ended already
        self._processes[pid] = (fd, baseline_bytes)

    def forget(self, pid: int) -> None:
        if (process := self._processes.pop(pid, None)) is not None:
            os.close(process[0])

    def usage_bytes(self) -> int:
        return sum(_own_bytes(fd, baseline) for fd, baseline in self._processes.values())

    def used_bytes(self) -> int:
        return self.usage_bytes()

    def close(self) -> None:
        for pid in list(self._processes):
            self.forget(pid)


def _own_bytes(fd: int, baseline_bytes: int) -> int:
    try:
        fields = os.pread(fd, 128, 0).split()
    except ProcessLookupError:
        return 0  # ended; whoever waits for it forgets it
    if len(fields) < 3 or fields[1] == b"0":
        return 0  # ending: its memory is gone
    private = (int(fields[1]) - int(fields[2])) * _PAGE
    return max(0, private - baseline_bytes) + _KERNEL_BYTES_PER_PROCESS


# --- all of them ---------------------------------------------------------------------------------


class MemorySource:
    """What bounds this server's memory; made by ``find_memory``."""

    def __init__(
        self,
        ceilings: Sequence[Ceiling],
        processes: ProcessesCeiling | None = None,
        kills_fd: int | None = None,
    ) -> None:
        self._ceilings = ceilings
        self._processes = processes
        self._kills_fd = kills_fd

    @property
    def limit_bytes(self) -> int:
        """The lowest limit."""
        return min(ceiling.limit_bytes for ceiling in self._ceilings)

    def usage(self) -> Reading:
        """Return the tightest ceiling by the quick reading, which may count page cache as used."""
        return min((_quick(ceiling) for ceiling in self._ceilings), key=_free)

    def used(self) -> Reading:
        """Return the tightest ceiling by the exact reading."""
        return min((_exact(ceiling) for ceiling in self._ceilings), key=_free)

    def watch(self, pid: int, baseline_bytes: int = 0) -> None:
        """Count a process of this server; ``baseline_bytes`` is what it shares since its fork."""
        if self._processes is not None:
            self._processes.watch(pid, baseline_bytes)

    def forget(self, pid: int) -> None:
        """Count a process no longer; a pid that is not watched is none of ours."""
        if self._processes is not None:
            self._processes.forget(pid)

    def oom_kills(self) -> int:
        """Return how many processes of this group the kernel has ended for memory; 0 without a group."""
        if self._kills_fd is None:
            return 0
        return int(_counters(os.pread(self._kills_fd, 4096, 0)).get(b"oom_kill", 0))

    def close(self) -> None:
        """Close the files that are kept open."""
        for ceiling in self._ceilings:
            ceiling.close()
        if self._kills_fd is not None:
            os.close(self._kills_fd)
            self._kills_fd = None


def _quick(ceiling: Ceiling) -> Reading:
    return Reading(ceiling.limit_bytes, ceiling.usage_bytes(), ceiling.name)


def _exact(ceiling: Ceiling) -> Reading:
    return Reading(ceiling.limit_bytes, ceiling.used_bytes(), ceiling.name)


def _free(reading: Reading) -> int:
    return reading.free_bytes


def find_memory(
    setting_bytes: int | None = None, setting_name: str = "the memory limit setting", root: Path = Path("/")
) -> MemorySource:
    """Find the ceilings of this process: cgroup levels, else the machine; and the setting, if lower.

    The setting holds for the server's own processes, because several servers may run in one group
    or on one machine: register them with ``watch``. The surrounding limits hold beside it.
    Raises ConfigError when neither a cgroup nor /proc/meminfo tells the memory.
    """
    total = _machine_bytes(root)
    hierarchy = find_hierarchy("memory", root)
    ceilings: list[Ceiling] = []
    if hierarchy is not None:
        ceilings.extend(_group_ceilings(hierarchy, total, root))
    if not ceilings and total is not None:
        ceilings.append(MachineCeiling("the machine", total, _open(root / "proc/meminfo")))
    processes = None
    if setting_bytes is not None and all(setting_bytes < ceiling.limit_bytes for ceiling in ceilings):
        processes = ProcessesCeiling(setting_name, setting_bytes, root)
        ceilings.append(processes)
    if not ceilings:
        raise ConfigError(
            "no memory limit was found: no cgroup sets one, and /proc/meminfo has no MemTotal and "
            f"MemAvailable. Mount /proc, or set {setting_name}."
        )
    return MemorySource(ceilings, processes, _open_kills(hierarchy) if hierarchy is not None else None)


#: Which file counts the kernel's kills (cgroup-v1/memory.rst, cgroup-v2.rst). Both count a victim at
#: its own group, whichever level's limit it was; server and workers are in the same one.
_KILLS_FILES = {1: "memory.oom_control", 2: "memory.events"}


def _open_kills(hierarchy: Hierarchy) -> int | None:
    try:
        return _open(hierarchy.levels[0] / _KILLS_FILES[hierarchy.version])
    except OSError:
        return None  # a v2 root has none


def _machine_bytes(root: Path) -> int | None:
    counters = _counters((read_text(root / "proc/meminfo") or "").replace(" kB", "").encode())
    if b"MemAvailable:" not in counters or b"MemTotal:" not in counters:
        return None
    return int(counters[b"MemTotal:"]) * 1024


_FILES = {
    1: ("memory.usage_in_bytes", (b"total_inactive_file", b"total_active_file", b"total_mapped_file")),
    2: ("memory.current", (b"inactive_file", b"active_file", b"file_mapped")),
}


def _group_ceilings(hierarchy: Hierarchy, total_bytes: int | None, root: Path) -> Iterator[GroupCeiling]:
    """Yield the levels whose limit has an effect: below the machine's memory and their parents' limits.

    "No limit" is ``max`` in v2 and a number beyond every machine in v1.
    """
    usage_name, keys = _FILES[hierarchy.version]
    lowest = total_bytes if total_bytes is not None else 1 << 60
    for level in reversed(hierarchy.levels):
        limit = _group_limit(hierarchy, level)
        if limit is not None and limit < lowest:
            lowest = limit
            name = f"cgroup v{hierarchy.version} /{level.relative_to(root)}"
            yield GroupCeiling(name, limit, _open(level / usage_name), _open(level / "memory.stat"), keys)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def _group_limit(hierarchy: Hierarchy, level: Path) -> int | None:
    """Return the lowest limit a level is under: v1 tells that of invisible ancestors too.

    v2: beyond ``memory.high`` the kernel slows every allocation down, so it is a limit like
    ``memory.max`` (cgroup-v2.rst).
    """
    if hierarchy.version == 2:
        texts = [hierarchy.read(level, name) for name in ("memory.max", "memory.high")]
    else:
        stat = _counters((hierarchy.read(level, "memory.stat") or "").encode())
        texts = [hierarchy.read(level, "memory.limit_in_bytes")]
        texts.append(stat.get(b"hierarchical_memory_limit", b"").decode())
    return min((int(text) for text in texts if text and text != "max"), default=None)


def _counters(text: bytes) -> dict[bytes, bytes]:
    words = text.split()
    return dict(zip(words[::2], words[1::2], strict=False))
