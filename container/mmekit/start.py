"""From a command to a running server: early signals, logs, warnings, the engine."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Mapping

from mmekit import properties
from mmekit.resolution import Resolution, resolve

_log = logging.getLogger(__name__)


def catch_signals() -> list[int]:
    """Note SIGTERM and SIGINT from now on; to be called before anything slow is imported.

    As process 1 a signal without a handler is lost.
    """
    received: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: received.append(number))
    return received


def configure(
    environ: Mapping[str, str], options: Mapping[str, str], file: str | None, mms_mode: bool = False
) -> Resolution:
    """Resolve the settings; ``file`` is a config.properties, or ``sagemaker``, and means MMS mode.

    Raises ConfigError.
    """
    keys = None if file is None else properties.load(file, environ)
    return resolve(environ, options, keys, mms_mode=mms_mode or file is not None)


def serve(
    resolution: Resolution, received: list[int], on_listening: Callable[[], None] = lambda: None
) -> int:
    """Run the server of these settings until it is told to stop; return its exit code.

    ``on_listening`` is called once requests are accepted. Raises MmekitError when it cannot start.
    """
    from mmekit import logs

    config = resolution.config
    logs.set_up(config.log_level, config.log_format)
    for warning in resolution.warnings:
        _log.warning("%s", warning)
    if config.engine == "mms":
        from mmekit.engine import mms

        return mms.serve(config, os.environ, received)
    from mmekit.server import app

    return app.serve(config, os.environ, received, on_listening)
