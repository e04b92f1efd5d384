"""VPC endpoints for SageMaker and S3, as parameters of CreateVpcEndpoint.

A VPC has one endpoint a service at most when host names are AWS's usual ones, so one that is there already,
whoever made it, is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmekit_toolkit.deploy import ownership, shapes
from mmekit_toolkit.deploy.description import Description, PrivateLink
from mmekit_toolkit.deploy.requests import Request

_SERVICES = {"runtime": "sagemaker.runtime", "api": "sagemaker.api", "s3": "s3"}
_GATEWAY = "s3"
#: Partition → how names of SageMaker's interfaces begin there (`aws ec2 describe-vpc-endpoint-services`; CDK:
#: InterfaceVpcEndpointAwsService). Gateways begin with com.amazonaws everywhere.
_PREFIXES = {"aws-cn": "cn.com.amazonaws", "aws-iso": "gov.ic.c2s", "aws-iso-b": "gov.sgov.sc2s"}


def endpoints(description: Description, region: str) -> dict[str, Mapping[str, Any]]:
    """Return the VPC endpoints of a description: service name → parameters of CreateVpcEndpoint."""
    link = description.private_link
    if link is None:
        return {}
    tags = ownership.tags(description.name, {"Name": f"{description.name}-sagemaker", **description.tags})
    specifications = [{"ResourceType": "vpc-endpoint", "Tags": tags}]
    found: dict[str, Mapping[str, Any]] = {}
    for service in link.services:
        name = _service_name(service, region)
        kind = _gateway(link) if service == _GATEWAY else _interface(link)
        found[name] = {"VpcId": link.vpc, "ServiceName": name, **kind, "TagSpecifications": specifications}
    return found


def create(parameters: Mapping[str, Any]) -> Request:
    """Return the request that creates a VPC endpoint."""
    why = f"create the VPC endpoint for {parameters['ServiceName']} in {parameters['VpcId']}"
    return Request("ec2", "CreateVpcEndpoint", parameters, why)


def delete(identifiers: list[str]) -> Request:
    """Return the request that deletes VPC endpoints."""
    why = f"delete the VPC endpoints {', '.join(identifiers)}"
    return Request("ec2", "DeleteVpcEndpoints", {"VpcEndpointIds": identifiers}, why)


def _service_name(service: str, region: str) -> str:
    prefixes = {} if service == _GATEWAY else _PREFIXES
    prefix = prefixes.get(shapes.partition(region) or "", "com.amazonaws")
    return f"{prefix}.{region}.{_SERVICES[service]}"


def _interface(link: PrivateLink) -> dict[str, Any]:
    return {
        "VpcEndpointType": "Interface",
        "SubnetIds": link.subnets,
        "SecurityGroupIds": link.security_groups,
        "PrivateDnsEnabled": link.private_dns,
    }


def _gateway(link: PrivateLink) -> dict[str, Any]:
    return {"VpcEndpointType": "Gateway", "RouteTableIds": link.route_tables}
