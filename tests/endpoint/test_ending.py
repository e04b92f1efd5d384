"""How a container ended is waited for as long as the service runs, not as long as a clock does."""

from __future__ import annotations

import asyncio
import time

from mmekit_endpoint.fleet.connection import NoAnswer
from mmekit_endpoint.fleet.ending import Ending

SILENCE = NoAnswer("it closed the connection")


def test_a_container_that_runs_has_given_no_answer() -> None:
    said = asyncio.run(Ending().explain(SILENCE))
    assert said == "the container did not answer: it closed the connection"


def test_its_end_is_known_at_once_where_it_has_ended_before() -> None:
    ending = Ending()
    ending.set("exited with code 3")
    assert asyncio.run(ending.explain(SILENCE)) == "the container exited with code 3"


def test_an_end_that_is_noticed_after_the_machine_stood_still_is_told() -> None:
    async def work() -> str:
        ending = Ending()
        explained = asyncio.ensure_future(ending.explain(SILENCE))
        await asyncio.sleep(0)
        time.sleep(1)  # all that was to be waited for is over when the loop goes on
        asyncio.get_running_loop().call_later(0.1, ending.set, "exited with code 3")
        return await explained

    assert asyncio.run(work()) == "the container exited with code 3"
