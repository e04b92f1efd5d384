"""What Linux says of all processes (proc(5)): who descends from whom, since when, at what cost."""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass
from pathlib import Path

_PAGE = resource.getpagesize()
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class ProcessRow:
    """One process. It is the same as long as ``pid`` and ``started`` are."""

    pid: int
    parent: int
    session: int
    #: Clock ticks since the machine's boot.
    started: int
    #: Its own CPU time and that of its children that have ended and were waited for.
    cpu_seconds: float
    resident_bytes: int
    #: It has ended; its parent has not asked for its status yet.
    zombie: bool


def read_row(pid: int) -> ProcessRow | None:
    """Return the row of one process; None where there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The command's name stands in brackets and may hold anything, brackets too.
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return ProcessRow(
        pid=pid,
        parent=int(fields[1]),
        session=int(fields[3]),
        started=int(fields[19]),
        cpu_seconds=sum(map(int, fields[11:15])) / _TICKS_PER_S,
        resident_bytes=int(fields[21]) * _PAGE,
        zombie=fields[0] in (b"Z", b"X"),
    )


def read_table() -> dict[int, ProcessRow]:
    """Return all processes by pid; none where there is no /proc."""
    try:
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return {}
    return {pid: row for pid in pids if (row := read_row(pid))}


def family(table: dict[int, ProcessRow], leader: int) -> list[ProcessRow]:
    """Return a session leader, its session and all their descendants, also those in sessions of their own."""
    children: dict[int, list[ProcessRow]] = {}
    for row in table.values():
        children.setdefault(row.parent, []).append(row)
    found = {row.pid: row for row in table.values() if leader in (row.pid, row.session)}
    waiting = list(found.values())
    while waiting:
        for row in children.get(waiting.pop().pid, ()):
            if row.pid not in found:
                found[row.pid] = row
                waiting.append(row)
    return list(found.values())


def memory_bytes(row: ProcessRow) -> int:
    """Return a process's memory where pages shared by n processes count 1/n in each (PSS).

    Else workers forked from one process would count what they share once each. It walks the page
    tables: a millisecond for each 100 MiB or so. Where the kernel does not say, it is the RSS.
    """
    try:
        for line in Path(f"/proc/{row.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return row.resident_bytes


def has_variable(pid: int, name: str, value: str) -> bool:
    """Whether a process was started with a variable of that value; False where this may not be seen."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return f"{name}={value}".encode() in file.read().split(b"\0")
    except OSError:
        return False


def boot_id() -> str:
    """Return what tells this boot of the machine from others; pids and ticks mean nothing across it."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
