"""What is written down of a process that runs an instance, so that its remains can be found and ended.

A service that is killed can end nobody. The kernel kills the process it started (prctl(2), PDEATHSIG) but not
what that one had started in turn: the next service of the same state folder reads these records.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from mmekit.process_table import ProcessRow, boot_id, has_variable, read_row, read_table

#: The variable that all processes of an instance inherit; its value is the record's token.
TOKEN_VARIABLE = "MMEKIT_LOCAL_INSTANCE"


class ProcessRecord(msgspec.Struct, frozen=True):
    """The process of one instance, which leads a session of its own."""

    instance_id: str
    pid: int
    #: Clock ticks since the boot ``boot``.
    started: int
    boot: str
    #: Nobody else has it: a random text.
    token: str

    def survivors(self) -> list[ProcessRow]:
        """Return the instance's processes that are alive.

        Those are the ones that inherited the token and, as long as the leader lives, its session. A pid
        alone proves nothing: after the leader's end another process may have got it.
        """
        if self.boot != boot_id():
            return []
        table = read_table()
        leader = table.get(self.pid)
        leads = leader is not None and leader.started == self.started
        return [
            row
            for row in table.values()
            if not row.zombie
            and ((leads and row.session == self.pid) or has_variable(row.pid, TOKEN_VARIABLE, self.token))
        ]

    def end(self, timeout_s: float = 5.0) -> bool:
        """Kill what is alive and wait until it has ended; return whether there was something."""
        deadline = time.monotonic() + timeout_s
        found = False
        while rows := self.survivors():
            found = True
            for row in rows:
                _kill(row)
            if time.monotonic() > deadline:
                break  # in the kernel's hands, such as on a file server that does not answer
            time.sleep(0.01)  # they are not our children: nothing tells when they have ended
        return found


def _kill(row: ProcessRow) -> None:
    now = read_row(row.pid)
    if now is None or now.started != row.started:
        return
    try:
        os.kill(row.pid, signal.SIGKILL)
    except OSError:
        pass  # it has ended, or it has become another user's


def write(folder: Path, record: ProcessRecord) -> None:
    """Write a record down in the folder of records."""
    folder.mkdir(parents=True, exist_ok=True)
    _file(folder, record.instance_id).write_bytes(msgspec.json.encode(record))


def forget(folder: Path, instance_id: str) -> None:
    """Remove the record of an instance that has ended."""
    _file(folder, instance_id).unlink(missing_ok=True)


def read_all(folder: Path) -> Iterator[ProcessRecord]:
    """Return all records; one that was cut short while it was written is removed."""
    for file in sorted(folder.glob("*.json")):
        try:
            yield msgspec.json.decode(file.read_bytes(), type=ProcessRecord)
        except msgspec.DecodeError:
            file.unlink(missing_ok=True)


def _file(folder: Path, instance_id: str) -> Path:
    return folder / f"{instance_id}.json"
