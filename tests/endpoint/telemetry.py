"""Views of fleets that do not run, and a real server of CloudWatch and its logs in a process of its own."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
from botocore.config import Config

from mmekit_endpoint.fleet.views import EndpointView, InstanceView, ModelView, VariantView

MIB = 1024 * 1024

#: The control plane's WSGI server runs moto in threads, too.
_PROGRAM = """
import sys
from mmekit_endpoint.telemetry.moto_extension import install
from moto.server import main
install()
main(["-H", "127.0.0.1", "-p", sys.argv[1]])
"""


def model_view(name: str, state: str = "loaded", *, in_flight: int = 0, waiting: int = 0) -> ModelView:
    return ModelView(name, name, state, MIB, in_flight, waiting, None)


def instance_view(instance_id: str = "i-1", state: str = "in service", **members: Any) -> InstanceView:
    known = {
        "address": "127.0.0.1:1",
        "memory_bytes": 25 * MIB,
        "memory_limit_bytes": 100 * MIB,
        "disk_bytes": 10 * MIB,
        "volume_bytes": 100 * MIB,
        "cpu_percent": 150.0,
        "in_flight": 0,
        "models": [],
        "log": "",
        "started": 0.0,
    }
    return InstanceView(instance_id=instance_id, state=state, **{**known, **members})


def endpoint_view(name: str, *instances: InstanceView, **members: Any) -> EndpointView:
    variant = VariantView("AllTraffic", "model", "ml.m5.large", 1.0, len(instances), True, list(instances))
    known = {
        "arn": f"arn:aws:sagemaker:eu-west-1:123456789012:endpoint/{name}",
        "region": "eu-west-1",
        "status": "InService",
        "failure_reason": None,
        "config_name": name,
        "metrics_period_s": None,
        "variants": [variant],
    }
    return EndpointView(name=name, **{**known, **members})


class AwsServer:
    """The server, which can be ended and started again at the same address."""

    def __init__(self) -> None:
        # Bound as long as this lives, so that nobody else is given the port. The server binds it too, which
        # SO_REUSEADDR allows while no more than one of both listens.
        self._held = socket.socket()
        self._held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._held.bind(("127.0.0.1", 0))
        self.port = self._held.getsockname()[1]
        self._clients: dict[tuple[str, str], Any] = {}
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, str(self.port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.05)
        raise AssertionError("moto did not start")

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def close(self) -> None:
        self.stop()
        self._held.close()
        for client in self._clients.values():
            client.close()

    def client(self, region: str, service: str) -> Any:
        with self._lock:
            if (region, service) not in self._clients:
                session = boto3.session.Session(region_name=region)
                self._clients[region, service] = session.client(
                    service,
                    endpoint_url=f"http://127.0.0.1:{self.port}",
                    aws_access_key_id="any",
                    aws_secret_access_key="any",
                    config=Config(retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=20),
                )
            return self._clients[region, service]


@contextmanager
def aws_server() -> Iterator[AwsServer]:
    server = AwsServer()
    try:
        server.start()
        yield server
    finally:
        server.close()
