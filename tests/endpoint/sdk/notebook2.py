"""A notebook of SageMaker's SDK 2: a multi-model endpoint from its first deployment to its deletion.

Run in build/sdk2 with AWS_ENDPOINT_URL set. Archives of models are in the folder that is its argument.

Where a call waits for the endpoint, the SDK sleeps 30 s before its first look, so calls here do not wait and
``wait_for_endpoint``, which looks more often, follows.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

from seen import Seen

seen = Seen()

import boto3  # noqa: E402  (what importing warns of is seen too)
import sagemaker  # noqa: E402
from sagemaker.deserializers import JSONDeserializer  # noqa: E402
from sagemaker.model import Model  # noqa: E402
from sagemaker.multidatamodel import MultiDataModel  # noqa: E402
from sagemaker.pipeline import PipelineModel  # noqa: E402
from sagemaker.predictor import Predictor  # noqa: E402
from sagemaker.serializers import CSVSerializer  # noqa: E402

IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/any:latest"
archives = Path(sys.argv[1])

seen["version"] = version("sagemaker")
session = sagemaker.Session(default_bucket="notebook")
seen["default bucket"] = session.default_bucket()
seen["default bucket again"] = session.default_bucket()
boto3.client("iam").create_role(RoleName="Notebook", AssumeRolePolicyDocument="{}")
seen["role"] = session.expand_role("Notebook")

# --- deploy, add, list


def fleet(name: str, prefix: str = "s3://notebook/fleet/") -> MultiDataModel:
    return MultiDataModel(
        name=name,
        model_data_prefix=prefix,
        image_uri=IMAGE,
        role="Notebook",
        predictor_cls=Predictor,
        sagemaker_session=session,
    )


models = fleet("fleet")
predictor = models.deploy(
    1,
    "ml.m5.large",
    endpoint_name="fleet",
    serializer=CSVSerializer(),
    deserializer=JSONDeserializer(),
    tags=[{"Key": "team", "Value": "notebook"}],
    wait=False,
)
seen["predictor"] = type(predictor).__name__
seen["status"] = session.wait_for_endpoint("fleet", poll=1)["EndpointStatus"]
seen["listed before"] = list(models.list_models())
uploaded = session.upload_data(str(archives / "b.tar.gz"), bucket="notebook", key_prefix="job/output")
seen["uploaded"] = uploaded
seen["added"] = [
    models.add_model(str(archives / "a.tar.gz")),
    models.add_model(str(archives / "a.tar.gz"), "deeper/a-2.tar.gz"),
    models.add_model(str(archives / "large.tar.gz")),
    models.add_model(uploaded, "b.tar.gz"),
    models.add_model(uploaded),
    models.add_model(str(archives / "fails.tar.gz")),
    models.add_model(str(archives / "damaged.tar.gz")),
]
seen["listed"] = sorted(models.list_models())

# --- predict

seen["predicted"] = predictor.predict(
    [[1.5, 2], [3, 4]],
    target_model="a.tar.gz",
    target_variant="AllTraffic",
    custom_attributes="trace=1",
    inference_id="call-1",
)
seen["values"] = {
    name: predictor.predict("1", target_model=name)["value"]
    for name in ("deeper/a-2.tar.gz", "b.tar.gz", "job/output/b.tar.gz", "large.tar.gz")
}
seen.error("fails", lambda: predictor.predict("1", target_model="fails.tar.gz"))
seen.error("damaged", lambda: predictor.predict("1", target_model="damaged.tar.gz"))
seen.error("missing", lambda: predictor.predict("1", target_model="missing.tar.gz"))
seen.error("no target", lambda: predictor.predict("1"))
seen.error("no variant", lambda: predictor.predict("1", target_model="a.tar.gz", target_variant="other"))

# --- update

models_2 = fleet("fleet-2")
models_2.create(instance_type="ml.m5.large")
predictor.update_endpoint(
    model_name="fleet-2", initial_instance_count=1, instance_type="ml.m5.large", wait=False
)
described = session.wait_for_endpoint("fleet", poll=1)
configuration = session.describe_endpoint_config(described["EndpointConfigName"])
seen["updated"] = {
    "status": described["EndpointStatus"],
    "model": configuration["ProductionVariants"][0]["ModelName"],
    "configuration is new": described["EndpointConfigName"] != "fleet",
    "tags": session.list_tags(configuration["EndpointConfigArn"]),
}
seen["predicted after"] = predictor.predict("1", target_model="a.tar.gz")["value"]
session.update_endpoint("fleet", "fleet", wait=False)
seen["updated back"] = session.wait_for_endpoint("fleet", poll=1)["EndpointConfigName"]
seen.error("update of none", lambda: session.update_endpoint("nowhere", "fleet"))

# --- refused

seen.error("second deploy", lambda: models.deploy(1, "ml.m5.large", endpoint_name="fleet"))
pipeline = PipelineModel(
    models=[Model(IMAGE, "s3://notebook/job/output/b.tar.gz", "Notebook", sagemaker_session=session), models],
    role="Notebook",
    name="pipeline",
    sagemaker_session=session,
)
seen.error("pipeline", lambda: pipeline.deploy(1, "ml.m5.large"))

# --- a prefix without its slash

bare = fleet("bare", "s3://notebook/fleet")
bare_predictor = bare.deploy(1, "ml.m5.large", deserializer=JSONDeserializer(), wait=False)
seen["bare status"] = session.wait_for_endpoint(bare.endpoint_name, poll=1)["EndpointStatus"]
seen["bare listed"] = sorted(bare.list_models())
seen.error("bare", lambda: bare_predictor.predict("1", target_model="a.tar.gz")["value"])
seen.error("bare slash", lambda: bare_predictor.predict("1", target_model="/a.tar.gz")["value"])

# --- delete

# A predictor remembers the configuration that it has made; another one deletes what the endpoint has now.
models_2.delete_model()
session.delete_endpoint_config(predictor._endpoint_config_name)
for one in (bare_predictor, Predictor("fleet", session)):
    one.delete_model()
    one.delete_endpoint()
seen.error("after", lambda: predictor.predict("1", target_model="a.tar.gz"))
seen.error("described after", lambda: session.describe_endpoint("fleet"))
client = session.sagemaker_client
seen["left"] = {
    "models": sorted(model["ModelName"] for model in client.list_models()["Models"]),
    "configurations": client.list_endpoint_configs()["EndpointConfigs"],
    "endpoints": client.list_endpoints()["Endpoints"],
}
seen["archives left"] = sorted(models.list_models())

# --- what asks AWS at an address of its own, whatever AWS_ENDPOINT_URL says

elsewhere = sagemaker.Session()
seen.error("account", elsewhere.account_id)
seen.error("own bucket", elsewhere.default_bucket)
seen.error("execution role", lambda: sagemaker.get_execution_role(elsewhere))
seen.show()
