"""The processes that a command has started, as /proc tells; on systems without it nothing is known."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from mmekit import process_table

_PROC = Path("/proc")
#: The state of a listening socket in /proc/net/tcp (linux/include/net/tcp_states.h).
_LISTEN = "0A"


def family(leader: int) -> set[int]:
    """Return a process, its descendants, and all of its session; empty where /proc is missing."""
    return {row.pid for row in process_table.family(process_table.read_table(), leader)}


def listens(pids: Iterable[int], port: int) -> bool:
    """Return whether one of the processes has a socket that listens on a TCP port."""
    sockets = {f"socket:[{inode}]" for inode in _listening(port)}
    return bool(sockets) and any(target in sockets for pid in pids for target in _open_files(pid))


def _listening(port: int) -> Iterator[str]:
    """Yield the inodes of sockets that listen on a port (proc(5), /proc/net/tcp)."""
    for name in ("tcp", "tcp6"):
        try:
            lines = (_PROC / "net" / name).read_text().splitlines()[1:]
        except OSError:
            continue
        for fields in map(str.split, lines):
            if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                yield fields[9]


def _open_files(pid: int) -> Iterator[str]:
    try:
        entries = list((_PROC / str(pid) / "fd").iterdir())
    except OSError:
        return  # it has ended since
    for entry in entries:
        try:
            yield os.readlink(entry)
        except OSError:
            continue  # closed since
