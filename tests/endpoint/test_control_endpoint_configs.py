"""Endpoint configurations: created, described, deleted, and refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.endpoint.control import (
    ControlPlane,
    arn,
    control_plane,
    multi_model,
    refused,
    variant,
    without_metadata,
)


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with control_plane(tmp_path_factory.mktemp("state")) as started:
        client = started.client("sagemaker")
        client.create_model(ModelName="many", PrimaryContainer=multi_model())
        client.create_model(ModelName="one", PrimaryContainer={"Image": "image"})
        yield started


@pytest.fixture(scope="module")
def sagemaker(plane: ControlPlane) -> Any:
    return plane.client("sagemaker")


ASYNC = {"OutputConfig": {"S3OutputPath": "s3://bucket/out"}}


def test_describe_answers_what_create_was_given(sagemaker: Any) -> None:
    request = {
        "EndpointConfigName": "Echo",
        "ProductionVariants": [
            variant(
                "one",
                InitialVariantWeight=0.25,
                VolumeSizeInGB=20,
                ModelDataDownloadTimeoutInSeconds=600,
                ContainerStartupHealthCheckTimeoutInSeconds=120,
                RoutingConfig={"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"},
                EnableSSMAccess=False,
            )
        ],
        "KmsKeyId": "key",
        "AsyncInferenceConfig": ASYNC,
        "DataCaptureConfig": {
            "EnableCapture": False,
            "InitialSamplingPercentage": 5,
            "DestinationS3Uri": "s3://bucket/captured",
            "CaptureOptions": [{"CaptureMode": "Input"}],
        },
        "MetricsConfig": {"EnableEnhancedMetrics": False, "MetricPublishFrequencyInSeconds": 10},
        "VpcConfig": {"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-1"]},
        "ExecutionRoleArn": "arn:aws:iam::123456789012:role/Service",
        "EnableNetworkIsolation": True,
    }
    answer = sagemaker.create_endpoint_config(**request)
    assert answer["EndpointConfigArn"] == arn("endpoint-config", "echo")
    described = without_metadata(sagemaker.describe_endpoint_config(EndpointConfigName="Echo"))
    assert described.pop("CreationTime").timestamp() > 0
    assert described == request | {"EndpointConfigArn": arn("endpoint-config", "echo")}


def test_defaults_are_described(sagemaker: Any) -> None:
    sagemaker.create_endpoint_config(EndpointConfigName="defaults", ProductionVariants=[variant("many")])
    answer = sagemaker.describe_endpoint_config(EndpointConfigName="defaults")
    assert answer["ProductionVariants"] == [variant("many", InitialVariantWeight=1.0)]
    assert answer["EnableNetworkIsolation"] is False


def test_a_name_is_there_once(sagemaker: Any) -> None:
    request = {"EndpointConfigName": "once", "ProductionVariants": [variant("many")]}
    sagemaker.create_endpoint_config(**request)
    assert refused(sagemaker.create_endpoint_config, **request) == (
        f'Cannot create already existing endpoint configuration "{arn("endpoint-config", "once")}".'
    )


def test_what_is_not_there_could_not_be_found(sagemaker: Any) -> None:
    expected = f'Could not find endpoint configuration "{arn("endpoint-config", "none")}".'
    assert refused(sagemaker.describe_endpoint_config, EndpointConfigName="none") == expected
    assert refused(sagemaker.delete_endpoint_config, EndpointConfigName="none") == expected


def test_a_deleted_configuration_is_gone(sagemaker: Any) -> None:
    sagemaker.create_endpoint_config(EndpointConfigName="gone", ProductionVariants=[variant("many")])
    sagemaker.delete_endpoint_config(EndpointConfigName="gone")
    assert "Could not find" in refused(sagemaker.describe_endpoint_config, EndpointConfigName="gone")


def without(member: str) -> dict[str, Any]:
    return {name: value for name, value in variant("many").items() if name != member}


SHAP = {"ShapBaselineConfig": {"MimeType": "text/csv"}}


@pytest.mark.parametrize(
    ("variants", "members", "text"),
    [
        ([variant("none")], {}, f'Could not find model "{arn("model", "none")}".'),
        ([without("ModelName")], {}, "without a ModelName"),
        ([without("InstanceType")], {}, "needs InstanceType"),
        ([without("InitialInstanceCount")], {}, "needs InitialInstanceCount"),
        ([variant("many"), variant("one")], {}, 'Two production variants have the name "AllTraffic"'),
        ([variant("many", InitialVariantWeight=0.0)], {}, "weights of all production variants are 0"),
        (
            [variant("many", InstanceType="ml.m5.huge")],
            {},
            "failed to satisfy constraint: Member must satisfy enum",
        ),
        (
            [variant("many", InstanceType="ml.g5.12xlarge")],
            {},
            "not supported on ml.g5.12xlarge, which has 4 GPUs",
        ),
        (
            [variant("one", ServerlessConfig={"MemorySizeInMB": 1024, "MaxConcurrency": 1})],
            {},
            "ServerlessConfig is not supported by the local endpoint; give InstanceType",
        ),
        (
            [variant("one", InstancePools=[{"InstanceType": "ml.m5.large", "Priority": 1}])],
            {},
            "InstancePools",
        ),
        ([variant("one", AcceleratorType="ml.eia2.medium")], {}, "AcceleratorType is not supported"),
        ([variant("one", ManagedInstanceScaling={"Status": "ENABLED"})], {}, "ManagedInstanceScaling is not"),
        (
            [
                variant(
                    "one",
                    CapacityReservationConfig={"CapacityReservationPreference": "capacity-reservations-only"},
                )
            ],
            {},
            "CapacityReservationConfig is not supported",
        ),
        (
            [variant("one", CoreDumpConfig={"DestinationS3Uri": "s3://b/d"})],
            {},
            "CoreDumpConfig is not supported",
        ),
        ([variant("one", EnableSSMAccess=True)], {}, "EnableSSMAccess is not supported"),
        (
            [variant("one", RoutingConfig={"RoutingStrategy": "RANDOM"})],
            {},
            "RoutingStrategy RANDOM is not supported by the local endpoint; leave RoutingConfig out",
        ),
        (
            [variant("one")],
            {"ShadowProductionVariants": [variant("one", VariantName="shadow")]},
            "ShadowProductionVariants is not supported",
        ),
        (
            [variant("one")],
            {"ExplainerConfig": {"ClarifyExplainerConfig": {"ShapConfig": SHAP}}},
            "ExplainerConfig is not supported",
        ),
        (
            [variant("one")],
            {
                "DataCaptureConfig": {
                    "EnableCapture": True,
                    "InitialSamplingPercentage": 5,
                    "DestinationS3Uri": "s3://bucket/captured",
                    "CaptureOptions": [{"CaptureMode": "Input"}],
                }
            },
            "DataCaptureConfig with EnableCapture is not supported",
        ),
        (
            [variant("many")],
            {"AsyncInferenceConfig": ASYNC},
            "multi-model endpoints answer in real time only",
        ),
        ([variant("one")], {"AsyncInferenceConfig": {"OutputConfig": {}}}, "needs an S3OutputPath"),
        (
            [variant("one")],
            {
                "AsyncInferenceConfig": {
                    "OutputConfig": {
                        "S3OutputPath": "s3://bucket/out",
                        "NotificationConfig": {"SuccessTopic": "arn:aws:sns:eu-west-1:123456789012:topic"},
                    }
                }
            },
            "NotificationConfig of AsyncInferenceConfig is not supported",
        ),
        (
            [variant("one")],
            {"MetricsConfig": {"EnableEnhancedMetrics": True}},
            "with EnableEnhancedMetrics is not",
        ),
        (
            [variant("one")],
            {"MetricsConfig": {"EnableDetailedObservability": True}},
            "EnableDetailedObservability",
        ),
        (
            [variant("one")],
            {"MetricsConfig": {"MetricPublishFrequencyInSeconds": 11}},
            "must be one of 10, 30, 60, 120, 180, 240, 300, not 11",
        ),
        (
            [variant("one")],
            {
                "CrossRegionTrafficConfig": {
                    "MaxInvocationsPerSecondPerInstance": 1,
                    "MaxCrossRegionPercentPerEndpoint": 1,
                }
            },
            "CrossRegionTrafficConfig is not supported",
        ),
    ],
)
def test_what_cannot_be_run_is_refused(
    sagemaker: Any, variants: list[dict[str, Any]], members: dict[str, Any], text: str
) -> None:
    message = refused(
        sagemaker.create_endpoint_config, EndpointConfigName="refused", ProductionVariants=variants, **members
    )
    assert text in message
    assert "Could not find" in refused(sagemaker.describe_endpoint_config, EndpointConfigName="refused")


def test_a_single_model_may_have_many_gpus(sagemaker: Any) -> None:
    variants = [variant("one", InstanceType="ml.g5.12xlarge")]
    sagemaker.create_endpoint_config(EndpointConfigName="gpus", ProductionVariants=variants)
