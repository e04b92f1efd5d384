"""CreateEndpoint, UpdateEndpoint, UpdateEndpointWeightsAndCapacities, DeleteEndpoint: what is wanted.

They write it down; the fleet's reconciler does it. `endpoint_views` answers what has become of it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from mmekit_endpoint.api.control.context import Context
from mmekit_endpoint.api.control.endpoint_configs import find_endpoint_config
from mmekit_endpoint.api.control.refusals import refuse
from mmekit_endpoint.api.control.specs import check_weights, endpoint_spec, retaining
from mmekit_endpoint.api.control.tags import tags_of
from mmekit_endpoint.database import ENDPOINT
from mmekit_endpoint.definitions import DELETE, SCALE, UPDATE, EndpointRow, EndpointSpec, VariantSpec
from mmekit_endpoint.errors import ValidationException


def create_endpoint(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Want an endpoint; answers when it is in service or has failed, or after some seconds."""
    name = request["EndpointName"]
    arn = context.arn(ENDPOINT, name)
    if taken := context.database.find_endpoint_arn(name):
        raise _exists(taken)
    deployment = _checked_deployment(request)
    tags = tags_of(request)
    spec = endpoint_spec(context, find_endpoint_config(context, request["EndpointConfigName"]).body)
    if not context.database.create_endpoint(
        name, arn, context.region, spec, deployment=deployment, tags=tags
    ):
        raise _exists(arn)
    context.settling.wait(name)
    return {"EndpointArn": arn}


def update_endpoint(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Want another configuration of an endpoint that is in service."""
    row = find_endpoint(context, request["EndpointName"])
    current = _serving(row)
    deployment = _checked_deployment(request)
    target = endpoint_spec(context, find_endpoint_config(context, request["EndpointConfigName"]).body)
    if request.get("RetainAllVariantProperties"):
        excluded = {
            entry["VariantPropertyType"] for entry in request.get("ExcludeRetainedVariantProperties", [])
        }
        target = retaining(
            target,
            current,
            counts="DesiredInstanceCount" not in excluded,
            weights="DesiredWeight" not in excluded,
        )
        check_weights(target.variants)
    changed = context.database.change_endpoint(
        row.name,
        row.generation,
        status="Updating",
        change=UPDATE,
        target=target,
        deployment=deployment,
        retain_deployment=deployment is None and request.get("RetainDeploymentConfig", False),
    )
    return _done(context, row, changed)


def update_endpoint_weights_and_capacities(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Want other weights and instance counts of an endpoint that is in service."""
    row = find_endpoint(context, request["EndpointName"])
    current = _serving(row)
    wanted: dict[str, dict[str, Any]] = {}
    for entry in request["DesiredWeightsAndCapacities"]:
        if entry["VariantName"] in wanted:
            raise ValidationException(f'The variant "{entry["VariantName"]}" is given twice.')
        wanted[entry["VariantName"]] = entry
    unknown = [name for name in wanted if name not in {variant.name for variant in current.variants}]
    if unknown:
        names = ", ".join(f'"{name}"' for name in unknown)
        raise ValidationException(
            f"The variant name(s) {names} is/are not present within endpoint configuration "
            f'"{current.config_name}".'
        )
    variants = tuple(_scaled(variant, wanted.get(variant.name, {})) for variant in current.variants)
    check_weights(variants)
    target = msgspec.structs.replace(current, variants=variants)
    changed = context.database.change_endpoint(
        row.name, row.generation, status="Updating", change=SCALE, target=target
    )
    return _done(context, row, changed)


def delete_endpoint(context: Context, request: dict[str, Any]) -> None:
    """Want an endpoint to go."""
    row = find_endpoint(context, request["EndpointName"])
    if row.change is not None:
        raise _in_progress(row)
    changed = context.database.change_endpoint(
        row.name, row.generation, status="Deleting", change=DELETE, target=None
    )
    _done(context, row, changed)


def find_endpoint(context: Context, name: str) -> EndpointRow:
    """Return an endpoint; raise the ValidationException that clients look for where there is none."""
    row = context.database.endpoint(name)
    if row is None:
        raise ValidationException(f'Could not find endpoint "{context.arn(ENDPOINT, name)}".')
    return row


def _done(context: Context, row: EndpointRow, changed: bool) -> dict[str, Any]:
    if not changed:
        raise _in_progress(row)
    context.settling.wait(row.name)
    return {"EndpointArn": row.arn}


def _serving(row: EndpointRow) -> EndpointSpec:
    if row.change is not None:
        raise _in_progress(row)
    if row.status != "InService" or row.spec is None:
        raise ValidationException(
            f'Cannot update endpoint "{row.arn}" with status {row.status}; '
            "an endpoint can be updated while it is InService. Delete it and create it again."
        )
    return row.spec


def _exists(arn: str) -> ValidationException:
    return ValidationException(f'Cannot create already existing endpoint "{arn}".')


def _in_progress(row: EndpointRow) -> ValidationException:
    return ValidationException(f'Cannot update in-progress endpoint "{row.arn}".')


def _checked_deployment(request: dict[str, Any]) -> dict[str, Any] | None:
    deployment: dict[str, Any] | None = request.get("DeploymentConfig")
    if deployment is None:
        return None
    instead = (
        "the local endpoint replaces all instances at once: leave DeploymentConfig out, or give ALL_AT_ONCE"
    )
    if deployment.get("RollingUpdatePolicy"):
        refuse("RollingUpdatePolicy", instead)
    if deployment.get("AutoRollbackConfiguration", {}).get("Alarms"):
        refuse("AutoRollbackConfiguration with Alarms", "leave it out")
    if policy := deployment.get("BlueGreenUpdatePolicy"):
        kind = policy["TrafficRoutingConfiguration"]["Type"]
        if kind != "ALL_AT_ONCE":
            refuse(f"TrafficRoutingConfiguration with Type {kind}", instead)
    return deployment


def _scaled(variant: VariantSpec, wanted: dict[str, Any]) -> VariantSpec:
    if wanted.get("ServerlessUpdateConfig"):
        refuse("ServerlessUpdateConfig", "give DesiredInstanceCount")
    count = wanted.get("DesiredInstanceCount", variant.instance_count)
    if count < 1:
        raise ValidationException(
            f'The DesiredInstanceCount of the variant "{variant.name}" must be at least 1: '
            "only endpoints of inference components scale to 0."
        )
    weight = float(wanted.get("DesiredWeight", variant.weight))
    return msgspec.structs.replace(variant, instance_count=count, weight=weight)
