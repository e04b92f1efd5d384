"""Finding the groups of this process in every layout a container may show."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmekit.server.cgroup import find_hierarchy
from tests.support.cgroup_tree import Tree, mount_v1, mount_v2

MEMORY_V1 = "/sys/fs/cgroup/memory"


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def _folders(tree: Tree, *paths: str) -> tuple[Path, ...]:
    for path in paths:
        (tree.root / path.strip("/")).mkdir(parents=True, exist_ok=True)
    return tuple(tree.root / path.strip("/") for path in paths)


def test_v2_gives_the_own_group_and_its_ancestors_up_to_the_mount(tree: Tree) -> None:
    tree.process("0::/kubepods/pod1/app", mount_v2())
    base = "/sys/fs/cgroup"
    levels = _folders(tree, f"{base}/kubepods/pod1/app", f"{base}/kubepods/pod1", f"{base}/kubepods", base)

    found = find_hierarchy("memory", tree.root)

    assert found is not None
    assert (2, levels) == (found.version, found.levels)


def test_a_private_namespace_whose_path_is_not_mounted_means_the_root_of_the_mount(tree: Tree) -> None:
    tree.process("0::/../../system.slice/docker.service", mount_v2())
    levels = _folders(tree, "/sys/fs/cgroup")

    found = find_hierarchy("memory", tree.root)

    assert found is not None
    assert levels == found.levels


def test_dockers_v1_mount_shows_only_the_own_group(tree: Tree) -> None:
    tree.process("9:memory:/docker/abc\n0::/", mount_v1("memory", MEMORY_V1, root="/docker/abc"))
    levels = _folders(tree, MEMORY_V1)

    found = find_hierarchy("memory", tree.root)

    assert found is not None
    assert (1, levels) == (found.version, found.levels)


def test_a_mount_whose_root_only_looks_alike_is_not_stripped(tree: Tree) -> None:
    tree.process("9:memory:/docker/abcdef", mount_v1("memory", MEMORY_V1, root="/docker/abc"))
    levels = _folders(tree, MEMORY_V1)

    found = find_hierarchy("memory", tree.root)

    assert found is not None
    assert levels == found.levels


def test_hybrid_layouts_take_the_controller_from_v1_where_it_is_there(tree: Tree) -> None:
    tree.process("4:cpu,cpuacct:/a\n0::/b", mount_v2("/sys/fs/cgroup/unified"), mount_v1("cpu,cpuacct", "/c"))
    (own, top, unified, v2) = _folders(
        tree, "/c/a", "/c", "/sys/fs/cgroup/unified/b", "/sys/fs/cgroup/unified"
    )

    cpu = find_hierarchy("cpu", tree.root)
    memory = find_hierarchy("memory", tree.root)

    assert cpu is not None
    assert memory is not None
    assert (1, (own, top)) == (cpu.version, cpu.levels)
    assert (2, (unified, v2)) == (memory.version, memory.levels)


def test_paths_may_hold_colons_and_mount_points_escaped_spaces(tree: Tree) -> None:
    tree.process("0::/a:b", mount_v2("/sys/my\\040groups"))
    own, top = _folders(tree, "/sys/my groups/a:b", "/sys/my groups")

    found = find_hierarchy("memory", tree.root)

    assert found is not None
    assert (own, top) == found.levels


def test_without_mounts_or_proc_there_is_no_hierarchy(tree: Tree) -> None:
    assert find_hierarchy("memory", tree.root) is None
    tree.process("0::/")
    assert find_hierarchy("memory", tree.root) is None
