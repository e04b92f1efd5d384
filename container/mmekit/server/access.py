"""The access log: a line for each request, in JSON or as MMS writes it (MMS: http/Session.java).

This is on the way of every request, so no log records are made: a line is put together from its parts
and added to a list, which a thread writes out every 100 ms or 64 KiB. When standard error is read too
slowly, lines are dropped and counted.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from json.encoder import encode_basestring as quoted
from typing import TypeAlias

from mmekit.http.message import Request
from mmekit.log_forms import local_second, metric_line, printable, utc_second
from mmekit.server.model import Model
from mmekit.sink import Sink

_log = logging.getLogger(__name__)

TARGET_MODEL = b"x-amzn-sagemaker-target-model"

#: How long a line waits for others, and what is written at once, in characters.
_WAIT_S = 0.1
_BATCH = 64 * 1024
#: Characters that may wait for the thread; beyond, lines are dropped.
_MAX_WAITING = 8 * 1024 * 1024

#: Parts of lines that are kept to be used again, and how long they may be.
_MAX_KNOWN = 4096
_MAX_KNOWN_LENGTH = 1024

#: Method, path, query, version, quiet.
_What: TypeAlias = tuple[str, str, str, str, bool]

#: Numbers below 1000 with three digits: ten times as fast as formatting them.
_DIGITS = [f"{number:03d}" for number in range(1000)]


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
        self._second = 0
        self._stamp = ""
        self._counts: Sequence[str] = ()
        self._whats: dict[_What, str] = {}
        self._abouts: dict[tuple[str, str], str] = {}
        self._lines: list[str] = []
        # Characters added (by the loop) and written (by the thread): one writer each, so no lock.
        self._added = 0
        self._written = 0
        self._begun = threading.Event()
        self._full = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="access log", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self, timeout_s: float) -> None:
        """Write what waits; a reader that takes nothing is given up after ``timeout_s``."""
        self._closing = True
        self._full.set()
        self._begun.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    # --- on the event loop ---------------------------------------------------------------------

    def answered(
        self,
        request: Request,
        status: int,
        seconds: float,
        size: int,
        request_id: str = "",
        model: str = "",
        quiet: bool = False,
    ) -> None:
        """Note the end of a request, ``seconds`` after it came; ``size``: bytes of the answer's body."""
        if quiet and not self._verbose:
            return
        waiting = self._added - self._written
        if waiting > _MAX_WAITING:
            self.dropped += 1
            return
        now = time.time()
        second = int(now)
        if second != self._second:
            self._second = second
            self._stamp = local_second(second) if self._is_mms else utc_second(second)
            self._counts = _counts(second) if self._is_mms else ()
        us = int(seconds * 1e6)
        thousandth = int((now - second) * 1000)
        if self._is_mms:
            line = self._mms_lines(request, status, us // 1000, thousandth, quiet)
        else:
            key = (request.method, request.path, request.query, request.version, quiet)
            what = self._whats.get(key) or self._what(key)
            target = self._target(request, model) if model else ""
            about = self._abouts.get((model, target)) or self._about(model, target)
            with_id = f'"request_id":"{request_id}",' if request_id else ""
            line = (
                f'{{"time":"{self._stamp}.{_DIGITS[thousandth]}Z",{what}{status} {us // 1000}",'
                f'{with_id}{about}"status":{status},"ms":{us // 1000}.{_DIGITS[us % 1000]},"bytes":{size},'
                f'"peer":"{request.peer}"}}\n'
            )
        lines = self._lines
        lines.append(line)
        self._added += len(line)
        if len(lines) == 1:
            self._begun.set()
        elif waiting > _BATCH and not self._full.is_set():
            self._full.set()

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

    def _target(self, request: Request, model: str) -> str:
        """Return the target model that a request names, else the one that the model was loaded for."""
        if (sent := request.header(TARGET_MODEL)) is not None:
            return sent.decode("latin-1")
        known = self._models.get(model)
        return known.registration.target_model if known is not None else ""

    def _mms_lines(self, request: Request, status: int, ms: int, thousandth: int, quiet: bool) -> str:
        """Return MMS's line and its count of statuses."""
        uri = _uri(request.path, request.query)
        start = f"{self._stamp},{_DIGITS[thousandth]} [{'DEBUG' if quiet else 'INFO '}] server"
        return (
            f'{start} ACCESS_LOG - /{request.peer} "{request.method} {printable(uri)} '
            f'HTTP/{request.version}" {status} {ms}\n'
            f"{start} MMS_METRICS - {self._counts[status // 100]}\n"
        )

    # --- in the thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        told = 0
        while not self._closing or self._lines:
            self._begun.wait()
            self._begun.clear()
            # A line that comes while these are written finds the list begun and wakes nobody.
            while self._lines:
                self._full.wait(_WAIT_S)
                if not self._closing:
                    self._full.clear()
                self._write()
            if self.dropped > told:
                _log.warning(
                    "%d lines of the access log were dropped: the log is read too slowly.",
                    self.dropped - told,
                )
                told = self.dropped

    def _write(self) -> None:
        taken = self._lines[: len(self._lines)]
        del self._lines[: len(taken)]
        text = "".join(taken)
        self._sink.write(text)
        self._written += len(text)


def _uri(path: str, query: str) -> str:
    return f"{path}?{query}" if query else path


def _counts(second: int) -> list[str]:
    """Return MMS's count of an answer by its status's first digit; 1xx and 3xx are 5XX there (NettyUtils)."""
    kinds = [{2: "2XX", 4: "4XX"}.get(digit, "5XX") for digit in range(10)]
    return [metric_line(f"Requests{kind}", 1, "Count", {"Level": "Host"}, None, second) for kind in kinds]
