"""The program that starts Multi Model Server: ``python -m mmekit.engine.start``, run by ``mms.serve``.

What the entry points of AWS's images do: ``start_model_server`` of sagemaker-inference, tried again
for a while when it fails. It returns when the server has ended; SIGTERM goes on to the server.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from pathlib import Path

import psutil
from retrying import retry
from sagemaker_inference import model_server

from mmekit import process
from mmekit.engine.handover import ADAPTER

#: How often and how long a start that failed is tried again.
_RETRY_EVERY_MS = 1000
_RETRY_FOR_MS = 30_000

#: Where ``multi-model-server --start`` leaves the id of Java's process (MMS: model_server.py).
_PID_FILE = ".model_server.pid"


class _Ended:
    """A server that was gone before it could be looked at; offers what start_model_server uses of it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def wait(self) -> None:
        """Return at once."""


def _may_pass(error: Exception) -> bool:
    return isinstance(error, OSError | psutil.Error)


@retry(wait_fixed=_RETRY_EVERY_MS, stop_max_delay=_RETRY_FOR_MS, retry_on_exception=_may_pass)  # type: ignore[untyped-decorator]  # retrying has no types
def _start() -> None:
    model_server.start_model_server(handler_service=ADAPTER)


def _own_server() -> psutil.Process | _Ended:
    """Find the server that was started from here.

    sagemaker-inference takes the one server of the whole machine and fails where there are two. It
    calls this again and again until it does not raise.
    """
    pid = int(Path(tempfile.gettempdir(), _PID_FILE).read_text())
    try:
        return psutil.Process(pid)
    except psutil.NoSuchProcess:
        return _Ended(pid)


def main() -> int:
    """Run Multi Model Server until it ends."""
    process.die_with_parent(signal.SIGTERM)
    # The folder of the server's own files: /etc cannot be written by every user.
    model_server.MMS_CONFIG_FILE = os.path.join(tempfile.gettempdir(), "config.properties")
    model_server._retrieve_mms_server_process = _own_server
    _start()
    return 0


if __name__ == "__main__":
    sys.exit(main())
