"""What of an endpoint is ours, and the requests that delete it. Archives and images are never among it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from botocore.exceptions import ClientError

from mmekit_toolkit.aws.clients import Aws
from mmekit_toolkit.aws.explanations import DENIED, code
from mmekit_toolkit.deploy import alarms, private_link, scaling
from mmekit_toolkit.deploy.naming import is_of
from mmekit_toolkit.deploy.observed import Described, Endpoint
from mmekit_toolkit.deploy.observing import Reader
from mmekit_toolkit.deploy.requests import Request, Step, Wait
from mmekit_toolkit.errors import ToolkitError


@dataclass(frozen=True, kw_only=True)
class Owned:
    """Everything with the endpoint's tag, and what ends with the endpoint."""

    name: str
    endpoint: Endpoint | None = None
    configs: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    #: Those of the configuration that the endpoint runs, and its models.
    in_use: frozenset[str] = frozenset()
    #: Variants with a scalable target.
    targets: tuple[str, ...] = ()
    alarms: tuple[str, ...] = ()
    #: Identifier → what it is, for people.
    vpc_endpoints: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


def find(name: str, aws: Aws, *, local: bool) -> Owned:
    """Return what is ours. Raises ToolkitError when the endpoint itself is there and not ours."""
    reader = Reader(name, aws)
    endpoint = reader.endpoint()
    configs = tuple(_listed(reader, aws, "list_endpoint_configs", "EndpointConfig", name))
    models = tuple(_listed(reader, aws, "list_models", "Model", name))
    targets, _ = reader.scaling(local=local)
    own_vpc_endpoints, remarks = ({}, ()) if local else _vpc_endpoints(reader)
    return Owned(
        name=name,
        endpoint=endpoint,
        configs=configs,
        models=models,
        in_use=_in_use(endpoint, configs, aws),
        targets=tuple(targets),
        alarms=tuple(reader.alarms_named([])),
        vpc_endpoints=own_vpc_endpoints,
        remarks=remarks,
    )


def everything(owned: Owned) -> list[Step]:
    """Return the steps that delete all, in the order in which nothing in use goes first."""
    steps: list[Step] = [scaling.deregister(owned.name, variant) for variant in owned.targets]
    if owned.endpoint is not None:
        parameters = {"EndpointName": owned.name}
        steps.append(Request("sagemaker", "DeleteEndpoint", parameters, f"delete the endpoint {owned.name}"))
        steps.append(Wait("endpoint_deleted", owned.name, f"wait until {owned.name} is gone"))
    steps += _definitions(owned.configs, owned.models)
    if owned.alarms:
        steps.append(alarms.delete(list(owned.alarms)))
    if owned.vpc_endpoints:
        steps.append(private_link.delete(list(owned.vpc_endpoints)))
    return steps


def unused(owned: Owned) -> list[Step]:
    """Return the steps that delete configurations and models which the endpoint does not run.

    Raises ToolkitError when nothing tells which it runs: its configuration was deleted under it.
    """
    if owned.endpoint is not None and not owned.in_use:
        raise ToolkitError(
            f"the configuration that {owned.name} runs ({owned.endpoint.config_name}) was deleted, so "
            "nothing tells which models are in use. `mmekit update` gives the endpoint one again."
        )
    return list(
        _definitions(
            [name for name in owned.configs if name not in owned.in_use],
            [name for name in owned.models if name not in owned.in_use],
        )
    )


def _definitions(configs: tuple[str, ...] | list[str], models: tuple[str, ...] | list[str]) -> Iterator[Step]:
    for name in configs:
        why = f"delete the endpoint configuration {name}"
        yield Request("sagemaker", "DeleteEndpointConfig", {"EndpointConfigName": name}, why)
    for name in models:
        yield Request("sagemaker", "DeleteModel", {"ModelName": name}, f"delete the model {name}")


def _listed(reader: Reader, aws: Aws, operation: str, kind: str, endpoint: str) -> Iterator[str]:
    pages = aws.client("sagemaker").get_paginator(operation).paginate(NameContains=f"{endpoint}-")
    for page in pages:
        for entry in page[f"{kind}s"]:
            name = entry[f"{kind}Name"]
            if is_of(endpoint, name) and reader.is_ours(entry[f"{kind}Arn"]):
                yield name


def _in_use(endpoint: Endpoint | None, configs: tuple[str, ...], aws: Aws) -> frozenset[str]:
    name = endpoint.config_name if endpoint else None
    if name is None or name not in configs:
        return frozenset()
    described = aws.client("sagemaker").describe_endpoint_config(EndpointConfigName=name)
    return frozenset([name, *(variant["ModelName"] for variant in described["ProductionVariants"])])


def _vpc_endpoints(reader: Reader) -> tuple[dict[str, str], tuple[str, ...]]:
    try:
        found: list[Described] = reader.own_vpc_endpoints()
    except ClientError as error:
        if code(error) not in DENIED:
            raise
        return {}, ("VPC endpoints were not looked for: ec2:DescribeVpcEndpoints is not allowed.",)
    return {vpc["VpcEndpointId"]: f"{vpc['ServiceName']} in {vpc['VpcId']}" for vpc in found}, ()
