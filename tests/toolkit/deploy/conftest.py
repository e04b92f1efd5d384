"""The command, a local endpoint and moto's server, each once a session; tests take names of their own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.endpoint.service import PROGRAMS, Service
from tests.toolkit.command_template import template
from tests.toolkit.commands import MMEKIT, Done
from tests.toolkit.moto_server import MotoServer

KEYS = {
    "AWS_ACCESS_KEY_ID": "any",
    "AWS_SECRET_ACCESS_KEY": "any",
    "AWS_REGION": "us-east-1",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
}
_TIMEOUT_S = 110
_START_AFTER = """\
#!/usr/bin/env python3
import os, sys, time
file = os.environ.get("START_AFTER", "/")
while not os.path.exists(file):
    time.sleep(0.02)
os.execv({then!r}, [{then!r}, *sys.argv[1:]])
"""


class Mmekit:
    """Runs the installed command in a folder, against one address."""

    def __init__(self, folder: Path, url: str, environ: Mapping[str, str]) -> None:
        self.folder = folder
        self.environ = {**environ, **KEYS, "AWS_ENDPOINT_URL": url}

    def __call__(self, *arguments: str, code: int = 0, **environ: str | None) -> Done:
        """Run to the end; a variable that is None is left out. No run may show a stack trace."""
        ended, out, err = template().run(arguments, self._environ(environ), b"", _TIMEOUT_S, self.folder)
        done = Done(ended, out, err.decode())
        assert done.code == code, (done.code, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def start(self, *arguments: str, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
        """Start without waiting; stderr can be read line by line."""
        return subprocess.Popen(
            [MMEKIT, *arguments],
            env=self._environ({}),
            cwd=self.folder,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def at(self, url: str) -> Mmekit:
        """Return the same against another address."""
        return Mmekit(self.folder, url, self.environ)

    def write(self, text: str, name: str = "endpoint.yaml") -> str:
        """Write a file into the folder; return its name."""
        (self.folder / name).write_text(text)
        return name

    def _environ(self, changes: Mapping[str, str | None]) -> dict[str, str]:
        return {name: value for name, value in {**self.environ, **changes}.items() if value is not None}


@pytest.fixture(scope="session")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A local endpoint; a container with START_AFTER=FILE starts when that file is there."""
    folder = tmp_path_factory.mktemp("local")
    program = folder / "start_after.py"
    program.write_text(_START_AFTER.format(then=str(PROGRAMS / "multi_model.py")))
    program.chmod(0o755)
    options = [
        "--startup-timeout",
        "100",
        "--settle",
        "0.2",
        "--launcher",
        "process",
        "--program",
        str(program),
    ]
    with Service(folder / "state", *options, program=None) as service:
        service.upload()
        yield service


@pytest.fixture(scope="session")
def moto_server() -> Iterator[MotoServer]:
    with MotoServer() as server:
        yield server


@pytest.fixture
def mmekit(tmp_path: Path, local: Service) -> Mmekit:
    """The command against the local endpoint."""
    return Mmekit(tmp_path, local.url, local.environ)


@pytest.fixture
def at_moto(tmp_path: Path, moto_server: MotoServer) -> Mmekit:
    """The command against moto, which has forgotten all tests before."""
    moto_server.reset()
    return Mmekit(tmp_path, moto_server.url, moto_server.environ)
