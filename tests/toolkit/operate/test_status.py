"""``mmekit status``: all there is of an endpoint; what is missing is named and breaks nothing."""

from __future__ import annotations

import json
import time
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from mmekit_toolkit.aws.clients import Aws
from mmekit_toolkit.operate import metrics, snapshot
from tests.endpoint.service import ROLE, Service, stub_model
from tests.support.server import until
from tests.toolkit.commands import Mmekit, local
from tests.toolkit.moto_server import MotoServer

SERVICE, INSTANCES = "AWS/SageMaker", "/aws/sagemaker/Endpoints"


@pytest.fixture(scope="module")
def moto(shared_moto: MotoServer) -> MotoServer:
    """An endpoint ``churn`` with autoscaling, alarms and metrics, as AWS would have them."""
    shared_moto.reset()
    _make(shared_moto)
    return shared_moto


@pytest.fixture(scope="module")
def mmekit_moto(moto: MotoServer) -> Mmekit:
    return local(moto.url)


def _make(moto: MotoServer) -> None:
    s3, sagemaker = moto.client("s3"), moto.client("sagemaker")
    s3.create_bucket(Bucket="models")
    for number in range(3):
        s3.put_object(Bucket="models", Key=f"churn/m-{number:012x}.tar.gz", Body=b"12345")
    sagemaker.create_model(
        ModelName="churn",
        ExecutionRoleArn=ROLE,
        PrimaryContainer={
            "Image": "123456789012.dkr.ecr.us-east-1.amazonaws.com/churn:1.0",
            "Mode": "MultiModel",
            "ModelDataUrl": "s3://models/churn/",
        },
    )
    sagemaker.create_endpoint_config(
        EndpointConfigName="churn-1",
        ProductionVariants=[
            {
                "VariantName": "AllTraffic",
                "ModelName": "churn",
                "InstanceType": "ml.m5.xlarge",
                "InitialInstanceCount": 2,
                "InitialVariantWeight": 1.0,
            }
        ],
    )
    sagemaker.create_endpoint(EndpointName="churn", EndpointConfigName="churn-1")
    _scale(moto.client("application-autoscaling"))
    _alarm(moto.client("cloudwatch"))
    for client in (s3, sagemaker):
        client.close()


def _scale(scaling: Any) -> None:
    target = {
        "ServiceNamespace": "sagemaker",
        "ResourceId": "endpoint/churn/variant/AllTraffic",
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
    }
    scaling.register_scalable_target(MinCapacity=2, MaxCapacity=8, **target)
    metric = {
        "PredefinedMetricSpecification": {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"}
    }
    scaling.put_scaling_policy(
        PolicyName="calls",
        PolicyType="TargetTrackingScaling",
        TargetTrackingScalingPolicyConfiguration={"TargetValue": 300.0, **metric},
        **target,
    )
    scaling.close()


def _alarm(cloudwatch: Any) -> None:
    common = {
        "Namespace": SERVICE,
        "MetricName": "Invocation5XXErrors",
        "Statistic": "Average",
        "Period": 60,
        "EvaluationPeriods": 1,
        "Threshold": 0.01,
        "ComparisonOperator": "GreaterThanThreshold",
    }
    for endpoint in ("churn", "other"):
        dimensions = [{"Name": "EndpointName", "Value": endpoint}]
        cloudwatch.put_metric_alarm(AlarmName=f"{endpoint}-5xx", Dimensions=dimensions, **common)
    cloudwatch.set_alarm_state(AlarmName="churn-5xx", StateValue="ALARM", StateReason="3 points above 0.01")
    cloudwatch.close()


def put(service: Service, namespace: str, age: timedelta, **values: list[float]) -> None:
    """Publish values of AllTraffic as of some time ago."""
    dimensions = [
        {"Name": "EndpointName", "Value": "busy"},
        {"Name": "VariantName", "Value": "AllTraffic"},
    ]
    at = datetime.now(timezone.utc) - age
    service.client("cloudwatch").put_metric_data(
        Namespace=namespace,
        MetricData=[
            {"MetricName": name, "Dimensions": dimensions, "Timestamp": at, "Values": value}
            for name, value in values.items()
        ],
    )


def test_all_parts_of_an_endpoint_are_shown(mmekit_moto: Mmekit) -> None:
    shown = mmekit_moto("status", "churn").stdout
    assert shown.startswith("churn: InService, configuration churn-1, changed ")
    assert "! The alarm churn-5xx is in ALARM: 3 points above 0.01" in shown
    assert "ml.m5.xlarge" in shown
    assert "3 objects, 15 bytes, below s3://models/churn/ (AllTraffic)" in shown
    assert "AllTraffic: 2 to 8 instances, SageMakerVariantInvocationsPerInstance 300.0" in shown
    assert "other-5xx" not in shown


def test_an_endpoint_without_known_variants_is_not_shown_with_those_of_others(
    moto: MotoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A first deployment that failed has none, and neither has its configuration when it was deleted."""
    for name, value in moto.environ.items():
        monkeypatch.setenv(name, value)
    assert list(snapshot._autoscaling(Aws(), "broken", [])) == []
    assert metrics.read(Aws(), "broken", [], timedelta(hours=1)) == {}


def test_metrics_are_those_of_the_quarter_and_of_the_hour_and_thrash_gets_a_sentence(
    mmekit: Mmekit, service: Service
) -> None:
    service.s3.create_bucket(Bucket="busy")
    service.create("busy", url="s3://busy/m/")
    now, before = timedelta(minutes=3), timedelta(minutes=40)
    put(service, SERVICE, now, Invocations=[1.0] * 100, ModelCacheHit=[1.0] * 40 + [0.0] * 60)
    put(service, SERVICE, before, Invocations=[1.0] * 200, ModelCacheHit=[1.0] * 200)
    put(service, SERVICE, now, Invocation5XXErrors=[1.0, 1.0], ModelUnloadingTime=[1000.0] * 40)
    put(service, SERVICE, now, ModelLatency=[2000.0] * 99 + [9000.0] * 2, ModelLoadingTime=[40_000.0])
    put(service, INSTANCES, now, MemoryUtilization=[93.0], DiskUtilization=[20.0])
    told = json.loads(mmekit("status", "busy", "--json").stdout)
    quarter = told["metrics"]["last_15_minutes"]["AllTraffic"]
    hour = told["metrics"]["last_hour"]["AllTraffic"]
    assert (quarter["invocations"], hour["invocations"]) == (100, 300)
    assert (quarter["cache_hits"], quarter["cache_lookups"]) == (40, 100)
    assert (hour["cache_hits"], hour["cache_lookups"]) == (240, 300)
    assert quarter["loading_ms"] == 40.0
    assert quarter["latency_p50_ms"] == pytest.approx(2.0, rel=0.1)
    assert quarter["latency_p99_ms"] == pytest.approx(9.0, rel=0.1)
    said = "\n".join(told["findings"])
    assert "2 of 100 calls were answered 5XX" in said
    assert "thrashes: 40% of calls found their model in memory (80% in the hour), 40 were unloaded" in said
    assert "memory is 93 % full" in said
    shown = mmekit("status", "busy").stdout
    assert [line.split()[-2:] for line in shown.splitlines() if line.startswith("cache hits")] == [
        ["40.0%", "80.0%"]
    ]


def test_a_local_endpoint_shows_its_metrics_and_that_it_has_no_autoscaling(
    mmekit: Mmekit, service: Service
) -> None:
    service.upload("stated", "m/", a=stub_model("1"), b=stub_model("2"))
    service.create("stated", url="s3://stated/m/", count=2)
    for target in ("a.tar.gz", "a.tar.gz", "b.tar.gz"):
        service.invoke("stated", target)

    def told() -> Any:
        found = json.loads(mmekit("status", "stated", "--json").stdout)
        metrics = found["metrics"]["last_15_minutes"]["AllTraffic"]
        # They are published one after the other, those of instances last.
        counts = [metrics[name] for name in ("invocations", "cache_lookups", "loads")]
        return found if counts == [3, 3, 2] and metrics["memory_percent"] is not None else None

    found = until(told, 60, "the metrics of three calls")
    metrics = found["metrics"]["last_15_minutes"]["AllTraffic"]
    assert metrics["cache_hits"] == 1
    assert 0 < metrics["latency_p50_ms"] <= metrics["latency_p99_ms"]
    assert metrics["memory_percent"] is not None
    assert found["endpoint"]["ProductionVariants"][0]["CurrentInstanceCount"] == 2
    assert found["models"] == [
        {
            "variant": "AllTraffic",
            "prefix": "s3://stated/m/",
            "count": 2,
            "size_bytes": found["models"][0]["size_bytes"],
        }
    ]
    assert "does not offer the service application-autoscaling" in found["autoscaling"]["unavailable"]
    assert found["alarms"] == []
    shown = mmekit("status", "stated").stdout
    assert "autoscaling: not available: " in shown
    assert "AllTraffic  2 of 2     1       ml.m5.large" in shown


def test_an_update_that_was_rolled_back_is_told(mmekit: Mmekit, service: Service) -> None:
    service.s3.create_bucket(Bucket="rolled")
    service.create("rolled", url="s3://rolled/m/")
    service.sagemaker.create_model(
        ModelName="rolled-2",
        ExecutionRoleArn=ROLE,
        PrimaryContainer={
            "Image": "any",
            "Mode": "MultiModel",
            "ModelDataUrl": "s3://rolled/m/",
            "Environment": {"STUB_PING": "dies"},
        },
    )
    service.configure("rolled-2", [("rolled-2", "AllTraffic", 1, 1.0, {})])
    service.sagemaker.update_endpoint(EndpointName="rolled", EndpointConfigName="rolled-2")
    until(lambda: service.status("rolled") == "InService", 60, "the end of Updating")
    shown = mmekit("status", "rolled").stdout
    assert "! The last update was rolled back; what ran before goes on: " in shown


def test_an_endpoint_that_is_being_created_is_shown_with_what_is_known(
    mmekit: Mmekit, service: Service
) -> None:
    service.s3.create_bucket(Bucket="slow")
    service.sagemaker.create_model(
        ModelName="slow",
        ExecutionRoleArn=ROLE,
        PrimaryContainer={
            "Image": "any",
            "Mode": "MultiModel",
            "ModelDataUrl": "s3://slow/m/",
            "Environment": {"STUB_PING": "never"},
        },
    )
    start = {"ContainerStartupHealthCheckTimeoutInSeconds": 60}
    service.configure("slow", [("slow", "AllTraffic", 1, 1.0, start)])
    service.sagemaker.create_endpoint(EndpointName="slow", EndpointConfigName="slow")
    shown = mmekit("status", "slow").stdout
    assert shown.startswith("slow: Creating")
    assert "0 of 1" in shown


def test_an_endpoint_whose_definitions_were_deleted_is_shown_all_the_same(
    mmekit: Mmekit, service: Service
) -> None:
    service.s3.create_bucket(Bucket="bare")
    service.create("bare", url="s3://bare/m/")
    service.sagemaker.delete_endpoint_config(EndpointConfigName="bare")
    service.sagemaker.delete_model(ModelName="bare")
    shown = mmekit("status", "bare").stdout
    assert shown.startswith("bare: InService")
    assert "models: not available: there is no endpoint configuration bare" in shown


def test_an_endpoint_that_is_not_there_is_not_found(mmekit_moto: Mmekit) -> None:
    assert "there is no endpoint nowhere" in mmekit_moto("status", "nowhere", code=7).stderr


def test_watching_looks_again_until_ctrl_c(mmekit: Mmekit, service: Service) -> None:
    service.s3.create_bucket(Bucket="watched")
    service.create("watched", url="s3://watched/m/")
    began = time.monotonic()
    with mmekit.running("status", "watched", "--json", "--watch") as running:
        until(lambda: len(running.lines) >= 2, 60, "a second look")
        assert running.interrupt() == 0
    assert time.monotonic() - began > 9
    assert {json.loads(line)["endpoint"]["EndpointName"] for line in running.lines} == {"watched"}
