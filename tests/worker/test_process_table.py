"""What processes that are forked from one another hold together, while they come and go."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from mmekit import process_table
from mmekit.process_table import FamilyMemory, family_memory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what processes hold")

MIB = 1 << 20

#: A template of 200 MiB, and what it forks: each child shares the template, and ends soon.
FORKS = """
import os, time
held = b"x" * (200 << 20)
print("ready", flush=True)
while True:
    children = []
    for _ in range(4):
        children.append(os.fork())
        if children[-1] == 0:
            time.sleep(0.02 * len(children))
            os._exit(0)
    for pid in children:
        os.waitpid(pid, 0)
    time.sleep(0.3)
"""


def test_forks_that_come_and_go_change_nothing() -> None:
    command = [sys.executable, "-c", FORKS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        seen = [family_memory(process.pid) for _ in range(20)]
        process.kill()
    assert all(memory and memory.settled for memory in seen), seen
    assert all(memory and 195 * MIB < memory.size_bytes < 225 * MIB for memory in seen), seen


def sleeper() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)


def test_the_last_sum_is_told_as_one_that_never_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = iter(range(0, 10_000 * MIB, 10 * MIB))
    monkeypatch.setattr(process_table, "rollup_bytes", lambda counter, pid: next(sizes))
    with sleeper() as process:
        began = time.monotonic()
        memory = family_memory(process.pid)
        took_s = time.monotonic() - began
        process.kill()
    assert memory == FamilyMemory(next(sizes) - 10 * MIB, settled=False)
    assert took_s > 0.9


def test_one_that_is_ending_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel says nothing of it any more, and still counts its pages as shared."""
    sizes = iter([50 * MIB, None, 50 * MIB, None, 100 * MIB, 0, 100 * MIB, 0])
    monkeypatch.setattr(process_table, "rollup_bytes", lambda counter, pid: next(sizes))
    command = ["sh", "-c", "sleep 600 & echo ready; wait"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        memory = family_memory(process.pid)
        os.killpg(process.pid, signal.SIGKILL)
    assert memory == FamilyMemory(100 * MIB, settled=True)


def test_one_that_may_not_be_looked_into_leaves_nothing_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(counter: str, pid: int) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(process_table, "rollup_bytes", refuse)
    with sleeper() as process:
        assert family_memory(process.pid) is None
        process.kill()


def test_a_family_that_has_ended_holds_nothing() -> None:
    with sleeper() as process:
        process.kill()
    assert family_memory(process.pid) is None
