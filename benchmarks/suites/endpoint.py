"""`mmekit local`: what the way through an endpoint costs a warm model, alone and beside a waiting crowd."""

from __future__ import annotations

import http.client
import json
import socket
import tarfile
import time
from collections import Counter
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from benchmarks.bench import Bench, rotated
from benchmarks.environments import Installations
from benchmarks.load import LoadFailed, Probe, ProbeResult, Target
from benchmarks.models import Model
from benchmarks.processes import command_line
from benchmarks.servers import Native, Server, ServerFailed, invoke_path
from mmekit.process import allow_descriptors

_CONNECTIONS = 16
_MODELS = ("xgboost", "forest")

#: Callers that wait for one cold model.
_CROWD = 2000
#: How long warm calls are measured, with the crowd and without, in seconds.
_SPAN_S = 2.0
#: How long the cold model loads, in seconds: the crowd must be complete before, and be measured.
_LOAD_S = 8
#: For the crowd's answers, in seconds.
_ANSWER_S = 60

_READY_S = 60

_COLD_CODE = f"""\
import time


def model_fn(model_dir):
    time.sleep({_LOAD_S})
    return "cold"


def predict_fn(data, model):
    return [1.0]
"""


class LocalEndpoint(Server):
    """`mmekit local` over a folder of archives; its one instance is a process."""

    name = "endpoint"

    def __init__(
        self, installations: Installations, folder: Path, environ: dict[str, str] | None = None
    ) -> None:
        super().__init__(installations, folder, environ)
        self.archives = folder / "archives"
        self.archives.mkdir(parents=True)

    def command(self) -> list[str]:
        options = ["--port", str(self.port), "--state", str(self._folder / "state")]
        options += ["--launcher", "process", "--models", str(self.archives)]
        return [str(self._installations.native / "mmekit"), "local", *options]

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _READY_S
        while True:
            self.processes.check()
            try:
                if any(found["status"] == "InService" for found in self._endpoints()):
                    return
            except (OSError, http.client.HTTPException):
                pass
            if time.monotonic() > deadline:
                raise ServerFailed(f"{self.name} was not in service within {_READY_S} s")
            time.sleep(0.05)

    def _endpoints(self) -> Any:
        return json.loads(self.request("GET", "/_mmekit/status", timeout_s=5)[1])["endpoints"]

    def instance(self) -> Any:
        """Return what the service shows of its instance."""
        return self._endpoints()[0]["variants"][0]["instances"][0]

    def load(self, model: Model) -> float:
        """Put an archive of the model into the folder: the first call loads it. Return milliseconds."""
        started = time.monotonic()
        with tarfile.open(self.archives / f"{model.name}.tar.gz", "w:gz", compresslevel=1) as tar:
            tar.add(model.folder, arcname=".")
        return (time.monotonic() - started) * 1000

    def target(self, model: Model) -> Target:
        """Return the request that asks for a prediction, unsigned."""
        headers = {**model.headers, "X-Amzn-SageMaker-Target-Model": f"{model.name}.tar.gz"}
        return Target("POST", "/endpoints/local/invocations", headers, model.body)


class Instance(Server):
    """The container of a local endpoint, asked without the endpoint."""

    name = "container"

    def __init__(self, endpoint: LocalEndpoint) -> None:
        self._endpoint = endpoint
        self.processes = endpoint.processes
        self.port = int(endpoint.instance()["address"].rpartition(":")[2])

    def target(self, model: Model) -> Target:
        """Return the request that asks for a prediction by the name that the container has for the model."""
        (name,) = (
            found["model_name"]
            for found in self._endpoint.instance()["models"]
            if found["target_model"] == f"{model.name}.tar.gz"
        )
        return Target("POST", invoke_path(name), model.headers, model.body)

    def front_pids(self) -> set[int]:
        return {pid for pid in self.processes.pids() if command_line(pid).split()[-1:] == ["serve"]}


def endpoint(bench: Bench) -> None:
    """Warm models through the endpoint and at its container in turn, then beside a crowd that waits."""
    if not bench.wants(Native):
        return
    allow_descriptors()
    with ExitStack() as stack:
        server = bench.start(stack, LocalEndpoint)
        container = Instance(server)
        for name in (name for name in _MODELS if name in bench.plan.models):
            model = bench.store.get(name)
            server.load(model)
            _check(server, model)
            bench.say(f"{name}, {_CONNECTIONS} connections")
            for number in range(bench.plan.rounds):
                for each in rotated([server, container], number):
                    case = f"{name} c{_CONNECTIONS}"
                    bench.measure("endpoint", case, each, [each.target(model)], _CONNECTIONS, number)
        for number in range(bench.plan.rounds):
            bench.say(f"{_CROWD} callers of a cold model, {number + 1} of {bench.plan.rounds}")
            try:
                _crowd(bench, server, bench.store.get("xgboost"), _cold_model(server, number), number)
            except (LoadFailed, OSError) as error:
                bench.note_invalid("crowd", f"{_CROWD} callers", server.name, error)


def _check(server: LocalEndpoint, model: Model) -> None:
    """Compare an answer with the framework's own; raise ServerFailed where it differs."""
    target = server.target(model)
    status, answer = server.request(target.method, target.path, target.body, target.headers)
    if status != 200 or abs(float(answer.strip(b"[]\n")) - model.expected) > 1e-4 * max(1, model.expected):
        raise ServerFailed(f"{model.name} answered {status} {answer[:300]!r}, expected {model.expected}")


def _cold_model(server: LocalEndpoint, number: int) -> Model:
    """Make a model that loads slowly, under a name that nobody has called yet."""
    folder = server.archives.with_name("cold")
    (folder / "code").mkdir(parents=True, exist_ok=True)
    (folder / "code" / "inference.py").write_text(_COLD_CODE)
    cold = Model(f"cold-{number}", folder, b"1", 1.0)
    server.load(cold)
    return cold


def _crowd(bench: Bench, server: LocalEndpoint, warm: Model, cold: Model, number: int) -> None:
    server.load(warm)
    _check(server, warm)
    with Probe(server.url, [server.target(warm)], 0.002) as probe, ExitStack() as stack:
        time.sleep(_SPAN_S + 0.2)
        quiet = (time.monotonic() - _SPAN_S, time.monotonic())
        callers = [stack.enter_context(closing(_caller(server, cold))) for _ in range(_CROWD)]
        _wait_for_crowd(server)
        begun = time.monotonic()
        time.sleep(_SPAN_S)
        crowded = (begun, time.monotonic())
        seen = probe.stop()
        statuses = Counter(_status(caller) for caller in callers)
    if statuses != {200: _CROWD}:
        raise LoadFailed(f"the crowd was answered with {dict(statuses)}, status by number")
    for when, span in (("alone", quiet), ("beside the crowd", crowded)):
        _record(bench, when, seen.during([span]), number)


def _caller(server: LocalEndpoint, model: Model) -> socket.socket:
    """Call a model; the answer comes when it is loaded."""
    target = server.target(model)
    lines = [f"{target.method} {target.path} HTTP/1.1", "Host: benchmark", "Content-Length: 1"]
    lines += [f"{name}: {value}" for name, value in target.headers.items()]
    caller = socket.create_connection(("127.0.0.1", server.port), timeout=_ANSWER_S)
    caller.sendall("\r\n".join([*lines, "", "1"]).encode())
    return caller


def _wait_for_crowd(server: LocalEndpoint) -> None:
    while (waiting := sum(model["waiting"] for model in server.instance()["models"])) < _CROWD:
        if not waiting:
            raise LoadFailed("the cold model was loaded before all its callers were there")
        time.sleep(0.05)


def _status(caller: socket.socket) -> int:
    head = caller.recv(65536).split(b" ", 2)
    return int(head[1]) if len(head) > 1 else 0


def _record(bench: Bench, when: str, seen: ProbeResult, number: int) -> None:
    for share, metric in ((0.5, "p50"), (0.99, "p99"), (1.0, "max")):
        bench.record("crowd", when, LocalEndpoint.name, metric, "ms", number, seen.percentile_ms(share))
    bench.record("crowd", when, LocalEndpoint.name, "errors", "", number, len(seen.errors))
