"""Worker processes as the server sees them: one handle each, one job at a time.

A handle owns the channel and the process; what runs next is the dispatcher's business, what a
worker is for is the fleet's.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeAlias, cast

from mmekit.errors import MmekitError, NotStarted, WorkerDied
from mmekit.process import describe_exit
from mmekit.server.placement import Kind
from mmekit.worker.messages import (
    Cancel,
    Clone,
    CloneReady,
    Fork,
    Forked,
    FrameReader,
    Invoke,
    Load,
    Message,
    Part,
    Started,
    StreamStart,
    Unload,
    encode,
)

_log = logging.getLogger(__name__)

#: One write to a worker: a 20 MB body must not hold the loop.
WRITE_BYTES = 256 * 1024

#: How long a closed channel is believed before the process behind it is asked again.
_EOF_GRACE_S = 0.5

#: How long a worker whose channel has closed is waited for by the reaper.
_REAP_GRACE_S = 2.0

#: How long a clone waits for the worker to end its call; a load may be quicker than that.
_CLONE_WAIT_S = 10.0

#: After these the job goes on. A set made once: a union would be made anew for each frame.
_MORE_COMES = frozenset({StreamStart, Part, CloneReady})

Body: TypeAlias = bytes | bytearray | memoryview


class CannotClone(Exception):
    """Raised when a worker cannot be forked into a further one; says why."""


class Job(ABC):
    """What a worker runs: a message and what becomes of its answers.

    Nothing that a job holds may hold the job: with the last frame of its answer the worker lets it go, and
    the bodies of its requests with it. What waits for the collector instead may wait for long.
    """

    def __init__(
        self, message: Load | Unload | Invoke | Clone, bodies: Sequence[Body], timeout_s: float
    ) -> None:
        self.message = message
        self.bodies = bodies
        self.timeout_s = timeout_s
        self.started_at = 0.0

    @property
    def model(self) -> str:
        return self.message.model

    @abstractmethod
    def on_message(self, message: Message, body: bytes | bytearray) -> None:
        """Take a frame of the answer."""

    @abstractmethod
    def on_lost(self, error: MmekitError) -> None:
        """The worker has ended first, for this reason."""

    def on_unread(self) -> None:  # noqa: B027 - loads and unloads stream nothing
        """The client of a streamed answer has taken nothing for ``timeout_s``."""


class _Asked(Job):
    """A load or an unload, whose one answer somebody waits for."""

    def __init__(self, message: Load | Unload | Clone, timeout_s: float) -> None:
        super().__init__(message, (), timeout_s)
        self.answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()

    def on_message(self, message: Message, body: bytes | bytearray) -> None:
        if not self.answer.done():
            self.answer.set_result(message)

    def on_lost(self, error: MmekitError) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


class _Cloning(_Asked):
    """A fork of the worker that runs it: its descriptors are sent when the process is ready for them."""

    def __init__(
        self, worker: Worker, model: str, fork: Fork, descriptors: Sequence[int], timeout_s: float
    ) -> None:
        super().__init__(Clone(model), timeout_s)
        self._worker = worker
        self._fork = fork
        self._descriptors = descriptors

    def on_message(self, message: Message, body: bytes | bytearray) -> None:
        if not isinstance(message, CloneReady):
            super().on_message(message, body)
        elif self.answer.done():  # nobody waits any more
            self._worker.send(Cancel())
        elif error := self._worker.send_descriptors(self._fork, self._descriptors):
            self.answer.set_result(Forked(self._fork.number, error))
            self._worker.send(Cancel())


class Worker(asyncio.Protocol):
    """A worker process. ``on_started``, ``on_idle`` and ``on_exit`` are called on the event loop."""

    def __init__(
        self,
        number: int,
        kind: Kind,
        on_started: Callable[[Worker], None],
        on_idle: Callable[[Worker], None],
        on_exit: Callable[[Worker, MmekitError], None],
    ) -> None:
        # For the life of the process
        self.number = number
        self.kind = kind
        self.pid = 0
        self.gpu_id: int | None = None
        self.on_started = on_started
        self.on_idle = on_idle
        self.on_exit = on_exit
        self.started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.exited: asyncio.Future[MmekitError] = asyncio.get_running_loop().create_future()
        self.started_at = time.time()
        #: Its anonymous memory before any model, shared with the template.
        self.baseline_bytes = 0
        #: What it had when it was forked, shared with the process that it comes from.
        self.shared_bytes = 0
        #: The number of the first of the workers that were forked from one another.
        self.family = number
        self.models: set[str] = set()
        #: Those among them that have requests waiting (kept by the dispatcher).
        self.waiting: set[str] = set()
        self.job: Job | None = None
        self.control: deque[Job] = deque()
        #: When a call last began or ended.
        self.last_call_at = 0.0
        self.last_load_at = 0.0
        #: No new work: its process is about to end.
        self.retiring = False
        # Of the connection
        self._transport: asyncio.Transport | None = None
        self._reader = FrameReader()
        self._outgoing: deque[Body] = deque()
        self._write_paused = False
        self.stream_paused = False
        self._paused_at = 0.0
        # How it ends
        self._end: MmekitError | None = None
        self._wait_status: int | None = None
        self._connected = True

    # --- jobs --------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        return self.job is None and not self.control and not self.retiring

    @property
    def alive(self) -> bool:
        return not self.exited.done() and not self.retiring

    @property
    def ended_itself(self) -> bool:
        """Whether its process ended between calls, unasked, and not by SIGKILL, which others send."""
        status = self._wait_status
        if self.retiring or self.job or status is None:
            return False
        return not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL)

    def run(self, job: Job) -> None:
        """Start a job now; the worker must have none."""
        assert self.job is None, f"worker {self.number} runs {self.job} already"
        self.send(job.message, job.bodies)
        self.job = job
        job.started_at = time.monotonic()

    async def call(self, message: Load | Unload, timeout_s: float) -> Message:
        """Run a load or unload when the worker comes to it, before requests; return its answer.

        Raises WorkerDied, or what the worker was ended for, when it ends first.
        """
        job = _Asked(message, timeout_s)
        self.submit(job)
        try:
            return await job.answer
        finally:
            if job in self.control:
                self.control.remove(job)

    async def clone(
        self, model: str, number: int, channel: socket.socket, log_write: int, timeout_s: float
    ) -> None:
        """Have the process forked, between calls, into a worker that gets these descriptors.

        Raises CannotClone when it refuses, the kernel does, or a call keeps it busy for too long;
        WorkerDied, or what the worker was ended for, when it ends first.
        """
        job = _Cloning(self, model, Fork(number), [channel.fileno(), log_write], timeout_s)
        self.submit(job)
        try:
            await asyncio.wait([job.answer], timeout=_CLONE_WAIT_S)
            if job in self.control:
                raise CannotClone(f"its worker was busy for {_CLONE_WAIT_S:g} s")
            answer = await job.answer
        finally:
            job.answer.cancel()
            if job in self.control:
                self.control.remove(job)
        if isinstance(answer, Forked) and answer.error:
            raise CannotClone(answer.error)

    def send_descriptors(self, message: Message, descriptors: Sequence[int]) -> str | None:
        """Send a message past the transport, which has nothing left to write then; return what failed."""
        assert self._transport is not None
        descriptor = self._transport.get_extra_info("socket").fileno()
        try:
            with socket.fromfd(descriptor, socket.AF_UNIX, socket.SOCK_STREAM) as channel:
                socket.send_fds(channel, [encode(message)], descriptors)
        except OSError as error:
            return f"no descriptors can be sent: {error.strerror}"
        return None

    def submit(self, job: Job) -> None:
        """Queue a load, an unload or a clone: they run before requests, and once the process has come up."""
        if not self.alive:
            job.on_lost(NotStarted("Worker died before this was started."))
            return
        self.control.append(job)
        if self.job is None and self.started.done():
            self.next_control()

    def next_control(self) -> bool:
        """Start the next of those, if one waits."""
        if not self.control:
            return False
        self.run(self.control.popleft())
        return True

    def paused_for(self, now: float) -> float:
        """Return for how many seconds a slow client has held the running call up."""
        return now - self._paused_at if self.stream_paused else 0.0

    def cancel_stream(self) -> None:
        """Tell the running call that its client has gone."""
        self.send(Cancel())

    def pause_stream(self) -> None:
        """Stop reading: the client of a streamed answer is slow."""
        if self._transport and not self._transport.is_closing():
            self.stream_paused = True
            self._paused_at = time.monotonic()
            self._transport.pause_reading()

    def resume_stream(self) -> None:
        if self.stream_paused and self._transport and not self._transport.is_closing():
            self.stream_paused = False
            if self.job:  # the client was slow, not the model
                self.job.started_at += time.monotonic() - self._paused_at
            self._transport.resume_reading()

    # --- the end -----------------------------------------------------------------------------

    def end(self, reason: MmekitError) -> None:
        """Kill the process and its children now; ``reason`` is what its job is told."""
        self.retiring = True
        self._end = self._end or reason
        if self.pid:
            self._kill_group()
        else:
            self._abort()  # it leaves when it finds its channel closed

    def retire(self) -> None:
        """Close the channel: the worker leaves by itself when it is between calls."""
        self.retiring = True
        if self._transport:
            self._transport.close()

    def reaped(self, wait_status: int) -> None:
        """The process has ended (from the reaper); its children end with it."""
        self._kill_group()
        self._wait_status = wait_status
        self.resume_stream()  # else its end would not be seen
        if self._connected:
            # What it sent before is still to be read. A child of its that left the process group
            # can hold the channel open: do not wait for that.
            asyncio.get_running_loop().call_later(_EOF_GRACE_S, self._abort)
        else:
            self._finish()

    def _abort(self) -> None:
        if self._connected and self._transport:
            self._transport.abort()

    def _kill_group(self) -> None:
        if self.pid and self._wait_status is None:  # afterwards the number may be another's
            try:
                os.killpg(self.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                self._kill_early()

    def _kill_early(self) -> None:
        """A fresh process has no group of its own until it has come up."""
        if self._wait_status is None and not self.started.done():
            try:
                os.kill(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def _finish(self) -> None:
        if self.exited.done():
            return
        status = "ended" if self._wait_status is None else describe_exit(self._wait_status)
        when = "while it ran this call" if self.job else "between calls"
        reason = self._end or WorkerDied(f"Worker died. Its process {status} {when}.")
        self.exited.set_result(reason)
        if not self.started.done():
            self.started.set_exception(WorkerDied(f"A worker {status} before it could take calls."))
            self.started.exception()  # it may be that nobody waits any more
        jobs = [job for job in (self.job, *self.control) if job]
        self.on_exit(self, reason)
        running = self.job
        self.job = None
        self.control.clear()
        for job in jobs:
            job.on_lost(reason if job is running else NotStarted("Worker died before this was started."))

    # --- asyncio.Protocol ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's derives from nothing
        self._transport.set_write_buffer_limits(high=WRITE_BYTES)

    def data_received(self, data: bytes) -> None:
        for message, body in self._reader.feed(data):
            if isinstance(message, Started):
                self.pid = message.pid
                self.baseline_bytes = message.anon_bytes
                if not self.started.done():
                    self.started.set_result(None)
                    self.on_started(self)
                    self.next_control()
                continue
            job = self.job
            if job is None:
                _log.error("Worker %d sent %s without a job.", self.number, type(message).__name__)
                continue
            if type(message) not in _MORE_COMES:
                # The worker gets its next job before anybody is answered: it need not wait for that.
                self.job = None
                if self.stream_paused:  # its end came in the same read as the part that asked for that
                    self.resume_stream()
                self._next_job(job)
            job.on_message(message, body)

    def _next_job(self, last: Job) -> None:
        """Loads come before requests, but not one load after the other while requests wait."""
        if self.control and isinstance(last.message, Invoke):
            self.next_control()
        if self.job is None:
            self.on_idle(self)
        if self.control and self.job is None:
            self.next_control()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connected = False
        self._kill_group()
        if self._wait_status is not None:
            self._finish()
        elif not self.pid:
            # It ended before it said its pid; the reaper cannot tell whose status that was.
            self._finish()
        else:
            asyncio.get_running_loop().call_later(_REAP_GRACE_S, self._finish)

    def pause_writing(self) -> None:
        self._write_paused = True

    def resume_writing(self) -> None:
        self._write_paused = False
        while self._outgoing and not self._write_paused:
            self._write(self._outgoing.popleft())

    def send(self, message: Message, bodies: Sequence[Body] = ()) -> None:
        if len(bodies) == 1:
            body: Body = bodies[0]
        else:
            body = b"".join(bodies) if bodies else b""
        head = encode(message, len(body))
        if len(body) <= WRITE_BYTES and not self._outgoing and not self._write_paused:
            self._write(head + body)
            return
        self._outgoing.append(head)
        view = memoryview(body)
        for start in range(0, len(view), WRITE_BYTES):
            self._outgoing.append(view[start : start + WRITE_BYTES])
        if not self._write_paused:
            self.resume_writing()

    def _write(self, data: Body) -> None:
        if self._transport and not self._transport.is_closing():
            self._transport.write(data)
