"""What a stock boto3 client makes of the runtime's errors, and what is refused of its requests."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from mmekit.http.message import Response
from mmekit_endpoint.api.wire import check, runtime_error
from mmekit_endpoint.errors import (
    EndpointError,
    InternalFailure,
    ModelError,
    ModelNotReady,
    ServiceUnavailable,
    ValidationError,
)

REQUEST_ID = "5f0c6a9a-0000-4000-8000-00000000002a"
ARN = "arn:aws:logs:eu-west-1:123456789012:log-group:/aws/sagemaker/Endpoints/e"


class Answering(HTTPServer):
    """Gives every request the same answer, as the endpoint's own server would write it."""

    answer: Response


class Handler(BaseHTTPRequestHandler):
    server: Answering

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        answer = self.server.answer
        self.send_response(answer.status)
        for name, value in [*answer.headers, (b"Content-Length", b"%d" % len(answer.body))]:
            self.send_header(name.decode(), value.decode())
        self.end_headers()
        self.wfile.write(answer.body)

    def log_request(self, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[Answering]:
    with Answering(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def client(server: Answering) -> Iterator[Any]:
    client = boto3.client(
        "sagemaker-runtime",
        endpoint_url=f"http://127.0.0.1:{server.server_port}",
        region_name="eu-west-1",
        aws_access_key_id="key",
        aws_secret_access_key="secret",
        config=Config(retries={"total_max_attempts": 1}),
    )
    yield client
    client.close()


Raised = Callable[[EndpointError], ClientError]


@pytest.fixture
def raised(server: Answering, client: Any) -> Raised:
    """Return what the client raises for an error."""

    def raised(error: EndpointError) -> ClientError:
        server.answer = runtime_error(error, REQUEST_ID)
        with pytest.raises(ClientError) as caught:
            client.invoke_endpoint(EndpointName="e", TargetModel="m.tar.gz", Body=b"")
        return caught.value

    return raised


@pytest.mark.parametrize(
    ("error", "exception", "status"),
    [
        (ValidationError("Endpoint e of account 123456789012 not found."), "ValidationError", 400),
        (ModelNotReady("m.tar.gz is still loading."), "ModelNotReadyException", 429),
        (InternalFailure("A fault “here”."), "InternalFailure", 500),
        (ServiceUnavailable("No instance."), "ServiceUnavailable", 503),
    ],
    ids=lambda value: value.code if isinstance(value, EndpointError) else None,
)
def test_errors_arrive_as_the_exceptions_of_their_codes(
    raised: Raised, client: Any, error: EndpointError, exception: str, status: int
) -> None:
    caught = raised(error)

    assert isinstance(caught, getattr(client.exceptions, exception))
    assert caught.response["Error"] == {"Code": exception, "Message": error.message}
    assert caught.response["ResponseMetadata"]["HTTPStatusCode"] == status
    assert caught.response["ResponseMetadata"]["RequestId"] == REQUEST_ID


def test_a_model_error_carries_what_the_container_said(raised: Raised, client: Any) -> None:
    caught = raised(ModelError("Received server error (500)", 500, '{"a": "\udcff"}', ARN))

    assert isinstance(caught, client.exceptions.ModelError)
    assert caught.response["Error"] == {"Code": "ModelError", "Message": "Received server error (500)"}
    assert caught.response["OriginalStatusCode"] == 500
    assert caught.response["OriginalMessage"] == '{"a": "\udcff"}'
    assert caught.response["LogStreamArn"] == ARN
    assert caught.response["ResponseMetadata"]["HTTPStatusCode"] == 424


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (0, b"INTERNAL_FAILURE_FROM_MODEL"),
        (400, b"CLIENT_ERROR_FROM_MODEL"),
        (499, b"CLIENT_ERROR_FROM_MODEL"),
        (500, b"INTERNAL_FAILURE_FROM_MODEL"),
    ],
)
def test_a_model_error_says_whose_fault_it_is(status: int, code: bytes) -> None:
    assert b'"ErrorCode": "%b"' % code in runtime_error(ModelError("", status, "", ARN), REQUEST_ID).body


# --- requests

USUAL = {
    b"content-type": b"application/json",
    b"accept": b"*/*",
    b"x-amzn-sagemaker-target-model": b"tenant_a/model v2 (new).tar.gz",
    b"x-amzn-sagemaker-target-variant": b"AllTraffic",
    b"x-amzn-sagemaker-custom-attributes": b"",
    b"x-amzn-sagemaker-session-id": b"NEW_SESSION",
    b"authorization": b"\xff" * 5000,
}


def test_usual_requests_pass() -> None:
    check("InvokeEndpoint", "my-endpoint-1", USUAL)
    check("InvokeEndpointWithResponseStream", "e" * 63, USUAL | {b"x-amzn-sagemaker-session-id": b"id-1"})
    check("InvokeEndpointAsync", "e", {b"x-amzn-sagemaker-inputlocation": b"s3://b/k"})


@pytest.mark.parametrize(
    ("header", "value", "path", "constraint"),
    [
        ("target-model", b"", "targetModel", r"pattern: \A\S[\p{Print}]*\z"),
        ("target-model", b"a" * 1025, "targetModel", "length less than or equal to 1024"),
        ("target-model", b" a", "targetModel", r"pattern: \A\S[\p{Print}]*\z"),
        ("target-model", "modèle".encode(), "targetModel", r"pattern: \A\S[\p{Print}]*\z"),
        ("target-model", b"a\tb", "targetModel", r"pattern: \A\S[\p{Print}]*\z"),
        ("target-variant", b"-v", "targetVariant", "pattern: ^[a-zA-Z0-9](-*[a-zA-Z0-9])*"),
        ("target-container-hostname", b"h" * 64, "targetContainerHostname", "less than or equal to 63"),
        ("inference-id", b"i" * 65, "inferenceId", "length less than or equal to 64"),
        ("session-id", b"a b", "sessionId", "pattern: ^(NEW_SESSION)$|^"),
        ("enable-explanations", b"", "enableExplanations", "length greater than or equal to 1"),
        ("inference-component", b"c-", "inferenceComponentName", "pattern: "),
    ],
)
def test_values_against_the_model_are_refused(header: str, value: bytes, path: str, constraint: str) -> None:
    with pytest.raises(ValidationError) as caught:
        check("InvokeEndpoint", "e", {**USUAL, b"x-amzn-sagemaker-" + header.encode(): value})

    assert "validation error" in caught.value.message
    assert f"at '{path}' failed to satisfy constraint: Member must " in caught.value.message
    assert constraint in caught.value.message
    assert len(caught.value.message) < 500


def test_all_errors_are_named_in_one_message() -> None:
    headers = {b"accept": b"\xff", b"x-amzn-sagemaker-inference-id": b""}
    with pytest.raises(ValidationError, match=r"^4 validation errors detected: .*; .*; .*; ") as caught:
        check("InvokeEndpoint", "not/a/name", headers)
    assert r"Value '\xff' at 'accept'" in caught.value.message


def test_custom_attributes_are_not_repeated() -> None:
    with pytest.raises(ValidationError, match="detected: Value at 'customAttributes' failed"):
        check("InvokeEndpoint", "e", {b"x-amzn-sagemaker-custom-attributes": "geheim ä".encode()})


@pytest.mark.parametrize(
    ("value", "constraint"),
    [
        (b"59", "value greater than or equal to 60"),
        (b"21601", "value less than or equal to 21600"),
        (b"-1", "value greater than or equal to 60"),
        (b"soon", "be an integer"),
        (b"9" * 5000, "be an integer"),
    ],
)
def test_numbers_in_headers_have_their_range(value: bytes, constraint: str) -> None:
    check("InvokeEndpointAsync", "e", {b"x-amzn-sagemaker-requestttlseconds": b"60"})
    with pytest.raises(ValidationError, match=constraint):
        check("InvokeEndpointAsync", "e", {b"x-amzn-sagemaker-requestttlseconds": value})


HEADERS = st.sampled_from([*USUAL, b"x-amzn-sagemaker-inference-id", b"x-amzn-sagemaker-enable-explanations"])


@given(st.text(max_size=70), st.dictionaries(HEADERS, st.binary(max_size=70)))
def test_what_passes_is_ascii(name: str, headers: dict[bytes, bytes]) -> None:
    with contextlib.suppress(ValidationError):
        check("InvokeEndpoint", name, headers)
        assert name.isascii()
        # No header of this operation's model, and one that is refused whatever it says.
        free = (b"authorization", b"x-amzn-sagemaker-enable-explanations")
        assert all(value.isascii() for header, value in headers.items() if header not in free)
