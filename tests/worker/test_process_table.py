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
from tests.support.forks import coming_and_going

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what processes hold")

MIB = 1 << 20


def test_forks_that_come_and_go_change_nothing() -> None:
    command = [sys.executable, "-c", coming_and_going(200, "print('ready', flush=True)")]
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


#: Asks as nobody.
_ASKS = """
import os, sys
from mmekit.process import private_bytes
from mmekit.process_table import family_memory
leader = int(sys.argv[1])
os.setuid(65534)
print(private_bytes(leader), len(family_memory(leader).rows), *family_memory(leader)[1:])
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_one_that_may_not_be_looked_into_leaves_nothing_to_tell(leader: int) -> None:
    done = subprocess.run([sys.executable, "-c", _ASKS, str(leader)], capture_output=True, text=True)
    assert done.stdout == "0 2 None False\n", done.stderr


def test_a_family_that_has_ended_holds_nothing() -> None:
    with subprocess.Popen(["true"], start_new_session=True) as process:
        process.wait()
    assert family_memory(process.pid) == ([], None, False)
