"""Runs ``mmekit`` in processes forked from one that has imported it: each saves half a second of CPU.

To the command it is the same: a process with its own streams, variables, folder and exit code. This file is
also the program of the process that is forked from, which ends when its standard input does.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

_START_TIMEOUT_S = 60


class Template:
    """The process that is forked from."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="mmekit-")
        self._address = str(Path(self._folder.name) / "socket")
        self._process = subprocess.Popen(
            [sys.executable, __file__, self._address],
            env={name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdout
        assert self._process.stdout.readline() == b"ready\n"

    def run(
        self,
        arguments: Sequence[str],
        environ: Mapping[str, str],
        stdin: bytes,
        timeout_s: float,
        folder: Path | None = None,
    ) -> tuple[int, bytes, bytes]:
        """Return exit code, standard output and standard error of ``mmekit ARGUMENTS``.

        It runs in the folder, else in the one where the tests run. Raises TimeoutExpired; the process is
        killed then.
        """
        asked = {"arguments": [*arguments], "environ": {**environ}, "folder": str(folder or Path.cwd())}
        with (
            tempfile.TemporaryFile() as request,
            tempfile.TemporaryFile() as given,
            tempfile.TemporaryFile() as out,
            tempfile.TemporaryFile() as err,
            socket.socket(socket.AF_UNIX) as connection,
        ):
            for file, content in ((request, json.dumps(asked).encode()), (given, stdin)):
                file.write(content)
                file.seek(0)
            connection.settimeout(timeout_s)
            connection.connect(self._address)
            socket.send_fds(connection, [b"!"], [file.fileno() for file in (request, given, out, err)])
            with connection.makefile("rb") as told:
                pid = int(told.readline())
                try:
                    code = int(told.readline())
                except TimeoutError:
                    os.kill(pid, signal.SIGKILL)
                    raise subprocess.TimeoutExpired([*arguments], timeout_s) from None
            for file in (out, err):
                file.seek(0)
            return code, out.read(), err.read()

    def close(self) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait(_START_TIMEOUT_S)
        self._process.stdout.close()
        self._folder.cleanup()


@cache
def template() -> Template:
    """Return the one of these tests, started when it is first asked for."""
    started = Template()
    atexit.register(started.close)
    return started


def _serve(address: str) -> None:
    main = _imported()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who wait for commands
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen(64)
        print("ready", flush=True)
        while listener in select.select([0, listener], [], [])[0]:
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                _run(main, connection)
            connection.close()


def _imported() -> Any:
    """Return the command, with all imported that its commands import when they run."""
    import boto3.s3.transfer  # noqa: F401
    import click

    from mmekit.cli import main
    from mmekit_toolkit.aws.clients import service_models

    context = click.Context(main)
    for name in main.list_commands(context):
        main.get_command(context, name)
    for service in ("cloudwatch", "logs", "s3", "sagemaker", "sagemaker-runtime"):
        service_models().get_service_model(service)
    gc.freeze()  # a collection would write to all pages, which are shared until then
    return main


def _run(main: Any, connection: socket.socket) -> NoReturn:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, (request, *streams), *_ = socket.recv_fds(connection, 1, 4)
    if pid := os.fork():
        connection.sendall(b"%d\n" % pid)
        _, status = os.waitpid(pid, 0)
        connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
        os._exit(0)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    with open(request) as file:
        asked = json.load(file)
    os.environ.clear()
    os.environ.update(asked["environ"])
    os.chdir(asked["folder"])
    sys.argv = ["mmekit", *asked["arguments"]]
    sys.exit(main())


if __name__ == "__main__":
    _serve(sys.argv[1])
