"""From an endpoint configuration and its models to a snapshot of them, which is what an endpoint runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from mmekit_endpoint.api.control.context import Context
from mmekit_endpoint.api.control.models import container_of, find_model
from mmekit_endpoint.definitions import AsyncSpec, EndpointSpec, VariantSpec
from mmekit_endpoint.errors import ValidationException

GIB = 1024**3


def endpoint_spec(context: Context, config: Mapping[str, Any]) -> EndpointSpec:
    """Return what an endpoint with this configuration (CreateEndpointConfig's request) runs now.

    Raises
    ------
    ValidationException
        When a model is not there any more, or variants cannot be run as they are.
    """
    variants = tuple(_variant_spec(context, variant) for variant in config["ProductionVariants"])
    _check_names(variant.name for variant in variants)
    check_weights(variants)
    asynchronous = _async_spec(config.get("AsyncInferenceConfig"))
    for variant in variants:
        if variant.container.multi_model:
            _check_multi_model(variant, asynchronous)
    return EndpointSpec(
        config_name=config["EndpointConfigName"],
        variants=variants,
        asynchronous=asynchronous,
        metrics_period_s=config.get("MetricsConfig", {}).get("MetricPublishFrequencyInSeconds"),
    )


def retaining(wanted: EndpointSpec, current: EndpointSpec, *, counts: bool, weights: bool) -> EndpointSpec:
    """Return a spec whose variants keep the instance counts and weights that they have now."""
    now = {variant.name: variant for variant in current.variants}

    def retained(variant: VariantSpec) -> VariantSpec:
        served = now.get(variant.name, variant)
        return msgspec.structs.replace(
            variant,
            instance_count=served.instance_count if counts else variant.instance_count,
            weight=served.weight if weights else variant.weight,
        )

    return msgspec.structs.replace(wanted, variants=tuple(map(retained, wanted.variants)))


def check_weights(variants: Iterable[VariantSpec]) -> None:
    """Raise a ValidationException where no variant would get any request."""
    if not any(variant.weight > 0 for variant in variants):
        raise ValidationException(
            "The weights of all production variants are 0, so that none would get a request; "
            "at least one must be greater."
        )


def _variant_spec(context: Context, variant: dict[str, Any]) -> VariantSpec:
    volume_gib = variant.get("VolumeSizeInGB")
    return VariantSpec(
        name=variant["VariantName"],
        model_name=variant["ModelName"],
        container=container_of(find_model(context, variant["ModelName"])),
        instance_type=variant["InstanceType"],
        instance_count=variant["InitialInstanceCount"],
        weight=float(variant.get("InitialVariantWeight", 1.0)),
        volume_bytes=None if volume_gib is None else volume_gib * GIB,
        download_timeout_s=variant.get("ModelDataDownloadTimeoutInSeconds"),
        startup_timeout_s=variant.get("ContainerStartupHealthCheckTimeoutInSeconds"),
    )


def _async_spec(config: dict[str, Any] | None) -> AsyncSpec | None:
    if config is None:
        return None
    return AsyncSpec(
        output_url=config["OutputConfig"]["S3OutputPath"],
        failure_url=config["OutputConfig"].get("S3FailurePath"),
        max_concurrent_per_instance=config.get("ClientConfig", {}).get("MaxConcurrentInvocationsPerInstance"),
    )


def _check_names(names: Iterable[str]) -> None:
    seen = set()
    for name in names:
        if name in seen:
            raise ValidationException(f'Two production variants have the name "{name}"; each needs its own.')
        seen.add(name)


def _check_multi_model(variant: VariantSpec, asynchronous: AsyncSpec | None) -> None:
    from mmekit_endpoint.fleet.instance_types import instance_type

    if asynchronous is not None:
        raise ValidationException(
            f'The model "{variant.model_name}" has Mode MultiModel, which goes with no AsyncInferenceConfig: '
            "multi-model endpoints answer in real time only."
        )
    try:
        gpus = instance_type(variant.instance_type).gpus
    except KeyError:
        raise ValidationException(
            f"The local endpoint does not know what an instance of type {variant.instance_type} has."
        ) from None
    if gpus > 1:
        raise ValidationException(
            f"Mode MultiModel is not supported on {variant.instance_type}, which has {gpus} GPUs; "
            "use an instance type with one GPU, such as ml.g5.xlarge, or with none."
        )
