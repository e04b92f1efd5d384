"""A multi-model endpoint from training to clean-up, cell by cell as in a notebook.

Nothing in it knows who answers:

    mmekit local &
    export AWS_ENDPOINT_URL=http://127.0.0.1:8765
    python notebook.py

Without AWS_ENDPOINT_URL the same file uses your AWS account; give --role, --image and --bucket there.
"""

from __future__ import annotations

import argparse
import io
import json
import tarfile
import tempfile
from pathlib import Path

import boto3
import joblib
import numpy as np
import xgboost
from sklearn.linear_model import Ridge

arguments = argparse.ArgumentParser()
arguments.add_argument("--role", default="arn:aws:iam::123456789012:role/anything")
arguments.add_argument(
    "--image", default="mmekit:cpu", help="In AWS: ACCOUNT.dkr.ecr.REGION.amazonaws.com/NAME:TAG"
)
arguments.add_argument("--bucket", default="local-endpoint-example")
arguments.add_argument("--region", default="us-east-1")
given = arguments.parse_args()

session = boto3.Session(region_name=given.region)
s3 = session.client("s3")
sagemaker = session.client("sagemaker")
runtime = session.client("sagemaker-runtime")

# %% Train three small models

rows = np.random.default_rng(7).normal(size=(300, 4)).round(3)
target = rows @ [1.0, -2.0, 0.5, 3.0]
trees = xgboost.train({"max_depth": 3}, xgboost.DMatrix(rows, target), 20)
more_trees = xgboost.train({"max_depth": 3}, xgboost.DMatrix(rows, target), 60)
line = Ridge().fit(rows, target)


def upload(name, save):
    """Pack what ``save`` writes into a folder, and put it under the prefix of the models."""
    file = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder, tarfile.open(fileobj=file, mode="w:gz") as tar:
        save(Path(folder))
        tar.add(folder, arcname=".")
    s3.put_object(Bucket=given.bucket, Key=f"models/{name}", Body=file.getvalue())


def predict(name):
    """Ask a model for the first row."""
    answer = runtime.invoke_endpoint(
        EndpointName="prices",
        TargetModel=name,
        ContentType="text/csv",
        Accept="application/json",
        Body=",".join(map(str, rows[0])),
    )
    return json.loads(answer["Body"].read())[0]


def check(name, expected):
    served = predict(name)
    print(f"{name:<20} served {served:8.4f}   framework {float(expected):8.4f}")
    assert np.isclose(served, expected, rtol=1e-4)


# %% Upload two of them, create the endpoint

s3.create_bucket(Bucket=given.bucket)
upload("trees.tar.gz", lambda folder: trees.save_model(folder / "model.ubj"))
upload("line.tar.gz", lambda folder: joblib.dump(line, folder / "model.joblib"))

sagemaker.create_model(
    ModelName="prices",
    ExecutionRoleArn=given.role,
    PrimaryContainer={
        "Image": given.image,
        "Mode": "MultiModel",
        "ModelDataUrl": f"s3://{given.bucket}/models/",
    },
)
sagemaker.create_endpoint_config(
    EndpointConfigName="prices",
    ProductionVariants=[
        {
            "VariantName": "AllTraffic",
            "ModelName": "prices",
            "InstanceType": "ml.m5.large",
            "InitialInstanceCount": 1,
        }
    ],
)
sagemaker.create_endpoint(EndpointName="prices", EndpointConfigName="prices")
sagemaker.get_waiter("endpoint_in_service").wait(EndpointName="prices")

# %% Invoke both

first = xgboost.DMatrix(rows[:1])
check("trees.tar.gz", trees.predict(first)[0])
check("line.tar.gz", line.predict(rows[:1])[0])

# %% Add a third by its upload alone: no call of SageMaker, no new endpoint

upload("trees-v2.tar.gz", lambda folder: more_trees.save_model(folder / "model.ubj"))
check("trees-v2.tar.gz", more_trees.predict(first)[0])

# %% Clean up

sagemaker.delete_endpoint(EndpointName="prices")
sagemaker.get_waiter("endpoint_deleted").wait(EndpointName="prices")
sagemaker.delete_endpoint_config(EndpointConfigName="prices")
sagemaker.delete_model(ModelName="prices")
for name in ("trees.tar.gz", "line.tar.gz", "trees-v2.tar.gz"):
    s3.delete_object(Bucket=given.bucket, Key=f"models/{name}")
s3.delete_bucket(Bucket=given.bucket)
print("All predictions agree; everything is deleted.")
