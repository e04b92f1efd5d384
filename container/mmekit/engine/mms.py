"""``mmekit serve`` with MMEKIT_ENGINE=mms: starts AWS's Multi Model Server and looks after it."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping, Sequence

from mmekit import process
from mmekit.choice import ImageCode
from mmekit.config import Config
from mmekit.engine import handover
from mmekit.engine.variables import mms_variables
from mmekit.errors import ConfigError

_log = logging.getLogger(__name__)

#: Distributions that are needed, and the module by which each is found.
_NEEDED = {
    "multi-model-server": "mms",
    "sagemaker-inference": "sagemaker_inference",
    "retrying": "retrying",
}
_REMEDY = (
    "Build the image with --build-arg ENGINE=mms (it brings Java and the rest), or outside of an image: "
    "install a Java runtime, and pip install 'mmekit[mms]'."
)
#: Exit code when the server ends without having been asked to.
_ENDED = 1


def serve(config: Config, environ: Mapping[str, str], received: Sequence[int] = ()) -> int:
    """Run Multi Model Server until it ends or SIGTERM; return the exit code, 0 when it was asked to stop.

    ``received``: signals that came before this was called. Raises ``ConfigError`` when something that it
    needs is missing, or for a setting that MMS cannot have.
    """
    _check(environ)
    image = ImageCode(config.handler, config.program, config.code_dir, config.mms_mode)
    values = {**environ, **mms_variables(config), **handover.to_environ(image)}
    values["SAGEMAKER_MULTI_MODEL"] = "false" if config.single_model else "true"
    # MMS would read that file in place of sagemaker-inference's; what it says is in the variables.
    values.pop("MMS_CONFIG_FILE", None)
    with _folder(environ) as folder:
        return _Supervisor(config.stop_timeout_s).run(_with_folder(values, folder), received)


def _folder(environ: Mapping[str, str]) -> tempfile.TemporaryDirectory[str]:
    try:
        return tempfile.TemporaryDirectory(
            prefix="mmekit-mms-", dir=environ.get("TEMP") or None, ignore_cleanup_errors=True
        )
    except OSError as error:
        raise ConfigError(
            f"Multi Model Server needs a folder for its sockets and logs, and none can be written: {error}. "
            "Give the container a writable /tmp (docker run --tmpfs /tmp), or name a folder in TEMP."
        ) from None


def _check(environ: Mapping[str, str]) -> None:
    home = environ.get("JAVA_HOME")
    java = f"{home}/bin/java" if home else "java"
    missing = [] if shutil.which(java, path=environ.get("PATH")) else [f"Java runtime ({java})"]
    missing += [name for name, module in _NEEDED.items() if not _has(name, module)]
    if missing:
        raise ConfigError(
            f"MMEKIT_ENGINE=mms starts AWS's Multi Model Server, and there is no {' and no '.join(missing)}. "
            + _REMEDY
        )


def _has(distribution: str, module: str) -> bool:
    try:
        importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return importlib.util.find_spec(module) is not None


def _with_folder(environ: Mapping[str, str], folder: str) -> dict[str, str]:
    """Return the environment of a server whose sockets, pid file, settings and logs are in ``folder``."""
    values = {"LOG_LOCATION": folder, "METRICS_LOCATION": folder, "PYTHONDONTWRITEBYTECODE": "1", **environ}
    # Python's temporary folder, and Java's (MMS: model_server.py reads TEMP).
    values["TMPDIR"] = values["TEMP"] = folder
    # Its own commands before any others of their names.
    values["PATH"] = os.pathsep.join([sysconfig.get_path("scripts"), environ.get("PATH", os.defpath)])
    return values


class _Supervisor:
    """Starts the server in a session of its own, passes signals on, reaps what ends."""

    def __init__(self, stop_timeout_s: float) -> None:
        self._stop_timeout_s = stop_timeout_s
        self._stopping = False
        self._group = 0

    def run(self, environ: Mapping[str, str], received: Sequence[int]) -> int:
        # Java is started by a command that ends at once: it becomes a child of this process.
        process.become_subreaper()
        command = [sys.executable, "-m", "mmekit.engine.start"]
        with _wakeups() as woken:
            self._group = subprocess.Popen(command, env=dict(environ), start_new_session=True).pid
            for signal_number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(signal_number, self._signalled)
            signal.signal(signal.SIGALRM, self._give_up)
            for _ in received:
                self._signalled()
            status = self._wait(woken)
            signal.alarm(0)
        self._kill_group()
        if self._stopping:
            return 0
        _log.critical(
            "Multi Model Server ended by itself (its starter %s); its own lines above say why.",
            process.describe_exit(status),
        )
        return _ENDED

    def _signalled(self, *_: object) -> None:
        """The first signal is passed on and starts the deadline, the second kills at once."""
        if self._stopping:
            self._kill_group()
            return
        self._stopping = True
        try:
            os.kill(self._group, signal.SIGTERM)
        except ProcessLookupError:
            return
        signal.setitimer(signal.ITIMER_REAL, max(self._stop_timeout_s, 0.1))

    def _give_up(self, *_: object) -> None:
        _log.warning("Multi Model Server has not stopped in %g s: it is killed.", self._stop_timeout_s)
        self._kill_group()

    def _kill_group(self) -> None:
        try:
            os.killpg(self._group, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def _wait(self, woken: socket.socket) -> int:
        """Reap children and orphans until the starting process has ended; return its wait status."""
        while True:
            woken.recv(4096)
            for pid, status in process.reap():
                if pid == self._group:
                    return status


@contextlib.contextmanager
def _wakeups() -> Iterator[socket.socket]:
    """Give a socket that gets a byte for each signal, that of an ended child too.

    os.wait() would sleep on where the kernel has another thread take a signal, as it does with the second
    of two that come together.
    """
    woken, waker = socket.socketpair()
    with woken, waker:
        waker.setblocking(False)
        before = signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # without a handler it writes nothing
        try:
            yield woken
        finally:
            signal.set_wakeup_fd(before)
