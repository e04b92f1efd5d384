"""Lists of models, endpoint configurations and endpoints: filters, order, pages."""

from __future__ import annotations

import base64
import datetime
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

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
)


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="module")
def plane(state: Path) -> Iterator[ControlPlane]:
    with control_plane(state) as started:
        yield started


@pytest.fixture(scope="module")
def sagemaker(plane: ControlPlane) -> Any:
    return plane.client("sagemaker")


@pytest.fixture(scope="module")
def models(sagemaker: Any) -> list[str]:
    """Names in the order of their creation, which is not that of the names."""
    names = [f"model-{(number * 7) % 25:02d}" for number in range(25)]
    for name in names:
        sagemaker.create_model(ModelName=name, PrimaryContainer=multi_model())
    return names


def names(answer: dict[str, Any]) -> list[str]:
    return [model["ModelName"] for model in answer["Models"]]


def all_names(sagemaker: Any, **query: Any) -> list[str]:
    pages = sagemaker.get_paginator("list_models").paginate(**query)
    return [name for page in pages for name in names(page)]


def test_the_newest_ten_come_first(sagemaker: Any, models: list[str]) -> None:
    answer = sagemaker.list_models()
    assert names(answer) == models[::-1][:10]
    assert answer["NextToken"]
    assert answer["Models"][0] == {
        "ModelName": models[-1],
        "ModelArn": arn("model", models[-1]),
        "CreationTime": answer["Models"][0]["CreationTime"],
    }


@pytest.mark.parametrize("size", [1, 7, 25, 100])
def test_pages_together_have_all_entries_once(sagemaker: Any, models: list[str], size: int) -> None:
    assert all_names(sagemaker, PaginationConfig={"PageSize": size}) == models[::-1]


@pytest.mark.parametrize("order", ["Ascending", "Descending"])
def test_names_and_times_are_sorted(sagemaker: Any, models: list[str], order: str) -> None:
    expected = {"Name": sorted(models), "CreationTime": models}
    for key, ascending in expected.items():
        found = all_names(sagemaker, SortBy=key, SortOrder=order)
        assert found == (ascending if order == "Ascending" else ascending[::-1])


def test_names_are_filtered_whatever_their_case(sagemaker: Any, models: list[str]) -> None:
    assert sorted(all_names(sagemaker, NameContains="EL-1")) == [f"model-1{digit}" for digit in range(10)]
    assert all_names(sagemaker, NameContains="none") == []


def test_times_are_filtered(sagemaker: Any, models: list[str]) -> None:
    times = {
        model["ModelName"]: model["CreationTime"]
        for page in sagemaker.get_paginator("list_models").paginate()
        for model in page["Models"]
    }
    after, before = times[models[3]], times[models[8]]
    found = all_names(sagemaker, CreationTimeAfter=after, CreationTimeBefore=before, SortOrder="Ascending")
    # times travel with a millisecond's precision or better, so that the ends may be in or out
    assert set(models[4:8]) <= set(found) <= set(models[3:9])
    future = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=1)
    assert all_names(sagemaker, CreationTimeAfter=future) == []


def test_pages_do_not_move_while_entries_come_and_go(sagemaker: Any) -> None:
    for name in "bdfhj":
        sagemaker.create_model(ModelName=f"page-{name}", PrimaryContainer=multi_model())
    query = {"NameContains": "page-", "SortBy": "Name", "SortOrder": "Ascending", "MaxResults": 2}
    first = sagemaker.list_models(**query)
    assert names(first) == ["page-b", "page-d"]
    sagemaker.create_model(ModelName="page-a", PrimaryContainer=multi_model())
    sagemaker.create_model(ModelName="page-e", PrimaryContainer=multi_model())
    sagemaker.delete_model(ModelName="page-d")
    second = sagemaker.list_models(**query, NextToken=first["NextToken"])
    assert names(second) == ["page-e", "page-f"]
    third = sagemaker.list_models(**query, NextToken=second["NextToken"])
    assert names(third) == ["page-h", "page-j"]
    assert "NextToken" not in third
    for name in "abefhj":
        sagemaker.delete_model(ModelName=f"page-{name}")


def test_a_token_of_another_list_is_refused(sagemaker: Any, models: list[str]) -> None:
    token = sagemaker.list_models()["NextToken"]
    forged = base64.urlsafe_b64decode(token).replace(b",1", b',"1', 1)
    tokens = ["x", "AAAA", base64.b64encode(b"[]").decode(), base64.urlsafe_b64encode(forged).decode()]
    for bad in tokens:
        assert "ask for the first page again" in refused(sagemaker.list_models, NextToken=bad)
    assert "ask for the first page again" in refused(sagemaker.list_models, NextToken=token, SortBy="Name")


def test_configurations_are_listed(sagemaker: Any, models: list[str]) -> None:
    for name in ("config-b", "config-a"):
        sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant(models[0])])
    answer = sagemaker.list_endpoint_configs()
    assert [config["EndpointConfigName"] for config in answer["EndpointConfigs"]] == ["config-a", "config-b"]
    assert answer["EndpointConfigs"][0]["EndpointConfigArn"] == arn("endpoint-config", "config-a")
    answer = sagemaker.list_endpoint_configs(NameContains="-b", SortBy="Name")
    assert [config["EndpointConfigName"] for config in answer["EndpointConfigs"]] == ["config-b"]


@pytest.fixture(scope="module")
def endpoints(sagemaker: Any, state: Path, models: list[str]) -> Iterator[Fleet]:
    sagemaker.create_endpoint_config(EndpointConfigName="config", ProductionVariants=[variant(models[0])])
    with fleet(state) as running:
        for name, how in [("zulu", settle), ("alpha", fail), ("mike", settle)]:
            running.settle = how
            sagemaker.create_endpoint(EndpointName=name, EndpointConfigName="config")
        running.settle = settle
        yield running


def endpoint_names(answer: dict[str, Any]) -> list[str]:
    return [endpoint["EndpointName"] for endpoint in answer["Endpoints"]]


def test_endpoints_are_listed_by_all_their_members(sagemaker: Any, endpoints: Fleet) -> None:
    answer = sagemaker.list_endpoints()
    assert endpoint_names(answer) == ["mike", "alpha", "zulu"]
    assert set(answer["Endpoints"][0]) == {
        "EndpointName",
        "EndpointArn",
        "EndpointStatus",
        "CreationTime",
        "LastModifiedTime",
    }
    assert endpoint_names(sagemaker.list_endpoints(StatusEquals="Failed")) == ["alpha"]
    assert endpoint_names(sagemaker.list_endpoints(StatusEquals="Updating")) == []
    by_status = sagemaker.list_endpoints(SortBy="Status", SortOrder="Ascending")
    assert endpoint_names(by_status) == ["alpha", "mike", "zulu"]
    first = sagemaker.list_endpoints(SortBy="Status", SortOrder="Ascending", MaxResults=2)
    second = sagemaker.list_endpoints(
        SortBy="Status", SortOrder="Ascending", MaxResults=2, NextToken=first["NextToken"]
    )
    assert endpoint_names(first) + endpoint_names(second) == ["alpha", "mike", "zulu"]


def test_endpoints_are_filtered_by_their_last_change(sagemaker: Any, endpoints: Fleet) -> None:
    time.sleep(0.01)  # times travel in milliseconds
    before = datetime.datetime.now(datetime.timezone.utc)
    sagemaker.update_endpoint(EndpointName="zulu", EndpointConfigName="config")
    assert endpoint_names(sagemaker.list_endpoints(LastModifiedTimeAfter=before)) == ["zulu"]
    assert endpoint_names(sagemaker.list_endpoints(LastModifiedTimeBefore=before)) == ["mike", "alpha"]
    assert endpoint_names(sagemaker.list_endpoints(CreationTimeAfter=before)) == []
