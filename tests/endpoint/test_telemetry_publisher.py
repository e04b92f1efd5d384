"""Publishing: what is due, in batches, without loss while CloudWatch is away, and once more at the end."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from mmekit_endpoint.fleet.views import EndpointView
from mmekit_endpoint.settings import Settings
from mmekit_endpoint.telemetry import outbox
from mmekit_endpoint.telemetry.cloudwatch import Entry
from mmekit_endpoint.telemetry.outbox import MAX_BATCH, Outbox
from mmekit_endpoint.telemetry.publisher import Publisher
from mmekit_endpoint.telemetry.statistics import Statistics
from tests.endpoint.telemetry import endpoint_view, instance_view


class FakeCloudWatch:
    """Takes batches, or fails as it is told to."""

    def __init__(self) -> None:
        self.batches: list[tuple[str, str, list[dict[str, Any]]]] = []
        self.failure: Exception | None = None

    def client(self, region: str, service: str) -> Any:
        assert service == "cloudwatch"
        cloudwatch = self

        class Client:
            def put_metric_data(self, *, Namespace: str, MetricData: list[dict[str, Any]]) -> None:
                if cloudwatch.failure is not None:
                    raise cloudwatch.failure
                cloudwatch.batches.append((region, Namespace, MetricData))

        return Client()

    def sum_of(self, name: str, endpoint: str = "e") -> float:
        return sum(
            value * count
            for _, _, batch in self.batches
            for datum in batch
            if datum["MetricName"] == name and datum["Dimensions"][0]["Value"] == endpoint
            for value, count in zip(
                datum.get("Values", [datum.get("Value")]), datum.get("Counts", [1.0]), strict=True
            )
        )

    def count_of(self, name: str, endpoint: str = "e") -> int:
        return sum(
            datum["MetricName"] == name and datum["Dimensions"][0]["Value"] == endpoint
            for _, _, batch in self.batches
            for datum in batch
        )


NOT_THERE = EndpointConnectionError(endpoint_url="http://127.0.0.1:1")


def refusal(status: int) -> ClientError:
    return ClientError(
        {"Error": {"Code": "Any"}, "ResponseMetadata": {"HTTPStatusCode": status}}, "PutMetricData"
    )


def entry(number: int = 0, values: int = 1, namespace: str = "n") -> Entry:
    datum = {"MetricName": f"m{number}", "Values": [1.0] * values, "Dimensions": [{"Value": "e"}]}
    return Entry(namespace, datum)


def send(box: Outbox) -> None:
    box.send(threading.Event())


def test_batches_are_within_limits_and_in_order() -> None:
    cloudwatch = FakeCloudWatch()
    box = Outbox(cloudwatch.client)
    box.put("here", (entry(number) for number in range(MAX_BATCH + 1)))
    box.put("there", [entry()])
    box.put("here", (entry(number, 150, "large") for number in range(500)))
    send(box)
    sizes = [(region, namespace, len(batch)) for region, namespace, batch in cloudwatch.batches]
    assert sizes[:3] == [("here", "n", MAX_BATCH), ("here", "n", 1), ("there", "n", 1)]
    assert sum(size for _, namespace, size in sizes if namespace == "large") == 500
    assert all(size <= 160 for _, namespace, size in sizes if namespace == "large")
    names = [datum["MetricName"] for region, n, batch in cloudwatch.batches[:2] for datum in batch]
    assert names == [f"m{number}" for number in range(MAX_BATCH + 1)]


@pytest.mark.parametrize("failure", [NOT_THERE, refusal(503), refusal(429), OSError("broken")])
def test_what_cannot_be_sent_now_is_sent_later_and_told_once(
    failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    cloudwatch = FakeCloudWatch()
    box = Outbox(cloudwatch.client)
    cloudwatch.failure = failure
    for number in range(3):
        box.put("r", [entry(number)])
        send(box)
    cloudwatch.failure = None
    box.put("r", [entry(3)])
    send(box)
    send(box)
    assert [datum["MetricName"] for _, _, batch in cloudwatch.batches for datum in batch] == [
        "m0",
        "m1",
        "m2",
        "m3",
    ]
    assert [record.message.split(":")[0] for record in caplog.records] == [
        "Metrics cannot be published now and are kept for later",
        "Metrics are published again",
    ]


def test_what_is_refused_is_dropped_and_told(caplog: pytest.LogCaptureFixture) -> None:
    cloudwatch = FakeCloudWatch()
    box = Outbox(cloudwatch.client)
    cloudwatch.failure = refusal(400)
    box.put("r", [entry()])
    send(box)
    cloudwatch.failure = None
    send(box)
    assert cloudwatch.batches == []
    assert "refused 1 metrics" in caplog.text


def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "MAX_WAITING", 3)
    cloudwatch = FakeCloudWatch()
    box = Outbox(cloudwatch.client)
    box.put("r", (entry(number) for number in range(5)))
    send(box)
    assert [datum["MetricName"] for datum in cloudwatch.batches[0][2]] == ["m2", "m3", "m4"]


# --- the task


class Stage:
    """A publisher over views that the test changes."""

    def __init__(self, tmp_path: Path, *views: EndpointView, period_s: float = 0.2) -> None:
        self.views = list(views)
        self.statistics = Statistics()
        for view in views:
            self.statistics.variant(view.name, "AllTraffic")
        self.cloudwatch = FakeCloudWatch()
        settings = Settings(state=tmp_path, keys={}, metrics_period_s=period_s)
        self.publisher = Publisher(settings, self.statistics, lambda: self.views, self.cloudwatch.client)

    def run(self, *steps: Callable[[], Any]) -> None:
        """Run the publisher; each step is polled until it returns something true."""

        async def run() -> None:
            task = asyncio.create_task(self.publisher.run())
            for step in steps:
                deadline = time.monotonic() + 30
                while not step():
                    assert not task.done()
                    assert time.monotonic() < deadline
                    await asyncio.sleep(0.01)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        asyncio.run(run())

    def invoke(self, times: int, endpoint: str = "e", variant: str = "AllTraffic") -> bool:
        for _ in range(times):
            self.statistics.variant(endpoint, variant).invocation("a", 200, 100.0, 10.0, True)
        return True


def test_requests_are_published_once_each_period_and_at_the_end(tmp_path: Path) -> None:
    stage = Stage(tmp_path, endpoint_view("e", instance_view("i-1"), instance_view("i-2")))
    cloudwatch = stage.cloudwatch
    stage.run(
        lambda: stage.invoke(3),
        lambda: cloudwatch.sum_of("Invocations") == 3,
        lambda: stage.invoke(4),
        lambda: cloudwatch.sum_of("Invocations") == 7,
        # with a fleet that has ended, as when the service stops
        lambda: stage.views.__setitem__(0, endpoint_view("e", variants=[])) is None and stage.invoke(5),
    )
    assert cloudwatch.sum_of("Invocations") == 12
    assert cloudwatch.sum_of("InvocationsPerInstance") == 6
    assert cloudwatch.sum_of("LoadedModelCount") == 0
    assert cloudwatch.count_of("LoadedModelCount") >= 2
    assert cloudwatch.count_of("ConcurrentRequestsPerModel") >= 2
    assert {region for region, _, _ in cloudwatch.batches} == {"eu-west-1"}


def test_an_endpoint_has_its_own_period(tmp_path: Path) -> None:
    stage = Stage(
        tmp_path,
        endpoint_view("e", instance_view()),
        endpoint_view("slow", instance_view(), metrics_period_s=60),
    )
    stage.run(lambda: stage.cloudwatch.count_of("CPUUtilization") >= 4)
    # at once, and at the end
    assert stage.cloudwatch.count_of("CPUUtilization", "slow") == 2


def test_a_deleted_endpoint_is_published_once_more_where_it_was(tmp_path: Path) -> None:
    stage = Stage(tmp_path, endpoint_view("e", instance_view("i-1"), instance_view("i-2"), region="r-1"))
    cloudwatch = stage.cloudwatch

    def delete() -> bool:
        stage.invoke(4)
        stage.statistics.forget("e")
        stage.views.clear()
        return True

    stage.run(
        lambda: cloudwatch.count_of("Invocations") >= 1,
        delete,
        lambda: cloudwatch.sum_of("Invocations") == 4,
    )
    assert cloudwatch.sum_of("InvocationsPerInstance") == 2
    assert {region for region, _, _ in cloudwatch.batches} == {"r-1"}


def test_it_goes_on_while_cloudwatch_does_not_answer(tmp_path: Path) -> None:
    stage = Stage(tmp_path, endpoint_view("e", instance_view()), period_s=0.1)
    cloudwatch = stage.cloudwatch
    cloudwatch.failure = NOT_THERE

    def recover() -> bool:
        cloudwatch.failure = None
        return True

    begun = datetime.now(timezone.utc)
    stage.run(
        lambda: stage.invoke(2),
        lambda: stage.statistics.variant("e", "AllTraffic")._window.is_empty,
        lambda: stage.invoke(3),
        lambda: stage.statistics.variant("e", "AllTraffic")._window.is_empty,
        recover,
    )
    assert cloudwatch.sum_of("Invocations") == 5
    stamps = [datum["Timestamp"] for _, _, batch in cloudwatch.batches for datum in batch]
    assert all(begun.replace(microsecond=0) <= stamp <= datetime.now(timezone.utc) for stamp in stamps)
