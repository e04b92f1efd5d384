"""The two forms of a log line: JSON, and the one that Multi Model Server prints.

MMS: the pattern ``%d{ISO8601} [%-5p] %t %c - %m%n`` of its log4j2.xml; its metrics (Metric.java) are
``Name.Unit:value|#Dimension:value,…|#hostname:h[,requestID:id],timestamp:seconds``.
"""

from __future__ import annotations

import json
import logging
import socket
import time
from collections.abc import Mapping

#: What a record may carry beside its message, in the order of a JSON line.
EXTRAS = ("model", "target", "worker", "stream", "request_id", "metric", "value", "unit", "dimensions")

_HOST = socket.gethostname()

#: Python's names of levels → log4j's, five characters wide.
_LOG4J_LEVELS = {"CRITICAL": "FATAL", "ERROR": "ERROR", "WARNING": "WARN ", "INFO": "INFO ", "DEBUG": "DEBUG"}


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON: time (UTC, ms), level, logger, message, extras that are set."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": f"{utc_second(int(record.created))}.{_milliseconds(record):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name in EXTRAS:
            value = getattr(record, name, None)
            if value is not None and value != "":
                line[name] = value
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class MmsFormatter(logging.Formatter):
    """Formats a record as MMS does; lines after the first are indented, so that none looks like another's."""

    def format(self, record: logging.LogRecord) -> str:
        model, worker = getattr(record, "model", None), getattr(record, "worker", None)
        stream = getattr(record, "stream", None)
        thread, logger, message = "server", record.name, record.getMessage()
        if worker is not None:
            thread = "-".join(["W", str(worker), *([printable(model)] if model else [])])
        if stream:
            thread, logger = f"{thread}-{stream}", "MODEL_LOG"
        if hasattr(record, "metric"):
            logger = "MODEL_METRICS" if model else "MMS_METRICS"
            message = metric_line(
                record.metric,
                record.__dict__["value"],
                record.__dict__["unit"],
                record.__dict__["dimensions"],
                getattr(record, "request_id", None),
                int(record.created),
            )
        if record.exc_info:
            message = f"{message}\n{self.formatException(record.exc_info)}"
        message = message.replace("\r", "\\r").replace("\n", "\n\t")
        start = mms_start(int(record.created), _milliseconds(record), record.levelname)
        return f"{start} {thread} {logger} - {message}"


def metric_line(
    name: str,
    value: object,
    unit: str,
    dimensions: Mapping[str, str],
    request_id: str | None,
    at_s: int,
) -> str:
    """Return a metric in MMS's form; ``at_s`` is in seconds since 1970."""
    named = ",".join(f"{key}:{text}" for key, text in dimensions.items())
    request = f",requestID:{request_id}" if request_id else ""
    return printable(f"{name}.{unit}:{value}|#{named}|#hostname:{_HOST}{request},timestamp:{at_s}")


def mms_start(second: int, milliseconds: int, level: str) -> str:
    """Return time and level as MMS prints them: local time, ``2026-11-23T03:45:02,641 [INFO ]``."""
    return f"{local_second(second)},{milliseconds:03d} [{_LOG4J_LEVELS.get(level, level)}]"


def utc_second(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def local_second(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(second))


def printable(text: str) -> str:
    """Return a text without control characters: names come from clients and must not end a line."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def _milliseconds(record: logging.LogRecord) -> int:
    return int(record.created * 1000) % 1000
