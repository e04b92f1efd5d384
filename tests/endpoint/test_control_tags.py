"""Tags of models, endpoint configurations and endpoints."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.endpoint.control import arn, control_plane, fleet, multi_model, refused, variant


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="module")
def sagemaker(state: Path) -> Iterator[Any]:
    with control_plane(state) as plane, fleet(state):
        client = plane.client("sagemaker")
        tags = tagged(made="here")
        client.create_model(ModelName="All", PrimaryContainer=multi_model(), Tags=tags)
        client.create_endpoint_config(
            EndpointConfigName="All", ProductionVariants=[variant("All")], Tags=tags
        )
        client.create_endpoint(EndpointName="All", EndpointConfigName="All", Tags=tags)
        yield client


def tagged(**tags: str) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


@pytest.mark.parametrize("kind", ["model", "endpoint-config", "endpoint"])
def test_tags_come_with_create_and_go_and_come_after(sagemaker: Any, kind: str) -> None:
    resource = arn(kind, "all")
    assert sagemaker.list_tags(ResourceArn=resource)["Tags"] == tagged(made="here")
    answer = sagemaker.add_tags(ResourceArn=resource, Tags=tagged(made="there", größe="ä b"))
    assert answer["Tags"] == tagged(größe="ä b", made="there")
    sagemaker.delete_tags(ResourceArn=resource, TagKeys=["made", "none"])
    assert sagemaker.list_tags(ResourceArn=resource)["Tags"] == tagged(größe="ä b")


def test_an_arn_is_that_of_a_resource_whatever_its_case(sagemaker: Any) -> None:
    assert sagemaker.list_tags(ResourceArn=arn("model", "All"))["ResponseMetadata"]["HTTPStatusCode"] == 200


def test_other_resources_have_no_tags(sagemaker: Any) -> None:
    for resource in (arn("model", "none"), arn("training-job", "all"), arn("model", "all", "us-east-1")):
        message = refused(sagemaker.add_tags, ResourceArn=resource, Tags=tagged(a="1"))
        assert message.startswith(f'Could not find "{resource}"')
        assert "Could not find" in refused(sagemaker.list_tags, ResourceArn=resource)
        assert "Could not find" in refused(sagemaker.delete_tags, ResourceArn=resource, TagKeys=["a"])


def test_a_resource_has_at_most_fifty(sagemaker: Any) -> None:
    sagemaker.create_model(ModelName="full", PrimaryContainer=multi_model())
    resource = arn("model", "full")
    fifty = {f"key{number:02d}": "v" for number in range(50)}
    sagemaker.add_tags(ResourceArn=resource, Tags=tagged(**fifty))
    assert "at most 50 tags" in refused(sagemaker.add_tags, ResourceArn=resource, Tags=tagged(more="v"))
    sagemaker.add_tags(ResourceArn=resource, Tags=tagged(key00="other"))
    listed = sagemaker.list_tags(ResourceArn=resource, MaxResults=50)
    assert len(listed["Tags"]) == 50
    assert "NextToken" not in listed


def test_the_tags_of_a_deleted_endpoint_are_gone(sagemaker: Any) -> None:
    sagemaker.create_endpoint(EndpointName="gone", EndpointConfigName="All", Tags=tagged(a="1"))
    sagemaker.delete_endpoint(EndpointName="gone")
    assert "Could not find" in refused(sagemaker.list_tags, ResourceArn=arn("endpoint", "gone"))
    sagemaker.create_endpoint(EndpointName="gone", EndpointConfigName="All")
    assert sagemaker.list_tags(ResourceArn=arn("endpoint", "gone"))["Tags"] == []
