"""What clients read with boto3 of a real server that was published to: CloudWatch and its logs."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from mmekit_endpoint.settings import Settings
from mmekit_endpoint.telemetry import container_logs, log_lines
from mmekit_endpoint.telemetry.container_logs import ContainerLogs
from mmekit_endpoint.telemetry.publisher import Publisher
from mmekit_endpoint.telemetry.statistics import Statistics
from tests.endpoint.telemetry import AwsServer, aws_server, endpoint_view, instance_view, model_view

REGION = "eu-west-1"

#: What one request, download or load takes, and what instances use.
TIMES = {
    "ModelLoadingWaitTime",
    "ModelDownloadingTime",
    "ModelLoadingTime",
    "ModelUnloadingTime",
    "ModelLatency",
    "OverheadLatency",
}
INSTANCES = {
    "CPUUtilization",
    "MemoryUtilization",
    "DiskUtilization",
    "GPUUtilization",
    "GPUMemoryUtilization",
}

#: What the published endpoint did and is, by metric and by each of the statistics that AWS calls valid.
EXPECTED: dict[str, dict[str, float]] = {
    "ModelLoadingWaitTime": {"Average": 5e6, "Sum": 5e6, "Minimum": 5e6, "Maximum": 5e6, "SampleCount": 1},
    "ModelDownloadingTime": {"Average": 3e6, "Sum": 3e6, "Minimum": 3e6, "Maximum": 3e6, "SampleCount": 1},
    "ModelLoadingTime": {"Average": 2e6, "Sum": 2e6, "Minimum": 2e6, "Maximum": 2e6, "SampleCount": 1},
    "ModelUnloadingTime": {"Average": 1.5e6, "Sum": 3e6, "Minimum": 1e6, "Maximum": 2e6, "SampleCount": 2},
    "ModelCacheHit": {"Average": 0.96, "Sum": 96, "SampleCount": 100},
    "Invocations": {"Sum": 100},
    "InvocationsPerInstance": {"Sum": 50},
    "Invocation4XXErrors": {"Average": 0.02, "Sum": 2},
    "Invocation5XXErrors": {"Average": 0.01, "Sum": 1},
    "InvocationModelErrors": {"Average": 0.04, "Sum": 4},
    "ModelLatency": {
        "Average": 50_500,
        "Sum": 5_050_000,
        "Minimum": 1000,
        "Maximum": 100_000,
        "SampleCount": 100,
    },
    "OverheadLatency": {"Average": 200, "Sum": 20_000, "Minimum": 200, "Maximum": 200, "SampleCount": 100},
    "ConcurrentRequestsPerModel": {"Minimum": 0, "Maximum": 5},
    "LoadedModelCount": {"Average": 1.5, "Sum": 3, "Minimum": 1, "Maximum": 2, "SampleCount": 2},
    "CPUUtilization": {"Average": 75, "Sum": 150, "Minimum": 50, "Maximum": 100, "SampleCount": 2},
    "MemoryUtilization": {"Average": 25, "Sum": 50, "Minimum": 25, "Maximum": 25, "SampleCount": 2},
    "DiskUtilization": {"Average": 10, "Sum": 20, "Minimum": 10, "Maximum": 10, "SampleCount": 2},
    "GPUUtilization": {"Average": 30, "Sum": 60, "Minimum": 20, "Maximum": 40, "SampleCount": 2},
    "GPUMemoryUtilization": {"Average": 5, "Sum": 10, "Minimum": 5, "Maximum": 5, "SampleCount": 2},
}

UNITS = dict.fromkeys(TIMES, "Microseconds") | dict.fromkeys(INSTANCES, "Percent")

#: In another order than they are published in.
DIMENSIONS = [{"Name": "VariantName", "Value": "AllTraffic"}, {"Name": "EndpointName", "Value": "busy"}]


def namespace(name: str) -> str:
    return "/aws/sagemaker/Endpoints" if name in INSTANCES or name == "LoadedModelCount" else "AWS/SageMaker"


@pytest.fixture(scope="module")
def server() -> Iterator[AwsServer]:
    with aws_server() as server:
        yield server


@pytest.fixture(scope="module")
def published(server: AwsServer, tmp_path_factory: pytest.TempPathFactory) -> tuple[datetime, datetime]:
    """Publish what EXPECTED says, once; return a span of time around it."""
    statistics = Statistics()
    counted = statistics.variant("busy", "AllTraffic")
    statuses = [404, 404, 503, 0] + [200] * 96
    for number, status in enumerate(statuses, 1):
        counted.invocation("a", status, 1000.0 * number, 200.0, number > 4)
    counted.waited("a", 5e6)
    counted.downloaded("a", 3e6, 1)
    counted.loaded("a", 2e6)
    counted.unloaded("a", 1e6)
    counted.unloaded("a", 2e6)
    gpu = {"gpu_memory_percent": 5.0}
    view = endpoint_view(
        "busy",
        instance_view(
            "i-1",
            cpu_percent=50.0,
            gpu_percent=20.0,
            in_flight=2,
            models=[model_view("a", in_flight=2, waiting=3)],
            **gpu,
        ),
        instance_view(
            "i-2", cpu_percent=100.0, gpu_percent=40.0, models=[model_view("a"), model_view("b")], **gpu
        ),
        metrics_period_s=300,
    )
    views = [view]
    settings = Settings(state=tmp_path_factory.mktemp("state"), keys={})

    def arrived() -> bool:
        return len(_listed(server)) == len(EXPECTED)

    async def publish() -> None:
        task = asyncio.create_task(Publisher(settings, statistics, lambda: views, server.client).run())
        await asyncio.sleep(0)
        # Published at once; what comes at the end is of an endpoint that is gone, and has little time.
        views.clear()
        deadline = time.monotonic() + 60
        while not await asyncio.to_thread(arrived):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    begun = datetime.now(timezone.utc)
    asyncio.run(publish())
    return begun - timedelta(minutes=5), datetime.now(timezone.utc) + timedelta(seconds=1)


def _listed(server: AwsServer) -> Any:
    return server.client(REGION, "cloudwatch").list_metrics(
        Dimensions=[{"Name": "EndpointName", "Value": "busy"}]
    )["Metrics"]


def statistics_of(server: AwsServer, span: tuple[datetime, datetime], name: str, **ask: Any) -> Any:
    return server.client(REGION, "cloudwatch").get_metric_statistics(
        Namespace=namespace(name),
        MetricName=name,
        Dimensions=DIMENSIONS,
        StartTime=span[0],
        EndTime=span[1],
        Period=600,
        **ask,
    )["Datapoints"]


@pytest.mark.parametrize("name", EXPECTED)
def test_every_metric_has_its_valid_statistics(
    server: AwsServer, published: tuple[datetime, datetime], name: str
) -> None:
    expected = EXPECTED[name]
    (point,) = statistics_of(server, published, name, Statistics=list(expected))
    assert {key: point[key] for key in expected} == pytest.approx(expected)
    assert point["Unit"] == UNITS.get(name, "None")
    assert published[0].replace(second=0, microsecond=0) <= point["Timestamp"] <= published[1]

    queries = [
        {
            "Id": f"q{number}",
            "MetricStat": {
                "Metric": {"Namespace": namespace(name), "MetricName": name, "Dimensions": DIMENSIONS},
                "Period": 600,
                "Stat": statistic,
            },
        }
        for number, statistic in enumerate(expected)
    ]
    results = server.client(REGION, "cloudwatch").get_metric_data(
        MetricDataQueries=queries, StartTime=published[0], EndTime=published[1]
    )["MetricDataResults"]
    assert [result["Values"] for result in results] == [[pytest.approx(value)] for value in expected.values()]
    assert all(result["Timestamps"] == [point["Timestamp"]] for result in results)


def test_latencies_have_percentiles(server: AwsServer, published: tuple[datetime, datetime]) -> None:
    percentiles = ["p50", "p90", "p99", "p99.9", "p100"]
    (point,) = statistics_of(server, published, "ModelLatency", ExtendedStatistics=percentiles)
    expected = {"p50": 50e3, "p90": 90e3, "p99": 99e3, "p99.9": 100e3, "p100": 100e3}
    assert point["ExtendedStatistics"] == pytest.approx(expected, rel=0.05)
    assert "Average" not in point
    (point,) = statistics_of(
        server, published, "ModelLatency", ExtendedStatistics=["p50"], Statistics=["Sum"], Unit="Microseconds"
    )
    assert point["Sum"] == pytest.approx(5_050_000)
    assert statistics_of(server, published, "ModelLatency", Statistics=["Sum"], Unit="Seconds") == []
    query = {
        "Id": "m",
        "MetricStat": {
            "Metric": {
                "Namespace": "AWS/SageMaker",
                "MetricName": "ModelLatency",
                "Dimensions": DIMENSIONS,
            },
            "Period": 600,
            "Stat": "p99",
        },
        "ReturnData": False,
    }
    (result,) = server.client(REGION, "cloudwatch").get_metric_data(
        MetricDataQueries=[query, {"Id": "same", "Expression": "m"}],
        StartTime=published[0],
        EndTime=published[1],
    )["MetricDataResults"]
    assert result["Id"] == "same"
    assert result["Values"] == [pytest.approx(99e3, rel=0.05)]


def test_metrics_are_listed_once(server: AwsServer, published: tuple[datetime, datetime]) -> None:
    found = _listed(server)
    assert sorted((one["Namespace"], one["MetricName"]) for one in found) == sorted(
        (namespace(name), name) for name in EXPECTED
    )
    assert found[0]["Dimensions"] == sorted(DIMENSIONS, key=lambda one: one["Name"])
    elsewhere = server.client("us-west-2", "cloudwatch")
    assert elsewhere.list_metrics(Namespace="AWS/SageMaker")["Metrics"] == []


def test_fewer_dimensions_name_another_metric(
    server: AwsServer, published: tuple[datetime, datetime]
) -> None:
    found = server.client(REGION, "cloudwatch").get_metric_statistics(
        Namespace="AWS/SageMaker",
        MetricName="Invocations",
        Dimensions=DIMENSIONS[:1],
        StartTime=published[0],
        EndTime=published[1],
        Period=60,
        Statistics=["Sum"],
    )
    assert found["Datapoints"] == []


def test_metrics_of_others_are_kept_too(server: AwsServer) -> None:
    client = server.client(REGION, "cloudwatch")
    at = datetime.now(timezone.utc) - timedelta(days=1)
    client.put_metric_data(
        Namespace="mine",
        MetricData=[
            {"MetricName": "m", "Timestamp": at, "Value": 3.0, "Unit": "Count"},
            {"MetricName": "m", "Timestamp": at, "Values": [1.0, 2.0], "Counts": [2.0, 1.0], "Unit": "Count"},
            {"MetricName": "now", "Value": 0.0},
        ],
    )
    ask: dict[str, Any] = {"Namespace": "mine", "Period": 86400, "Statistics": ["SampleCount", "Sum"]}
    (point,) = client.get_metric_statistics(
        MetricName="m", StartTime=at, EndTime=at + timedelta(hours=1), **ask
    )["Datapoints"]
    assert (point["SampleCount"], point["Sum"], point["Unit"]) == (4, 7, "Count")
    (point,) = client.get_metric_statistics(
        MetricName="now", StartTime=at, EndTime=at + timedelta(days=2), **ask
    )["Datapoints"]
    assert (point["SampleCount"], point["Sum"]) == (1, 0)


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"Period": 7}, "InvalidParameterValue"),
        ({"Statistics": [], "ExtendedStatistics": ["tm99"]}, "InvalidParameterValue"),
        ({"Statistics": [], "ExtendedStatistics": ["p101"]}, "InvalidParameterValue"),
        ({"EndTime": datetime(2000, 1, 1, tzinfo=timezone.utc)}, "InvalidParameterValue"),
    ],
)
def test_wrong_questions_are_refused(server: AwsServer, wrong: dict[str, Any], code: str) -> None:
    ask: dict[str, Any] = {
        "Namespace": "n",
        "MetricName": "m",
        "StartTime": datetime(2020, 1, 1, tzinfo=timezone.utc),
        "EndTime": datetime(2020, 1, 2, tzinfo=timezone.utc),
        "Period": 60,
        "Statistics": ["Sum"],
    }
    asked = {key: value for key, value in {**ask, **wrong}.items() if value != []}
    with pytest.raises(ClientError) as caught:
        server.client(REGION, "cloudwatch").get_metric_statistics(**asked)
    assert caught.value.response["Error"]["Code"] == code


# --- logs


def read_log(server: AwsServer, stream: str, endpoint: str = "e") -> list[str]:
    logs = server.client(REGION, "logs")
    try:
        found = logs.get_log_events(
            logGroupName=f"/aws/sagemaker/Endpoints/{endpoint}", logStreamName=stream, startFromHead=True
        )
    except logs.exceptions.ResourceNotFoundException:
        return []
    return [event["message"] for event in found["events"]]


def follow(server: AwsServer, folder: Path, views: list[Any], *steps: Callable[[], Any]) -> None:
    """Run ContainerLogs; each step is polled, in a thread, until it returns something true."""

    async def run() -> None:
        task = asyncio.create_task(ContainerLogs(folder, lambda: views, server.client).run())
        for step in steps:
            deadline = time.monotonic() + 60
            while not await asyncio.to_thread(step):
                assert not task.done()
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())


def append(path: Path, data: bytes) -> bool:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(data)
    return True


def test_logs_of_containers_are_read_to_their_end(
    server: AwsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # However long this machine takes, the begin of a line is not sent without its end.
    monkeypatch.setattr(log_lines, "PATIENCE_S", 600.0)
    log = tmp_path / "e" / "v" / "i-1.log"
    short = tmp_path / "e" / "v" / "i-short.log"
    begun_ms = int(time.time() * 1000)
    # Creating: the endpoint is there, its instances are in no view yet
    follow(
        server,
        tmp_path,
        [endpoint_view("e", variants=[])],
        lambda: append(log, b"one\ntwo\npart"),
        lambda: append(short, b"cannot start\n"),
        lambda: read_log(server, "v/i-1") == ["one", "two"],
        lambda: read_log(server, "v/i-short") == ["cannot start"],
        lambda: append(log, b"ial\nlast"),
    )
    assert read_log(server, "v/i-1") == ["one", "two", "partial", "last"]
    events = server.client(REGION, "logs").filter_log_events(logGroupName="/aws/sagemaker/Endpoints/e")
    assert all(begun_ms <= event["timestamp"] <= event["ingestionTime"] + 1000 for event in events["events"])


def test_logs_of_an_earlier_service_are_left_alone(server: AwsServer, tmp_path: Path) -> None:
    old, new = tmp_path / "again" / "v" / "i-old.log", tmp_path / "again" / "v" / "i-new.log"
    append(old, b"old\n")
    os.utime(old, (time.time() - 100, time.time() - 100))
    follow(
        server,
        tmp_path,
        [endpoint_view("again")],
        lambda: append(new, b"new\n"),
        lambda: read_log(server, "v/i-new", "again") == ["new"],
    )
    assert read_log(server, "v/i-old", "again") == []


def test_a_variant_keeps_a_number_of_logs_and_those_of_its_instances(
    server: AwsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(container_logs, "MAX_LOGS", 2)
    folder = tmp_path / "crashing" / "v"
    # The newest is ahead of its time: it is not to be older than what follows it.
    newest = time.time() + 60
    for age, name in enumerate(["i-new", "i-4", "i-3", "i-2", "i-live"]):
        append(folder / f"{name}.log", b"line\n")
        os.utime(folder / f"{name}.log", (newest - 1000 * age, newest - 1000 * age))
    append(folder / "i-2.log.1", b"line\n")
    follow(
        server,
        tmp_path,
        [endpoint_view("crashing", instance_view("i-live"))],
        lambda: read_log(server, "v/i-new", "crashing") == ["line"],
    )
    assert sorted(path.name for path in folder.iterdir()) == ["i-4.log", "i-live.log", "i-new.log"]


def test_large_logs_come_whole_and_in_order(server: AwsServer, tmp_path: Path) -> None:
    log = tmp_path / "large" / "v" / "i-1.log"
    lines = [f"{number} {'x' * 60}" for number in range(30_000)]
    follow(
        server,
        tmp_path,
        [endpoint_view("large")],
        lambda: append(log, "\n".join(lines).encode() + b"\n"),
        lambda: read_log(server, "v/i-1", "large"),
    )
    logs = server.client(REGION, "logs")
    pages = logs.get_paginator("filter_log_events").paginate(logGroupName="/aws/sagemaker/Endpoints/large")
    found = [event["message"] for page in pages for event in page["events"]]
    assert found == lines


def test_lines_wait_while_the_server_is_away(tmp_path: Path) -> None:
    log = tmp_path / "e" / "v" / "i-1.log"
    with aws_server() as server:

        def restart() -> bool:
            server.start()
            return True

        follow(
            server,
            tmp_path,
            [endpoint_view("e")],
            lambda: append(log, b"before\n"),
            lambda: read_log(server, "v/i-1") == ["before"],
            lambda: server.stop() is None,
            lambda: append(log, b"away 1\n"),
            lambda: time.sleep(1.2) is None and append(log, b"away 2\n"),
            restart,
            lambda: read_log(server, "v/i-1") == ["away 1", "away 2"],
        )
