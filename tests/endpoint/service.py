"""A real `mmekit local` in a process of its own, clients for it, and archives for its models."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import signal
import socket
import subprocess
import sysconfig
import tarfile
import threading
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config

from tests.support.server import until

COMMAND = Path(sysconfig.get_path("scripts")) / "mmekit"
PROGRAMS = Path(__file__).parent / "programs"
ROLE = "arn:aws:iam::123456789012:role/any"
IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/any:latest"

#: Variables of the surrounding shell that would change what a service or a client does.
_FOREIGN = ("SAGEMAKER_", "MMEKIT_", "STUB_", "OMP_")


def archive(files: Mapping[str, bytes | str]) -> bytes:
    """Return a .tar.gz with these files."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for name, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return gzip.compress(raw.getvalue(), 1)


def stub_model(value: str = "", **told: str) -> bytes:
    """Return an archive for the stand-in container; ``told`` are the files that make it behave badly."""
    return archive({"value": value, **told})


class Service:
    """`mmekit local` on a free port of loopback; a context manager that leaves nothing behind."""

    def __init__(self, state: Path, *options: str, program: str | None = "multi_model.py", **environ: str):
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(_FOREIGN)}
        self.environ = {**inherited, **environ}
        self.state = state
        self.options = [*options]
        if program is not None:
            self.options += ["--launcher", "process", "--program", str(PROGRAMS / program)]
        self.url = ""
        self.lines: list[str] = []
        self.process: subprocess.Popen[str] | None = None
        self._clients: dict[Any, Any] = {}
        self._lock = threading.Lock()

    # --- life --------------------------------------------------------------------------------

    def __enter__(self) -> Service:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self, port: int = 0) -> Service:
        self.process = subprocess.Popen(
            [COMMAND, "local", "--port", str(port), "--state", str(self.state), *self.options],
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        until(lambda: self.url or self.process.poll() is not None, 30, "the service listening")
        if not self.url:
            self.close()
            raise AssertionError(f"the service ended: {self.log}")
        return self

    def _read(self) -> None:
        assert self.process
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.append(line)
            if found := re.search(r"listening on (http://\S+)", line):
                self.url = found[1]

    def stop(self, timeout_s: float = 30) -> int:
        """SIGTERM; return the exit code."""
        assert self.process
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout_s)
        self._reader.join(10)
        return code

    def listens(self) -> bool:
        url = urlsplit(self.url)
        try:
            socket.create_connection((url.hostname or "", url.port or 0), 5).close()
        except OSError:
            return False
        return True

    def kill(self) -> None:
        assert self.process
        self.process.kill()
        self.process.wait(30)

    def close(self) -> None:
        for client in self._clients.values():
            client.close()
        self._clients.clear()
        process = self.process
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(45)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)
                raise
        self._reader.join(10)
        if process.stdout:
            process.stdout.close()

    @property
    def log(self) -> str:
        return "".join(self.lines)

    # --- clients -----------------------------------------------------------------------------

    def client(self, name: str, **config: Any) -> Any:
        key = (name, *sorted(config.items()))
        with self._lock:
            if key not in self._clients:
                self._clients[key] = boto3.session.Session().client(
                    name,
                    region_name="us-east-1",
                    endpoint_url=self.url,
                    aws_access_key_id="any",
                    aws_secret_access_key="any",
                    config=Config(
                        max_pool_connections=64, **{"retries": {"total_max_attempts": 1}, **config}
                    ),
                )
            return self._clients[key]

    @property
    def sagemaker(self) -> Any:
        return self.client("sagemaker")

    @property
    def runtime(self) -> Any:
        return self.client("sagemaker-runtime")

    @property
    def s3(self) -> Any:
        return self.client("s3")

    # --- what tests do all the time -------------------------------------------------------------

    def upload(self, bucket: str = "models", prefix: str = "m/", **models: bytes) -> None:
        """Put archives under the prefix, NAME.tar.gz each; the bucket is made where it is not there."""
        if bucket not in [b["Name"] for b in self.s3.list_buckets()["Buckets"]]:
            self.s3.create_bucket(Bucket=bucket)
        for name, data in models.items():
            self.s3.put_object(Bucket=bucket, Key=f"{prefix}{name}.tar.gz", Body=data)

    def create(
        self,
        name: str,
        *,
        count: int = 1,
        environment: Mapping[str, str] | None = None,
        url: str = "s3://models/m/",
        wait: bool = True,
        mode: str = "MultiModel",
        cache: str = "Enabled",
        asynchronous: Mapping[str, Any] | None = None,
        **variant: Any,
    ) -> Any:
        """Create a model, a configuration and an endpoint of one name; return what Describe says."""
        container = {
            "Image": IMAGE,
            "Mode": mode,
            "ModelDataUrl": url,
            "Environment": dict(environment or {}),
        }
        if mode == "MultiModel":
            container["MultiModelConfig"] = {"ModelCacheSetting": cache}
        self.sagemaker.create_model(ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer=container)
        self.configure(name, [(name, "AllTraffic", count, 1.0, variant)], asynchronous)
        self.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
        if wait:
            until(lambda: self.status(name) not in ("Creating", "Updating"), 60, "the end of Creating")
        return self.sagemaker.describe_endpoint(EndpointName=name)

    def configure(
        self,
        name: str,
        variants: list[tuple[str, str, int, float, Mapping[str, Any]]],
        asynchronous: Mapping[str, Any] | None = None,
    ) -> None:
        """Create an endpoint configuration of (model, variant, count, weight, more)."""
        more = {"AsyncInferenceConfig": asynchronous} if asynchronous else {}
        self.sagemaker.create_endpoint_config(
            EndpointConfigName=name,
            ProductionVariants=[
                {
                    "ModelName": model,
                    "VariantName": variant,
                    "InstanceType": "ml.m5.large",
                    "InitialInstanceCount": count,
                    "InitialVariantWeight": weight,
                    **rest,
                }
                for model, variant, count, weight, rest in variants
            ],
            **more,
        )

    def status(self, name: str) -> str:
        return str(self.sagemaker.describe_endpoint(EndpointName=name)["EndpointStatus"])

    def invoke(self, endpoint: str, target: str | None, body: bytes = b"1", **more: Any) -> Any:
        """Invoke; return the JSON that the stand-in echoes."""
        named = {} if target is None else {"TargetModel": target}
        answer = self.runtime.invoke_endpoint(EndpointName=endpoint, Body=body, **named, **more)
        return json.loads(answer["Body"].read())

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self.url}/_mmekit/{path}", timeout=30) as response:
            return json.load(response)

    def instances(self, endpoint: str, variant: str = "AllTraffic") -> list[Any]:
        """What the service shows of the instances in service."""
        (found,) = [e for e in self.get("status")["endpoints"] if e["name"] == endpoint]
        (shown,) = [v for v in found["variants"] if v["name"] == variant]
        return [instance for instance in shown["instances"] if instance["state"] == "in service"]

    def loaded(self, endpoint: str, variant: str = "AllTraffic") -> list[list[str]]:
        """Target models in memory, by instance."""
        return [
            sorted(model["target_model"] for model in instance["models"] if model["state"] == "loaded")
            for instance in self.instances(endpoint, variant)
        ]

    def events(self, *kinds: str) -> list[Any]:
        found = self.get("events")["events"]
        return [event for event in found if not kinds or event["kind"] in kinds]
