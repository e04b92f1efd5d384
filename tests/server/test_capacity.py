"""CPUs, throttling, processes and descriptors that are left."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmekit.server.capacity import CpuThrottle, cpus_available, pids_headroom
from tests.support.cgroup_tree import Tree, mount_v1, mount_v2, stat_text

V2 = "/sys/fs/cgroup"
CPU = "/sys/fs/cgroup/cpu"
PIDS = "/sys/fs/cgroup/pids"


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def _cpu_v1(tree: Tree, quota: int, **stat: int) -> None:
    tree.process("2:cpu,cpuacct:/", mount_v1("cpu,cpuacct", CPU))
    tree.write(f"{CPU}/cpu.cfs_quota_us", quota)
    tree.write(f"{CPU}/cpu.cfs_period_us", 100000)
    tree.write(f"{CPU}/cpu.stat", stat_text(stat))


def test_a_quota_below_one_cpu_is_one_cpu(tree: Tree) -> None:
    tree.process("0::/", mount_v2())
    tree.write(f"{V2}/cpu.max", "50000 100000")

    assert cpus_available(tree.root) == 1


def test_a_quota_is_rounded_up_and_bounded_by_the_affinity(tree: Tree) -> None:
    affinity = len(os.sched_getaffinity(0))
    _cpu_v1(tree, quota=100_000 * affinity - 50_000)
    assert cpus_available(tree.root) == affinity
    _cpu_v1(tree, quota=100_000 * (affinity + 7))
    assert cpus_available(tree.root) == affinity


@pytest.mark.parametrize("quota", ["max 100000", "max"])
def test_without_a_quota_the_affinity_counts(tree: Tree, quota: str) -> None:
    tree.process("0::/", mount_v2())
    tree.write(f"{V2}/cpu.max", quota)

    assert cpus_available(tree.root) == len(os.sched_getaffinity(0))
    assert CpuThrottle.find(tree.root).read() is None


def test_the_quota_of_an_ancestor_counts(tree: Tree) -> None:
    tree.process("0::/pod/app", mount_v2())
    tree.write(f"{V2}/pod/app/cpu.max", "max 100000")
    tree.write(f"{V2}/pod/cpu.max", "100000 100000")

    assert cpus_available(tree.root) == 1


def test_time_throttled_is_in_nanoseconds_in_both_versions(tree: Tree, tmp_path: Path) -> None:
    _cpu_v1(tree, quota=50_000, nr_periods=4, nr_throttled=2, throttled_time=7_000_000)
    assert CpuThrottle.find(tree.root).read() == 7_000_000
    v2 = Tree(tmp_path / "v2")
    v2.process("0::/", mount_v2())
    v2.write(f"{V2}/cpu.max", "50000 100000")
    v2.write(f"{V2}/cpu.stat", stat_text({"usage_usec": 9, "nr_throttled": 2, "throttled_usec": 7_000}))
    assert CpuThrottle.find(v2.root).read() == 7_000_000


def test_each_reading_of_the_throttle_is_fresh(tree: Tree) -> None:
    _cpu_v1(tree, quota=50_000, throttled_time=1)
    throttle = CpuThrottle.find(tree.root)
    assert throttle.read() == 1
    with open(tree.root / "sys/fs/cgroup/cpu/cpu.stat", "r+") as stat:
        stat.write("nr_throttled 3\nthrottled_time 500\n")
    assert throttle.read() == 500
    throttle.close()
    assert throttle.read() is None


def test_the_lowest_of_all_process_limits_counts(tree: Tree) -> None:
    tree.process("3:pids:/a/b", mount_v1("pids", PIDS))
    tree.write("proc/loadavg", "0.20 0.18 0.12 1/800 11206")
    tree.write("proc/sys/kernel/pid_max", 32768)
    tree.write("proc/sys/kernel/threads-max", 1200)
    assert pids_headroom(tree.root) == 400
    tree.write(f"{PIDS}/a/pids.max", 100)
    tree.write(f"{PIDS}/a/pids.current", 30)
    tree.write(f"{PIDS}/a/b/pids.max", "max")
    tree.write(f"{PIDS}/a/b/pids.current", 10)
    assert pids_headroom(tree.root) == 70
    tree.write(f"{PIDS}/a/pids.current", 130)  # a limit may be set below what runs
    assert pids_headroom(tree.root) == 0


def test_without_any_process_limit_there_is_no_number(tree: Tree) -> None:
    assert pids_headroom(tree.root) is None


def test_opening_a_file_takes_one_descriptor() -> None:
    program = """
from mmekit.server.capacity import descriptor_headroom
before = descriptor_headroom()
with open("/dev/null"):
    assert before - 1 == descriptor_headroom()
assert before == descriptor_headroom()
"""
    # In a process of its own: in this one, threads of earlier tests may still close theirs.
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
