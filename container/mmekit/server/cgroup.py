"""Where the control groups of this process are: cgroup v1, v2 or both, in a container or not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """The groups a controller puts this process in: its own first, then the ancestors visible."""

    version: int
    levels: tuple[Path, ...]

    def read(self, level: Path, name: str) -> str | None:
        """Return a file of one level without its newline; None where there is none."""
        return read_text(level / name)


def find_hierarchy(controller: str, root: Path = Path("/")) -> Hierarchy | None:
    """Find the groups of this process for ``memory``, ``cpu`` or ``pids`` (cgroups(7)).

    A controller that a v1 hierarchy has is not in the v2 one (hybrid layouts), so v1 is asked
    first. ``root`` is where ``proc`` and the mount points are looked up.
    """
    groups = dict(_memberships(read_text(root / "proc/self/cgroup") or ""))
    mounts = list(_mounts(read_text(root / "proc/self/mountinfo") or ""))
    for version, key in ((1, controller), (2, "")):
        for mount in mounts:
            if key in groups and mount.version == version and (version == 2 or key in mount.options):
                top = root / mount.point.lstrip("/")
                return Hierarchy(version, _levels(top, mount.root, groups[key]))
    return None


@dataclass(frozen=True, slots=True)
class _Mount:
    version: int
    root: str
    point: str
    options: frozenset[str]


def _memberships(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            yield controller, path


def _mounts(text: str) -> Iterator[_Mount]:
    for line in text.splitlines():
        fields = line.split(" ")
        kind, _, options = fields[fields.index("-") + 1 :][:3]
        if kind in ("cgroup", "cgroup2"):
            version = 2 if kind == "cgroup2" else 1
            yield _Mount(version, _unescape(fields[3]), _unescape(fields[4]), frozenset(options.split(",")))


def _unescape(path: str) -> str:
    """Undo how mountinfo writes space, tab, newline and backslash: three octal digits (proc(5))."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), path)


def _levels(top: Path, mounted: str, path: str) -> tuple[Path, ...]:
    """Map a path of /proc/self/cgroup to folders.

    With the host's cgroup namespace the mount shows ``mounted`` (docker's own group) and the path
    starts with it. With a private one the path may lie outside of what is mounted; the mount's
    root is then the group that bounds this container.
    """
    if mounted != "/" and (path + "/").startswith(mounted + "/"):
        path = path[len(mounted) :]
    own = top / path.strip("/")
    if ".." in path.split("/") or not own.is_dir():
        own = top
    return (own, *(parent for parent in own.parents if parent.is_relative_to(top)))


def read_text(path: Path) -> str | None:
    """Return a file without the white space at its ends; None when it cannot be read."""
    try:
        return path.read_text().strip()
    except OSError:
        return None
