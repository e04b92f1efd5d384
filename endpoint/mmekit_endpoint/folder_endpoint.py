"""The endpoint of `mmekit local --models`: a folder of archives, served without any API call."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from mmekit_endpoint.database import (
    ENDPOINT,
    ENDPOINT_CONFIG,
    MODEL,
    Database,
    insert_definition,
    insert_endpoint,
    resource_arn,
)
from mmekit_endpoint.definitions import ContainerSpec, EndpointSpec, VariantSpec


def folder_spec(name: str, folder: Path, image: str, instance_type: str) -> EndpointSpec:
    """Return one multi-model variant over the archives of a folder; model and configuration have its name."""
    container = ContainerSpec(image=image, multi_model=True, model_data_url=folder.resolve().as_uri() + "/")
    variant = VariantSpec(
        name="AllTraffic",
        model_name=name,
        container=container,
        instance_type=instance_type,
        instance_count=1,
    )
    return EndpointSpec(config_name=name, variants=(variant,))


def put_endpoint(database: Database, name: str, spec: EndpointSpec, region: str) -> None:
    """Create an endpoint, or put it in the place of what has its name, with its models and configuration.

    What ``spec`` says is not validated: its URLs may be files, which no API call could give.
    """
    now = time.time()
    with database.writing() as connection:
        models = {variant.model_name: _model_body(variant) for variant in spec.variants}
        bodies = [(MODEL, model, body) for model, body in models.items()]
        for kind, defined, body in [*bodies, (ENDPOINT_CONFIG, spec.config_name, _config_body(spec))]:
            connection.execute(
                "DELETE FROM definitions WHERE kind = ? AND lower(name) = lower(?)", (kind, defined)
            )
            insert_definition(connection, kind, defined, resource_arn(region, kind, defined), now, body)
        for arn, generation in connection.execute(
            "DELETE FROM endpoints WHERE lower(name) = lower(?) RETURNING arn, generation", (name,)
        ).fetchall():
            connection.execute("DELETE FROM tags WHERE arn = ?", (arn,))
            connection.execute("UPDATE gone SET generation = max(generation, ?)", (generation,))
        insert_endpoint(connection, name, resource_arn(region, ENDPOINT, name), region, spec, None, now)


def _model_body(variant: VariantSpec) -> dict[str, Any]:
    """Return what DescribeModel says."""
    container = variant.container
    body: dict[str, Any] = {
        "Image": container.image,
        "Mode": "MultiModel" if container.multi_model else "SingleModel",
        "Environment": container.environment,
    }
    if container.model_data_url is not None:
        body["ModelDataUrl"] = container.model_data_url
    if container.multi_model:
        body["MultiModelConfig"] = {"ModelCacheSetting": "Enabled" if container.cache_models else "Disabled"}
    return {"ModelName": variant.model_name, "PrimaryContainer": body}


def _config_body(spec: EndpointSpec) -> dict[str, Any]:
    """Return what DescribeEndpointConfig says."""
    variants = [
        {
            "VariantName": variant.name,
            "ModelName": variant.model_name,
            "InstanceType": variant.instance_type,
            "InitialInstanceCount": variant.instance_count,
            "InitialVariantWeight": variant.weight,
        }
        for variant in spec.variants
    ]
    return {"EndpointConfigName": spec.config_name, "ProductionVariants": variants}
