"""What one client may ask of the server, and the memory that the bodies of all of them share."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Protocol

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits and timeouts of one server. Sizes are bytes, times are seconds.

    Times are kept by one coarse tick, so each may run over by up to a quarter of the shortest, at most 1 s.
    """

    #: Request target, 414 beyond. nginx 8 KiB (large_client_header_buffers), Apache 8190 (LimitRequestLine),
    #: gunicorn 4094 (limit_request_line), Tomcat 8 KiB (maxHttpHeaderSize), MMS 4096 (netty's default).
    max_target_bytes: int = 8190

    #: Request line and headers together, 431 beyond. nginx 32 KiB (4 buffers of 8), Node 16 KiB
    #: (--max-http-header-size), Tomcat 8 KiB, MMS 8 KiB (netty's default); h11 16 KiB.
    max_head_bytes: int = 32 * KIB

    #: Header lines, 431 beyond. Apache 100 (LimitRequestFields), gunicorn 100 (limit_request_fields).
    max_headers: int = 100

    #: Request body, 413 beyond. MMS 6,553,500 (max_request_size); SageMaker sends up to 25 MB.
    max_body_bytes: int = 6_553_500

    #: What people set to change ``max_body_bytes``: the 413 names it.
    max_body_setting: str = "max_request_size"

    #: Requests taken from one read of a pipelining client; it gets ``Connection: close`` with the last one.
    max_pipelined: int = 128

    #: Connections at one time, 503 beyond.
    max_connections: int = 4096

    #: A connection without a request. nginx 75 (keepalive_timeout), AWS load balancers 60, gunicorn 2.
    keep_alive_timeout_s: float = 75.0

    #: From the first byte of a head to its last, and between two pieces of a body; 408 beyond.
    #: Apache 20 to 40 (mod_reqtimeout), nginx 60 (client_header_timeout, client_body_timeout).
    read_timeout_s: float = 30.0

    #: Between two pieces of an answer that the client takes; it is cut off beyond. nginx 60 (send_timeout).
    write_timeout_s: float = 60.0

    #: For how long, and how much of, what a refused client sends is read and dropped: it may learn why.
    #: Without progress for linger_timeout_s it ends; in all it takes at most read_timeout_s. nginx 5
    #: (lingering_timeout) and 30 (lingering_time).
    linger_timeout_s: float = 2.0
    linger_bytes: int = 256 * MIB

    @property
    def tick_s(self) -> float:
        """The interval at which timeouts are looked at."""
        shortest = min(
            self.keep_alive_timeout_s, self.read_timeout_s, self.write_timeout_s, self.linger_timeout_s
        )
        return min(1.0, max(0.01, shortest / 4))


class Waiter(Protocol):
    """One who waits for room in a BodyBudget."""

    def admit(self) -> None:
        """Take note that the reservation is now made."""


class BodyBudget:
    """Memory for request bodies, reserved before they are read, first come first served.

    A body larger than the whole budget is admitted when nothing else is, so that nobody waits for ever.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        self._line: OrderedDict[Waiter, int] = OrderedDict()
        self._granting = False

    @property
    def waiting(self) -> int:
        """How many wait in the line."""
        return len(self._line)

    def reserve(self, size: int, waiter: Waiter) -> bool:
        """Reserve ``size`` bytes and return True, or put ``waiter`` in the line, to ``admit`` later."""
        used_bytes = self.used_bytes
        if not self._line and (used_bytes + size <= self.limit_bytes or not used_bytes):  # as in _fits
            self.used_bytes = used_bytes + size
            return True
        self._line[waiter] = size
        return False

    def release(self, size: int) -> None:
        """Give ``size`` reserved bytes back, and admit those who now fit."""
        self.used_bytes -= size
        if self._line:
            self._grant()

    def shrink(self, waiter: Waiter, reserved: int, needed: int) -> None:
        """Lower a reservation, made or waited for, from ``reserved`` to ``needed``, and keep its place."""
        if waiter in self._line:
            self._line[waiter] = needed
            self._grant()
        else:
            self.release(reserved - needed)

    def cancel(self, waiter: Waiter) -> None:
        """Take ``waiter`` out of the line."""
        del self._line[waiter]
        self._grant()

    def _fits(self, size: int) -> bool:
        return self.used_bytes + size <= self.limit_bytes or not self.used_bytes

    def _grant(self) -> None:
        # Who is admitted may be answered and release at once: the loop sees that, and the stack stays flat.
        if self._granting:
            return
        self._granting = True
        try:
            while self._line and self._fits(next(iter(self._line.values()))):
                waiter, size = self._line.popitem(last=False)
                self.used_bytes += size
                waiter.admit()
        finally:
            self._granting = False
