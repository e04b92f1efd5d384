"""Limits and use of memory: fixture trees for each layout, and a real cgroup where one can be made."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmekit.errors import ConfigError
from mmekit.server.usage import MemorySource, find_memory
from tests.support.cgroup import memory_group
from tests.support.cgroup_tree import MIB, NO_LIMIT_V1, Tree, meminfo, mount_v1, mount_v2

V1 = "/sys/fs/cgroup/memory"
V2 = "/sys/fs/cgroup"


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def _numbers(source: MemorySource) -> tuple[int, int, int]:
    numbers = source.limit_bytes // MIB, source.used().used_bytes // MIB, source.usage().used_bytes // MIB
    source.close()
    return numbers


def test_v2_used_is_usage_less_inactive_and_unmapped_active_file_pages(tree: Tree) -> None:
    tree.process("0::/", mount_v2())
    tree.v2(
        V2,
        limit=1024 * MIB,
        usage=900 * MIB,
        inactive_file=200 * MIB,
        active_file=150 * MIB,
        file_mapped=50 * MIB,
    )

    assert _numbers(find_memory(root=tree.root)) == (1024, 600, 900)


def test_v1_takes_the_counters_of_the_whole_subtree(tree: Tree) -> None:
    tree.process("5:memory:/docker/x", mount_v1("memory", V1, root="/docker/x"))
    files = {
        "total_inactive_file": 100 * MIB,
        "total_active_file": 30 * MIB,
        "total_mapped_file": 40 * MIB,
    }
    tree.v1(V1, limit=512 * MIB, usage=400 * MIB, **files)

    assert _numbers(find_memory(root=tree.root)) == (512, 300, 400)


def test_use_is_never_negative_when_the_counters_do_not_agree(tree: Tree) -> None:
    tree.process("0::/", mount_v2())
    tree.v2(V2, limit=1024 * MIB, usage=10 * MIB, inactive_file=20 * MIB)

    assert find_memory(root=tree.root).used().used_bytes == 0


def test_the_tightest_of_nested_groups_counts_with_its_own_use(tree: Tree) -> None:
    tree.process("0::/pod/app", mount_v2())
    tree.v2(f"{V2}/pod", limit=1000 * MIB, usage=900 * MIB)  # a neighbour in the pod takes 700
    tree.v2(f"{V2}/pod/app", limit=800 * MIB, usage=200 * MIB)

    reading = find_memory(root=tree.root).used()

    assert reading.free_bytes == 100 * MIB
    assert reading.ceiling == "cgroup v2 /sys/fs/cgroup/pod"


def test_an_own_limit_above_the_parents_has_no_effect(tree: Tree) -> None:
    tree.process("0::/pod/app", mount_v2())
    tree.v2(f"{V2}/pod", limit=500 * MIB, usage=100 * MIB)
    tree.v2(f"{V2}/pod/app", limit=800 * MIB, usage=90 * MIB)

    assert _numbers(find_memory(root=tree.root)) == (500, 100, 100)


def test_v1_knows_the_limit_of_an_ancestor_that_is_not_visible(tree: Tree) -> None:
    tree.process("5:memory:/docker/x", mount_v1("memory", V1, root="/docker/x"))
    tree.v1(V1, limit=NO_LIMIT_V1, usage=50 * MIB, hierarchical=256 * MIB)

    assert _numbers(find_memory(root=tree.root)) == (256, 50, 50)


def test_v2_memory_high_is_a_limit(tree: Tree) -> None:
    tree.process("0::/", mount_v2())
    tree.v2(V2, limit="max", high=300 * MIB, usage=50 * MIB)

    assert _numbers(find_memory(root=tree.root)) == (300, 50, 50)


@pytest.mark.parametrize("limit", ["max", str(64 * 1024 * MIB)])
def test_no_limit_or_one_beyond_the_machine_means_the_machine(tree: Tree, limit: str) -> None:
    tree.process("0::/", mount_v2())
    tree.v2(V2, limit=limit, usage=50 * MIB)

    source = find_memory(root=tree.root)

    assert source.used().ceiling == "the machine"
    assert _numbers(source) == (16 * 1024, 4 * 1024, 4 * 1024)


def test_v1_without_a_limit_means_the_machine(tree: Tree) -> None:
    tree.process("5:memory:/", mount_v1("memory", V1))
    tree.v1(V1, limit=NO_LIMIT_V1, usage=50 * MIB)

    assert find_memory(root=tree.root).limit_bytes == 16 * 1024 * MIB


def test_the_root_group_of_v2_has_no_memory_files(tree: Tree) -> None:
    tree.process("0::/", mount_v2())
    tree.write(f"{V2}/cgroup.procs", "1")

    assert find_memory(root=tree.root).limit_bytes == 16 * 1024 * MIB


def test_without_cgroups_the_machine_counts(tree: Tree) -> None:
    assert _numbers(find_memory(root=tree.root)) == (16 * 1024, 4 * 1024, 4 * 1024)


def test_without_any_source_the_error_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no MemTotal and MemAvailable. Mount /proc, or set LIMIT\."):
        find_memory(root=tmp_path, setting_name="LIMIT")


def test_a_group_is_enough_where_the_machine_tells_nothing(tree: Tree) -> None:
    (tree.root / "proc/meminfo").unlink()
    tree.process("0::/", mount_v2())
    tree.v2(V2, limit=100 * MIB, usage=50 * MIB)

    assert _numbers(find_memory(root=tree.root)) == (100, 50, 50)


# --- the setting -------------------------------------------------------------------------------


def _statm(tree: Tree, pid: int, resident_mib: int, shared_mib: int) -> None:
    page = os.sysconf("SC_PAGE_SIZE")
    tree.write(f"proc/{pid}/statm", f"99999 {resident_mib * MIB // page} {shared_mib * MIB // page} 1 0 9 0")


def test_a_setting_is_held_against_the_own_processes_only(tree: Tree) -> None:
    _statm(tree, 10, resident_mib=40, shared_mib=10)
    _statm(tree, 11, resident_mib=100, shared_mib=20)
    source = find_memory(2048 * MIB, root=tree.root)
    source.watch(10)
    source.watch(11, baseline_bytes=60 * MIB)  # inherited by fork

    assert _numbers(source) == (2048, 30 + 1 + 20 + 1, 52)


def test_a_process_that_shrank_below_its_baseline_counts_only_its_kernel_memory(tree: Tree) -> None:
    _statm(tree, 11, resident_mib=50, shared_mib=20)
    source = find_memory(2048 * MIB, root=tree.root)
    source.watch(11, baseline_bytes=60 * MIB)

    assert source.used().used_bytes == 1 * MIB


def test_forgotten_and_vanished_processes_count_nothing(tree: Tree) -> None:
    _statm(tree, 10, resident_mib=40, shared_mib=10)
    source = find_memory(2048 * MIB, root=tree.root)
    source.watch(10)
    source.watch(4242)
    source.forget(10)
    source.forget(77)

    assert source.used().used_bytes == 0


def test_a_real_process_that_ends_counts_nothing_until_it_is_forgotten() -> None:
    source = find_memory(64 * MIB)
    code = "held = b'x' * (8 << 20); print(flush=True); input()"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe) as child:
        assert child.stdout is not None
        child.stdout.readline()
        source.watch(child.pid)
        assert source.used().used_bytes > 8 * MIB
        child.communicate(b"\n")
    assert source.used().used_bytes == 0
    source.close()


@pytest.mark.parametrize(("free_in_group", "tightest"), [(500, "setting"), (50, "cgroup")])
def test_the_setting_and_the_group_hold_both(tree: Tree, free_in_group: int, tightest: str) -> None:
    tree.process("0::/", mount_v2())
    tree.v2(V2, limit=1024 * MIB, usage=(1024 - free_in_group) * MIB)
    source = find_memory(256 * MIB, "setting", root=tree.root)

    assert source.limit_bytes == 256 * MIB
    assert source.used().ceiling.startswith(tightest)


def test_a_setting_above_the_groups_limit_has_no_effect(tree: Tree) -> None:
    tree.process("0::/", mount_v2())
    tree.v2(V2, limit=100 * MIB, usage=50 * MIB)

    assert _numbers(find_memory(4096 * MIB, root=tree.root)) == (100, 50, 50)


def test_a_full_machine_counts_even_below_the_setting(tree: Tree) -> None:
    tree.write("proc/meminfo", meminfo(total=1024 * MIB, available=10 * MIB))
    source = find_memory(512 * MIB, root=tree.root)

    assert source.used().free_bytes == 10 * MIB


# --- a real cgroup -----------------------------------------------------------------------------

_CHILD = """
import json, os, sys
from mmekit.server.usage import find_memory
source = find_memory()
def look():
    used, usage = source.used(), source.usage()
    return {"limit": used.limit_bytes, "used": used.used_bytes, "usage": usage.used_bytes}
steps = [look()]
held = bytearray(os.urandom(1) * (48 << 20))
steps.append(look())
for _ in range(2):
    with open(sys.argv[1], "rb") as file:
        while file.read(1 << 20): pass
    steps.append(look())
json.dump(steps, sys.stdout)
"""


def test_a_process_in_a_real_group_sees_limit_and_use_but_not_the_page_cache(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    with memory_group(256 * MIB) as group:
        # Written inside of the group, so that its pages are charged there.
        write = ["dd", "if=/dev/zero", f"of={archive}", "bs=1M", "count=80", "conv=fsync"]
        subprocess.run(write, preexec_fn=group.enter, check=True, capture_output=True)
        output = subprocess.run(
            [sys.executable, "-c", _CHILD, str(archive)],
            preexec_fn=group.enter,
            check=True,
            capture_output=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        ).stdout
    start, held, read_once, read_twice = json.loads(output)

    assert start["limit"] == 256 * MIB
    assert 40 * MIB < held["used"] - start["used"] < 56 * MIB
    assert start["usage"] - start["used"] > 70 * MIB
    assert read_once["used"] - held["used"] < 8 * MIB
    # The second reading moved the pages to the active list; still the kernel gives them back.
    assert read_twice["used"] - held["used"] < 8 * MIB
