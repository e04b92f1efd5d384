"""A real memory limit for test processes: a cgroup below this process's own, v1 or v2.

Where the machine does not allow one (no root, read-only mount, v2 without delegation) the test
is skipped and says why.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from mmekit.server.cgroup import Hierarchy, find_hierarchy

_LIMIT_FILES = {1: "memory.limit_in_bytes", 2: "memory.max"}

#: Code for models: writes to each page of a mapping, at full speed until the group that ``usage`` is of has
#: ``line`` bytes, then 20 MiB a second. Who is to end that before the kernel does may be kept off the CPU
#: for a second or two.
_FILL = """
import time

def fill(held, usage={usage!r}, line={line}):
    for start in range(0, len(held), 1 << 20):
        for at in range(start, start + (1 << 20), 4096):
            held[at] = 1
        with open(usage) as file:
            if int(file.read()) > line:
                time.sleep(0.05)
"""


@dataclass(frozen=True)
class MemoryGroup:
    """A group with a limit; processes enter it by themselves or are put there."""

    path: Path
    limit_bytes: int

    def enter(self, pid: int = 0) -> None:
        """Put a process in, by default the calling one: fit for ``preexec_fn``."""
        (self.path / "cgroup.procs").write_text(str(pid))

    @property
    def usage_file(self) -> Path:
        """Where the kernel says how many bytes are used, page cache included."""
        v1 = self.path / "memory.usage_in_bytes"
        return v1 if v1.exists() else self.path / "memory.current"

    @property
    def fill_code(self) -> str:
        """Code of ``fill(mapping)``, which slows down a little before the line that a watchdog would draw."""
        return _FILL.format(usage=str(self.usage_file), line=self.limit_bytes * 13 // 16)

    def oom_kills(self) -> int:
        """Return how many processes the kernel has ended here for memory."""
        v1, v2 = self.path / "memory.oom_control", self.path / "memory.events"
        lines = (v1 if v1.exists() else v2).read_text().splitlines()
        return {key: int(value) for key, value in (line.split() for line in lines)}["oom_kill"]


@contextmanager
def memory_group(limit_bytes: int) -> Iterator[MemoryGroup]:
    """Make a group with this limit; at the end kill what is still in it and remove it."""
    hierarchy = find_hierarchy("memory")
    if hierarchy is None:
        pytest.skip("no cgroup hierarchy is mounted")
    try:
        path = _make(hierarchy, limit_bytes)
    except OSError as error:
        pytest.skip(f"no memory cgroup can be made here: {error}")
    try:
        yield MemoryGroup(path, limit_bytes)
    finally:
        _remove(path)


def _make(hierarchy: Hierarchy, limit_bytes: int) -> Path:
    path = hierarchy.levels[0] / f"mmekit-test-{os.getpid()}-{time.monotonic_ns()}"
    path.mkdir()
    try:
        (path / _LIMIT_FILES[hierarchy.version]).write_text(str(limit_bytes))
    except OSError:
        path.rmdir()
        raise
    return path


def _remove(path: Path, deadline_s: float = 10.0) -> None:
    end = time.monotonic() + deadline_s
    while True:
        for pid in (path / "cgroup.procs").read_text().split():
            try:
                os.kill(int(pid), signal.SIGKILL)
            except ProcessLookupError:
                pass
        try:
            path.rmdir()
        except OSError:  # busy until the kernel has taken the last process out
            if time.monotonic() > end:
                raise
            time.sleep(0.01)
        else:
            return


@dataclass(frozen=True)
class PidsGroup:
    """A group with a limit of processes and threads."""

    path: Path

    def enter(self, pid: int = 0) -> None:
        """Put a process in, by default the calling one: fit for ``preexec_fn``."""
        (self.path / "cgroup.procs").write_text(str(pid))


@contextmanager
def pids_group(limit: int) -> Iterator[PidsGroup]:
    """Make a group in which so many processes and threads may be; at the end kill what is in it."""
    hierarchy = find_hierarchy("pids")
    if hierarchy is None:
        pytest.skip("no cgroup hierarchy with pids is mounted")
    path = hierarchy.levels[0] / f"mmekit-test-{os.getpid()}-{time.monotonic_ns()}"
    try:
        path.mkdir()
        (path / "pids.max").write_text(str(limit))
    except OSError as error:
        pytest.skip(f"no pids cgroup can be made here: {error}")
    try:
        yield PidsGroup(path)
    finally:
        _remove(path)
