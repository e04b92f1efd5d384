"""A log that is not read, or slowly, when the server stops: it ends, and slowness loses nothing."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.server import COMMAND, IMAGE_CODE, Server, image_environ, plain_model, until

MODEL_SERVER = [sys.executable, "-m", "mmekit.model_server"]
COMMANDS = {
    "mmekit": [str(COMMAND), "serve"],
    "foreground": [*MODEL_SERVER, "--foreground"],
    "background": [*MODEL_SERVER, "--start"],
}

#: More than the access log waits for before it writes, and than the pipe has room for.
REQUESTS = 200
PATH = "/models/nope" + "x" * 3000

#: It takes some 2 s (``_LAST_WAIT_S``); after the deadline of a stop it would be 25.
ENDS_WITHIN_S = 15


class Unread:
    """A server whose standard error is a full pipe; ``reader`` is the pipe's other end."""

    def __init__(self, kind: str, folder: Path, **environ: str) -> None:
        self.temp = folder / "tmp"
        self.temp.mkdir()
        self.client = Server(**image_environ(TMPDIR=str(self.temp), MMEKIT_MODEL_STORE="/", **environ))
        self.reader, writer = os.pipe()
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
        self.process = subprocess.Popen(
            COMMANDS[kind],
            env=self.client.environ,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=writer,
        )
        os.close(writer)
        self.pid = self.process.pid
        try:
            self._fill(kind, folder)
        except BaseException:
            self.close()
            raise

    def _fill(self, kind: str, folder: Path) -> None:
        text = b""
        while not (match := re.search(rb"Listening on 127.0.0.1:(\d+)\.", text)):
            text += os.read(self.reader, 4096)
        self.client.port = int(match[1])
        if kind != "mmekit":
            self.pid = int((self.temp / ".model_server.pid").read_text())
        until(lambda: self.client.get("/ping").status == 200)
        archive = folder / "model.tar.gz"
        with tarfile.open(archive, "w:gz") as tar:
            tar.add(plain_model(folder), ".")
        assert (
            self.client.request("POST", f"/models?model_name=a&initial_workers=1&url={archive}").status == 200
        )
        assert self.client.invoke("a", "echo on").text == "on"
        for _ in range(REQUESTS):
            assert self.client.get(PATH).status == 404

    def family(self) -> set[int]:
        """The server and its workers, also when it is no child of ours."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return {self.pid, *map(int, children)}

    def close(self) -> None:
        os.close(self.reader)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self.process.wait()


@contextlib.contextmanager
def unread(kind: str, folder: Path, **environ: str) -> Iterator[Unread]:
    with contextlib.closing(Unread(kind, folder, **environ)) as server:
        yield server


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("kind", COMMANDS)
def test_a_log_that_nobody_reads_does_not_keep_the_server_from_its_end(kind: str, tmp_path: Path) -> None:
    with unread(kind, tmp_path) as server:
        family = server.family()
        assert len(family) >= 3
        assert list(server.temp.iterdir())
        started_at = time.monotonic()
        os.kill(server.pid, signal.SIGTERM)
        until(lambda: not any(map(runs, family)), what="all processes ending")
        assert time.monotonic() - started_at < ENDS_WITHIN_S
        assert server.process.wait(10) == 0
        assert list(server.temp.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_more_signals_change_neither_the_end_nor_its_exit_code(number: int, tmp_path: Path) -> None:
    with unread("mmekit", tmp_path) as server:
        started_at = time.monotonic()
        while server.process.poll() is None and time.monotonic() < started_at + ENDS_WITHIN_S:
            server.process.send_signal(number)
            time.sleep(0.05)
        assert server.process.poll() == 0


def test_without_an_access_log_it_ends_as_well(tmp_path: Path) -> None:
    with unread("mmekit", tmp_path, MMEKIT_ACCESS_LOG="false") as server:
        for number in range(100):
            server.client.request("POST", f"/models?model_name=m{number}&url=/nowhere/{'x' * 100}")
        server.process.terminate()
        assert server.process.wait(ENDS_WITHIN_S) == 0


def _patient(folder: Path) -> str:
    """Return a folder for PYTHONPATH with which a server waits longer for a slow reader at its end."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text("from mmekit import sink\nsink._LAST_WAIT_S = 30.0\n")
    return os.pathsep.join([str(folder), str(IMAGE_CODE)])


def test_a_slow_reader_gets_all_lines(tmp_path: Path) -> None:
    with unread("mmekit", tmp_path, PYTHONPATH=_patient(tmp_path / "site")) as server:
        for number in range(300):
            server.client.request("POST", f"/models?model_name=m{number}&url=/nowhere/{number}")
        server.process.terminate()
        time.sleep(0.5)  # it is slow, not gone; a busy machine may make that longer
        text = b""
        while piece := os.read(server.reader, 65536):
            text += piece
        assert server.process.wait(30) == 0
    lines = [json.loads(line) for line in text.splitlines()[1:]]  # the first began before
    messages = [line["message"] for line in lines]
    assert sum(message.startswith(f"GET {PATH[:100]}") for message in messages) >= REQUESTS - 1
    for number in range(300):
        assert sum(f"url=/nowhere/{number} " in message for message in messages) == 1, number
    assert any(message.startswith("Stopping: ") for message in messages)
