"""Forks of a process that hold what it holds, shared copy-on-write, and are the server's children."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

from mmekit import process


def fork_worker(server_pid: int) -> tuple[str | None, bool]:
    """Fork twice, so that the worker becomes the server's child and survives this process.

    Call it with one thread. Returns (why the kernel refused or None, whether this is the worker).
    """
    process.flush_c_streams()
    try:
        middle = os.fork()
    except OSError as error:
        return f"fork: {error.strerror}", False
    if middle:
        return _outcome(middle), False
    middle = os.getpid()
    try:
        if os.fork():
            os._exit(0)
    except OSError as error:
        os._exit(error.errno or 1)
    while os.getppid() == middle:  # a few µs: the middle process is about to exit
        time.sleep(0.0001)
    process.die_with_parent(signal.SIGKILL)
    if os.getppid() != server_pid:
        os._exit(0)
    return None, True


def _outcome(middle: int) -> str | None:
    """Wait for the process in the middle; return why it could not fork."""
    try:
        _, status = os.waitpid(middle, 0)
    except ChildProcessError:  # people's code collects children; the worker will say whether it is there
        return None
    code = os.waitstatus_to_exitcode(status)
    return None if code == 0 else f"fork: {os.strerror(abs(code))}"


def obstacle() -> str | None:
    """Return why people's code in this process would not work in a fork of it, or None.

    A fork has none of the other threads, but their locks; it would share the pipes of its children and the
    context of a GPU with this process.
    """
    if (tasks := process.task_count()) > 1:
        return f"its worker has {tasks} threads"
    if process.child_pids():
        return "its worker has child processes"
    if any(path.startswith("/dev/nvidia") for path in _open_paths()):
        return "its worker uses a GPU"
    return None


def _open_paths() -> list[str]:
    paths = []
    for link in Path("/proc/self/fd").iterdir():
        try:
            paths.append(os.readlink(link))
        except OSError:
            pass  # the descriptor of the listing itself
    return paths


def reseed() -> None:
    """Forks must not all draw the random numbers that the process they come from would have drawn."""
    random.seed()
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()
    if torch := sys.modules.get("torch"):
        torch.manual_seed(int.from_bytes(os.urandom(8), "little") >> 1)
