"""The ledger never grants what is not free; its refusals give the numbers; the watchdog ends in time."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
from dataclasses import dataclass

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from mmekit.errors import ConfigError, OutOfResources
from mmekit.server.memory import (
    Grant,
    GrantState,
    Memory,
    Watchdog,
    call_data_bytes,
    check_reserve,
    default_reserve,
    load_data_bytes,
)
from mmekit.server.usage import Reading
from tests.support.cgroup import memory_group

MIB = 1024 * 1024


@dataclass
class Machine:
    """A source whose use is set by the test; ``cache`` shows in the quick reading only."""

    limit_bytes: int = 1024 * MIB
    used_now: int = 200 * MIB
    cache: int = 0

    def usage(self) -> Reading:
        return Reading(self.limit_bytes, self.used_now + self.cache, "cgroup v2 /sys/fs/cgroup")

    def used(self) -> Reading:
        return Reading(self.limit_bytes, self.used_now, "cgroup v2 /sys/fs/cgroup")


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
def memory(machine: Machine) -> Memory:
    return Memory(machine, reserve_bytes=64 * MIB)


# --- admission ---------------------------------------------------------------------------------


def test_free_is_limit_less_used_reserve_and_grants(memory: Memory) -> None:
    memory.admit("a", 100 * MIB, "guess")

    assert memory.statement().free_bytes == (1024 - 200 - 64 - 100) * MIB


def test_all_that_is_free_can_be_granted_and_not_a_byte_more(memory: Memory) -> None:
    free = memory.statement().free_bytes
    with pytest.raises(OutOfResources):
        memory.admit("a", free + 1, "guess")
    memory.admit("a", free, "guess")

    assert memory.statement().free_bytes == 0


def test_a_settled_load_counts_by_the_reading_alone(memory: Memory, machine: Machine) -> None:
    grant = memory.admit("a", 300 * MIB, "guess")
    machine.used_now += 20 * MIB
    memory.settle(grant, 20 * MIB)

    assert memory.statement().free_bytes == (1024 - 220 - 64) * MIB
    assert memory.costs() == {"a": 20 * MIB}


def test_a_refusal_gives_all_the_numbers_and_the_advice(memory: Memory, machine: Machine) -> None:
    memory.settle(memory.admit("old", 500 * MIB, "guess"), 500 * MIB)
    machine.used_now = 700 * MIB
    memory.admit("b", 36 * MIB, "guess")
    with pytest.raises(OutOfResources) as refused:
        memory.admit("m", 300 * MIB, "first guess: 2 × file + 8 MiB")

    assert refused.value.message == (
        "Model 'm' needs about 300.0 MiB of memory (first guess: 2 × file + 8 MiB), but 224.0 MiB are free: "
        "limit 1024.0 MiB (cgroup v2 /sys/fs/cgroup), used 700.0 MiB, "
        "held for 1 load in progress 36.0 MiB, reserve 64.0 MiB. Unload other models and try again."
    )
    assert refused.value.status == 507


def test_a_refusal_says_when_loads_in_progress_are_all_that_is_in_the_way(memory: Memory) -> None:
    memory.admit("a", 400 * MIB, "guess")
    memory.admit("b", 100 * MIB, "guess")
    with pytest.raises(
        OutOfResources,
        match=r"held for 2 loads in progress 500\.0 MiB.*when the loads in progress have ended",
    ):
        memory.admit("m", 500 * MIB, "guess")
    assert memory.fits_after_loads(500 * MIB)
    assert not memory.fits_after_loads(900 * MIB)


def test_a_refusal_says_when_unloading_would_not_help(memory: Memory) -> None:
    memory.settle(memory.admit("old", 50 * MIB, "guess"), 50 * MIB)
    expected = (
        "Unloading every other model would free 50.0 MiB, which is not enough: "
        "give the container more memory (MMEKIT_MEMORY_LIMIT_BYTES"
    )
    with pytest.raises(OutOfResources, match=re.escape(expected)):
        memory.admit("m", 900 * MIB, "guess")


def test_a_refused_load_leaves_no_trace(memory: Memory) -> None:
    before = memory.statement()
    with pytest.raises(OutOfResources):
        memory.admit("m", 900 * MIB, "guess")
    assert before == memory.statement()


def test_the_shortfall_is_what_has_to_be_given_back_first(memory: Memory, machine: Machine) -> None:
    assert memory.shortfall(760 * MIB) == 0
    assert memory.shortfall(800 * MIB) == 40 * MIB
    machine.used_now -= 40 * MIB
    memory.admit("m", 800 * MIB, "guess")


def test_use_above_the_limit_means_nothing_is_free(memory: Memory, machine: Machine) -> None:
    machine.used_now = 2000 * MIB

    assert memory.statement().free_bytes == 0
    with pytest.raises(OutOfResources, match=r"but 0\.0 MiB are free"):
        memory.admit("m", 1, "guess")


def test_a_second_try_gets_all_that_is_free_less_the_reserve(memory: Memory) -> None:
    grant = memory.admit("m", 100 * MIB, "guess")
    memory.enlarge(grant)

    assert grant.granted_bytes == (1024 - 200 - 64) * MIB
    assert memory.statement().free_bytes == 0


def test_no_second_try_where_nothing_more_is_free(memory: Memory) -> None:
    grant = memory.admit("m", 760 * MIB, "guess")
    with pytest.raises(
        OutOfResources, match=r"needs more than 760\.0 MiB of memory \(which its load has exceeded"
    ):
        memory.enlarge(grant)
    assert grant.granted_bytes == 760 * MIB


def test_copies_of_one_model_are_counted_apart_and_listed_together(memory: Memory) -> None:
    first, second = (memory.admit("m", 10 * MIB, "guess") for _ in range(2))
    memory.settle(first, 3 * MIB)
    memory.settle(second, 4 * MIB)
    assert memory.costs() == {"m": 7 * MIB}
    memory.release(first)
    assert memory.costs() == {"m": 4 * MIB}


def test_memory_that_copies_share_stays_in_the_books_until_the_last_goes(memory: Memory) -> None:
    first, second = memory.admit("m", 9 * MIB, "guess"), memory.admit("m", MIB, "guess")
    memory.settle(first, 100 * MIB)
    memory.settle(second, 2 * MIB)
    memory.pass_on(first, second)
    memory.release(first)
    assert memory.costs() == {"m": 100 * MIB}
    assert memory.statement().models_bytes == 100 * MIB
    memory.release(second)
    assert memory.statement().models_bytes == 0


def test_a_wrong_move_names_the_state(memory: Memory) -> None:
    grant = memory.admit("m", 10 * MIB, "guess")
    memory.settle(grant, 1)
    with pytest.raises(RuntimeError, match="settle: the grant of 'm' is settled, not held"):
        memory.settle(grant, 1)
    with pytest.raises(RuntimeError, match="enlarge: the grant of 'm' is settled, not held"):
        memory.enlarge(grant)
    memory.release(grant)
    with pytest.raises(RuntimeError, match="release: the grant of 'm' is released already"):
        memory.release(grant)


class AnyOrder(RuleBasedStateMachine):
    """Any order of calls: grants stay within what is free, and the sums are those of the grants."""

    held = Bundle("held")
    settled = Bundle("settled")

    def __init__(self) -> None:
        super().__init__()
        self.machine = Machine()
        self.memory = Memory(self.machine, reserve_bytes=64 * MIB)
        self.grants: list[Grant] = []

    @rule(target=held, need=st.integers(0, 1100 * MIB))
    def admit(self, need: int) -> Grant | None:
        free = self.memory.statement().free_bytes
        try:
            grant = self.memory.admit("m", need, "guess")
        except OutOfResources:
            assert need > free
            return None
        assert need <= free
        self.grants.append(grant)
        return grant

    @rule(grant=held)
    def enlarge(self, grant: Grant | None) -> None:
        if grant is None or grant.state is not GrantState.HELD:
            return
        free = self.memory.statement().free_bytes
        try:
            self.memory.enlarge(grant)
        except OutOfResources:
            assert free == 0

    @rule(target=settled, grant=consumes(held), share=st.floats(0, 1))
    def settle(self, grant: Grant | None, share: float) -> Grant | None:
        if grant is not None:
            cost = int(grant.granted_bytes * share)
            self.machine.used_now += cost
            self.memory.settle(grant, cost)
        return grant

    @rule(grant=consumes(held))
    def fail(self, grant: Grant | None) -> None:
        if grant is not None:
            self.memory.release(grant)

    @rule(grant=consumes(settled))
    def unload(self, grant: Grant | None) -> None:
        if grant is not None:
            self.machine.used_now -= grant.cost_bytes
            self.memory.release(grant)

    @invariant()
    def the_books_are_right(self) -> None:
        at = self.memory.statement()
        held = [grant for grant in self.grants if grant.state is GrantState.HELD]
        settled = [grant for grant in self.grants if grant.state is GrantState.SETTLED]
        assert sum(grant.granted_bytes for grant in held) == at.held_bytes
        assert len(held) == at.loads
        assert (
            sum(grant.cost_bytes for grant in settled) == at.models_bytes == sum(self.memory.costs().values())
        )
        assert at.used_bytes + at.held_bytes + at.reserve_bytes <= at.limit_bytes


TestAnyOrder = AnyOrder.TestCase


# --- reserve -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit_mib", "reserve_mib"),
    [(64, 8), (256, 32), (512, 64), (1024, 64), (1600, 100), (2048, 128), (65536, 128)],
)
def test_the_reserve_is_64_to_128_mib_and_at_most_an_eighth(limit_mib: int, reserve_mib: int) -> None:
    assert reserve_mib * MIB == default_reserve(limit_mib * MIB) == check_reserve(None, limit_mib * MIB)


def test_a_reserve_that_leaves_nothing_is_refused() -> None:
    assert check_reserve(5, 10) == 5
    with pytest.raises(ConfigError, match=r"MMEKIT_MEMORY_RESERVE_BYTES=268435456 cannot.*\(256\.0 MiB\)"):
        check_reserve(256 * MIB, 256 * MIB)


# --- limits that the kernel holds ----------------------------------------------------------------


def test_a_load_may_map_its_files_and_a_little_more() -> None:
    assert load_data_bytes(10 * MIB, file_bytes=100 * MIB) == (100 + 32) * MIB
    assert load_data_bytes(300 * MIB, file_bytes=100 * MIB) == (300 + 32) * MIB


def test_calls_may_take_the_limit_less_the_reserve_whatever_is_used(memory: Memory, machine: Machine) -> None:
    assert call_data_bytes(memory.statement()) == (1024 - 64) * MIB
    machine.used_now = 1020 * MIB
    assert call_data_bytes(memory.statement()) == (1024 - 64) * MIB


def test_calls_may_always_take_64_mib(machine: Machine) -> None:
    machine.limit_bytes = 100 * MIB
    assert call_data_bytes(Memory(machine, reserve_bytes=64 * MIB).statement()) == 64 * MIB


_GROW = """
import resource, sys
from mmekit import process
process.limit_data(process.status_bytes("VmData") + int(sys.argv[1]))
try:
    bytearray(int(sys.argv[2]))
except MemoryError:
    print("MemoryError")
else:
    print("fits")
"""


@pytest.mark.parametrize(("asked_mib", "result"), [(60, "fits"), (110, "MemoryError")])
def test_the_kernel_stops_a_load_beyond_its_grant_in_its_own_process(asked_mib: int, result: str) -> None:
    allowed = load_data_bytes(64 * MIB, file_bytes=0)
    command = [sys.executable, "-c", _GROW, str(allowed), str(asked_mib * MIB)]

    output = subprocess.run(
        command, check=True, capture_output=True, text=True, env={"PYTHONPATH": os.pathsep.join(sys.path)}
    )

    assert result == output.stdout.strip()
    assert resource.getrlimit(resource.RLIMIT_DATA)[0] == resource.RLIM_INFINITY


# --- the watchdog ------------------------------------------------------------------------------


@pytest.fixture
def watchdog(machine: Machine) -> Watchdog:
    return Watchdog(machine, reserve_bytes=64 * MIB)


def test_a_load_is_ended_once_use_eats_into_the_reserve(watchdog: Watchdog, machine: Machine) -> None:
    machine.used_now = 960 * MIB
    assert not watchdog.tick(0.0)
    machine.used_now += 1
    assert watchdog.tick(0.01)


def test_page_cache_up_to_the_limit_ends_nothing(watchdog: Watchdog, machine: Machine) -> None:
    machine.cache = machine.limit_bytes - machine.used_now

    assert not watchdog.tick(0.0)
    assert not watchdog.is_close


def test_below_the_line_only_the_quick_reading_is_taken(machine: Machine) -> None:
    class Quick(Machine):
        def used(self) -> Reading:
            raise AssertionError("the exact reading was taken")

    assert not Watchdog(Quick(), reserve_bytes=64 * MIB).tick(0.0)


def test_after_one_was_ended_its_memory_gets_time_to_come_back(watchdog: Watchdog, machine: Machine) -> None:
    machine.used_now = 970 * MIB
    assert watchdog.tick(0.0)
    machine.used_now += 10 * MIB
    assert not watchdog.tick(0.02)
    assert watchdog.tick(0.3)


def test_a_second_runaway_is_ended_at_once(watchdog: Watchdog, machine: Machine) -> None:
    machine.used_now = 970 * MIB
    assert watchdog.tick(0.0)
    machine.used_now += 16 * MIB
    assert watchdog.tick(0.02)


def test_once_below_the_line_the_next_runaway_is_ended_at_once(watchdog: Watchdog, machine: Machine) -> None:
    machine.used_now = 970 * MIB
    assert watchdog.tick(0.0)
    machine.used_now = 300 * MIB
    assert not watchdog.tick(0.02)
    machine.used_now = 961 * MIB
    assert watchdog.tick(0.04)


#: The runaway grows by 1 GiB a second of looks, 10 ms apart; it does not go on while the supervisor is kept
#: off the CPU.
_SUPERVISOR = """
import os, signal, socket, sys, time
from mmekit.server.memory import Watchdog
from mmekit.server.usage import find_memory
source = find_memory()
watchdog = Watchdog(source, reserve_bytes=128 << 20)
ours, theirs = socket.socketpair()
pid = os.fork()
if not pid:
    ours.close()
    held = []
    while theirs.recv(1):
        held.append(bytes([1]) * (10 << 20))
        theirs.send(b"x")
    os._exit(0)
theirs.close()
looks = 0
while not watchdog.tick(time.monotonic()):
    looks += 1
    assert looks < 1000, source.used()
    time.sleep(0.01)
    ours.send(b"x")
    assert ours.recv(1), "the kernel came first"
os.kill(pid, signal.SIGKILL)
os.waitpid(pid, 0)
"""


def test_in_a_real_group_a_runaway_load_is_ended_before_the_kernel_comes() -> None:
    with memory_group(384 * MIB) as group:
        subprocess.run(
            [sys.executable, "-c", _SUPERVISOR],
            preexec_fn=group.enter,
            check=True,
            env={"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert group.oom_kills() == 0


def test_close_to_the_line_the_next_look_should_come_soon(watchdog: Watchdog, machine: Machine) -> None:
    machine.used_now = 1024 * MIB - 2 * 64 * MIB
    watchdog.tick(0.0)
    assert not watchdog.is_close
    machine.used_now += 1
    watchdog.tick(0.02)
    assert watchdog.is_close
