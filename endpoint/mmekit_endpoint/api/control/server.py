"""The process of the control plane: gunicorn with one worker of many threads, on a socket it was given.

One worker, since moto's services are in its memory. It ends on SIGTERM, and with the process that started it;
an interrupt from a terminal is the service's to handle, which ends this process when it is done.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter

from mmekit.process import allow_descriptors, die_with_parent
from mmekit_endpoint.api.control.app import Options, create_app
from mmekit_endpoint.api.control.metadata_names import keep_metadata_names

#: More than requests that may wait for the fleet at the same time (`app.MAX_WAITING`).
THREADS = 64

#: How long requests in flight may take when the process is to end.
_GRACEFUL_S = 1


class Server(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn, set up for the control plane."""

    def __init__(self, fd: int, options: Options) -> None:
        self._fd = fd
        self._options = options
        super().__init__()

    def load_config(self) -> None:
        """Set what differs from gunicorn's defaults."""
        settings = {
            "bind": f"fd://{self._fd}",
            "worker_class": "gthread",
            "workers": 1,
            "threads": THREADS,
            # The proxy in front keeps connections, and is the only client.
            "keepalive": 3600,
            "timeout": 0,
            "graceful_timeout": _GRACEFUL_S,
            "loglevel": "warning",
            # Presigned URLs are long.
            "limit_request_line": 8190,
            # _on_request drops names with underscores but those of S3's metadata.
            "header_map": "dangerous",
            "pre_request": _on_request,
            "when_ready": _when_ready,
            "post_fork": _post_fork,
            "post_worker_init": _when_worker_is_ready,
        }
        if "control_socket_disable" in self.cfg.settings:  # gunicorn 25.1
            settings["control_socket_disable"] = True
        for name, value in settings.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        """Return the application; called in the worker."""
        return create_app(self._options)

    def run(self) -> None:
        """Serve until a signal."""
        _Arbiter(self).run()


class _Arbiter(Arbiter):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's arbiter, which waits for a worker that it has killed."""

    def kill_workers(self, sig: int) -> None:
        """Send a signal to all workers.

        The last one is SIGKILL, where requests or kept connections outlast the time for them. gunicorn does
        not wait for what comes of it: the worker may outlive the arbiter for a moment, and one that has
        ended already is reported as perhaps killed for want of memory.
        """
        super().kill_workers(sig)
        if sig == signal.SIGKILL:
            for pid in list(self.WORKERS):
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, 0)
            self.WORKERS.clear()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the control plane until SIGTERM, or until the process that started it ends."""
    die_with_parent(signal.SIGTERM)
    parser = argparse.ArgumentParser("mmekit_endpoint.api.control", description=__doc__)
    parser.add_argument(
        "--fd", type=int, required=True, help="an inherited TCP socket that listens, with TCP_NODELAY"
    )
    parser.add_argument("--state", type=Path, required=True, help="folder of definitions and objects")
    parser.add_argument("--launcher", choices=["docker", "process"], required=True)
    parser.add_argument("--region", default="us-east-1", help="of requests that are not signed")
    parser.add_argument("--settle", type=float, default=10.0, help="seconds that changes may be waited for")
    parser.add_argument("--s3-endpoint-url", help="an object store in place of the embedded one")
    parser.add_argument("--parent", type=int, help="pid of the process that starts this one")
    chosen = parser.parse_args(arguments)
    if chosen.parent is not None and os.getppid() != chosen.parent:
        return  # it ended before the kernel was asked
    logging.basicConfig(level=logging.WARNING, format="control plane: %(levelname)s %(name)s: %(message)s")
    allow_descriptors()
    options = Options(
        state=chosen.state,
        launcher=chosen.launcher,
        region=chosen.region,
        settle_s=chosen.settle,
        s3_endpoint_url=chosen.s3_endpoint_url,
    )
    Server(chosen.fd, options).run()


# Any: gunicorn's arbiter, worker and request.


def _when_ready(_arbiter: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _post_fork(arbiter: Any, _worker: Any) -> None:
    die_with_parent(signal.SIGKILL)
    if os.getppid() != arbiter.pid:  # it ended before the kernel was asked
        raise SystemExit(0)


def _when_worker_is_ready(_worker: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _on_request(_worker: Any, request: Any) -> None:
    request.headers = keep_metadata_names(request.headers)
