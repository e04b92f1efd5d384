"""A program whose forks come and go."""

from __future__ import annotations


def coming_and_going(held_mib: int, ready: str) -> str:
    """Return a program that holds memory, runs ``ready`` and forks until it is killed.

    Each fork shares what it holds, and ends within 0.1 s; each 0.3 s there are none.
    """
    return f"""
import os, time
held = b"x" * ({held_mib} << 20)
{ready}
while True:
    children = []
    for _ in range(4):
        children.append(os.fork())
        if not children[-1]:
            time.sleep(0.02 * len(children))
            os._exit(0)
    for pid in children:
        os.waitpid(pid, 0)
    time.sleep(0.3)
"""
