"""Endpoints without target models: InvokeEndpoint, streams, asynchronous calls."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError, EventStreamError

from tests.endpoint.service import Service, archive
from tests.support.server import until

PIECES = json.dumps({"pieces": ["one", "two", "three"], "pause_s": 0.05}).encode()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(tmp_path_factory.mktemp("state"), program="streams.py") as service:
        service.s3.create_bucket(Bucket="models")
        service.s3.put_object(Bucket="models", Key="single.tar.gz", Body=archive({"value": "single"}))
        service.create("single", url="s3://models/single.tar.gz", mode="SingleModel")
        service.create(
            "async",
            url="s3://models/single.tar.gz",
            mode="SingleModel",
            asynchronous={
                "OutputConfig": {"S3OutputPath": "s3://models/out", "S3FailurePath": "s3://models/failed"}
            },
        )
        yield service


def test_an_invocation_goes_to_the_one_model(service: Service) -> None:
    answer = service.runtime.invoke_endpoint(EndpointName="single", Body=PIECES, ContentType="text/csv")
    assert answer["InvokedProductionVariant"] == "AllTraffic"
    assert answer["Body"].read() == b"onetwothree"


def test_a_target_model_is_refused(service: Service) -> None:
    with pytest.raises(ClientError, match="TARGET_MODEL_HEADER_NOT_SUPPORTED"):
        service.invoke("single", "a.tar.gz")


def test_a_stream_arrives_in_parts(service: Service) -> None:
    answer = service.runtime.invoke_endpoint_with_response_stream(
        EndpointName="single", Body=PIECES, Accept="text/plain"
    )
    parts = [event["PayloadPart"]["Bytes"] for event in answer["Body"]]
    assert parts == [b"one", b"two", b"three"]
    assert answer["InvokedProductionVariant"] == "AllTraffic"
    assert answer["ContentType"] == "text/plain"


def test_a_stream_that_breaks_off_is_an_error_in_the_stream(service: Service) -> None:
    answer = service.runtime.invoke_endpoint_with_response_stream(
        EndpointName="single", Body=json.dumps({"pieces": ["one"], "breaks": True}).encode()
    )
    events = iter(answer["Body"])
    assert next(events)["PayloadPart"]["Bytes"] == b"one"
    with pytest.raises(EventStreamError, match="closed the connection"):
        next(events)
    answer["Body"].close()


def test_a_stream_that_is_refused_is_a_model_error(service: Service) -> None:
    with pytest.raises(service.runtime.exceptions.ModelError) as caught:
        service.runtime.invoke_endpoint_with_response_stream(
            EndpointName="single", Body=json.dumps({"pieces": ["no"], "status": 400}).encode()
        )
    assert caught.value.response["OriginalMessage"] == "no"


def _output(service: Service, location: str) -> bytes:
    bucket, _, key = location.removeprefix("s3://").partition("/")

    def get() -> Any:
        try:
            return service.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        except service.s3.exceptions.NoSuchKey:
            return None

    found: bytes = until(get, what=f"the object {location}")
    return found


def test_an_asynchronous_call_becomes_an_object(service: Service) -> None:
    service.s3.put_object(Bucket="models", Key="in/payload", Body=PIECES)
    answer = service.runtime.invoke_endpoint_async(
        EndpointName="async",
        InputLocation="s3://models/in/payload",
        InferenceId="mine",
        ContentType="text/csv",
    )
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 202
    assert answer["InferenceId"] == "mine"
    assert answer["OutputLocation"].startswith("s3://models/out/")
    assert _output(service, answer["OutputLocation"]) == b"onetwothree"


def test_asynchronous_calls_take_turns_as_the_configuration_says(service: Service) -> None:
    service.create(
        "turns",
        url="s3://models/single.tar.gz",
        mode="SingleModel",
        asynchronous={
            "OutputConfig": {"S3OutputPath": "s3://models/turns"},
            "ClientConfig": {"MaxConcurrentInvocationsPerInstance": 1},
        },
    )
    service.s3.put_object(Bucket="models", Key="in/slow", Body=json.dumps({"pieces": ["s"], "pause_s": 0.3}))
    begun = time.monotonic()
    answers = [
        service.runtime.invoke_endpoint_async(EndpointName="turns", InputLocation="s3://models/in/slow")
        for _ in range(4)
    ]
    most = 0
    while len(service.s3.list_objects_v2(Bucket="models", Prefix="turns/").get("Contents", [])) < 4:
        most = max(most, service.instances("turns")[0]["in_flight"])
    assert most <= 1
    assert time.monotonic() - begun > 4 * 0.3, "one after the other"
    assert [_output(service, answer["OutputLocation"]) for answer in answers] == [b"s"] * 4


def test_an_asynchronous_call_that_fails_becomes_an_object_too(service: Service) -> None:
    answer = service.runtime.invoke_endpoint_async(
        EndpointName="async", InputLocation="s3://models/in/absent"
    )
    assert b"NoSuchKey" in _output(service, answer["FailureLocation"])


@pytest.mark.parametrize(
    ("endpoint", "arguments", "text"),
    [
        ("single", {"InputLocation": "s3://models/in/payload"}, "no AsyncInferenceConfig"),
        ("async", {"InputLocation": "https://example.com/x"}, "names no S3 object"),
    ],
)
def test_asynchronous_calls_that_cannot_be_taken(
    service: Service, endpoint: str, arguments: dict[str, str], text: str
) -> None:
    with pytest.raises(ClientError, match=text) as caught:
        service.runtime.invoke_endpoint_async(EndpointName=endpoint, **arguments)
    assert caught.value.response["Error"]["Code"] == "ValidationError"


def test_a_location_that_is_not_utf_8_is_refused(service: Service) -> None:
    request = urllib.request.Request(
        f"{service.url}/endpoints/async/async-invocations",
        method="POST",
        headers={"X-Amzn-SageMaker-InputLocation": "s3://models/in/\xff"},  # Latin-1, as urllib sends it
    )
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=30)
    with caught.value as answer:
        assert answer.code == 400
        assert b"InputLocation is not UTF-8" in answer.read()


def test_an_archive_that_is_not_there_fails_the_endpoint(service: Service) -> None:
    described = service.create("lacking", url="s3://models/absent.tar.gz", mode="SingleModel")
    assert described["EndpointStatus"] == "Failed"
    assert "absent.tar.gz" in described["FailureReason"]
