"""Containers as the tests use them: docker's command line and HTTP over a published loopback port."""

from __future__ import annotations

import http.client
import json
import os
import re
import shlex
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

MIB = 1024 * 1024


def docker(*arguments: str, timeout_s: float = 120, check: bool = True, text: str | None = None) -> str:
    """Run a docker command; return what it printed, both streams together."""
    done = subprocess.run(
        ["docker", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout_s,
        input=text,
    )
    if check and done.returncode:
        raise AssertionError(
            f"docker {' '.join(arguments)} exited with {done.returncode}:\n{done.stdout[-4000:]}"
        )
    return done.stdout.strip()


def containers(which: str) -> set[str]:
    """Return the ids of containers, ended ones too, by a filter of docker's."""
    return set(docker("ps", "--all", "--quiet", "--filter", which).split())


def build(folder: Path, *arguments: str) -> None:
    """Build an image with ``docker build``, or with what MMEKIT_DOCKER_BUILD names in its place."""
    command = shlex.split(os.environ.get("MMEKIT_DOCKER_BUILD", "docker build"))
    done = subprocess.run(
        [*command, *arguments, "."],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, f"{' '.join(command)} {' '.join(arguments)}:\n{done.stdout[-6000:]}"


def poll(question: Callable[[], T | None], timeout_s: float, what: str) -> T:
    """Ask until the answer is not None or False; fail with ``what`` when the time is over."""
    deadline = time.monotonic() + timeout_s
    while True:
        answer = question()
        if answer is not None and answer is not False:
            return answer
        assert time.monotonic() < deadline, f"waited {timeout_s:g} s for {what}"
        time.sleep(0.05)


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def numbers(self) -> list[float]:
        """All numbers in a CSV or JSON body, in order."""
        pattern = rb"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?"
        return [float(number) for number in re.findall(pattern, self.body)]


def _published(container: str, port: int) -> tuple[str, int]:
    host, _, published = docker("port", container, str(port)).splitlines()[0].rpartition(":")
    return host, int(published)


class Container:
    """One running container; ``address`` is where its port 8080, or ``port``, is published."""

    def __init__(
        self, image: str, *arguments: str, command: tuple[str, ...] = ("serve",), port: int = 8080
    ) -> None:
        self.id = docker("run", "--detach", "--publish", f"127.0.0.1::{port}", *arguments, image, *command)
        self.id = self.id.splitlines()[-1]
        self.address = _published(self.id, port)

    @classmethod
    def running(cls, name: str, port: int = 8080) -> Container:
        """Return the container of that name, which something else has started."""
        container = cls.__new__(cls)
        container.id = name
        container.address = _published(name, port)
        return container

    # --- HTTP

    def request(
        self,
        method: str,
        path: str,
        body: bytes | str | None = None,
        headers: dict[str, str] | None = None,
        timeout_s: float = 60,
    ) -> Answer:
        connection = http.client.HTTPConnection(*self.address, timeout=timeout_s)
        try:
            connection.request(method, path, body, headers or {})
            reply = connection.getresponse()
            headers = {name.lower(): value for name, value in reply.getheaders()}
            return Answer(reply.status, headers, reply.read())
        finally:
            connection.close()

    def load(self, name: str, url: str) -> Answer:
        text = json.dumps({"model_name": name, "url": url})
        return self.request("POST", "/models", text, {"Content-Type": "application/json"}, timeout_s=120)

    def unload(self, name: str) -> Answer:
        return self.request("DELETE", f"/models/{name}")

    def models(self) -> list[str]:
        return [model["modelName"] for model in self.request("GET", "/models").json["models"]]

    def invoke(
        self, name: str, body: bytes | str, content_type: str = "text/csv", accept: str = "application/json"
    ) -> Answer:
        return self.request(
            "POST", f"/models/{name}/invoke", body, {"Content-Type": content_type, "Accept": accept}
        )

    def wait_ready(self, timeout_s: float = 90) -> None:
        """Wait for 200 from /ping; a container that has ended fails at once, with its log."""

        def ready() -> bool:
            assert self.state("Running") is True, "the container ended"
            try:
                return self.request("GET", "/ping", timeout_s=2).status == 200
            except OSError:
                return False

        try:
            poll(ready, timeout_s, "200 from /ping")
        except AssertionError as error:
            raise AssertionError(f"{error}; its log:\n{self.logs()}") from None

    # --- the engine's view

    def state(self, field: str) -> Any:
        return json.loads(docker("inspect", "--format", "{{json .State." + field + "}}", self.id))

    def logs(self) -> str:
        return docker("logs", "--tail", "60", self.id)

    def python(self, source: str, *arguments: str) -> str:
        """Run a program in the container as the container's user."""
        return docker("exec", *arguments, self.id, "python", "-c", source)

    def wait_exit(self, timeout_s: float) -> int:
        poll(lambda: self.state("Running") is False, timeout_s, "the container to end")
        return int(self.state("ExitCode"))

    def remove(self) -> None:
        docker("rm", "--force", "--volumes", self.id, check=False)

    # --- memory, read from the host where its control groups can be seen

    def _cgroup(self, name: str) -> str:
        pid = str(self.state("Pid"))
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            for top in (Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")):
                file = top / path.strip("/") / name
                if controllers in ("memory", "") and file.exists():
                    return file.read_text()
        return ""

    def anonymous_bytes(self) -> int:
        """What processes hold, page cache left out: ``total_rss`` (cgroup v1) or ``anon`` (v2)."""
        fields = dict(line.split() for line in self._cgroup("memory.stat").splitlines())
        return int(fields.get("total_rss") or fields["anon"])

    def kernel_kills(self) -> int:
        """How many processes the kernel killed for memory in this container."""
        text = self._cgroup("memory.oom_control") or self._cgroup("memory.events")
        return int(dict(line.split() for line in text.splitlines())["oom_kill"])
