"""What the kit takes for the memory of a command whose processes come and go."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from mmekit_toolkit.contract.subjects import memory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what processes hold")

MIB = 1 << 20

#: A server's template of 200 MiB, and what it forks: each child shares the template, and ends at once.
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
    time.sleep(0.1)
"""


@pytest.fixture(scope="module")
def leader() -> Iterator[int]:
    command = [sys.executable, "-c", FORKS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.kill()


def test_forks_that_come_and_go_change_nothing(leader: int) -> None:
    seen = [memory.of_family(leader) for _ in range(40)]
    assert all(used is not None and 195 * MIB < used < 225 * MIB for used in seen), seen
