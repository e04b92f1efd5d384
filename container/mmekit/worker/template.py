"""The warm process that workers are forked from.

It imports the image's frameworks once, with one thread, lets each make one tiny prediction, and
then does nothing but fork. What it imported is shared with all workers copy-on-write: a worker
costs megabytes instead of a hundred, and is ready in milliseconds instead of seconds.

Rules (hotpath study, section 3): no thread, no event loop, no CUDA in here; an OpenMP pool of two
threads before a fork would hang the child. ``gc.freeze`` keeps the collector of a worker from
writing into shared pages: without it one full collection costs 37 MiB.
"""

from __future__ import annotations

import gc
import importlib
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping

from mmekit import process
from mmekit.lines import LevelFormatter
from mmekit.worker import forking, mms_modules
from mmekit.worker import main as worker_main
from mmekit.worker.messages import Fork, Forked, FrameReader, Message, TemplateReady, encode

_log = logging.getLogger(__name__)


def preload(modules: list[str]) -> None:
    """Import handlers and let each warm its framework up; a module that fails is named and left out."""
    for name in modules:
        try:
            module = importlib.import_module(name)
        except Exception:  # noqa: BLE001 - the module may be people's
            _log.exception("The template cannot import %s; workers will try when a model needs it.", name)
            continue
        for value in list(vars(module).values()):
            warm_up = getattr(value, "warm_up", None)
            if isinstance(value, type) and value.__module__ == name and callable(warm_up):
                try:
                    warm_up()
                except Exception:  # noqa: BLE001 - as above
                    _log.exception("%s.%s cannot make its first prediction.", name, value.__name__)


def serve_forks(control: socket.socket, environ: Mapping[str, str]) -> None:
    """Fork a worker for each ``Fork``, until the server goes away."""
    reader = FrameReader()
    server_pid = os.getppid()
    while True:
        data, descriptors, _, _ = socket.recv_fds(control, 4096, 2)
        if not data:
            return
        for message, _body in reader.feed(data):
            assert isinstance(message, Fork)
            # The server sends the next Fork only after this one is answered: these two are its.
            channel, log = descriptors
            tasks = process.task_count()
            if tasks == 1:
                error, is_worker = forking.fork_worker(server_pid)
            else:
                error, is_worker = f"the template has {tasks} threads", False
            if is_worker:
                forking.reseed()
                worker_main.become(channel, log, environ)
            for descriptor in descriptors:
                os.close(descriptor)
            _send(control, Forked(message.number, error, unsafe=tasks != 1))


def _send(control: socket.socket, message: Message) -> None:
    control.sendall(encode(message))


def main(argv: list[str]) -> None:
    """Run as ``python -m mmekit.worker.template DESCRIPTOR MODULE …``."""
    process.die_with_parent(signal.SIGKILL)
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to the whole group; the server decides
        signal.signal(number, signal.SIG_IGN)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LevelFormatter("%(message)s"))
    logging.basicConfig(handlers=[handler])
    control = socket.socket(fileno=int(argv[0]))
    started = time.monotonic()
    mms_modules.install()
    preload(argv[1:])
    imports_ms = (time.monotonic() - started) * 1000
    process.trim_heap()
    gc.collect()
    gc.freeze()
    modules = sorted({name.partition(".")[0] for name in sys.modules})
    _send(control, TemplateReady(os.getpid(), modules, process.anonymous_bytes(), imports_ms))
    serve_forks(control, os.environ)


if __name__ == "__main__":
    main(sys.argv[1:])
