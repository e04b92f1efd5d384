"""An endpoint's whole life as a notebook goes through it, with boto3 alone: from two models to nothing.

``walk`` asserts at each step, and every prediction is compared with the framework's own. It does not know
what runs the containers, nor whose object store it is.
"""

from __future__ import annotations

import importlib.util
import io
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.endpoint.service import ROLE, Service, archive

BUCKET = "walk"
ENDPOINT = "churn"

#: Seconds between two questions of a waiter (AWS: 30), and how many there are.
WAITING = {"Delay": 1, "MaxAttempts": 300}


@dataclass(frozen=True)
class Trained:
    """An archive, a CSV row to ask with, and what the framework itself answers."""

    archive: bytes
    row: str
    expected: list[float]


def xgboost_model(version: int = 1) -> Trained:
    """Train a regressor; each version predicts something else for the same row."""
    import xgboost

    rows, target = _data()
    booster = xgboost.train(
        {"max_depth": 3, "nthread": 1}, xgboost.DMatrix(rows, label=target + 10 * version), 10
    )
    expected = booster.predict(xgboost.DMatrix(rows[:1])).tolist()
    return Trained(archive({"model.ubj": bytes(booster.save_raw("ubj"))}), _csv(rows[0]), expected)


def sklearn_model() -> Trained:
    """Train a pipeline of scikit-learn."""
    import joblib
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows, target = _data()
    pipeline = make_pipeline(StandardScaler(), Ridge()).fit(rows, target)
    file = io.BytesIO()
    joblib.dump(pipeline, file)
    return Trained(
        archive({"model.joblib": file.getvalue()}), _csv(rows[0]), pipeline.predict(rows[:1]).tolist()
    )


def second_model() -> Trained:
    """Return a model of scikit-learn, where it is installed, else another of XGBoost."""
    return sklearn_model() if importlib.util.find_spec("sklearn") else xgboost_model(5)


def _data() -> tuple[Any, Any]:
    import numpy as np

    rows = np.random.default_rng(7).normal(size=(200, 4)).round(3)
    return rows, rows @ np.array([1.0, -2.0, 0.5, 3.0])


def _csv(row: Any) -> str:
    return ",".join(map(repr, row.tolist()))


class Notebook:
    """What a notebook's cells have in common. ``s3`` is a client where the store is not the service's."""

    def __init__(self, service: Service, image: str, s3: Any = None) -> None:
        self.sagemaker = service.sagemaker
        self.runtime = service.runtime
        self.s3 = service.s3 if s3 is None else s3
        self._image = image

    def upload(self, key: str, model: Trained) -> None:
        self.s3.put_object(Bucket=BUCKET, Key=key, Body=model.archive)

    def create_model(self, name: str, prefix: str, **environment: str) -> None:
        self.sagemaker.create_model(
            ModelName=name,
            ExecutionRoleArn=ROLE,
            PrimaryContainer={
                "Image": self._image,
                "Mode": "MultiModel",
                "ModelDataUrl": f"s3://{BUCKET}/{prefix}",
                "Environment": environment,
            },
        )

    def create_config(self, name: str, variants: Mapping[str, str]) -> None:
        """Create a configuration of one instance a variant; ``variants`` is variant → model."""
        self.sagemaker.create_endpoint_config(
            EndpointConfigName=name,
            ProductionVariants=[
                {
                    "VariantName": variant,
                    "ModelName": model,
                    "InstanceType": "ml.m5.large",
                    "InitialInstanceCount": 1,
                    "InitialVariantWeight": 1.0,
                }
                for variant, model in variants.items()
            ],
        )

    def wait(self, waiter: str = "endpoint_in_service") -> Any:
        """Wait as boto3 does; return what Describe says, and nothing of an endpoint that is gone."""
        self.sagemaker.get_waiter(waiter).wait(EndpointName=ENDPOINT, WaiterConfig=WAITING)
        return None if waiter == "endpoint_deleted" else self.describe()

    def describe(self) -> Any:
        return self.sagemaker.describe_endpoint(EndpointName=ENDPOINT)

    def ask(self, target: str, model: Trained, **more: Any) -> Any:
        """Invoke, and compare the prediction with the framework's; return boto3's answer."""
        answer = self.runtime.invoke_endpoint(
            EndpointName=ENDPOINT,
            TargetModel=target,
            ContentType="text/csv",
            Accept="application/json",
            Body=model.row,
            **more,
        )
        predicted = json.loads(answer["Body"].read())
        assert predicted == pytest.approx(model.expected, rel=1e-5), target
        return answer

    def variants_asked(self, target: str, models: Mapping[str, Trained], calls: int) -> Counter[str]:
        """Call without a TargetVariant; count who answered, each with the prediction of its own model."""
        counts: Counter[str] = Counter()
        for _ in range(calls):
            answer = self.runtime.invoke_endpoint(
                EndpointName=ENDPOINT,
                TargetModel=target,
                ContentType="text/csv",
                Accept="application/json",
                Body=next(iter(models.values())).row,
            )
            variant = answer["InvokedProductionVariant"]
            assert json.loads(answer["Body"].read()) == pytest.approx(models[variant].expected, rel=1e-5)
            counts[variant] += 1
        return counts


def walk(service: Service, image: str, s3: Any = None) -> None:
    """Go through an endpoint's life; at its end nothing is there any more. ``image`` must be mmekit's."""
    book = Notebook(service, image, s3)
    eu, us = xgboost_model(), second_model()
    _create(book, eu, us)
    _add_models(book, eu)
    _compare_two_variants(book, eu)
    _scale(book, us)
    _update(book, us)
    _delete(book)


def _create(book: Notebook, eu: Trained, us: Trained) -> None:
    book.s3.create_bucket(Bucket=BUCKET)
    book.upload("models/eu.tar.gz", eu)
    book.upload("models/us.tar.gz", us)
    book.create_model("churn", "models/")
    book.create_config("churn", {"AllTraffic": "churn"})
    book.sagemaker.create_endpoint(EndpointName=ENDPOINT, EndpointConfigName="churn")
    described = book.wait()
    assert described["EndpointStatus"] == "InService"
    assert described["EndpointArn"].endswith(f":endpoint/{ENDPOINT}")
    (variant,) = described["ProductionVariants"]
    assert (variant["CurrentInstanceCount"], variant["DesiredInstanceCount"]) == (1, 1)
    answer = book.ask("eu.tar.gz", eu)
    assert answer["InvokedProductionVariant"] == "AllTraffic"
    assert answer["ContentType"].startswith("application/json")
    book.ask("us.tar.gz", us)


def _add_models(book: Notebook, eu: Trained) -> None:
    """A model is added by its upload alone; a new version has a new name, and the old one goes on."""
    with pytest.raises(ClientError, match=r"models/asia\.tar\.gz") as caught:
        book.ask("asia.tar.gz", eu)
    assert caught.value.response["Error"]["Code"] == "ValidationError"
    asia, newer = xgboost_model(2), xgboost_model(3)
    assert newer.expected != pytest.approx(eu.expected, rel=1e-2)
    book.upload("models/teams/asia.tar.gz", asia)
    book.ask("teams/asia.tar.gz", asia)
    book.upload("models/eu-v2.tar.gz", newer)
    book.ask("eu-v2.tar.gz", newer)
    book.ask("eu.tar.gz", eu)


def _compare_two_variants(book: Notebook, eu: Trained) -> None:
    challenger = xgboost_model(4)
    book.upload("challenger/eu.tar.gz", challenger)
    book.create_model("challenger", "challenger")
    book.create_config("ab", {"A": "churn", "B": "challenger"})
    book.sagemaker.update_endpoint(EndpointName=ENDPOINT, EndpointConfigName="ab")
    assert book.wait()["EndpointConfigName"] == "ab"
    models = {"A": eu, "B": challenger}
    for variant, model in models.items():
        answer = book.ask("eu.tar.gz", model, TargetVariant=variant)
        assert answer["InvokedProductionVariant"] == variant
    counts = book.variants_asked("eu.tar.gz", models, 60)
    assert min(counts["A"], counts["B"]) >= 10, counts
    book.sagemaker.update_endpoint_weights_and_capacities(
        EndpointName=ENDPOINT,
        DesiredWeightsAndCapacities=[
            {"VariantName": "A", "DesiredWeight": 0.0},
            {"VariantName": "B", "DesiredWeight": 1.0},
        ],
    )
    weights = {v["VariantName"]: v["CurrentWeight"] for v in book.wait()["ProductionVariants"]}
    assert weights == {"A": 0.0, "B": 1.0}
    assert book.variants_asked("eu.tar.gz", models, 20) == {"B": 20}
    book.ask("eu.tar.gz", eu, TargetVariant="A")


def _scale(book: Notebook, us: Trained) -> None:
    for count in (2, 1):
        book.sagemaker.update_endpoint_weights_and_capacities(
            EndpointName=ENDPOINT,
            DesiredWeightsAndCapacities=[{"VariantName": "A", "DesiredInstanceCount": count}],
        )
        counts = {v["VariantName"]: v["CurrentInstanceCount"] for v in book.wait()["ProductionVariants"]}
        assert counts == {"A": count, "B": 1}
        for _ in range(4):
            book.ask("us.tar.gz", us, TargetVariant="A")


def _update(book: Notebook, us: Trained) -> None:
    """To another configuration, whose container has another environment: CSV where nothing is asked for."""
    book.create_model("as-csv", "models/", SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT="text/csv")
    book.create_config("as-csv", {"AllTraffic": "as-csv"})
    book.sagemaker.update_endpoint(EndpointName=ENDPOINT, EndpointConfigName="as-csv")
    described = book.wait()
    assert described["EndpointConfigName"] == "as-csv"
    assert [v["VariantName"] for v in described["ProductionVariants"]] == ["AllTraffic"]
    answer = book.runtime.invoke_endpoint(
        EndpointName=ENDPOINT, TargetModel="us.tar.gz", ContentType="text/csv", Body=us.row
    )
    assert answer["ContentType"].startswith("text/csv")
    assert float(answer["Body"].read()) == pytest.approx(us.expected[0], rel=1e-5)


def _delete(book: Notebook) -> None:
    book.sagemaker.delete_endpoint(EndpointName=ENDPOINT)
    book.wait("endpoint_deleted")
    for name in ("churn", "ab", "as-csv"):
        book.sagemaker.delete_endpoint_config(EndpointConfigName=name)
    for name in ("churn", "challenger", "as-csv"):
        book.sagemaker.delete_model(ModelName=name)
    keys = [entry["Key"] for entry in book.s3.list_objects_v2(Bucket=BUCKET)["Contents"]]
    assert sorted(keys) == [
        "challenger/eu.tar.gz",
        "models/eu-v2.tar.gz",
        "models/eu.tar.gz",
        "models/teams/asia.tar.gz",
        "models/us.tar.gz",
    ]
    book.s3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": key} for key in keys]})
    book.s3.delete_bucket(Bucket=BUCKET)
    assert book.sagemaker.list_endpoints()["Endpoints"] == []
    assert book.sagemaker.list_endpoint_configs()["EndpointConfigs"] == []
    assert book.sagemaker.list_models()["Models"] == []
    with pytest.raises(ClientError, match=f"Endpoint {ENDPOINT} of account 123456789012 not found"):
        book.runtime.invoke_endpoint(EndpointName=ENDPOINT, TargetModel="eu.tar.gz", Body=b"1")
