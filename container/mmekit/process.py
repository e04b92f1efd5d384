"""What Linux says of, and does for, a process: prctl, memory counters, limits, descriptors.

Used by server, template and workers. Everything degrades to a no-op or a zero where the kernel
does not offer it (macOS, for development), except what callers must know of.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

#: linux/prctl.h
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

_PAGE = resource.getpagesize()
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_libc = ctypes.CDLL(None, use_errno=True)


#: Libraries that start threads at import or at first use read these; the template must have one.
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


def allow_descriptors() -> None:
    """Raise the soft limit of open descriptors to the hard one: connections and workers need them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def die_with_parent(signal_number: int) -> None:
    """Ask the kernel to send this process a signal when its parent ends (prctl(2))."""
    if sys.platform == "linux":
        _libc.prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0)


def become_subreaper() -> None:
    """Make this process the parent of orphans among its descendants (prctl(2))."""
    if sys.platform == "linux":
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def trim_heap() -> None:
    """Give freed heap pages back to the kernel (malloc_trim(3)); musl and macOS have none."""
    if trim := getattr(_libc, "malloc_trim", None):
        trim(0)


def flush_c_streams() -> None:
    """Write out what C code has printed and not flushed (fflush(3)): a fork would print it a second time."""
    _libc.fflush(None)


def task_count() -> int:
    """Return how many threads this process has."""
    return len(os.listdir("/proc/self/task"))


def child_pids() -> list[int]:
    """Return the children of this process's only thread; none where the kernel does not say (proc(5))."""
    try:
        return [int(pid) for pid in Path("/proc/thread-self/children").read_text().split()]
    except OSError:
        return []


def rollup_bytes(counter: str, pid: int | str = "self") -> int | None:
    """Return a counter of /proc/PID/smaps_rollup such as ``Pss``, in bytes; None without it.

    It walks the page tables: a millisecond for each 100 MiB or so. Raises PermissionError for a process
    that may not be looked into, such as another user's (ptrace(2), access mode checking).
    """
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith(counter + ":"):
                return int(line.split()[1]) * 1024
    except (FileNotFoundError, ProcessLookupError):
        pass
    return None


def private_bytes(pid: int | str) -> int:
    """Return resident memory that a process has written and shares with no other; 0 where nothing tells."""
    try:
        return rollup_bytes("Private_Dirty", pid) or 0
    except OSError:
        return 0  # it has made itself undumpable, or become another user's


def anonymous_bytes(pid: int | str = "self") -> int:
    """Return resident memory that no file backs; 0 when the process is gone. About 5 µs."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            fields = file.read().split()
    except OSError:
        return 0
    return (int(fields[1]) - int(fields[2])) * _PAGE


def status_bytes(name: str, pid: int | str = "self") -> int:
    """Return a field of /proc/PID/status such as ``VmData`` or ``VmHWM``, in bytes; 0 when it is gone."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def reset_peak() -> None:
    """Start ``VmHWM`` afresh (proc(5), clear_refs); where that is refused the peak stays."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass


def limit_data(limit_bytes: int | None) -> None:
    """Set the soft ``RLIMIT_DATA``; None lifts it. Beyond it allocations fail in this process alone."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    soft = resource.RLIM_INFINITY if limit_bytes is None else limit_bytes
    if hard != resource.RLIM_INFINITY:
        soft = hard if soft == resource.RLIM_INFINITY else min(soft, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def prefer_as_oom_victim() -> None:
    """If the kernel runs out of memory, let it take this process before the server."""
    try:
        Path("/proc/self/oom_score_adj").write_text("1000")
    except OSError:
        pass


def close_descriptors_except(keep: set[int]) -> None:
    """Close every open descriptor that is not in ``keep``."""
    for name in os.listdir("/proc/self/fd"):
        number = int(name)
        if number not in keep:
            try:
                os.close(number)
            except OSError:
                pass  # the descriptor of the listing itself


def reap() -> Iterator[tuple[int, int]]:
    """Collect the children that have ended, orphans among them; give id and status of wait(2) of each."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        yield pid, status


def describe_exit(wait_status: int) -> str:
    """Say in words how a process ended, from the status of wait(2)."""
    import signal

    if os.WIFSIGNALED(wait_status):
        number = os.WTERMSIG(wait_status)
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = f"signal {number}"
        hint = {
            "SIGSEGV": " (a crash in native code)",
            "SIGABRT": " (native code gave up)",
            "SIGKILL": " (often by the kernel, for memory)",
        }.get(name, "")
        return f"was killed by {name}{hint}"
    return f"exited with code {os.waitstatus_to_exitcode(wait_status)}"


def cpu_seconds(pid: int | str) -> float:
    """Return the CPU time a process has used, user and system; 0 when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return 0.0
    return float(int(fields[11]) + int(fields[12])) / _TICKS_PER_S
