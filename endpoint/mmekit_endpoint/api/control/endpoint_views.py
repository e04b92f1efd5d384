"""DescribeEndpoint and ListEndpoints: endpoints as they are."""

from __future__ import annotations

from typing import Any

from mmekit_endpoint.api.control.context import Context
from mmekit_endpoint.api.control.endpoints import find_endpoint
from mmekit_endpoint.api.control.listing import Listing
from mmekit_endpoint.definitions import CREATE, DELETE, EndpointRow, EndpointSpec, VariantSpec, VariantState

_LISTING: Listing[EndpointRow] = Listing(
    name=lambda row: row.name,
    created=lambda row: row.created,
    modified=lambda row: row.modified,
    status=lambda row: row.status,
)


def describe_endpoint(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Answer an endpoint's status, and its variants with their instances and weights."""
    row = find_endpoint(context, request["EndpointName"])
    answer = {
        "EndpointName": row.name,
        "EndpointArn": row.arn,
        "EndpointStatus": row.status,
        "CreationTime": row.created,
        "LastModifiedTime": row.modified,
    }
    if row.failure_reason:
        answer["FailureReason"] = row.failure_reason
    if variants := _variants(row):
        answer["ProductionVariants"] = [_summary(row, state) for state in variants]
    if notes := context.database.endpoint_notes(row.name):
        answer["EndpointConfigName"] = notes.config_name
        if notes.deployment is not None:
            answer["LastDeploymentConfig"] = notes.deployment
    if spec := row.spec or row.target:
        answer |= _settings(spec)
    return answer


def list_endpoints(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """List endpoints, the newest first."""
    page, token = _LISTING.page(context.database.endpoints(), request)
    summaries = [
        {
            "EndpointName": row.name,
            "EndpointArn": row.arn,
            "EndpointStatus": row.status,
            "CreationTime": row.created,
            "LastModifiedTime": row.modified,
        }
        for row in page
    ]
    return {"Endpoints": summaries} | ({"NextToken": token} if token else {})


def _variants(row: EndpointRow) -> tuple[VariantState, ...]:
    """Return what the fleet said of the variants, or until it has said anything, what is wanted."""
    if row.variants or row.target is None:
        return row.variants
    return tuple(map(_not_started, row.target.variants))


def _not_started(variant: VariantSpec) -> VariantState:
    return VariantState(
        name=variant.name,
        current_weight=0.0,
        desired_weight=variant.weight,
        current_count=0,
        desired_count=variant.instance_count,
        image=variant.container.image,
    )


def _summary(row: EndpointRow, state: VariantState) -> dict[str, Any]:
    summary: dict[str, Any] = {
        "VariantName": state.name,
        "CurrentWeight": state.current_weight,
        "DesiredWeight": state.desired_weight,
        "CurrentInstanceCount": state.current_count,
        "DesiredInstanceCount": state.desired_count,
    }
    if state.image:
        image: dict[str, Any] = {"SpecifiedImage": state.image}
        if state.resolved_image:
            image |= {"ResolvedImage": state.resolved_image, "ResolutionTime": row.modified}
        summary["DeployedImages"] = [image]
    if row.change is not None:
        stage = {CREATE: "Creating", DELETE: "Deleting"}.get(row.change, "Updating")
        summary["VariantStatus"] = [{"Status": stage, "StartTime": row.modified}]
    return summary


def _settings(spec: EndpointSpec) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    if spec.metrics_period_s is not None:
        settings["MetricsConfig"] = {"MetricPublishFrequencyInSeconds": spec.metrics_period_s}
    if spec.asynchronous is not None:
        output = {"S3OutputPath": spec.asynchronous.output_url}
        if spec.asynchronous.failure_url is not None:
            output["S3FailurePath"] = spec.asynchronous.failure_url
        settings["AsyncInferenceConfig"] = {"OutputConfig": output}
        if limit := spec.asynchronous.max_concurrent_per_instance:
            settings["AsyncInferenceConfig"]["ClientConfig"] = {"MaxConcurrentInvocationsPerInstance": limit}
    return settings
