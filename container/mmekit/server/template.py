"""The template as the server sees it: started, asked for forks, replaced when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Protocol

from mmekit.errors import OutOfResources, WorkerDied
from mmekit.worker.messages import Fork, Forked, FrameReader, TemplateReady, encode

_log = logging.getLogger(__name__)

#: A template that dies this often in a row is started without frameworks.
_TRIES = 3


class UnsafeFork(Exception):
    """Raised when the template has threads: a child would have their locks and not them."""


class MemoryReadings(Protocol):
    """Counts the memory of this server's processes."""

    def watch(self, pid: int, baseline_bytes: int = 0) -> None: ...

    def forget(self, pid: int) -> None: ...

    def oom_kills(self) -> int: ...


class OutputCollector(Protocol):
    """Takes the read end of a worker's output pipe."""

    def add(self, descriptor: int, worker: int) -> None: ...


class Template:
    """The process that workers are forked from; replaced when it dies."""

    def __init__(
        self,
        modules: list[str],
        environ: Mapping[str, str],
        collector: OutputCollector,
        readings: MemoryReadings,
        on_lost: Callable[[], None],
    ) -> None:
        self.modules = modules
        self.environ = environ
        self.collector = collector
        self.readings = readings
        self.on_lost = on_lost
        self.pid = 0
        self.imported: frozenset[str] = frozenset()
        self.ready = asyncio.Event()
        self._failures = 0
        self._control: socket.socket | None = None
        self._reader = FrameReader()
        self._forking = asyncio.Lock()
        self._forked: asyncio.Future[Forked] | None = None
        self._number = 0
        self._closed = False

    def start(self) -> None:
        """Start the process; ``ready`` is set when its imports are done."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        log_read, log_write = os.pipe()
        modules = self.modules if self._failures < _TRIES else []
        self._control, self._reader = ours, FrameReader()
        command = [sys.executable, "-m", "mmekit.worker.template", str(theirs.fileno()), *modules]
        self.pid = spawn(command, self.environ, (theirs.fileno(),), log_write)
        theirs.close()
        os.close(log_write)
        self.collector.add(log_read, 0)
        asyncio.get_running_loop().add_reader(ours.fileno(), self._readable)

    async def fork(self, number: int, channel: socket.socket, log_write: int) -> None:
        """Fork a worker that gets these descriptors.

        Raises OutOfResources when the kernel refuses (processes, memory); WorkerDied when the
        template went away meanwhile; UnsafeFork when a preloaded module has left threads in it.
        """
        async with self._forking:
            await self.ready.wait()
            assert self._control is not None
            self._forked = asyncio.get_running_loop().create_future()
            self._number = number
            try:
                socket.send_fds(self._control, [encode(Fork(number))], [channel.fileno(), log_write])
                answer = await self._forked
            except OSError as error:
                raise WorkerDied(f"The template process has gone: {error.strerror}.") from None
            finally:
                self._forked = None
        if answer.unsafe:
            raise UnsafeFork(answer.error)
        if answer.error:
            raise OutOfResources(f"No further worker process can be started: {answer.error}.")

    def close(self) -> None:
        """End the template; it has no work of its own to finish."""
        self._closed = True
        if self._control is not None:
            asyncio.get_running_loop().remove_reader(self._control.fileno())
            self._control.close()
            self._control = None
            # In the middle of its imports it would outlive the server by seconds.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def _readable(self) -> None:
        assert self._control is not None
        try:
            data = self._control.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lost()
            return
        for message, _ in self._reader.feed(data):
            if isinstance(message, TemplateReady):
                self._failures = 0
                self.readings.watch(self.pid)
                self.imported = frozenset(message.modules)
                self.ready.set()
                _log.info("Template %d is ready: imports took %.0f ms.", self.pid, message.imports_ms)
            elif isinstance(message, Forked) and message.number == self._number:
                self._fork_answered(message)

    def _fork_answered(self, answer: Forked) -> None:
        if self._forked and not self._forked.done():
            self._forked.set_result(answer)

    def _lost(self) -> None:
        self.readings.forget(self.pid)
        self._failures += 1
        self.ready.clear()
        if self._control is not None:
            asyncio.get_running_loop().remove_reader(self._control.fileno())
            self._control.close()
            self._control = None
        if self._forked and not self._forked.done():
            self._forked.set_exception(WorkerDied("The template process died while it forked a worker."))
        if self._closed:
            return
        _log.error("The template process died (%d in a row); it is started again.", self._failures)
        if self._failures == _TRIES:
            _log.error(
                "It is started without %s: loads will import them.", ", ".join(self.modules) or "modules"
            )
        delay = 0.0 if self._failures == 1 else min(5.0, 0.2 * 2**self._failures)
        asyncio.get_running_loop().call_later(delay, self._restart)

    def _restart(self) -> None:
        if self._closed:
            return
        try:
            self.start()
        except OSError as error:
            _log.error("The template cannot be started: %s.", error.strerror)
            self._lost()
        else:
            self.on_lost()


def spawn(
    command: list[str], environ: Mapping[str, str], descriptors: tuple[int, ...], log_write: int
) -> int:
    """Start a process whose output goes to ``log_write``; the reaper collects it, not subprocess."""
    child = subprocess.Popen(
        command,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=log_write,
        stderr=log_write,
        pass_fds=descriptors,
    )
    child.returncode = 0  # no waiting and no warning from subprocess
    return child.pid
