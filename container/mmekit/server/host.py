"""How busy the host is, logged every so often under MMS's names (MMS: mms/metrics/system_metrics.py).

CPU and disk are the machine's, as in MMS; memory is that of the tightest limit, which in a container is
its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from mmekit.server.memory import Source

_log = logging.getLogger("mmekit.metrics")

_MIB = 1024 * 1024
_GIB = 1024 * 1024 * 1024


#: What reading says where a kernel or a sandbox has no such file, or one of another form.
_UNREADABLE = (OSError, ValueError, IndexError)


class HostMetrics:
    """Logs the host's metrics once at the start and then every ``interval_s`` seconds."""

    def __init__(self, memory: Source, interval_s: float, root: Path = Path("/")) -> None:
        self._memory = memory
        self._interval_s = interval_s
        self._root = root
        #: Busy and all ticks of the CPUs at the last look.
        self._ticks = (0, 0)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start logging in the running event loop."""
        with contextlib.suppress(*_UNREADABLE):  # said with the first lines
            self._ticks = self._read_ticks()
        self._task = asyncio.get_running_loop().create_task(self._run())

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        while True:
            try:
                machine = await asyncio.to_thread(lambda: [*self._cpu(), *self._disk()])
                for name, value, unit in [*machine, *self._memory_now()]:
                    _log.info(
                        "%s: %s %s",
                        name,
                        value,
                        unit,
                        extra={"metric": name, "value": value, "unit": unit, "dimensions": {"Level": "Host"}},
                    )
            except _UNREADABLE as error:
                _log.warning("The host's metrics cannot be read: %s.", error)
            await asyncio.sleep(self._interval_s)

    def _cpu(self) -> Iterator[tuple[str, float, str]]:
        busy, total = self._read_ticks()
        busy_before, total_before = self._ticks
        self._ticks = (busy, total)
        passed = total - total_before
        yield "CPUUtilization", round(100 * (busy - busy_before) / passed, 1) if passed else 0.0, "Percent"

    def _read_ticks(self) -> tuple[int, int]:
        # "cpu  user nice system idle iowait irq softirq steal guest …"; guest is part of user (proc(5)).
        ticks = [
            int(field) for field in (self._root / "proc/stat").read_text().split("\n", 1)[0].split()[1:9]
        ]
        return sum(ticks) - ticks[3] - ticks[4], sum(ticks)

    def _disk(self) -> Iterator[tuple[str, float, str]]:
        disk = os.statvfs(self._root)
        used, available = disk.f_blocks - disk.f_bfree, disk.f_bavail
        yield "DiskAvailable", available * disk.f_frsize / _GIB, "Gigabytes"
        yield "DiskUsage", used * disk.f_frsize / _GIB, "Gigabytes"
        # As df(1): what is reserved for root counts for nobody.
        yield "DiskUtilization", round(100 * used / max(1, used + available), 1), "Percent"

    def _memory_now(self) -> Iterator[tuple[str, float, str]]:
        reading = self._memory.used()
        yield "MemoryAvailable", max(0, reading.free_bytes) / _MIB, "Megabytes"
        yield "MemoryUsed", reading.used_bytes / _MIB, "Megabytes"
        yield "MemoryUtilization", round(100 * reading.used_bytes / reading.limit_bytes, 1), "Percent"
