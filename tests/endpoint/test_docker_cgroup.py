"""A container's use from the files of both versions of control groups, and where there are none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from mmekit_endpoint.fleet.launchers.docker_cgroup import find_group
from mmekit_endpoint.fleet.launchers.docker_container import usage_of

ID = "76d7d8555d23"

V1 = {
    "proc/7/cgroup": f"4:memory:/docker/{ID}\n2:cpu,cpuacct:/docker/{ID}\n0::/docker/{ID}\n",
    f"sys/memory/docker/{ID}/memory.usage_in_bytes": "1000\n",
    f"sys/memory/docker/{ID}/memory.stat": "inactive_file 1\ntotal_inactive_file 300\n",
    f"sys/cpuacct/docker/{ID}/cpuacct.usage": "1500000000\n",
}
V2 = {
    "proc/7/cgroup": f"0::/system.slice/docker-{ID}.scope\n",
    f"sys/system.slice/docker-{ID}.scope/memory.current": "1000\n",
    f"sys/system.slice/docker-{ID}.scope/memory.stat": "anon 600\ninactive_file 300\n",
    f"sys/system.slice/docker-{ID}.scope/cpu.stat": "usage_usec 1500000\nuser_usec 1\n",
}


def write(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize("files", [V1, V2], ids=["v1", "v2"])
def test_use_is_what_the_engine_would_say(tmp_path: Path, files: Mapping[str, str]) -> None:
    write(tmp_path, files)
    group = find_group(ID, 7, tmp_path / "sys", tmp_path / "proc")
    assert group is not None
    usage = usage_of(group.stats(), 4096)
    assert usage is not None
    assert (usage.memory_bytes, usage.memory_limit_bytes, usage.cpu_seconds) == (700, 4096, 1.5)


@pytest.mark.parametrize("files", [V1, V2], ids=["v1", "v2"])
def test_a_container_that_has_ended_uses_nothing_known(tmp_path: Path, files: Mapping[str, str]) -> None:
    write(tmp_path, files)
    group = find_group(ID, 7, tmp_path / "sys", tmp_path / "proc")
    assert group is not None
    for path in (tmp_path / "sys").rglob("memory.*"):
        path.unlink()
    assert usage_of(group.stats(), 4096) is None


def test_an_engine_elsewhere_has_no_groups_here(tmp_path: Path) -> None:
    assert find_group(ID, 7, tmp_path / "sys", tmp_path / "proc") is None
    write(tmp_path, {**V2, "proc/7/cgroup": "0::/user.slice/somebody\n"})
    assert find_group(ID, 7, tmp_path / "sys", tmp_path / "proc") is None
    write(tmp_path, {"proc/7/cgroup": f"0::/../{ID}\n"})
    assert find_group(ID, 7, tmp_path / "sys", tmp_path / "proc") is None
