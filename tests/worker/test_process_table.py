"""What processes that are forked from one another hold together, while they come and go."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from mmekit import process_table
from mmekit.process_table import family_memory

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
    assert all(memory.settled for memory in seen), seen
    assert all(195 * MIB < (memory.size_bytes or 0) < 225 * MIB for memory in seen), seen


@pytest.fixture
def leader() -> Iterator[int]:
    """A process that has started another."""
    command = ["sh", "-c", "sleep 600 & echo ready; wait"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        os.killpg(process.pid, signal.SIGKILL)


def test_one_that_is_ending_is_waited_for(leader: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel says nothing of it any more, and still counts its pages as shared."""
    sizes = iter([50 * MIB, None, 50 * MIB, None, 100 * MIB, 0])
    monkeypatch.setattr(process_table, "rollup_bytes", lambda counter, pid: next(sizes))
    rows, size_bytes, settled = family_memory(leader)
    assert (len(rows), size_bytes, settled) == (2, 100 * MIB, True)


def test_the_last_sum_is_told_where_it_never_settles(leader: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        process_table, "rollup_bytes", lambda counter, pid: 50 * MIB if pid == leader else None
    )
    began = time.monotonic()
    rows, size_bytes, settled = family_memory(leader)
    assert (len(rows), size_bytes, settled) == (2, 50 * MIB, False)
    assert time.monotonic() - began >= 1.0


def test_one_that_may_not_be_looked_into_leaves_nothing_to_tell(
    leader: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(counter: str, pid: int) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(process_table, "rollup_bytes", refuse)
    rows, size_bytes, settled = family_memory(leader)
    assert (len(rows), size_bytes, settled) == (2, None, False)


def test_a_family_that_has_ended_holds_nothing() -> None:
    with subprocess.Popen(["true"], start_new_session=True) as process:
        process.wait()
    assert family_memory(process.pid) == ([], None, False)
