"""The server that clauses share is started once, whoever asks first."""

from __future__ import annotations

import random
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mmekit_toolkit.contract.choosing import chosen
from mmekit_toolkit.contract.main_server import MainServer
from mmekit_toolkit.contract.sample import ProbeSample
from mmekit_toolkit.contract.subjects import command
from tests.toolkit.contract.kit_runs import program


def test_callers_in_several_threads_get_one_server(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f'echo $$ >> {pids}; exec {sys.executable} "{program(tmp_path)}"'
    with chosen(None, ["sh", "-c", script]) as subject, ThreadPoolExecutor(6) as threads:
        main = MainServer(subject, ProbeSample(), start_timeout_s=30)
        for _ in range(2):  # also when the first has been discarded
            found = [*threads.map(lambda _: main.running, range(6))]
            assert len(set(found)) == 1
            main.discard()
    assert len(pids.read_text().splitlines()) == 2


def test_runs_that_begin_at_the_same_time_take_different_ports() -> None:
    """A server listens only a while after its ports were found free."""
    before = random.getstate()
    try:
        random.seed(7)
        first, claim = command._free_block()
        with claim:
            random.seed(7)
            second, other = command._free_block()
            other.close()
        assert second != first
        random.seed(7)
        third, again = command._free_block()
        again.close()
        assert third == first, "it is free again"
    finally:
        random.setstate(before)
