"""A control plane in a process of its own, clients of it, and a fleet that only settles what is wanted."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from mmekit_endpoint.database import FILE_NAME, Database
from mmekit_endpoint.definitions import DELETE, EndpointRow, EndpointSpec, VariantState

REGION = "eu-west-1"
KEYS = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
ACCOUNT = "123456789012"


class ControlPlane:
    """The process, and what clients need of it."""

    def __init__(self, state: Path, *options: str, environment: dict[str, str] | None = None) -> None:
        self.state = state
        self._options = options
        self._environment = {**os.environ, **(environment or {})}
        self.socket = socket.create_server(("127.0.0.1", 0))
        # inherited by connections, also by those that are made before the process runs
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port: int = self.socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = state / "control.log"
        self.process: subprocess.Popen[bytes]
        self._clients: list[Any] = []
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "mmekit_endpoint.api.control", "--fd", str(self.socket.fileno())]
        command += ["--state", str(self.state), "--launcher", "process", *self._options]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                env=self._environment,
                pass_fds=[self.socket.fileno()],
                stdin=subprocess.DEVNULL,
                stderr=log,
            )

    def kill(self) -> None:
        """End arbiter and worker at once."""
        self.process.kill()
        self.process.wait()
        self._await_silence()

    def terminate(self) -> float:
        """Send SIGTERM; return after how many seconds it had ended."""
        begun = time.monotonic()
        self.process.terminate()
        code = self.process.wait(60)
        # a process that has not set its handlers yet ends by the signal
        assert code in (0, -signal.SIGTERM), self.log.read_text()
        return time.monotonic() - begun

    def _await_silence(self) -> None:
        """Wait until the worker, which the kernel kills with the arbiter, has gone too."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and workers_of(self.state):
            time.sleep(0.01)
        assert not workers_of(self.state)

    def close(self) -> None:
        for client in self._clients:
            client.close()
        self.kill()
        self.socket.close()

    def client(self, service: str, region: str = REGION, **settings: Any) -> Any:
        # botocore creates clients from a shared session; one each is safe in threads
        session = boto3.session.Session(region_name=region, **KEYS)
        config = Config(retries={"total_max_attempts": 3}, connect_timeout=5, read_timeout=20, **settings)
        client = session.client(service, endpoint_url=self.url, config=config)
        self._clients.append(client)
        return client

    def send(self, body: bytes, target: str = "SageMaker.CreateModel", **headers: str) -> Answer:
        """Send a request as no SDK would."""
        request = urllib.request.Request(
            self.url, body, {"X-Amz-Target": target, "Content-Type": "application/x-amz-json-1.1", **headers}
        )
        opener = urllib.request.build_opener(_NoErrors)
        with opener.open(request, timeout=20) as response:
            return Answer(response.status, dict(response.headers), response.read())


class _NoErrors(urllib.request.HTTPErrorProcessor):
    def http_response(self, request: Any, response: Any) -> Any:
        return response


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> tuple[str, str]:
        parsed = json.loads(self.body)
        return parsed["__type"], parsed["message"]


def workers_of(state: Path) -> list[int]:
    """Processes of the control plane of that state folder."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            command = (folder / "cmdline").read_bytes()
        except (OSError, ValueError):
            continue
        # the folder as a whole argument: state1 is not state10
        if b"mmekit_endpoint.api.control" in command and str(state).encode() in command.split(b"\0"):
            found.append(int(folder.name))
    return found


@dataclass
class Fleet:
    """Settles every change at once, or as `settle` says; stands where the reconciler does."""

    database: Database
    #: Returns False to leave a change for later.
    settle: Callable[[Database, EndpointRow], bool] = field(
        default=lambda database, row: settle(database, row)
    )

    @contextmanager
    def running(self) -> Iterator[Fleet]:
        stopping = threading.Event()

        def run() -> None:
            version = -1
            while not stopping.wait(0.005):
                newest = self.database.data_version()
                if newest != version or waiting:
                    version = newest
                    waiting[:] = [
                        row.name
                        for row in self.database.endpoints()
                        if row.change is not None and not self.settle(self.database, row)
                    ]

        waiting: list[str] = []
        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield self
        finally:
            stopping.set()
            thread.join()


def states(spec: EndpointSpec) -> tuple[VariantState, ...]:
    return tuple(
        VariantState(
            name=variant.name,
            current_weight=variant.weight,
            desired_weight=variant.weight,
            current_count=variant.instance_count,
            desired_count=variant.instance_count,
            image=variant.container.image,
            resolved_image=f"{variant.container.image}@sha256:{'0' * 64}",
        )
        for variant in spec.variants
    )


def settle(database: Database, row: EndpointRow) -> bool:
    if row.change == DELETE:
        return database.forget(row.name, row.generation)
    assert row.target is not None
    return database.settle(
        row.name,
        row.generation,
        status="InService",
        failure_reason=None,
        spec=row.target,
        variants=states(row.target),
    )


def fail(database: Database, row: EndpointRow) -> bool:
    """Settle a creation as failed, and an update as rolled back."""
    if row.change == DELETE:
        return settle(database, row)
    return database.settle(
        row.name,
        row.generation,
        status="InService" if row.spec else "Failed",
        failure_reason="The container did not answer /ping",
        spec=row.spec or row.target,
        variants=row.variants,
    )


def never(database: Database, row: EndpointRow) -> bool:
    return False


@contextmanager
def control_plane(
    state: Path, *options: str, environment: dict[str, str] | None = None
) -> Iterator[ControlPlane]:
    """A control plane of that state folder; the process has ended afterwards."""
    plane = ControlPlane(state, *options, environment=environment)
    try:
        yield plane
    finally:
        plane.close()


@contextmanager
def fleet(state: Path) -> Iterator[Fleet]:
    """The fleet beside a control plane."""
    database = Database(state / FILE_NAME)
    try:
        with Fleet(database).running() as running:
            yield running
    finally:
        database.close()


def multi_model(**members: Any) -> dict[str, Any]:
    """A container for CreateModel."""
    return {
        "Image": "mmekit:cpu",
        "Mode": "MultiModel",
        "ModelDataUrl": "s3://models/all/",
        **members,
    }


def variant(model: str, **members: Any) -> dict[str, Any]:
    """A production variant for CreateEndpointConfig."""
    return {
        "VariantName": "AllTraffic",
        "ModelName": model,
        "InstanceType": "ml.m5.large",
        "InitialInstanceCount": 1,
        **members,
    }


def without_metadata(answer: dict[str, Any]) -> dict[str, Any]:
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 200
    assert answer["ResponseMetadata"]["RequestId"]
    return {name: value for name, value in answer.items() if name != "ResponseMetadata"}


def arn(kind: str, name: str, region: str = REGION) -> str:
    return f"arn:aws:sagemaker:{region}:{ACCOUNT}:{kind}/{name}"


def refusal(call: Callable[..., Any], **members: Any) -> tuple[str, str]:
    """Code and message of the error that a call gets."""
    with pytest.raises(ClientError) as caught:
        call(**members)
    error = caught.value.response["Error"]
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400, error
    return error["Code"], error["Message"]


def refused(call: Callable[..., Any], **members: Any) -> str:
    """Message of the ValidationException that a call gets."""
    code, message = refusal(call, **members)
    assert code == "ValidationException"
    return message
