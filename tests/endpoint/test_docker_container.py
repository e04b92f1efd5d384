"""How a container has ended, where the engine itself learns of it bit by bit."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mmekit_endpoint.fleet.launchers.docker_container import RunningContainer


class Killed:
    """A container as the docker SDK has it; what the engine says of its end is another at each look."""

    id = "0" * 64
    name = "churn"

    def __init__(self, *looks: bool) -> None:
        self._looks = iter(looks)
        self.attrs: dict[str, Any] = {"State": {"Pid": 0}}

    def wait(self) -> None:
        """Return at once: it has ended."""

    def reload(self) -> None:
        self.attrs = {"State": {"ExitCode": 137, "OOMKilled": next(self._looks), "Error": ""}}


@pytest.mark.parametrize(
    ("looks", "how"),
    [
        ((True,), "was killed by SIGKILL: out of memory, the limit is 1,024 bytes (OOMKilled)"),
        ((False, True), "was killed by SIGKILL: out of memory, the limit is 1,024 bytes (OOMKilled)"),
        ((False, False), "was killed by SIGKILL (often by the kernel, for memory)"),
    ],
)
def test_that_memory_was_short_is_told_also_where_the_engine_learns_of_it_after_the_end(
    looks: tuple[bool, ...], how: str
) -> None:
    async def main() -> str:
        log: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        log.set_result(None)
        engine: Any = None
        container = Killed(*looks)
        running = RunningContainer(engine, container, ("127.0.0.1", 1), "", "", 1024, 0, 1.0, log)
        return await running.wait()

    assert asyncio.run(main()) == how
