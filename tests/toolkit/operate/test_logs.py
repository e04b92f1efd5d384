"""``mmekit logs``: lines of all instances by time, none lost and none twice."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.endpoint.service import ROLE, Service, stub_model
from tests.support.server import until
from tests.toolkit.commands import Mmekit, local
from tests.toolkit.moto_server import MotoServer

GROUP = "/aws/sagemaker/Endpoints/talks"
BLUE, GREEN = "blue/i-0001", "green/i-0002"


@pytest.fixture
def logs(moto: MotoServer) -> Iterator[Any]:
    """A client of an endpoint's log group with two streams."""
    client = moto.client("logs")
    client.create_log_group(logGroupName=GROUP)
    for stream in (BLUE, GREEN):
        client.create_log_stream(logGroupName=GROUP, logStreamName=stream)
    yield client
    client.close()
    moto.reset()


@pytest.fixture
def mmekit_moto(moto: MotoServer) -> Mmekit:
    return local(moto.url)


def put(client: Any, stream: str, *lines: tuple[int, str]) -> None:
    """Write (age in seconds, text); the oldest first, as CloudWatch wants it."""
    now_ms = int(time.time() * 1000)
    events = [{"timestamp": now_ms - 1000 * age_s, "message": text} for age_s, text in lines]
    client.put_log_events(logGroupName=GROUP, logStreamName=stream, logEvents=events)


def texts(lines: list[str]) -> list[str]:
    return [line.split(" ", 2)[2] for line in lines]


def test_streams_are_merged_by_time(mmekit_moto: Mmekit, logs: Any) -> None:
    put(logs, BLUE, (900, "too old"), (50, "first"), (30, "third"))
    put(logs, GREEN, (40, "second"), (20, "fourth\n"))
    done = mmekit_moto("logs", "talks")
    assert texts(done.lines) == ["first", "second", "third", "fourth"]
    assert done.lines[0].split(" ")[1] == BLUE
    assert texts(mmekit_moto("logs", "talks", "--since", "1h").lines)[0] == "too old"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--variant", "blue"), ["one", "three (error)"]),
        (("--instance", "i-0002"), ["two (error)"]),
        (("--filter", "(error)"), ["two (error)", "three (error)"]),
        (("--variant", "blue", "--filter", "error"), ["three (error)"]),
        (("--instance", "i-000"), []),
        (("--since", "2020-01-01T00:00:00Z"), ["one", "two (error)", "three (error)"]),
        (("--since", "2099-01-01"), []),
        (("--since", "1000000w"), ["one", "two (error)", "three (error)"]),
        (("--since", "0001-01-01"), ["one", "two (error)", "three (error)"]),
    ],
)
def test_lines_are_chosen(
    mmekit_moto: Mmekit, logs: Any, options: tuple[str, ...], expected: list[str]
) -> None:
    put(logs, BLUE, (50, "one"), (30, "three (error)"))
    put(logs, GREEN, (40, "two (error)"))
    done = mmekit_moto("logs", "talks", *options)
    assert texts(done.lines) == expected
    assert bool(expected) != ("--since goes further back" in done.stderr)


def test_a_time_that_cannot_be_read_is_a_usage_error(mmekit_moto: Mmekit) -> None:
    assert "Expected 30s, 10m" in mmekit_moto("logs", "talks", "--since", "soon", code=2).stderr


def test_following_shows_each_line_once_late_ones_too_until_ctrl_c(mmekit_moto: Mmekit, logs: Any) -> None:
    put(logs, BLUE, (5, "before"))
    with mmekit_moto.running("logs", "talks", "--follow") as running:
        running.wait_for("before")
        for number in range(40):
            put(logs, BLUE, (0, f"blue {number}"))
        put(logs, GREEN, (10, "late"))
        running.wait_for("blue 39")
        running.wait_for("late")
        put(logs, GREEN, (0, "end"))
        running.wait_for("end")
        assert running.interrupt() == 0
    shown = texts(running.lines)
    assert shown[0] == "before"
    assert [line for line in shown if line.startswith("blue")] == [f"blue {n}" for n in range(40)]
    assert len(shown) == len(set(shown)) == 43


def test_ten_thousand_lines_are_more_than_a_page(mmekit_moto: Mmekit, logs: Any) -> None:
    for first in range(0, 12_000, 4000):
        put(logs, BLUE, *((60 - first // 1000, f"{first + n}") for n in range(4000)))
    assert texts(mmekit_moto("logs", "talks").lines) == [str(n) for n in range(12_000)]


def test_an_endpoint_without_a_log_group_is_told_apart_from_none(
    mmekit_moto: Mmekit, moto: MotoServer, logs: Any
) -> None:
    sagemaker = moto.client("sagemaker")
    sagemaker.create_model(ModelName="m", ExecutionRoleArn=ROLE, PrimaryContainer={"Image": "any"})
    sagemaker.create_endpoint_config(
        EndpointConfigName="silent",
        ProductionVariants=[
            {"VariantName": "a", "ModelName": "m", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
        ],
    )
    sagemaker.create_endpoint(EndpointName="silent", EndpointConfigName="silent")
    done = mmekit_moto("logs", "silent", code=7)
    assert "the endpoint silent (InService) has no log group /aws/sagemaker/Endpoints/silent" in done.stderr
    assert "`mmekit iam execution-role`" in done.stderr
    assert "there is no endpoint nowhere" in mmekit_moto("logs", "nowhere", code=7).stderr
    sagemaker.close()


def test_the_containers_of_the_local_endpoint_are_heard(mmekit: Mmekit, service: Service) -> None:
    service.upload("heard", "m/", a=stub_model("1"))
    service.create("heard", url="s3://heard/m/")
    service.invoke("heard", "a.tar.gz")
    groups = service.client("logs").describe_log_groups
    until(lambda: groups(logGroupNamePrefix="/aws/sagemaker/Endpoints/heard")["logGroups"], 30, "the group")
    until(lambda: "/invoke 200" in mmekit("logs", "heard").stdout, 30, "the call in the log")
