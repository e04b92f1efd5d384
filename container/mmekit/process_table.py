"""What Linux says of all processes (proc(5)): who descends from whom, since when, at what cost."""

from __future__ import annotations

import os
import resource
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mmekit.process import rollup_bytes

_PAGE = resource.getpagesize()
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")

#: After a reading that does not count comes another, after this; the last one after so long and so many.
_PAUSE_S = 0.01
_LONGEST_S, _FEWEST = 1.0, 5


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
    #: It has let go of its memory, which the kernel may still be giving back; then it is a zombie.
    ending: bool


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
        ending=fields[20] == b"0",
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


class FamilyMemory(NamedTuple):
    """What a family of processes holds."""

    #: Those that have not ended.
    rows: list[ProcessRow]
    #: None where the kernel does not say.
    size_bytes: int | None
    #: Nobody came or went meanwhile. Else the size may be wrong by what forks share.
    settled: bool


def family_memory(leader: int, counter: str = "Pss") -> FamilyMemory:
    """Return the memory of a family.

    The counter is one of ``smaps_rollup`` in which pages shared by n processes count 1/n in each: else
    forks would count what they share once each. The processes are read one after the other. Where one
    comes or goes meanwhile, what it shares is counted too little or twice, which may be a template of
    200 MiB; and one that ends can be read no more while its pages still count. So a sum counts when all
    could be read and the same were there afterwards. Where that does not happen for a second, it is the
    last sum.
    """
    until = time.monotonic() + _LONGEST_S
    readings = 0
    while True:
        rows = _living(leader)
        try:
            held = {row.pid: rollup_bytes(counter, row.pid) for row in rows}
        except PermissionError:
            return FamilyMemory(rows, None, settled=False)
        known = {pid: size for pid, size in held.items() if size is not None}
        if not known:
            return FamilyMemory(rows, None, settled=False)
        settled = known.keys() == held.keys() == {row.pid for row in _living(leader) if not row.ending}
        readings += 1
        if settled or (readings >= _FEWEST and time.monotonic() > until):
            return FamilyMemory(rows, sum(known.values()), settled)
        time.sleep(_PAUSE_S)


def _living(leader: int) -> list[ProcessRow]:
    return [row for row in family(read_table(), leader) if not row.zombie]


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
