"""SageMaker's operations by name: what is offered, validated against botocore's model, and performed."""

from __future__ import annotations

from typing import Any

from botocore.loaders import Loader
from botocore.model import ServiceModel

from mmekit_endpoint.api.control import (
    endpoint_configs,
    endpoint_views,
    endpoints,
    models,
    tags,
)
from mmekit_endpoint.api.control.context import Context, Operation
from mmekit_endpoint.api.control.validation import decode, validate
from mmekit_endpoint.errors import EndpointError

OFFERED: dict[str, Operation] = {
    "CreateModel": models.create_model,
    "DescribeModel": models.describe_model,
    "ListModels": models.list_models,
    "DeleteModel": models.delete_model,
    "CreateEndpointConfig": endpoint_configs.create_endpoint_config,
    "DescribeEndpointConfig": endpoint_configs.describe_endpoint_config,
    "ListEndpointConfigs": endpoint_configs.list_endpoint_configs,
    "DeleteEndpointConfig": endpoint_configs.delete_endpoint_config,
    "CreateEndpoint": endpoints.create_endpoint,
    "DescribeEndpoint": endpoint_views.describe_endpoint,
    "ListEndpoints": endpoint_views.list_endpoints,
    "UpdateEndpoint": endpoints.update_endpoint,
    "UpdateEndpointWeightsAndCapacities": endpoints.update_endpoint_weights_and_capacities,
    "DeleteEndpoint": endpoints.delete_endpoint,
    "AddTags": tags.add_tags,
    "ListTags": tags.list_tags,
    "DeleteTags": tags.delete_tags,
}


class UnknownOperationException(EndpointError):
    """Raised when a request is for an operation that the local endpoint does not offer."""

    code = "UnknownOperationException"
    status = 400


class SageMaker:
    """Performs operations of SageMaker's control plane."""

    def __init__(self) -> None:
        description = Loader().load_service_model("sagemaker", "service-2")
        self._model = ServiceModel(description, "sagemaker")

    def perform(self, operation: str, context: Context, body: bytes) -> dict[str, Any] | None:
        """Return an operation's answer; raises EndpointError where it is refused."""
        perform = OFFERED.get(operation)
        if perform is None:
            raise UnknownOperationException(
                f"{operation or 'A request without an operation'} is not offered by the local endpoint. It "
                f"has models, endpoint configurations, endpoints and their tags: {', '.join(OFFERED)}. "
                "Invocations go to /endpoints/NAME/invocations."
            )
        # Any: botocore has no types; all operations that are offered have members.
        shape: Any = self._model.operation_model(operation).input_shape
        return perform(context, validate(shape, decode(body)))
