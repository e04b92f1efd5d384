"""SageMaker's SDK 3: the resources Model, EndpointConfig and Endpoint, from creation to deletion.

Run in build/sdk3 with AWS_ENDPOINT_URL set. The SDK has nothing for archives: they are in s3://models/m/.
"""

from __future__ import annotations

from importlib.metadata import version

from seen import Seen

seen = Seen()

from sagemaker.core.deserializers import JSONDeserializer  # noqa: E402  (what importing warns of is seen too)
from sagemaker.core.resources import Endpoint, EndpointConfig, Model  # noqa: E402
from sagemaker.core.serializers import CSVSerializer  # noqa: E402
from sagemaker.core.shapes import (  # noqa: E402
    ContainerDefinition,
    DesiredWeightAndCapacity,
    MultiModelConfig,
    ProductionVariant,
    Tag,
)

IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/any:latest"
ROLE = "arn:aws:iam::123456789012:role/any"

seen["version"] = version("sagemaker")


def create_model(name: str) -> Model:
    return Model.create(
        model_name=name,
        primary_container=ContainerDefinition(
            image=IMAGE,
            mode="MultiModel",
            model_data_url="s3://models/m/",
            multi_model_config=MultiModelConfig(model_cache_setting="Enabled"),
        ),
        execution_role_arn=ROLE,
        tags=[Tag(key="team", value="notebook")],
    )


def configure(name: str, model: Model) -> EndpointConfig:
    return EndpointConfig.create(
        endpoint_config_name=name,
        production_variants=[
            ProductionVariant(
                variant_name="AllTraffic",
                model_name=model.model_name,
                instance_type="ml.m5.large",
                initial_instance_count=1,
            )
        ],
    )


# --- create

model = create_model("fleet")
seen["model"] = {
    "mode": model.primary_container.mode,
    "cache": model.primary_container.multi_model_config.model_cache_setting,
    "arn": model.model_arn,
    "created": model.creation_time.isoformat(),
}
configuration = configure("fleet", model)
seen["variant"] = configuration.production_variants[0].initial_variant_weight
endpoint = Endpoint.create(endpoint_name="fleet", endpoint_config_name=configuration)
endpoint.wait_for_status("InService", poll=1)
endpoint.refresh()
seen["endpoint"] = {
    "status": endpoint.endpoint_status,
    "configuration": endpoint.endpoint_config_name,
    "instances": endpoint.production_variants[0].current_instance_count,
}

# --- invoke

answer = endpoint.invoke(
    body=b"1,2",
    content_type="text/csv",
    accept="application/json",
    target_model="a.tar.gz",
    target_variant="AllTraffic",
    custom_attributes="trace=1",
    inference_id="call-1",
)
seen["answer"] = {
    "body": answer.body.read().decode(),
    "content type": answer.content_type,
    "variant": answer.invoked_production_variant,
    "attributes": answer.custom_attributes,
}
seen.error("fails", lambda: endpoint.invoke(body=b"1", target_model="fails.tar.gz"))
seen.error("missing", lambda: endpoint.invoke(body=b"1", target_model="missing.tar.gz"))
seen.error("no target", lambda: endpoint.invoke(body=b"1"))
endpoint.serializer, endpoint.deserializer = CSVSerializer(), JSONDeserializer()
seen["deserialized"] = endpoint.invoke(body=[[1, 2]], target_model="b.tar.gz").body["body"]

# --- list

for other in "xyz":
    create_model(f"other-{other}")
seen["models"] = [found.model_name for found in Model.get_all(sort_by="Name", sort_order="Ascending")]
seen["models named"] = [found.model_name for found in Model.get_all(name_contains="other-y")]
seen["configurations"] = [found.endpoint_config_name for found in EndpointConfig.get_all()]
seen["endpoints"] = [
    (found.endpoint_name, found.endpoint_status) for found in Endpoint.get_all(status_equals="InService")
]

# --- update

endpoint.update_weights_and_capacities(
    [DesiredWeightAndCapacity(variant_name="AllTraffic", desired_instance_count=2)]
)
endpoint.wait_for_status("InService", poll=1)
seen["instances"] = endpoint.refresh().production_variants[0].current_instance_count
second = configure("fleet-2", Model.get("other-x"))
endpoint.endpoint_config_name = second.endpoint_config_name
endpoint.update()
endpoint.wait_for_status("InService", poll=1)
seen["updated"] = endpoint.refresh().endpoint_config_name
seen["deserialized after"] = endpoint.invoke(body=[[3]], target_model="a.tar.gz").body["value"]

# --- refused, and deleted

seen.error("second model", lambda: create_model("fleet"))
seen.error("second endpoint", lambda: Endpoint.create(endpoint_name="fleet", endpoint_config_name="fleet"))
endpoint.delete()
endpoint.wait_for_delete(poll=1)
for made in (configuration, second, *Model.get_all()):
    made.delete()
seen.error("after", lambda: endpoint.refresh())
seen.error("invoked after", lambda: endpoint.invoke(body=[[1]], target_model="a.tar.gz"))
seen["left"] = [
    *[found.model_name for found in Model.get_all()],
    *[found.endpoint_config_name for found in EndpointConfig.get_all()],
    *[found.endpoint_name for found in Endpoint.get_all()],
]
seen.show()
