"""CreateModel, DescribeModel, ListModels, DeleteModel, and what a model runs."""

from __future__ import annotations

from typing import Any

from mmekit_endpoint.api.control.context import Context
from mmekit_endpoint.api.control.definitions import Definition
from mmekit_endpoint.api.control.labels import require_multi_model_label
from mmekit_endpoint.api.control.listing import Listing
from mmekit_endpoint.api.control.refusals import CONTAINER, refuse, refuse_members
from mmekit_endpoint.api.control.tags import tags_of
from mmekit_endpoint.database import MODEL
from mmekit_endpoint.definitions import ContainerSpec
from mmekit_endpoint.errors import ValidationException

#: Names and values of a container's Environment together (AWS).
ENVIRONMENT_BYTES = 32 * 1024

_LISTING: Listing[Definition] = Listing(name=lambda model: model.name, created=lambda model: model.created)


def create_model(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Define a model of one container."""
    name = request["ModelName"]
    container = _checked_container(request)
    tags = tags_of(request)
    if container.multi_model and context.launcher == "docker":
        require_multi_model_label(container.image)
    arn = context.arn(MODEL, name)
    body = {member: value for member, value in request.items() if member != "Tags"}
    if not context.definitions.add(MODEL, name, arn, body, tags):
        taken = context.definitions.taken_arn(MODEL, name) or arn
        raise ValidationException(f'Cannot create already existing model "{taken}".')
    return {"ModelArn": arn}


def describe_model(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Answer what a model was created with."""
    model = find_model(context, request["ModelName"])
    answer = dict(model.body)
    if "PrimaryContainer" in answer:
        answer["PrimaryContainer"] = _described_container(answer["PrimaryContainer"])
    if "Containers" in answer:
        answer["Containers"] = [_described_container(container) for container in answer["Containers"]]
    answer.setdefault("EnableNetworkIsolation", False)
    return answer | {"ModelArn": model.arn, "CreationTime": model.created}


def list_models(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """List models, the newest first."""
    page, token = _LISTING.page(context.definitions.list(MODEL), request)
    summaries = [
        {"ModelName": model.name, "ModelArn": model.arn, "CreationTime": model.created} for model in page
    ]
    return {"Models": summaries} | ({"NextToken": token} if token else {})


def delete_model(context: Context, request: dict[str, Any]) -> None:
    """Remove a model; endpoints that run it go on."""
    name = request["ModelName"]
    if not context.definitions.remove(MODEL, name):
        raise _not_found(context, name)


def find_model(context: Context, name: str) -> Definition:
    """Return a model; raise the ValidationException that clients look for where there is none."""
    model = context.definitions.get(MODEL, name)
    if model is None:
        raise _not_found(context, name)
    return model


def container_of(model: Definition) -> ContainerSpec:
    """Return what a model runs."""
    return _container_spec(_only_container(model.body))


def _not_found(context: Context, name: str) -> ValidationException:
    return ValidationException(f'Could not find model "{context.arn(MODEL, name)}".')


def _checked_container(request: dict[str, Any]) -> ContainerSpec:
    container = _only_container(request)
    refuse_members(container, CONTAINER)
    if request.get("InferenceExecutionConfig", {}).get("Mode") == "Direct":
        refuse("InferenceExecutionConfig with Mode Direct", "create a model and a variant for each container")
    if not container.get("Image"):
        raise ValidationException("A container needs an Image; this request's has none.")
    spec = _container_spec(container)
    if spec.multi_model and not spec.model_data_url:
        raise ValidationException(
            "A container with Mode MultiModel needs a ModelDataUrl: the S3 prefix of its models' archives."
        )
    if "MultiModelConfig" in container and not spec.multi_model:
        raise ValidationException("MultiModelConfig is for containers with Mode MultiModel only.")
    size = sum(len(name.encode()) + len(value.encode()) for name, value in spec.environment.items())
    if size > ENVIRONMENT_BYTES:
        raise ValidationException(
            f"Names and values of a container's Environment have at most {ENVIRONMENT_BYTES} bytes together; "
            f"these have {size}."
        )
    return spec


def _only_container(request: dict[str, Any]) -> dict[str, Any]:
    containers: list[dict[str, Any]] = request.get("Containers", [])
    if "PrimaryContainer" in request and containers:
        raise ValidationException(
            "A model has either a PrimaryContainer or Containers; this request has both."
        )
    if "PrimaryContainer" in request:
        containers = [request["PrimaryContainer"]]
    if not containers:
        raise ValidationException("A model needs a PrimaryContainer, or Containers with one container.")
    if len(containers) > 1:
        refuse("A model of more than one container", "give the one that is to be invoked as PrimaryContainer")
    return containers[0]


def _container_spec(container: dict[str, Any]) -> ContainerSpec:
    caching = container.get("MultiModelConfig", {}).get("ModelCacheSetting", "Enabled")
    return ContainerSpec(
        image=container["Image"],
        multi_model=container.get("Mode") == "MultiModel",
        model_data_url=container.get("ModelDataUrl"),
        environment=container.get("Environment", {}),
        cache_models=caching == "Enabled",
    )


def _described_container(container: dict[str, Any]) -> dict[str, Any]:
    return {"Mode": "SingleModel", "Environment": {}} | container
