"""The command as people run it: a process, with the variables of one test and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sysconfig
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.support.server import until
from tests.toolkit.command_template import template

MMEKIT = Path(sysconfig.get_path("scripts")) / "mmekit"
_FOREIGN = ("AWS_", "MMEKIT_", "SAGEMAKER_")


class Mmekit:
    """Runs ``mmekit`` with these variables."""

    def __init__(self, **variables: str) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
        self.environ = {
            **inherited,
            "AWS_ACCESS_KEY_ID": "any",
            "AWS_SECRET_ACCESS_KEY": "any",
            "AWS_REGION": "us-east-1",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
            **variables,
        }

    def also(self, **variables: str) -> Mmekit:
        """Return one with more variables; an empty value takes one away."""
        more = Mmekit()
        more.environ = {k: v for k, v in {**self.environ, **variables}.items() if v}
        return more

    def __call__(self, *arguments: object, code: int = 0, stdin: bytes = b"", timeout_s: float = 60) -> Done:
        """Run it to its end; fails the test unless it ends with this code."""
        ended, out, err = template().run([*map(str, arguments)], self.environ, stdin, timeout_s)
        found = Done(ended, out, err.decode())
        assert "Traceback" not in found.stderr
        assert found.code == code, f"{found.code}: {found.stderr}"
        return found

    @contextmanager
    def running(self, *arguments: object) -> Iterator[Running]:
        """Start it; what still runs at the end is killed."""
        process = subprocess.Popen(
            [MMEKIT, *map(str, arguments)],
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            yield Running(process)
        finally:
            process.kill()
            process.wait(10)
            assert process.stdout
            process.stdout.close()


class Done:
    """How a command ended."""

    def __init__(self, code: int, stdout: bytes, stderr: str) -> None:
        self.code = code
        self.raw = stdout
        self.stderr = stderr

    @property
    def stdout(self) -> str:
        return self.raw.decode()

    @property
    def lines(self) -> list[str]:
        return self.stdout.splitlines()


class Running:
    """A command that runs; ``lines`` are what it has written so far, to both streams."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_for(self, text: str, timeout_s: float = 30) -> None:
        until(lambda: any(text in line for line in self.lines), timeout_s, f"{text!r} in {self.lines}")

    def interrupt(self, then: Callable[[], object] = lambda: None) -> int:
        """Ctrl-C, then what lets it end; return the exit code."""
        self.process.send_signal(signal.SIGINT)
        then()
        code = self.process.wait(60)
        self._reader.join(10)
        return code

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))


def local(url: str, **more: str) -> Mmekit:
    """Return the command for a local endpoint or moto's server at this address."""
    return Mmekit(AWS_ENDPOINT_URL=url, **more)


def described(folder: Path, name: str, models: str, **more: Mapping[str, object] | str) -> Path:
    """Write an endpoint's file, which is YAML by being JSON, and return its path."""
    import json

    file = folder / f"{name}.yaml"
    whole = {
        "name": name,
        "image": "123456789012.dkr.ecr.us-east-1.amazonaws.com/churn:1.0",
        "role": "arn:aws:iam::123456789012:role/churn",
        "models": models,
        "variants": [{"instance_type": "ml.m5.large", "instances": 1}],
        **more,
    }
    file.write_text(json.dumps(whole))
    return file
