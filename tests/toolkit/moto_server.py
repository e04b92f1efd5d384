"""AWS as moto has it, in a process of its own: every service over HTTP on a free port of loopback."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from functools import cache
from typing import Any

ACCOUNT = "123456789012"
REGION = "us-east-1"

_START_TIMEOUT_S = 60
#: Variables of the surrounding shell that would change what a command or client does.
_FOREIGN = ("AWS_", "MMEKIT_", "MOTO_", "SAGEMAKER_")


class MotoServer:
    """moto's server; a context manager that leaves nothing behind.

    ``environ`` is for commands under test: keys, region and AWS_ENDPOINT_URL, nothing of this shell's AWS.
    """

    def __init__(self, **environ: str) -> None:
        self.url = ""
        self._extra = environ
        self._process: subprocess.Popen[bytes] | None = None
        # Appended to: the server shares the position with whoever reads here.
        self._log = tempfile.TemporaryFile("a+b")  # noqa: SIM115  # closed with the server

    def __enter__(self) -> MotoServer:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", "0"],
            env={**_clean(), "MOTO_ACCOUNT_ID": ACCOUNT, **self._extra},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                log = self.log
                self.stop()
                raise AssertionError(f"moto's server does not start: {log}")
            time.sleep(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the process; its state goes with it."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)
        self._log.close()

    def reset(self) -> None:
        """Forget all resources of all services."""
        request = urllib.request.Request(f"{self.url}/moto-api/reset", method="POST")
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert answer.status == 200

    @property
    def log(self) -> str:
        """What the server has written: one line a request, tracebacks."""
        self._log.seek(0)
        return self._log.read().decode(errors="replace")[-20_000:]

    @property
    def environ(self) -> dict[str, str]:
        return {
            **_clean(),
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "test-key",
            "AWS_SECRET_ACCESS_KEY": "test-secret",
            "AWS_REGION": REGION,
            # The files of whoever runs the tests, and the network of a machine that may be no EC2 instance.
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self, service: str) -> Any:  # Any: boto3 makes its clients at run time
        """Return a boto3 client; botocore validates what it sends. The caller closes it."""
        return _session().client(
            service,
            region_name=REGION,
            endpoint_url=self.url,
            aws_access_key_id="test-key",
            aws_secret_access_key="test-secret",
        )

    def _answers(self) -> bool:
        # It says where it listens: of ports that were found free for it, another process may take one.
        told = re.search(r"Running on (http://127\.0\.0\.1:\d+)", self.log)
        if told is None:
            return False
        self.url = told[1]
        try:
            with urllib.request.urlopen(f"{self.url}/moto-api/data.json", timeout=2) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False


@cache
def _session() -> Any:
    """Return a boto3 session that keeps the service models it has parsed."""
    import boto3

    return boto3.session.Session()


def _clean() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
