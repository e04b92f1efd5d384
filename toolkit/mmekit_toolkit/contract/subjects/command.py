"""A command: run in a session of its own on a free port, ended with all that it has started."""

from __future__ import annotations

import os
import random
import shlex
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence

from mmekit_toolkit.contract.subjects import (
    Form,
    Launch,
    ModelsFolder,
    Running,
    Subject,
    memory,
    processes,
)
from mmekit_toolkit.contract.subjects.waiting import wait_ready
from mmekit_toolkit.errors import NotFound, ToolkitError

#: Ports for one server: its own, the range beside it, and one that claims them all. Multi Model Server takes
#: none from 32767 on.
_PORTS = range(20000, 32000)
_BLOCK = 20
#: Where a server listens that does not look at SAGEMAKER_BIND_TO_PORT.
_DEFAULT_PORT = 8080
#: Seconds that a server has after SIGTERM when its checks are over.
_END_S = 5.0


class CommandSubject(Subject):
    """A command that starts a model server; it is run as it was given."""

    form = Form.COMMAND

    def __init__(self, command: Sequence[str], models: ModelsFolder, environment: Mapping[str, str]) -> None:
        self.name = shlex.join(command)
        self.models = models
        self.how_started = f"SAGEMAKER_MULTI_MODEL=true SAGEMAKER_BIND_TO_PORT=PORT {self.name}"
        self._command = list(command)
        self._environment = environment

    def start(self, launch: Launch, timeout_s: float) -> Running:
        """Run the command. Raises NotStarted, and NotFound where there is no such program."""
        port, claim = _free_block()
        url = f"http://127.0.0.1:{port}"
        environment = {
            **os.environ,
            "SAGEMAKER_MULTI_MODEL": "true",
            "SAGEMAKER_BIND_TO_PORT": str(port),
            "SAGEMAKER_SAFE_PORT_RANGE": f"{port + 1}-{port + _BLOCK - 2}",
            **self._environment,
        }
        how_started = self.how_started.replace("PORT ", f"{port} ", 1)
        try:
            running = _Process(self._command, environment, how_started, claim)
        except BaseException:
            claim.close()
            raise
        try:
            running.base_url = wait_ready(running, lambda: [url, *running.elsewhere()], timeout_s)
        except BaseException:
            running.close()
            raise
        running.port_honoured = running.base_url == url
        return running


class _Process(Running):
    def __init__(
        self, command: list[str], environment: Mapping[str, str], how_started: str, claim: socket.socket
    ) -> None:
        self.how_started = how_started
        self._claim = claim
        # Appended to: the command shares the position with whoever reads here.
        self._output = tempfile.TemporaryFile("a+b")  # noqa: SIM115  # closed in close()
        try:
            self._process = subprocess.Popen(
                command,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            self._output.close()
            kind = NotFound if isinstance(error, FileNotFoundError) else ToolkitError
            raise kind(f"the command {command[0]} cannot be run: {error.strerror}.") from error

    def elsewhere(self) -> list[str]:
        """Return the address where it listens although it was told another; where anybody else does, none."""
        if processes.listens(processes.family(self._process.pid), _DEFAULT_PORT):
            return [f"http://127.0.0.1:{_DEFAULT_PORT}"]
        return []

    def ended(self) -> str | None:
        code = self._process.poll()
        if code is None:
            return None
        return f"ended with exit code {code}" if code >= 0 else f"was ended by {signal.Signals(-code).name}"

    def last_lines(self, count: int = 30) -> tuple[str, ...]:
        size = self._output.seek(0, os.SEEK_END)
        self._output.seek(max(0, size - 200 * count))
        lines = self._output.read().decode("utf-8", "replace").splitlines()
        return tuple(lines[-count:])

    def terminate(self) -> None:
        self._process.terminate()

    def memory_bytes(self) -> int | None:
        return memory.of_family(self._process.pid)

    def room_bytes(self) -> int | None:
        available = memory.available()
        return None if available is None else available // 2

    def close(self) -> None:
        """End the command with SIGTERM, and what it has started with SIGKILL, in other sessions too."""
        leader = self._process.pid
        family = processes.family(leader)
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_END_S)
            except subprocess.TimeoutExpired:
                pass  # killed below
        # Asked again for those that came meanwhile; those in sessions of their own are known from before.
        for pid in (family | processes.family(leader)) - {leader}:
            _kill(os.kill, pid)
        _kill(os.killpg, leader)  # where /proc is missing
        self._process.wait()
        self._output.close()
        self._claim.close()


def _kill(send: Callable[[int, int], None], pid: int) -> None:
    try:
        send(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # it has ended


def _free_block() -> tuple[int, socket.socket]:
    """Return the first of some ports in a row that nobody listens on, and what keeps other runs off them.

    Its server will listen only after a while. Until the socket is closed it has the last of the ports.
    """
    for _ in range(100):
        first = random.randrange(_PORTS.start, _PORTS.stop, _BLOCK)
        claim = socket.socket()  # without SO_REUSEADDR, so that one run alone can bind it
        try:
            claim.bind(("", first + _BLOCK - 1))
        except OSError:
            claim.close()
            continue
        if all(_is_free(port) for port in range(first, first + _BLOCK - 1)):
            return first, claim
        claim.close()
    raise ToolkitError(
        f"no {_BLOCK} free ports in a row were found between {_PORTS.start} and {_PORTS.stop}."
    )


def _is_free(port: int) -> bool:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("", port))
        except OSError:
            return False
    return True
