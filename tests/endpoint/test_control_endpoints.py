"""Endpoints: their states, as clients see them, while a fleet does what is wanted, fails, or does nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mmekit_endpoint.api.control.settling import Settling
from mmekit_endpoint.database import FILE_NAME, Database
from mmekit_endpoint.definitions import AsyncSpec, ContainerSpec, EndpointSpec, VariantSpec
from tests.endpoint.control import (
    ControlPlane,
    Fleet,
    arn,
    control_plane,
    fail,
    fleet,
    multi_model,
    refused,
    settle,
    variant,
    without_metadata,
)
from tests.support.server import until


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state")


def define(client: Any) -> None:
    """Create what all endpoints here run."""
    client.create_model(ModelName="many", PrimaryContainer=multi_model(Environment={"A": "1"}))
    client.create_model(
        ModelName="one", PrimaryContainer={"Image": "image", "ModelDataUrl": "s3://models/one.tar.gz"}
    )
    client.create_endpoint_config(EndpointConfigName="Config", ProductionVariants=[variant("many")])
    client.create_endpoint_config(
        EndpointConfigName="two",
        ProductionVariants=[
            variant("many", InitialVariantWeight=3.0, InitialInstanceCount=2),
            variant("one", VariantName="other"),
        ],
    )


@pytest.fixture(scope="module")
def plane(state: Path) -> Iterator[ControlPlane]:
    """One that waits for changes as long as anybody may take for them: each is settled when it answers."""
    with control_plane(state, "--settle", "15") as started:
        define(started.client("sagemaker"))
        yield started


@pytest.fixture(scope="module")
def sagemaker(plane: ControlPlane) -> Any:
    return plane.client("sagemaker")


@pytest.fixture
def running(state: Path, plane: ControlPlane) -> Iterator[Fleet]:
    with fleet(state) as started:
        yield started


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """One that answers changes that do not end."""
    with control_plane(tmp_path_factory.mktemp("hasty"), "--settle", "0.4") as started:
        define(started.client("sagemaker"))
        yield started


def create(sagemaker: Any, name: str, config: str = "Config", **members: Any) -> Any:
    return sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=config, **members)


def status(sagemaker: Any, name: str) -> str:
    return str(sagemaker.describe_endpoint(EndpointName=name)["EndpointStatus"])


def test_an_endpoint_is_in_service_when_create_answers(running: Fleet, sagemaker: Any) -> None:
    assert create(sagemaker, "First")["EndpointArn"] == arn("endpoint", "first")
    answer = without_metadata(sagemaker.describe_endpoint(EndpointName="First"))
    created, modified = answer.pop("CreationTime"), answer.pop("LastModifiedTime")
    resolved = answer["ProductionVariants"][0]["DeployedImages"][0].pop("ResolutionTime")
    assert created <= resolved <= modified
    assert answer == {
        "EndpointName": "First",
        "EndpointArn": arn("endpoint", "first"),
        "EndpointConfigName": "Config",
        "EndpointStatus": "InService",
        "ProductionVariants": [
            {
                "VariantName": "AllTraffic",
                "CurrentWeight": 1.0,
                "DesiredWeight": 1.0,
                "CurrentInstanceCount": 1,
                "DesiredInstanceCount": 1,
                "DeployedImages": [
                    {
                        "SpecifiedImage": "mmekit:cpu",
                        "ResolvedImage": f"mmekit:cpu@sha256:{'0' * 64}",
                    }
                ],
            }
        ],
    }


def test_waiters_return_at_their_first_look(running: Fleet, sagemaker: Any) -> None:
    begun = time.monotonic()
    create(sagemaker, "awaited")
    sagemaker.get_waiter("endpoint_in_service").wait(EndpointName="awaited")
    sagemaker.delete_endpoint(EndpointName="awaited")
    sagemaker.get_waiter("endpoint_deleted").wait(EndpointName="awaited")
    assert time.monotonic() - begun < 30, "a waiter looks again after 30 s"
    assert refused(sagemaker.describe_endpoint, EndpointName="awaited") == (
        f'Could not find endpoint "{arn("endpoint", "awaited")}".'
    )


def test_the_fleet_is_given_all_of_configuration_and_models(running: Fleet, sagemaker: Any) -> None:
    sagemaker.create_endpoint_config(
        EndpointConfigName="full",
        ProductionVariants=[
            variant(
                "one",
                VariantName="v",
                InitialVariantWeight=0.5,
                VolumeSizeInGB=2,
                ModelDataDownloadTimeoutInSeconds=61,
                ContainerStartupHealthCheckTimeoutInSeconds=62,
            )
        ],
        AsyncInferenceConfig={
            "ClientConfig": {"MaxConcurrentInvocationsPerInstance": 3},
            "OutputConfig": {"S3OutputPath": "s3://bucket/out", "S3FailurePath": "s3://bucket/failed"},
        },
        MetricsConfig={"MetricPublishFrequencyInSeconds": 30},
    )
    create(sagemaker, "full", "full")
    row = running.database.endpoint("full")
    assert row is not None
    assert row.spec == EndpointSpec(
        config_name="full",
        variants=(
            VariantSpec(
                name="v",
                model_name="one",
                container=ContainerSpec("image", False, "s3://models/one.tar.gz"),
                instance_type="ml.m5.large",
                instance_count=1,
                weight=0.5,
                volume_bytes=2 * 1024**3,
                download_timeout_s=61,
                startup_timeout_s=62,
            ),
        ),
        asynchronous=AsyncSpec("s3://bucket/out", "s3://bucket/failed", 3),
        metrics_period_s=30,
    )
    answer = sagemaker.describe_endpoint(EndpointName="full")
    assert answer["MetricsConfig"] == {"MetricPublishFrequencyInSeconds": 30}
    assert answer["AsyncInferenceConfig"] == {
        "ClientConfig": {"MaxConcurrentInvocationsPerInstance": 3},
        "OutputConfig": {"S3OutputPath": "s3://bucket/out", "S3FailurePath": "s3://bucket/failed"},
    }


def test_a_name_is_there_once_whatever_its_case(running: Fleet, sagemaker: Any) -> None:
    create(sagemaker, "once")
    for name in ("once", "ONCE"):
        message = refused(create, sagemaker=sagemaker, name=name)
        assert message == f'Cannot create already existing endpoint "{arn("endpoint", "once")}".'


def test_what_is_not_there_could_not_be_found(running: Fleet, sagemaker: Any) -> None:
    assert refused(create, sagemaker=sagemaker, name="e", config="none") == (
        f'Could not find endpoint configuration "{arn("endpoint-config", "none")}".'
    )
    expected = f'Could not find endpoint "{arn("endpoint", "none")}".'
    assert refused(sagemaker.describe_endpoint, EndpointName="none") == expected
    assert refused(sagemaker.delete_endpoint, EndpointName="none") == expected
    update = {"EndpointName": "none", "EndpointConfigName": "Config"}
    assert refused(sagemaker.update_endpoint, **update) == expected
    scale = {"EndpointName": "none", "DesiredWeightsAndCapacities": [{"VariantName": "v"}]}
    assert refused(sagemaker.update_endpoint_weights_and_capacities, **scale) == expected


def test_a_model_that_was_deleted_could_not_be_found(running: Fleet, sagemaker: Any) -> None:
    sagemaker.create_model(ModelName="short", PrimaryContainer=multi_model())
    sagemaker.create_endpoint_config(EndpointConfigName="short", ProductionVariants=[variant("short")])
    create(sagemaker, "outlives", "short")
    sagemaker.delete_model(ModelName="short")
    assert refused(create, sagemaker=sagemaker, name="e", config="short") == (
        f'Could not find model "{arn("model", "short")}".'
    )
    sagemaker.delete_endpoint_config(EndpointConfigName="short")
    assert status(sagemaker, "outlives") == "InService"
    scale = [{"VariantName": "AllTraffic", "DesiredInstanceCount": 2}]
    sagemaker.update_endpoint_weights_and_capacities(
        EndpointName="outlives", DesiredWeightsAndCapacities=scale
    )
    assert status(sagemaker, "outlives") == "InService"


def test_create_answers_though_nothing_happens(hasty: ControlPlane) -> None:
    sagemaker = hasty.client("sagemaker")
    begun = time.monotonic()
    create(sagemaker, "stuck")
    assert 0.4 <= time.monotonic() - begun < 10, "the default"
    answer = sagemaker.describe_endpoint(EndpointName="stuck")
    assert answer["EndpointStatus"] == "Creating"
    (summary,) = answer["ProductionVariants"]
    assert (summary["CurrentInstanceCount"], summary["DesiredInstanceCount"]) == (0, 1)
    assert [stage["Status"] for stage in summary["VariantStatus"]] == ["Creating"]
    expected = f'Cannot update in-progress endpoint "{arn("endpoint", "stuck")}".'
    update = {"EndpointName": "stuck", "EndpointConfigName": "Config"}
    scale = {"EndpointName": "stuck", "DesiredWeightsAndCapacities": [{"VariantName": "AllTraffic"}]}
    assert refused(sagemaker.update_endpoint, **update) == expected
    assert refused(sagemaker.update_endpoint_weights_and_capacities, **scale) == expected
    assert refused(sagemaker.delete_endpoint, EndpointName="stuck") == expected


def create_in(hasty: ControlPlane, name: str) -> Any:
    """Create an endpoint that serves, whose next change does not end; return a client."""
    sagemaker = hasty.client("sagemaker")
    with fleet(hasty.state):
        create(sagemaker, name)
        until(lambda: status(sagemaker, name) == "InService", what="the endpoint")
    return sagemaker


def test_an_endpoint_that_is_updated_or_deleted_is_in_progress(hasty: ControlPlane) -> None:
    for name, change, shown in [("u", "update", "Updating"), ("d", "delete", "Deleting")]:
        sagemaker = create_in(hasty, name)
        if change == "update":
            sagemaker.update_endpoint(EndpointName=name, EndpointConfigName="two")
        else:
            sagemaker.delete_endpoint(EndpointName=name)
        answer = sagemaker.describe_endpoint(EndpointName=name)
        assert answer["EndpointStatus"] == shown
        assert answer["ProductionVariants"][0]["VariantStatus"][0]["Status"] == shown
        assert answer["EndpointConfigName"] == "Config"
        assert "in-progress" in refused(sagemaker.delete_endpoint, EndpointName=name)


def test_a_failed_endpoint_can_be_deleted_only(running: Fleet, sagemaker: Any) -> None:
    running.settle = fail
    create(sagemaker, "failed")
    answer = sagemaker.describe_endpoint(EndpointName="failed")
    assert (answer["EndpointStatus"], answer["FailureReason"]) == (
        "Failed",
        "The container did not answer /ping",
    )
    assert answer["EndpointConfigName"] == "Config"
    message = refused(sagemaker.update_endpoint, EndpointName="failed", EndpointConfigName="two")
    assert f'Cannot update endpoint "{arn("endpoint", "failed")}" with status Failed' in message
    sagemaker.delete_endpoint(EndpointName="failed")
    assert "Could not find" in refused(sagemaker.describe_endpoint, EndpointName="failed")


def test_an_update_serves_another_configuration(running: Fleet, sagemaker: Any) -> None:
    create(sagemaker, "updated")
    answer = sagemaker.update_endpoint(EndpointName="updated", EndpointConfigName="two")
    assert answer["EndpointArn"] == arn("endpoint", "updated")
    answer = sagemaker.describe_endpoint(EndpointName="updated")
    assert (answer["EndpointConfigName"], answer["EndpointStatus"]) == ("two", "InService")
    assert [summary["VariantName"] for summary in answer["ProductionVariants"]] == ["AllTraffic", "other"]


def test_an_update_that_fails_leaves_what_served_with_the_reason(running: Fleet, sagemaker: Any) -> None:
    create(sagemaker, "rolled-back")
    running.settle = fail
    sagemaker.update_endpoint(EndpointName="rolled-back", EndpointConfigName="two")
    answer = sagemaker.describe_endpoint(EndpointName="rolled-back")
    assert (answer["EndpointStatus"], answer["EndpointConfigName"]) == ("InService", "Config")
    assert answer["FailureReason"] == "The container did not answer /ping"
    running.settle = settle
    sagemaker.update_endpoint(EndpointName="rolled-back", EndpointConfigName="two")
    assert "FailureReason" not in sagemaker.describe_endpoint(EndpointName="rolled-back")


@pytest.mark.parametrize(
    ("excluded", "weight", "count"),
    [
        (None, 0.5, 4),
        (["DesiredWeight"], 3.0, 4),
        (["DesiredInstanceCount"], 0.5, 2),
        (["DesiredWeight", "DesiredInstanceCount", "DataCaptureConfig"], 3.0, 2),
    ],
)
def test_an_update_may_retain_weights_and_counts(
    running: Fleet, sagemaker: Any, excluded: list[str] | None, weight: float, count: int
) -> None:
    name = f"retaining-{len(excluded or [])}-{weight:.0f}-{count}"
    create(sagemaker, name)
    sagemaker.update_endpoint_weights_and_capacities(
        EndpointName=name,
        DesiredWeightsAndCapacities=[
            {"VariantName": "AllTraffic", "DesiredWeight": 0.5, "DesiredInstanceCount": 4}
        ],
    )
    members: dict[str, Any] = {}
    if excluded is not None:
        members["ExcludeRetainedVariantProperties"] = [{"VariantPropertyType": kind} for kind in excluded]
    sagemaker.update_endpoint(
        EndpointName=name, EndpointConfigName="two", RetainAllVariantProperties=True, **members
    )
    first, other = sagemaker.describe_endpoint(EndpointName=name)["ProductionVariants"]
    assert (first["DesiredWeight"], first["DesiredInstanceCount"]) == (weight, count)
    assert (other["DesiredWeight"], other["DesiredInstanceCount"]) == (1.0, 1)


def test_weights_and_counts_are_changed_where_they_are_given(running: Fleet, sagemaker: Any) -> None:
    create(sagemaker, "scaled", "two")
    sagemaker.update_endpoint_weights_and_capacities(
        EndpointName="scaled",
        DesiredWeightsAndCapacities=[
            {"VariantName": "AllTraffic", "DesiredWeight": 0},
            {"VariantName": "other", "DesiredInstanceCount": 3},
        ],
    )
    first, other = sagemaker.describe_endpoint(EndpointName="scaled")["ProductionVariants"]
    assert (first["DesiredWeight"], first["DesiredInstanceCount"]) == (0.0, 2)
    assert (other["DesiredWeight"], other["DesiredInstanceCount"]) == (1.0, 3)


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        (
            [{"VariantName": "none"}, {"VariantName": "AllTraffic"}],
            'The variant name(s) "none" is/are not present within endpoint configuration "Config".',
        ),
        ([{"VariantName": "AllTraffic"}] * 2, "is given twice"),
        ([{"VariantName": "AllTraffic", "DesiredWeight": 0}], "weights of all production variants are 0"),
        ([{"VariantName": "AllTraffic", "DesiredInstanceCount": 0}], "must be at least 1"),
        (
            [{"VariantName": "AllTraffic", "ServerlessUpdateConfig": {"MaxConcurrency": 1}}],
            "ServerlessUpdateConfig is not supported",
        ),
    ],
)
def test_scaling_that_makes_no_sense_is_refused(
    running: Fleet, sagemaker: Any, wanted: list[dict[str, Any]], text: str
) -> None:
    if running.database.endpoint("not-scaled") is None:
        create(sagemaker, "not-scaled")
    message = refused(
        sagemaker.update_endpoint_weights_and_capacities,
        EndpointName="not-scaled",
        DesiredWeightsAndCapacities=wanted,
    )
    assert text in message
    assert status(sagemaker, "not-scaled") == "InService"


def blue_green(kind: str) -> dict[str, Any]:
    routing = {"Type": kind, "WaitIntervalInSeconds": 0}
    return {"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing, "TerminationWaitInSeconds": 0}}


def test_all_at_once_is_accepted_and_described(running: Fleet, sagemaker: Any) -> None:
    create(sagemaker, "guarded", DeploymentConfig=blue_green("ALL_AT_ONCE"))

    def described() -> Any:
        return sagemaker.describe_endpoint(EndpointName="guarded").get("LastDeploymentConfig")

    assert described() == blue_green("ALL_AT_ONCE")
    update = {"EndpointName": "guarded", "EndpointConfigName": "two"}
    sagemaker.update_endpoint(**update, RetainDeploymentConfig=True)
    assert described() == blue_green("ALL_AT_ONCE")
    sagemaker.update_endpoint(**update)
    assert described() is None


@pytest.mark.parametrize(
    ("deployment", "text"),
    [
        (blue_green("CANARY"), "TrafficRoutingConfiguration with Type CANARY is not supported"),
        (blue_green("LINEAR"), "TrafficRoutingConfiguration with Type LINEAR is not supported"),
        (
            {
                "RollingUpdatePolicy": {
                    "MaximumBatchSize": {"Type": "INSTANCE_COUNT", "Value": 1},
                    "WaitIntervalInSeconds": 0,
                }
            },
            "RollingUpdatePolicy is not supported",
        ),
        (
            {**blue_green("ALL_AT_ONCE"), "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "a"}]}},
            "AutoRollbackConfiguration with Alarms is not supported",
        ),
    ],
)
def test_other_deployments_are_refused(
    running: Fleet, sagemaker: Any, deployment: dict[str, Any], text: str
) -> None:
    message = refused(create, sagemaker=sagemaker, name="refused", DeploymentConfig=deployment)
    assert text in message


def test_one_of_two_updates_at_the_same_time_is_refused(hasty: ControlPlane) -> None:
    sagemaker = create_in(hasty, "contended")
    outcomes: list[str] = []

    def update() -> None:
        try:
            sagemaker.update_endpoint(EndpointName="contended", EndpointConfigName="two")
            outcomes.append("updated")
        except sagemaker.exceptions.ClientError as error:
            outcomes.append(error.response["Error"]["Message"])

    threads = [threading.Thread(target=update) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = f'Cannot update in-progress endpoint "{arn("endpoint", "contended")}".'
    assert sorted(outcomes) == [expected] * 5 + ["updated"]


def test_definitions_and_endpoints_survive_a_kill(tmp_path: Path) -> None:
    with control_plane(tmp_path) as plane, fleet(tmp_path):
        client = plane.client("sagemaker")
        client.create_model(ModelName="m", PrimaryContainer=multi_model(), Tags=[{"Key": "k", "Value": "v"}])
        client.create_endpoint_config(EndpointConfigName="c", ProductionVariants=[variant("m")])
        client.create_endpoint(EndpointName="e", EndpointConfigName="c")

        def all_of_it() -> list[dict[str, Any]]:
            return [
                without_metadata(client.describe_model(ModelName="m")),
                without_metadata(client.list_tags(ResourceArn=arn("model", "m"))),
                without_metadata(client.describe_endpoint_config(EndpointConfigName="c")),
                without_metadata(client.describe_endpoint(EndpointName="e")),
            ]

        before = all_of_it()
        plane.kill()
        plane.start()
        assert all_of_it() == before


def test_only_so_many_requests_wait_at_the_same_time(tmp_path: Path) -> None:
    database = Database(tmp_path / FILE_NAME)
    spec = EndpointSpec("c", (VariantSpec("v", "m", ContainerSpec("i", False), "ml.m5.large", 1),))
    database.create_endpoint("e", "arn:e", "eu-west-1", spec)
    settling = Settling(database, timeout_s=60, limit=2)
    threads = [threading.Thread(target=settling.wait, args=("e",)) for _ in range(3)]
    for thread in threads:
        thread.start()

    def waiting() -> int:
        return sum(thread.is_alive() for thread in threads)

    until(lambda: waiting() <= 2, 15, "the answer of the one too many")
    assert waiting() == 2
    row = database.endpoint("e")
    assert row is not None
    assert settle(database, row)
    for thread in threads:
        thread.join(30)
    assert waiting() == 0
    database.close()
