"""Logs: a line a record on standard error, written off the event loop; JSON, or as MMS prints them.

Records go through a queue to one writing thread; a second thread reads what workers print, so
that a model which prints megabytes slows itself down and nobody else.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import logging.handlers
import os
import queue
import selectors
import signal
import threading
from typing import Any, TypeAlias

from mmekit.lines import METRICS, Line, LineParser
from mmekit.log_forms import JsonFormatter, MmsFormatter
from mmekit.sink import STANDARD_ERROR, Sink

#: Records that may wait for the writing thread; more are dropped and counted.
_MAX_WAITING = 10_000

#: Read from a worker's pipe at once.
_READ_BYTES = 65536

#: None: no more will come.
_Records: TypeAlias = "queue.Queue[logging.LogRecord | None]"

_LEVELS = {"CRITICAL": 50, "ERROR": 40, "WARNING": 30, "INFO": 20, "DEBUG": 10}


class _BoundedQueueHandler(logging.handlers.QueueHandler):
    """Drops what the writer cannot keep up with and says later how much."""

    dropped = 0

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            self.dropped += 1
            return
        if self.dropped:
            lost, self.dropped = self.dropped, 0
            logging.getLogger(__name__).warning(
                "%d log records were dropped: the log is read too slowly.", lost
            )


class _SinkHandler(logging.Handler):
    def __init__(self, sink: Sink) -> None:
        super().__init__()
        self._sink = sink

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._sink.write(self.format(record) + "\n")
        except Exception:  # noqa: BLE001 - as in all of logging's handlers
            self.handleError(record)


def set_up(level: int, log_format: str = "json") -> None:
    """Send all records of this process to standard error; called once, by the command."""
    records: _Records = queue.Queue(_MAX_WAITING)
    writer = _SinkHandler(STANDARD_ERROR)
    writer.setFormatter(JsonFormatter() if log_format == "json" else MmsFormatter())
    thread = threading.Thread(target=_write, args=(records, writer), name="log", daemon=True)
    thread.start()
    atexit.register(_end, records, thread)
    root = logging.getLogger()
    root.handlers[:] = [_BoundedQueueHandler(records)]
    root.setLevel(level)


def _write(records: _Records, writer: _SinkHandler) -> None:
    while (record := records.get()) is not None:
        writer.emit(record)  # not handle(): logging.shutdown would wait for the lock that it holds


def _end(records: _Records, thread: threading.Thread) -> None:
    """Write what waits; a reader that takes nothing is given up after a while.

    At the exit of the process, when all else is done: threads that hang in a write end with it.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # the exit code is decided, and this is short
    with contextlib.suppress(queue.Full):
        records.put(None, timeout=STANDARD_ERROR.last_wait_s())
    thread.join(STANDARD_ERROR.last_wait_s())


class OutputCollector:
    """Reads what workers write to their standard output and error, line by line, into the log.

    Lines that a model's Python code printed carry its name and the request; lines of native code, which
    has no such tag, carry only the worker's number (0 is the template). What handlers reported to
    ``context.metrics`` comes the same way.
    """

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe()
        self._parsers: dict[int, tuple[LineParser, int]] = {}
        self._new: queue.SimpleQueue[tuple[int, int]] = queue.SimpleQueue()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="output", daemon=True)
        self._log = logging.getLogger("mmekit.output")
        self._metrics = logging.getLogger("mmekit.metrics")

    def start(self) -> None:
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        self._thread.start()

    def add(self, descriptor: int, worker: int) -> None:
        """Take over the read end of a worker's output pipe."""
        self._new.put((descriptor, worker))
        os.write(self._wake_write, b"x")

    def close(self, timeout_s: float) -> None:
        """Read what is left in the pipes of workers that have ended.

        Who still holds one, such as a process that a model has started, is given up after ``timeout_s``.
        """
        self._closing = True
        os.write(self._wake_write, b"x")
        for _ in range(4):  # a machine that stands still takes one of these waits, not all
            self._thread.join(timeout_s / 4)

    def _run(self) -> None:
        while not self._closing or self._parsers:
            for key, _ in self._selector.select():
                if key.fd == self._wake_read:
                    self._take_over()
                else:
                    self._read(key.fd)

    def _take_over(self) -> None:
        os.read(self._wake_read, 4096)
        while not self._new.empty():
            descriptor, worker = self._new.get()
            self._parsers[descriptor] = (LineParser(), worker)
            self._selector.register(descriptor, selectors.EVENT_READ)

    def _read(self, descriptor: int) -> None:
        parser, worker = self._parsers[descriptor]
        data = os.read(descriptor, _READ_BYTES)
        try:
            for line in parser.feed(data) if data else parser.close():
                self._write(worker, line)
        except Exception:  # noqa: BLE001 - without this thread every printing worker would come to a halt
            self._log.exception("Output of worker %d could not be logged.", worker)
        if not data:
            self._selector.unregister(descriptor)
            os.close(descriptor)
            del self._parsers[descriptor]

    def _write(self, worker: int, line: Line) -> None:
        extra: dict[str, Any] = {
            "worker": worker,
            "model": line.model,
            "target": line.target,
            "stream": line.stream,
            "request_id": line.request_id,
        }
        if line.stream == METRICS and (metric := _metric(line.text)):
            extra = {**extra, **metric, "stream": None}
            message = f"{metric['metric']}: {metric['value']} {metric['unit']}"
            self._metrics.info("%s", message, extra=extra)
            return
        # What a worker logs goes to its standard error; on the other a level is a word that a model printed.
        level, message = (logging.INFO, line.text) if line.stream == "stdout" else _level_of(line.text)
        self._log.log(level, "%s", message, extra=extra)


def _metric(text: str) -> dict[str, Any] | None:
    """Return what ``worker.output`` wrote of a metric; None for what is not one, or was cut."""
    try:
        name, value, unit, dimensions, request_id = json.loads(text)
        fields = {"metric": name, "value": value, "unit": unit, "dimensions": dict(dimensions)}
    except (ValueError, TypeError):
        return None
    return {**fields, "request_id": request_id}


def _level_of(text: str) -> tuple[int, str]:
    """Workers put the level in front of each line they log (``LevelFormatter``); prints are information."""
    name, _, rest = text.partition(" ")
    return (_LEVELS[name], rest) if name in _LEVELS else (logging.INFO, text)
