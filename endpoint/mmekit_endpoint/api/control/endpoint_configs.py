"""CreateEndpointConfig, DescribeEndpointConfig, ListEndpointConfigs, DeleteEndpointConfig."""

from __future__ import annotations

from typing import Any

from mmekit_endpoint.api.control.context import Context
from mmekit_endpoint.api.control.definitions import Definition
from mmekit_endpoint.api.control.listing import Listing
from mmekit_endpoint.api.control.refusals import ENDPOINT_CONFIG as REFUSED
from mmekit_endpoint.api.control.refusals import VARIANT as REFUSED_OF_VARIANTS
from mmekit_endpoint.api.control.refusals import refuse, refuse_members
from mmekit_endpoint.api.control.specs import endpoint_spec
from mmekit_endpoint.api.control.tags import tags_of
from mmekit_endpoint.database import ENDPOINT_CONFIG
from mmekit_endpoint.errors import ValidationException

#: What MetricPublishFrequencyInSeconds may be, in seconds; the service model has it in words only.
METRICS_PERIODS_S = (10, 30, 60, 120, 180, 240, 300)

_LISTING: Listing[Definition] = Listing(
    name=lambda config: config.name, created=lambda config: config.created
)


def create_endpoint_config(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Define an endpoint configuration; its models must be there."""
    name = request["EndpointConfigName"]
    refuse_members(request, REFUSED)
    for variant in request["ProductionVariants"]:
        _check_variant(variant)
    _check_async(request.get("AsyncInferenceConfig"))
    _check_metrics(request.get("MetricsConfig", {}))
    if request.get("DataCaptureConfig", {}).get("EnableCapture"):
        refuse("DataCaptureConfig with EnableCapture", "record requests in your test, or set it to false")
    endpoint_spec(context, request)
    tags = tags_of(request)
    arn = context.arn(ENDPOINT_CONFIG, name)
    body = {member: value for member, value in request.items() if member != "Tags"}
    if not context.definitions.add(ENDPOINT_CONFIG, name, arn, body, tags):
        taken = context.definitions.taken_arn(ENDPOINT_CONFIG, name) or arn
        raise ValidationException(f'Cannot create already existing endpoint configuration "{taken}".')
    return {"EndpointConfigArn": arn}


def describe_endpoint_config(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Answer what an endpoint configuration was created with."""
    config = find_endpoint_config(context, request["EndpointConfigName"])
    variants = [{"InitialVariantWeight": 1.0} | variant for variant in config.body["ProductionVariants"]]
    answer = {"EnableNetworkIsolation": False} | config.body | {"ProductionVariants": variants}
    return answer | {"EndpointConfigArn": config.arn, "CreationTime": config.created}


def list_endpoint_configs(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """List endpoint configurations, the newest first."""
    page, token = _LISTING.page(context.definitions.list(ENDPOINT_CONFIG), request)
    summaries = [
        {
            "EndpointConfigName": config.name,
            "EndpointConfigArn": config.arn,
            "CreationTime": config.created,
        }
        for config in page
    ]
    return {"EndpointConfigs": summaries} | ({"NextToken": token} if token else {})


def delete_endpoint_config(context: Context, request: dict[str, Any]) -> None:
    """Remove an endpoint configuration; endpoints that were made with it go on."""
    name = request["EndpointConfigName"]
    if not context.definitions.remove(ENDPOINT_CONFIG, name):
        raise _not_found(context, name)


def find_endpoint_config(context: Context, name: str) -> Definition:
    """Return an endpoint configuration; raise the ValidationException that clients look for without one."""
    config = context.definitions.get(ENDPOINT_CONFIG, name)
    if config is None:
        raise _not_found(context, name)
    return config


def _not_found(context: Context, name: str) -> ValidationException:
    return ValidationException(
        f'Could not find endpoint configuration "{context.arn(ENDPOINT_CONFIG, name)}".'
    )


def _check_variant(variant: dict[str, Any]) -> None:
    refuse_members(variant, REFUSED_OF_VARIANTS)
    if "ModelName" not in variant:
        name = variant["VariantName"]
        refuse(
            f'A production variant without a ModelName ("{name}"), as inference components have,', "name one"
        )
    for member in ("InstanceType", "InitialInstanceCount"):
        if member not in variant:
            raise ValidationException(f'The production variant "{variant["VariantName"]}" needs {member}.')
    strategy = variant.get("RoutingConfig", {}).get("RoutingStrategy", "LEAST_OUTSTANDING_REQUESTS")
    if strategy != "LEAST_OUTSTANDING_REQUESTS":
        refuse(f"RoutingStrategy {strategy}", "leave RoutingConfig out, or give LEAST_OUTSTANDING_REQUESTS")
    if variant.get("EnableSSMAccess"):
        refuse("EnableSSMAccess", "leave it out: the container is on this machine")


def _check_async(config: dict[str, Any] | None) -> None:
    if config is None:
        return
    output = config["OutputConfig"]
    if output.get("NotificationConfig"):
        refuse("NotificationConfig of AsyncInferenceConfig", "look for the answer at its S3 OutputLocation")
    if "S3OutputPath" not in output:
        raise ValidationException("The OutputConfig of AsyncInferenceConfig needs an S3OutputPath.")


def _check_metrics(config: dict[str, Any]) -> None:
    for member in ("EnableEnhancedMetrics", "EnableDetailedObservability"):
        if config.get(member):
            refuse(f"MetricsConfig with {member}", "leave it out, or set it to false")
    period = config.get("MetricPublishFrequencyInSeconds", METRICS_PERIODS_S[0])
    if period not in METRICS_PERIODS_S:
        allowed = ", ".join(map(str, METRICS_PERIODS_S))
        raise ValidationException(f"MetricPublishFrequencyInSeconds must be one of {allowed}, not {period}.")
