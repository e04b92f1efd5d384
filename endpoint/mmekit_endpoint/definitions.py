"""What an endpoint is made of, as the control plane writes it down and the fleet runs it.

Names are SageMaker's, in Python's spelling. All of it is plain data that goes into the database as JSON.
"""

from __future__ import annotations

import msgspec


class ContainerSpec(msgspec.Struct, frozen=True, omit_defaults=True):
    """A model's container (CreateModel: ContainerDefinition)."""

    image: str
    multi_model: bool
    #: MultiModel: the prefix of all archives, as given. SingleModel: the archive, or None.
    model_data_url: str | None = None
    environment: dict[str, str] = {}
    #: MultiModelConfig.ModelCacheSetting: False is Disabled.
    cache_models: bool = True


class VariantSpec(msgspec.Struct, frozen=True, omit_defaults=True):
    """One production variant with the model it runs (CreateEndpointConfig: ProductionVariant)."""

    name: str
    model_name: str
    container: ContainerSpec
    instance_type: str
    instance_count: int
    weight: float = 1.0
    #: VolumeSizeInGB in bytes; None is the instance type's own.
    volume_bytes: int | None = None
    #: ModelDataDownloadTimeoutInSeconds, ContainerStartupHealthCheckTimeoutInSeconds; None: the service's.
    download_timeout_s: int | None = None
    startup_timeout_s: int | None = None


class AsyncSpec(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where answers of InvokeEndpointAsync go (CreateEndpointConfig: AsyncInferenceConfig)."""

    output_url: str
    failure_url: str | None = None
    max_concurrent_per_instance: int | None = None


class EndpointSpec(msgspec.Struct, frozen=True, omit_defaults=True):
    """All that an endpoint runs. It stays as it is when models or configurations are deleted later."""

    config_name: str
    variants: tuple[VariantSpec, ...]
    asynchronous: AsyncSpec | None = None
    #: MetricsConfig.MetricsPublishFrequencyInSeconds; None is the service's own.
    metrics_period_s: int | None = None


class VariantState(msgspec.Struct, frozen=True, omit_defaults=True):
    """What DescribeEndpoint says of a variant beyond its definition (ProductionVariantSummary)."""

    name: str
    current_weight: float
    desired_weight: float
    current_count: int
    desired_count: int
    #: The image as given, and as its engine resolved it (a digest), where it did.
    image: str = ""
    resolved_image: str | None = None


#: What is being done to an endpoint. SCALE: weights and counts alone. START: the service has started again.
CREATE, UPDATE, SCALE, DELETE, START = "create", "update", "scale", "delete", "start"


class EndpointRow(msgspec.Struct, frozen=True):
    """An endpoint as the database has it.

    ``spec`` is what serves (None before the first success), ``target`` what is wanted while ``change`` is
    not None. ``generation`` counts the changes: whoever finishes one names it, and cannot end another.
    """

    name: str
    arn: str
    region: str
    #: SageMaker's EndpointStatus: Creating, InService, Updating, RollingBack, SystemUpdating, OutOfService,
    #: Failed, Deleting.
    status: str
    failure_reason: str | None
    spec: EndpointSpec | None
    target: EndpointSpec | None
    change: str | None
    generation: int
    variants: tuple[VariantState, ...]
    #: Seconds since the epoch.
    created: float
    modified: float
