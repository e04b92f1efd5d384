"""A server's processes as one thing: started in a group of their own, measured and ended together.

Memory comes from a memory control group made for the server when this user may make one (the figure
that a container's limit sees, page tables included), else from the sum of proportional set sizes.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmekit.process_table import family, family_memory, read_table

MIB = 1024 * 1024
_TICKS_S = os.sysconf("SC_CLK_TCK")


class ProcessFailed(Exception):
    """Raised when a process that should run has ended, or did not become ready in time."""


# --- one process ---------------------------------------------------------------------------------


def cpu_seconds(pid: int) -> float:
    """CPU time of all threads of ``pid``, ended ones included; 0 when the process has gone.

    The nanosecond counters of living threads where they say more than the 10 ms ticks.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks = (int(fields[11]) + int(fields[12])) / _TICKS_S
        threads = sum(
            int(Path(task, "schedstat").read_text().split()[0])
            for task in Path(f"/proc/{pid}/task").iterdir()
        )
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return max(ticks, threads / 1e9)


def anonymous_mib(pid: int) -> float:
    """Resident anonymous memory, as in ``RssAnon`` (proc(5)); 0 when the process has gone."""
    return _status_kib(pid, "RssAnon:") / 1024


def command_line(pid: int) -> str:
    """The command line with spaces between arguments; empty when the process has gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _status_kib(pid: int, name: str) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(name)), 0)


# --- the memory control group --------------------------------------------------------------------


class MemoryGroup:
    """A memory control group below this process's own; version 1 or 2, whichever the machine has."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, name: str) -> MemoryGroup | None:
        """Make the group; None where this user may not or the memory controller is not there."""
        for parent in _own_memory_groups():
            group = cls(parent / name)
            try:
                group.path.mkdir()
            except OSError:
                continue
            if group._usage_file() is not None:
                return group
            group.remove()
        return None

    def _usage_file(self) -> Path | None:
        files = (self.path / "memory.usage_in_bytes", self.path / "memory.current")
        return next((file for file in files if file.exists()), None)

    @property
    def version(self) -> int:
        return 2 if (self.path / "memory.current").exists() else 1

    def pids(self) -> list[int]:
        return [int(line) for line in (self.path / "cgroup.procs").read_text().split()]

    def used_mib(self) -> float:
        """Anonymous, shared and kernel memory; page cache of files that were read is not use."""
        stat = dict(line.split() for line in (self.path / "memory.stat").read_text().splitlines())
        if self.version == 2:
            return sum(int(stat[name]) for name in ("anon", "shmem", "kernel")) / MIB
        kernel = int((self.path / "memory.kmem.usage_in_bytes").read_text())
        return (int(stat["total_rss"]) + int(stat["total_shmem"]) + kernel) / MIB

    def remove(self) -> None:
        """Remove the empty group; the kernel needs a moment after the last process has ended."""
        deadline = time.monotonic() + 5
        while self.path.exists():
            try:
                self.path.rmdir()
            except OSError:
                if time.monotonic() > deadline:
                    return
                time.sleep(0.02)


def _own_memory_groups() -> list[Path]:
    found = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            found.append(Path("/sys/fs/cgroup/memory" + path))
        elif not controllers:
            found.append(Path("/sys/fs/cgroup" + path))
    return found


# --- a server's processes ------------------------------------------------------------------------


@dataclass(frozen=True)
class CpuTimes:
    """CPU seconds by process id at one moment."""

    seconds: Mapping[int, float]

    def since(self, before: CpuTimes, pids: Iterable[int]) -> float:
        return sum(self.seconds.get(pid, 0.0) - before.seconds.get(pid, 0.0) for pid in pids)


class ProcessGroup:
    """One command and everything it starts."""

    def __init__(self, process: subprocess.Popen[bytes], memory: MemoryGroup | None, log: Path) -> None:
        self.process = process
        self.memory = memory
        self.log = log

    @classmethod
    def start(cls, name: str, command: Sequence[str], env: Mapping[str, str], folder: Path) -> ProcessGroup:
        """Start ``command`` in ``folder``, in a session of its own; its output goes to a log file there."""
        log = folder / f"{name}.log"
        memory = MemoryGroup.create(f"bench-{os.getpid()}-{name}-{time.monotonic_ns()}")
        line = list(command)
        if memory is not None:
            # The shell joins the group and becomes the command: nothing runs outside the group.
            line = ["/bin/sh", "-c", f'echo $$ > {memory.path}/cgroup.procs && exec "$@"', "sh", *line]
        with log.open("ab") as output:
            process = subprocess.Popen(
                line,
                cwd=folder,
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return cls(process, memory, log)

    @property
    def pid(self) -> int:
        return self.process.pid

    def pids(self) -> list[int]:
        """All living processes, also those whose parent has ended where there is a control group."""
        if self.memory is not None:
            return self.memory.pids()
        return [row.pid for row in family(read_table(), self.pid)]

    def used_mib(self) -> float:
        """Memory of all processes, MiB; see the module's text for what counts."""
        if self.memory is not None:
            return self.memory.used_mib()
        return (family_memory(self.pid).size_bytes or 0) / MIB

    def cpu(self) -> CpuTimes:
        return CpuTimes({pid: cpu_seconds(pid) for pid in self.pids()})

    def check(self) -> None:
        """Raise ``ProcessFailed`` with the end of the log when the command has ended."""
        if self.process.poll() is not None:
            tail = self.log.read_text(errors="replace")[-2000:]
            raise ProcessFailed(f"{self.log.stem} ended with {self.process.returncode}:\n{tail}")

    def stop(self, grace_s: float = 10) -> None:
        """Send SIGTERM, wait, and end what is left; safe to call twice."""
        known = self.pids() if self.memory is None else []
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(grace_s)
            except subprocess.TimeoutExpired:
                pass
        deadline = time.monotonic() + 5
        while (left := self._left(known)) and time.monotonic() < deadline:
            for pid in left:
                _kill(pid)
            time.sleep(0.02)
        self.process.wait()
        if self.memory is not None:
            self.memory.remove()

    def _left(self, known: Sequence[int]) -> Sequence[int]:
        if self.memory is not None:
            return self.memory.pids() if self.memory.path.exists() else []
        return [pid for pid in known if command_line(pid)]


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
