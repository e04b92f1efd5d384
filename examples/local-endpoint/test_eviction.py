"""What a CI run can ask of an endpoint before it is deployed: do the models share one instance's memory well?

pip install 'mmekit[endpoint]' pytest numpy
pytest test_eviction.py
"""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
import urllib.request

import boto3
import pytest

#: A model's own code: it holds 200 MiB, and answers with its number.
CODE = """
import pathlib
import numpy as np

def model_fn(model_dir):
    number = float(pathlib.Path(model_dir, "number").read_text())
    return np.full(200 * 131072, number)

def predict_fn(data, model):
    return [float(model[0])]
"""

#: Memory of the container: for three or four such models beside the server, not for six.
MEMORY_BYTES = 1300 * 1024 * 1024


@pytest.fixture(scope="module")
def url():
    """The address of a `mmekit local` with processes in place of containers: a CI machine needs no Docker."""
    command = ["mmekit", "local", "--port", "0", "--launcher", "process"]
    service = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield service.stdout.readline().split("listening on ")[1].split()[0]
    finally:
        service.terminate()
        service.wait(30)
        service.stdout.close()


@pytest.fixture(scope="module")
def client(url):
    """Make clients of the service, as your own code gets them from AWS_ENDPOINT_URL."""

    def make(name):
        return boto3.client(
            name,
            region_name="us-east-1",
            endpoint_url=url,
            aws_access_key_id="any",
            aws_secret_access_key="any",
        )

    return make


@pytest.fixture(scope="module")
def ask(client):
    """An endpoint with six models, and a function that asks one of them."""
    s3, sagemaker, runtime = client("s3"), client("sagemaker"), client("sagemaker-runtime")
    s3.create_bucket(Bucket="models")
    for number in range(6):
        s3.put_object(Bucket="models", Key=f"m/{number}.tar.gz", Body=pack(number))
    sagemaker.create_model(
        ModelName="shared",
        ExecutionRoleArn="arn:aws:iam::123456789012:role/any",
        PrimaryContainer={
            "Image": "not-used-by-processes",
            "Mode": "MultiModel",
            "ModelDataUrl": "s3://models/m/",
            "Environment": {"MMEKIT_MEMORY_LIMIT_BYTES": str(MEMORY_BYTES)},
        },
    )
    variant = {"VariantName": "AllTraffic", "ModelName": "shared"}
    variant |= {"InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    sagemaker.create_endpoint_config(EndpointConfigName="shared", ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName="shared", EndpointConfigName="shared")
    waiting = {"Delay": 1, "MaxAttempts": 120}
    sagemaker.get_waiter("endpoint_in_service").wait(EndpointName="shared", WaiterConfig=waiting)

    def ask(number):
        answer = runtime.invoke_endpoint(
            EndpointName="shared", TargetModel=f"{number}.tar.gz", ContentType="text/csv", Body="1,2"
        )
        return json.loads(answer["Body"].read())

    return ask


def pack(number: int) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for name, text in (("code/inference.py", CODE), ("number", str(number))):
            member = tarfile.TarInfo(name)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    return file.getvalue()


def events(url: str, kind: str) -> list[str]:
    """What happened so far, as `mmekit local events` shows it: the models of the events of one kind."""
    with urllib.request.urlopen(f"{url}/_mmekit/events") as answer:
        return [event["model"] for event in json.load(answer)["events"] if event["kind"] == kind]


def test_more_models_than_fit_all_answer_and_the_least_recently_used_leaves(ask, url):
    for number in range(6):
        assert ask(number) == [number]
    unloaded = events(url, "unloaded")
    assert 1 <= len(unloaded) < 5
    assert unloaded == [f"{number}.tar.gz" for number in range(len(unloaded))]


def test_a_model_that_was_unloaded_is_not_downloaded_again(ask, url):
    left = events(url, "unloaded")[0]
    assert ask(int(left[0])) == [int(left[0])]
    assert events(url, "loaded").count(left) == 2
    assert events(url, "downloaded").count(left) == 1
