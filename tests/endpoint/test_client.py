"""The client's helpers wait for cold models, and for nothing else; asked of real botocore clients."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ReadTimeoutError

from mmekit_endpoint import client as mmekit_client
from mmekit_endpoint.client import config, invoke

NOT_READY = (429, "ModelNotReadyException")
STATUSES = {"ServiceUnavailable": 503, "InternalFailure": 500, "ModelError": 424, "ValidationError": 400}


class Endpoint(HTTPServer):
    """Answers with the errors it was given, one a request, then with the request's body."""

    errors: list[tuple[int, str]]
    bodies: list[bytes]


class Handler(BaseHTTPRequestHandler):
    server: Endpoint

    def do_POST(self) -> None:
        self.body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.bodies.append(self.body)
        status, code = self.server.errors.pop(0) if self.server.errors else (200, "")
        answer = json.dumps({"Message": "try again"}).encode() if code else self.body
        self.send_response(status)
        if code:
            self.send_header("x-amzn-ErrorType", code)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_request(self, *args: Any) -> None:
        pass


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with Endpoint(("127.0.0.1", 0), Handler) as endpoint:
        endpoint.errors, endpoint.bodies = [], []
        thread = threading.Thread(target=endpoint.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield endpoint
        endpoint.shutdown()
        thread.join()


Connect = Callable[[Config], Any]


@pytest.fixture
def connect(endpoint: Endpoint) -> Iterator[Connect]:
    clients = []

    def connect(settings: Config) -> Any:
        clients.append(
            boto3.client(
                "sagemaker-runtime",
                endpoint_url=f"http://127.0.0.1:{endpoint.server_port}",
                region_name="eu-west-1",
                aws_access_key_id="key",
                aws_secret_access_key="secret",
                config=settings,
            )
        )
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


@pytest.fixture
def no_waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Waits as they were asked for; the clock passes them at once."""
    waits: list[float] = []
    real, real_sleep = time.monotonic, time.sleep
    here = threading.current_thread()

    def sleep(seconds: float) -> None:
        if threading.current_thread() is here:
            waits.append(seconds)
        else:  # another test's thread, which may look around yet
            real_sleep(seconds)

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(time, "monotonic", lambda: real() + sum(waits))
    return waits


def call(client: Any) -> bytes:
    answer: bytes = client.invoke_endpoint(EndpointName="e", TargetModel="m", Body=b"x")["Body"].read()
    return answer


# --- config


def test_a_client_of_config_waits_for_a_cold_model(
    endpoint: Endpoint, connect: Connect, no_waits: list[float]
) -> None:
    endpoint.errors = [NOT_READY] * 5
    assert call(connect(config())) == b"x"
    assert len(endpoint.bodies) == 6


@pytest.mark.parametrize("mode", ["standard", "adaptive"])
def test_other_modes_do_not(endpoint: Endpoint, connect: Connect, no_waits: list[float], mode: str) -> None:
    """When this fails, botocore has changed: "legacy" in ``config`` is there for this alone."""
    endpoint.errors = [NOT_READY]
    with pytest.raises(ClientError, match="ModelNotReady"):
        call(connect(config(retries={"mode": mode, "total_max_attempts": 6})))


def test_a_client_of_config_does_not_repeat_what_the_model_refused(
    endpoint: Endpoint, connect: Connect
) -> None:
    endpoint.errors = [(424, "ModelError")]
    with pytest.raises(ClientError, match="ModelError"):
        call(connect(config()))


def test_config_can_be_overridden() -> None:
    settings = config(read_timeout=3, user_agent_extra="mine")
    assert (settings.read_timeout, settings.user_agent_extra, settings.max_pool_connections) == (
        3,
        "mine",
        64,
    )
    assert config().read_timeout == 70


# --- invoke

ONCE = Config(retries={"total_max_attempts": 1}, read_timeout=30)


@pytest.mark.parametrize(
    ("status", "code"),
    [NOT_READY, (503, "ServiceUnavailable"), (400, "ThrottlingException")],
)
def test_invoke_tries_again(
    endpoint: Endpoint, connect: Connect, no_waits: list[float], status: int, code: str
) -> None:
    endpoint.errors = [(status, code)] * 3

    answer = invoke(connect(ONCE), EndpointName="e", TargetModel="m", Body=b"x")

    assert answer["Body"].read() == b"x"
    assert endpoint.bodies == [b"x"] * 4
    assert len(no_waits) == 3


@pytest.mark.parametrize("code", ["ModelError", "ValidationError", "InternalFailure"])
def test_invoke_raises_all_else_at_once(
    endpoint: Endpoint, connect: Connect, no_waits: list[float], code: str
) -> None:
    endpoint.errors = [(STATUSES[code], code)]
    with pytest.raises(ClientError, match=code):
        invoke(connect(ONCE), EndpointName="e", Body=b"x")
    assert (len(endpoint.bodies), no_waits) == (1, [])


def test_invoke_gives_up_in_time_and_raises_the_last_error(
    endpoint: Endpoint, connect: Connect, no_waits: list[float]
) -> None:
    endpoint.errors = [NOT_READY] * 1000
    client = connect(ONCE)
    begun = time.monotonic()

    with pytest.raises(ClientError, match="ModelNotReady"):
        invoke(client, EndpointName="e", Body=b"x")

    assert sum(no_waits) <= 360
    assert time.monotonic() - begun > 360 - 8, "the calls took time, too: it is not waits alone"
    assert all(0.25 <= wait <= 8 for wait in no_waits)
    assert no_waits[0] <= 0.5
    assert len(set(no_waits)) > 10, "they are random"


def test_invoke_without_time_tries_once(endpoint: Endpoint, connect: Connect) -> None:
    endpoint.errors = [NOT_READY]
    with pytest.raises(ClientError, match="ModelNotReady"):
        invoke(connect(ONCE), deadline_s=0, EndpointName="e", Body=b"x")
    assert len(endpoint.bodies) == 1


def test_invoke_sends_streams_from_where_they_stood(
    endpoint: Endpoint, connect: Connect, no_waits: list[float]
) -> None:
    endpoint.errors = [NOT_READY, NOT_READY]
    stream = io.BytesIO(b"head and body")
    stream.seek(9)

    invoke(connect(ONCE), EndpointName="e", Body=stream)

    assert endpoint.bodies == [b"body"] * 3


class Unseekable:
    """Stands for a client that was given a stream which can be read once."""

    def invoke_endpoint(self, **kwargs: Any) -> Any:
        kwargs["Body"].read()
        raise ClientError({"Error": {"Code": "ModelNotReadyException", "Message": ""}}, "InvokeEndpoint")


def test_invoke_does_not_send_the_rest_of_a_stream_it_cannot_rewind(no_waits: list[float]) -> None:
    class Pipe:
        def read(self) -> bytes:
            return b""

    with pytest.raises(ClientError):
        invoke(Unseekable(), EndpointName="e", Body=Pipe())
    assert no_waits == []


def test_invoke_lets_other_exceptions_pass(connect: Connect, endpoint: Endpoint) -> None:
    def times_out(**kwargs: Any) -> None:
        raise ReadTimeoutError(endpoint_url="http://e")

    client = connect(ONCE)
    client.invoke_endpoint = times_out
    with pytest.raises(ReadTimeoutError):
        invoke(client, EndpointName="e", Body=b"")


def test_the_module_needs_botocore_alone() -> None:
    """Callers import it where the endpoint itself is not installed."""
    program = (
        "import sys, mmekit_endpoint.client; "
        "print(*sorted(name for name in sys.modules if name.split('.')[0] in "
        "('mmekit', 'mmekit_endpoint', 'boto3', 'msgspec', 'flask', 'moto', 'retrying')))"
    )
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == ["mmekit_endpoint", mmekit_client.__name__]
