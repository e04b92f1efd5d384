"""The access log: a line for each request, in JSON or as MMS writes it (MMS: http/Session.java).

This is on the way of every request, so no log records are made. A request leaves an ``_Ended``; the lines of
many are made in one loop, where that costs a third of what it costs between other work (measured: 6 µs of
the server's CPU a line), and a thread writes them. When standard error is read too slowly, lines are dropped
and counted.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from json.encoder import encode_basestring as quoted
from queue import SimpleQueue
from typing import TypeAlias

import msgspec

from mmekit.http.message import Request
from mmekit.log_forms import local_second, metric_line, printable, utc_second
from mmekit.server.model import Model
from mmekit.sink import Sink
from mmekit.worker.messages import header_text

_log = logging.getLogger(__name__)

TARGET_MODEL = b"x-amzn-sagemaker-target-model"

#: How long a request waits for others, in seconds, and how many become lines at once: 0.2 ms of the loop.
_WAIT_S = 0.1
_BATCH = 128
#: Characters that may wait for the thread; beyond, lines are dropped.
_MAX_WAITING = 8 * 1024 * 1024

#: Parts of lines that are kept to be used again, and how long they may be.
_MAX_KNOWN = 4096
_MAX_KNOWN_LENGTH = 1024

#: Method, path, query, version, quiet.
_What: TypeAlias = tuple[str, str, str, str, bool]

#: Numbers below 1000 with three digits: ten times as fast as formatting them.
_DIGITS = [f"{number:03d}" for number in range(1000)]


class _Ended(msgspec.Struct, gc=False):
    """What is known of a request at its end; made in C, and the request itself is let go."""

    at: float  # of the monotonic clock
    seconds: float
    status: int
    size: int
    request_id: str
    model: str
    target: str
    method: str
    path: str
    query: str
    version: str
    peer: str
    quiet: bool


class AccessLog:
    """Lines of requests on their way to standard error; ``start`` it, ``close`` writes what is left.

    ``models`` tell what target model they were loaded for. Pings and polls are written only when ``verbose``.
    """

    def __init__(self, sink: Sink, models: Mapping[str, Model], log_format: str, verbose: bool) -> None:
        #: Lines that were dropped since the start.
        self.dropped = 0
        self._sink = sink
        self._models = models
        self._is_mms = log_format == "mms"
        self._verbose = verbose
        #: What the wall clock is ahead of the monotonic one.
        self._epoch = 0.0
        self._second = 0
        self._stamp = ""
        self._counts: Sequence[str] = ()
        self._whats: dict[_What, str] = {}
        self._abouts: dict[tuple[str, str], str] = {}
        self._ended: list[_Ended] = []
        self._timer: asyncio.TimerHandle | None = None
        # Characters added (by the loop) and written (by the thread): one writer each, so no lock.
        self._added = 0
        self._written = 0
        self._texts: SimpleQueue[str | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="access log", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self, timeout_s: float) -> None:
        """Write what waits; a reader that takes nothing is given up after ``timeout_s``."""
        self._make_lines()
        self._texts.put(None)
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    # --- on the event loop ---------------------------------------------------------------------

    def answered(
        self,
        request: Request,
        status: int,
        now: float,
        seconds: float,
        size: int,
        request_id: str = "",
        model: str = "",
        quiet: bool = False,
    ) -> None:
        """Note the end of a request, ``seconds`` after it came; ``size``: bytes of the answer's body.

        ``now`` is of the monotonic clock.
        """
        if quiet and not self._verbose:
            return
        target = ""
        if model:
            if (sent := request.first.get(TARGET_MODEL)) is not None:
                target = header_text(sent)
            elif (known := self._models.get(model)) is not None:
                target = known.registration.target_model  # it may be unloaded when the line is made
        self._ended.append(
            _Ended(
                now,
                seconds,
                status,
                size,
                request_id,
                model,
                target,
                request.method,
                request.path,
                request.query,
                request.version,
                request.peer,
                quiet,
            )
        )
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_WAIT_S, self._make_lines)
        elif len(self._ended) >= _BATCH:
            self._make_lines()

    def _make_lines(self) -> None:
        """Make lines of the requests that ended, and hand them to the thread."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        ended, self._ended = self._ended, []
        if self._added - self._written > _MAX_WAITING:
            self.dropped += len(ended)
        elif ended:
            self._epoch = time.time() - time.monotonic()
            line = self._mms_lines if self._is_mms else self._json_line
            try:
                text = "".join([line(each) for each in ended])
            except Exception:  # noqa: BLE001 - a request that was answered must not fail for its line
                _log.exception("%d lines of the access log cannot be made.", len(ended))
                self.dropped += len(ended)
                return
            self._added += len(text)
            self._texts.put(text)

    def _json_line(self, ended: _Ended) -> str:
        at, model, target = ended.at + self._epoch, ended.model, ended.target
        second = int(at)
        if second != self._second:
            self._begin_second(second)
        key = (ended.method, ended.path, ended.query, ended.version, ended.quiet)
        what = self._whats.get(key) or self._what(key)
        about = self._abouts.get((model, target)) or self._about(model, target)
        status, us = ended.status, int(ended.seconds * 1e6)
        with_id = f'"request_id":"{ended.request_id}",' if ended.request_id else ""
        return (
            f'{{"time":"{self._stamp}.{_DIGITS[int((at - second) * 1000)]}Z",{what}{status} {us // 1000}",'
            f'{with_id}{about}"status":{status},"ms":{us // 1000}.{_DIGITS[us % 1000]},"bytes":{ended.size},'
            f'"peer":"{ended.peer}"}}\n'
        )

    def _begin_second(self, second: int) -> None:
        self._second = second
        self._stamp = local_second(second) if self._is_mms else utc_second(second)
        self._counts = _counts(second) if self._is_mms else ()

    def _what(self, key: _What) -> str:
        """Return the middle of a JSON line up to the status, which requests of one kind share."""
        method, path, query, version, quiet = key
        level = "DEBUG" if quiet else "INFO"
        message = quoted(f"{method} {_uri(path, query)} HTTP/{version} ")[:-1]
        what = f'"level":"{level}","logger":"mmekit.access","message":{message}'
        if len(self._whats) >= _MAX_KNOWN:
            self._whats.clear()
        if len(what) < _MAX_KNOWN_LENGTH:
            self._whats[key] = what
        return what

    def _about(self, model: str, target: str) -> str:
        """Return the fields that name the model, in the same way."""
        about = (f'"model":{quoted(model)},' if model else "") + (
            f'"target":{quoted(target)},' if target else ""
        )
        if len(self._abouts) >= _MAX_KNOWN:
            self._abouts.clear()
        if len(about) < _MAX_KNOWN_LENGTH:
            self._abouts[model, target] = about
        return about

    def _mms_lines(self, ended: _Ended) -> str:
        """Return MMS's line and its count of statuses."""
        at = ended.at + self._epoch
        second = int(at)
        if second != self._second:
            self._begin_second(second)
        thousandth = _DIGITS[int((at - second) * 1000)]
        start = f"{self._stamp},{thousandth} [{'DEBUG' if ended.quiet else 'INFO '}] server"
        return (
            f'{start} ACCESS_LOG - /{ended.peer} "{ended.method} {printable(_uri(ended.path, ended.query))} '
            f'HTTP/{ended.version}" {ended.status} {int(ended.seconds * 1000)}\n'
            f"{start} MMS_METRICS - {self._counts[ended.status // 100]}\n"
        )

    # --- in the thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        told = 0
        while (text := self._texts.get()) is not None:
            self._sink.write(text)
            self._written += len(text)
            if self.dropped > told:
                _log.warning(
                    "%d lines of the access log were dropped: the log is read too slowly.",
                    self.dropped - told,
                )
                told = self.dropped


def _uri(path: str, query: str) -> str:
    return f"{path}?{query}" if query else path


def _counts(second: int) -> list[str]:
    """Return MMS's count of an answer by its status's first digit; 1xx and 3xx are 5XX there (NettyUtils)."""
    kinds = [{2: "2XX", 4: "4XX"}.get(digit, "5XX") for digit in range(10)]
    return [metric_line(f"Requests{kind}", 1, "Count", {"Level": "Host"}, None, second) for kind in kinds]
