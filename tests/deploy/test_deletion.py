"""What is deleted, in which order, and what is not."""

from __future__ import annotations

import pytest

from mmekit_toolkit.deploy import requests
from mmekit_toolkit.deploy.deletion import Owned, everything, unused
from mmekit_toolkit.deploy.observed import Endpoint
from mmekit_toolkit.deploy.requests import Request, Step
from mmekit_toolkit.errors import ToolkitError

ENDPOINT = Endpoint({"EndpointName": "churn", "EndpointStatus": "InService", "EndpointConfigName": "churn-1"})
OWNED = Owned(
    name="churn",
    endpoint=ENDPOINT,
    configs=("churn-1", "churn-2"),
    models=("churn-a", "churn-b"),
    in_use=frozenset({"churn-1", "churn-a"}),
    targets=("AllTraffic",),
    alarms=("churn-AllTraffic-memory",),
    vpc_endpoints={"vpce-1": "com.amazonaws.eu-west-1.sagemaker.runtime in vpc-1"},
)


def names(steps: list[Step]) -> list[str]:
    return [step.operation if isinstance(step, Request) else step.waiter for step in steps]


def test_nothing_goes_before_what_uses_it() -> None:
    steps = everything(OWNED)
    assert names(steps) == [
        "DeregisterScalableTarget",
        "DeleteEndpoint",
        "endpoint_deleted",
        *["DeleteEndpointConfig"] * 2,
        *["DeleteModel"] * 2,
        "DeleteAlarms",
        "DeleteVpcEndpoints",
    ]
    requests.check(step for step in steps if isinstance(step, Request))


def test_what_is_left_of_an_endpoint_that_is_gone_is_deleted() -> None:
    left = Owned(name="churn", models=("churn-a",))
    assert names(everything(left)) == ["DeleteModel"]
    assert names(unused(left)) == ["DeleteModel"]
    assert everything(Owned(name="churn")) == []


def test_unused_is_what_the_endpoint_does_not_run() -> None:
    deleted = [step.parameters for step in unused(OWNED) if isinstance(step, Request)]
    assert deleted == [{"EndpointConfigName": "churn-2"}, {"ModelName": "churn-b"}]


def test_nothing_is_called_unused_when_nothing_tells_what_is_in_use() -> None:
    unknown = Owned(name="churn", endpoint=ENDPOINT, models=("churn-a",))
    with pytest.raises(
        ToolkitError, match=r"\(churn-1\) was deleted, so nothing tells which models are in use"
    ):
        unused(unknown)
