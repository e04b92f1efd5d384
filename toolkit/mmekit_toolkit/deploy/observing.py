"""Reads what is there of an endpoint. Only Describe and List calls are made here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from botocore.exceptions import ClientError

from mmekit_toolkit.aws.clients import Aws
from mmekit_toolkit.aws.explanations import code, text
from mmekit_toolkit.deploy import alarms, private_link, scaling
from mmekit_toolkit.deploy.definitions import Definitions
from mmekit_toolkit.deploy.description import Description
from mmekit_toolkit.deploy.observed import Described, Endpoint, Observed, Resource
from mmekit_toolkit.deploy.ownership import ENDPOINT_TAG, is_ours
from mmekit_toolkit.errors import ToolkitError

#: Codes for what is not there, of services that have one.
GONE = {"ObjectNotFoundException", "ResourceNotFound", "ResourceNotFoundException"}
#: States of a VPC endpoint that is there, or comes (EC2: State).
_VPC_STATES = ["pendingAcceptance", "pending", "available"]


def observe(description: Description, wanted: Definitions, aws: Aws, *, local: bool) -> Observed:
    """Return what is there of a description's endpoint.

    Raises
    ------
    ToolkitError
        When something has a name that the endpoint needs, and is not ours.
    """
    reader = Reader(description.name, aws)
    endpoint = reader.endpoint()
    configs = reader.configs({wanted.config_name, *_named(endpoint.config_name if endpoint else None)})
    models = reader.models({*wanted.models, *_models_of(configs)})
    targets, policies = reader.scaling(local=local)
    return Observed(
        endpoint=endpoint,
        models=models,
        configs=configs,
        targets=targets,
        policies=policies,
        alarms=reader.alarms_named(list(alarms.alarms(description))),
        vpc_endpoints={} if local else reader.vpc_endpoints(description),
        tags=reader.tags,
    )


class Reader:
    """Reads the resources of one endpoint; ``tags`` are those of all that it has read, by ARN."""

    def __init__(self, name: str, aws: Aws) -> None:
        self.tags: dict[str, dict[str, str]] = {}
        self._name = name
        self._aws = aws
        self._sagemaker = aws.client("sagemaker")

    # --- SageMaker -------------------------------------------------------------------------------

    def endpoint(self) -> Endpoint | None:
        """Return the endpoint. Raises ToolkitError when it is not ours."""
        described = describe_endpoint(self._aws, self._name)
        if described is None:
            return None
        is_there = self._insist("endpoint", self._name, described["EndpointArn"])
        return Endpoint(described) if is_there else None

    def configs(self, names: set[str]) -> dict[str, Resource]:
        """Return those configurations that are there. Raises ToolkitError when one is not ours."""
        return dict(self._resources("endpoint configuration", "EndpointConfig", names))

    def models(self, names: set[str]) -> dict[str, Resource]:
        """Return those models that are there. Raises ToolkitError when one is not ours."""
        return dict(self._resources("model", "Model", names))

    def is_ours(self, arn: str) -> bool:
        """Say whether a resource of SageMaker is there and has our tag."""
        return is_ours(self._tags_of(arn) or [], self._name)

    def _resources(self, noun: str, kind: str, names: set[str]) -> Iterator[tuple[str, Resource]]:
        describe = {
            "Model": self._sagemaker.describe_model,
            "EndpointConfig": self._sagemaker.describe_endpoint_config,
        }[kind]
        for name in sorted(names):
            described = or_none(describe, **{f"{kind}Name": name})
            if described is not None:
                arn = described[f"{kind}Arn"]
                if self._insist(noun, name, arn):
                    yield name, Resource(name, arn, described)

    def _tags_of(self, arn: str) -> list[dict[str, str]] | None:
        """Return a resource's tags, None where it is gone: another run deletes while this one looks."""
        pages = self._sagemaker.get_paginator("list_tags").paginate(ResourceArn=arn)
        try:
            tags = [tag for page in pages for tag in page["Tags"]]
        except ClientError as error:
            if is_not_found(error):
                return None
            raise
        self.tags[arn] = {tag["Key"]: tag["Value"] for tag in tags}
        return tags

    def _insist(self, noun: str, name: str, arn: str) -> bool:
        """Say whether a resource is there still. Raises ToolkitError when it is not ours."""
        tags = self._tags_of(arn)
        if tags is None:
            return False
        if not is_ours(tags, self._name):
            raise ToolkitError(
                f"the {noun} {name} is there already and is not mmekit's: it has no tag "
                f"{ENDPOINT_TAG}={self._name}. It is left as it is. Choose another name, or hand it over: "
                f"aws sagemaker add-tags --resource-arn {arn} --tags "
                f"Key={ENDPOINT_TAG},Value={self._name}"
            )
        return True

    # --- what stands around it -------------------------------------------------------------------

    def scaling(self, *, local: bool = False) -> tuple[dict[str, Described], dict[str, Described]]:
        """Return the scalable targets and our policies, by variant; a local endpoint may have neither."""
        client = self._aws.client(scaling.SERVICE)
        try:
            targets = _by_variant(self._name, client, "describe_scalable_targets", "ScalableTargets")
            policies = _by_variant(self._name, client, "describe_scaling_policies", "ScalingPolicies")
        except ClientError as error:
            if local and code(error) == "ValidationException":
                return {}, {}
            raise
        ours = [policy for policy in policies if policy["PolicyName"] == scaling.POLICY]
        return _last_of_each(self._name, targets), _last_of_each(self._name, ours)

    def alarms_named(self, names: list[str]) -> dict[str, Described]:
        """Return the endpoint's alarms that are ours. Raises ToolkitError when one of ``names`` is not."""
        found = {}
        cloudwatch = self._aws.client("cloudwatch")
        for alarm in self._alarms():
            name = alarm["AlarmName"]
            try:
                tags = cloudwatch.list_tags_for_resource(ResourceARN=alarm["AlarmArn"])["Tags"]
            except ClientError as error:
                if code(error) in GONE:
                    continue  # deleted since it was listed
                raise
            if is_ours(tags, self._name):
                found[name] = alarm
            elif name in names:
                raise ToolkitError(
                    f"the alarm {name} is there already and is not mmekit's. It is left as it is: rename or "
                    "delete it, or leave this alarm out of the file."
                )
        return found

    def vpc_endpoints(self, description: Description) -> dict[str, Described]:
        """Return the VPC endpoints, whoever made them, of those that the description wants."""
        wanted = private_link.endpoints(description, self._aws.region_name)
        if not wanted or description.private_link is None:
            return {}
        filters = [
            {"Name": "vpc-id", "Values": [description.private_link.vpc]},
            {"Name": "service-name", "Values": list(wanted)},
        ]
        return {found["ServiceName"]: found for found in self._vpc_endpoints(filters)}

    def own_vpc_endpoints(self) -> list[Described]:
        """Return the VPC endpoints that have our tag, in all VPCs."""
        return self._vpc_endpoints([{"Name": f"tag:{ENDPOINT_TAG}", "Values": [self._name]}])

    def _vpc_endpoints(self, filters: list[dict[str, Any]]) -> list[Described]:
        pages = self._aws.client("ec2").get_paginator("describe_vpc_endpoints").paginate(Filters=filters)
        found = [endpoint for page in pages for endpoint in page["VpcEndpoints"]]
        return [endpoint for endpoint in found if endpoint.get("State") in _VPC_STATES]

    def _alarms(self) -> Iterator[Described]:
        """Yield the alarms whose names may be ours; that they belong to the endpoint, their tags say."""
        pages = self._aws.client("cloudwatch").get_paginator("describe_alarms")
        for page in pages.paginate(AlarmNamePrefix=f"{self._name}-", AlarmTypes=["MetricAlarm"]):
            for alarm in page["MetricAlarms"]:
                if self._name in _endpoints_of(alarm):
                    yield alarm


def describe_endpoint(aws: Aws, name: str) -> Described | None:
    """Return what DescribeEndpoint says, None where there is no such endpoint."""
    return or_none(aws.client("sagemaker").describe_endpoint, EndpointName=name)


def or_none(describe: Any, **names: str) -> Described | None:
    """Return what a Describe operation of SageMaker answers, None where it finds nothing."""
    try:
        answer: Described = describe(**names)
    except ClientError as error:
        if is_not_found(error):
            return None
        raise
    return answer


def is_not_found(error: ClientError) -> bool:
    """Say whether SageMaker found nothing: it has no code for it, and its own clients look for the words."""
    return code(error) == "ValidationException" and "could not find" in text(error).lower()


def _named(name: str | None) -> set[str]:
    return {name} if name else set()


def _models_of(configs: Mapping[str, Resource]) -> set[str]:
    variants = [v for config in configs.values() for v in config.described["ProductionVariants"]]
    return {variant["ModelName"] for variant in variants if "ModelName" in variant}


def _by_variant(name: str, client: Any, operation: str, member: str) -> list[Described]:
    pages = client.get_paginator(operation).paginate(ServiceNamespace="sagemaker")
    found = [entry for page in pages for entry in page[member]]
    return [entry for entry in found if scaling.variant_of(name, entry["ResourceId"]) is not None]


def _last_of_each(name: str, entries: list[Described]) -> dict[str, Described]:
    return {str(scaling.variant_of(name, entry["ResourceId"])): entry for entry in entries}


def _endpoints_of(alarm: Described) -> set[str]:
    metrics = [alarm, *(query.get("MetricStat", {}).get("Metric", {}) for query in alarm.get("Metrics", []))]
    dimensions = [dimension for metric in metrics for dimension in metric.get("Dimensions", [])]
    return {dimension["Value"] for dimension in dimensions if dimension["Name"] == "EndpointName"}
