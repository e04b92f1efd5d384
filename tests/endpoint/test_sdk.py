"""SageMaker's own Python SDK, versions 2 and 3, with nothing but AWS_ENDPOINT_URL.

Each version runs one program in its environment; the tests are about what the program saw.
"""

from __future__ import annotations

import json
import random
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.endpoint.sdk.client import KEY, Outside, environ
from tests.endpoint.service import Service, archive, stub_model

PROGRAMS = Path(__file__).parent / "sdk"


def archives() -> dict[str, bytes]:
    return {
        "a": stub_model("from a"),
        "b": stub_model("from b"),
        # More than the 8 MiB from which boto3 uploads in parts.
        "large": archive({"value": "large", "weights": random.Random(0).randbytes(9 << 20)}),
        "fails": stub_model("", invoke_status="500"),
        "damaged": b"this is no archive",
    }


@dataclass(frozen=True)
class Saw:
    """What a program printed, the other addresses that it asked for, and what the service printed."""

    values: dict[str, Any]
    asked: set[str]
    lines: list[str]

    def __getitem__(self, name: str) -> Any:
        return self.values[name]


def _run(python: Path, program: str, service: Service, home: Path, *arguments: str) -> Saw:
    with Outside() as outside:
        done = subprocess.run(
            [python, PROGRAMS / program, *arguments],
            env=environ(service, outside, home),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=100,
        )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return Saw(json.loads(done.stdout.splitlines()[-1]), outside.asked, service.lines)


# --- version 2


@pytest.fixture(scope="module")
def notebook(sdk2: Path, tmp_path_factory: pytest.TempPathFactory) -> Saw:
    home = tmp_path_factory.mktemp("sdk2")
    for name, data in archives().items():
        (home / f"{name}.tar.gz").write_bytes(data)
    with Service(home / "state", *KEY) as service:
        return _run(sdk2, "notebook2.py", service, home, str(home))


def test_sdk2_deploys_and_waits(notebook: Saw) -> None:
    assert notebook["version"].startswith("2.")
    assert notebook["predictor"] == "Predictor"
    assert notebook["status"] == "InService"


def test_sdk2_makes_the_named_default_bucket_once_and_finds_a_role_by_its_name(notebook: Saw) -> None:
    assert notebook["default bucket"] == notebook["default bucket again"] == "notebook"
    assert notebook["role"] == "arn:aws:iam::123456789012:role/Notebook"


def test_sdk2_adds_models_from_files_and_from_s3_and_lists_them(notebook: Saw) -> None:
    assert notebook["listed before"] == []
    assert notebook["uploaded"] == "s3://notebook/job/output/b.tar.gz"
    names = [
        "a.tar.gz",
        "deeper/a-2.tar.gz",
        "large.tar.gz",
        "b.tar.gz",
        "job/output/b.tar.gz",
        "fails.tar.gz",
        "damaged.tar.gz",
    ]
    assert notebook["added"] == [f"s3://notebook/fleet/{name}" for name in names]
    assert notebook["listed"] == notebook["archives left"] == sorted(names)


def test_sdk2_predicts_with_all_that_a_call_can_carry(notebook: Saw) -> None:
    predicted = notebook["predicted"]
    assert predicted["value"] == "from a"
    assert predicted["body"] == "1.5,2\n3,4"
    expected = {
        "x-amzn-sagemaker-target-model": "a.tar.gz",
        "x-amzn-sagemaker-custom-attributes": "trace=1",
        "x-amzn-sagemaker-inference-id": "call-1",
        "content-type": "text/csv",
        "accept": "application/json",
    }
    assert {name: predicted["headers"].get(name) for name in expected} == expected
    assert notebook["values"] == {
        "deeper/a-2.tar.gz": "from a",
        "b.tar.gz": "from b",
        "job/output/b.tar.gz": "from b",
        "large.tar.gz": "large",
    }


def test_sdk2_raises_what_its_users_catch(notebook: Saw) -> None:
    fails = notebook["fails"]
    assert (fails["type"], fails["OriginalStatusCode"]) == ("ModelError", 500)
    assert "the stub was told to answer 500" in fails["OriginalMessage"]
    assert fails["LogStreamArn"].endswith(":log-group:/aws/sagemaker/Endpoints/fleet")
    for name, message in {
        "damaged": "The archive damaged.tar.gz cannot be used",
        "missing": "Failed to download model data(bucket: notebook, key: fleet/missing.tar.gz)",
        "no target": "The target model header x-amzn-sagemaker-target-model is missing",
        "no variant": "Variant other not found for endpoint fleet",
    }.items():
        assert notebook[name]["type"] == "ValidationError"
        assert message in notebook[name]["message"]


def test_sdk2_updates_an_endpoint(notebook: Saw) -> None:
    assert notebook["updated"] == {
        "status": "InService",
        "model": "fleet-2",
        "configuration is new": True,
        "tags": [{"Key": "team", "Value": "notebook"}],
    }
    assert notebook["predicted after"] == "from a"
    assert notebook["updated back"] == "fleet"
    # The SDK's own error, from the message that Describe gives.
    assert notebook["update of none"]["type"] == "ValueError"


def test_sdk2_is_refused_a_second_deployment_after_it_took_the_model_that_is_there(notebook: Saw) -> None:
    assert notebook["second deploy"]["code"] == "ValidationException"
    assert "Cannot create already existing endpoint configuration" in notebook["second deploy"]["message"]
    assert "WARNING: Using already existing model: fleet" in notebook["complaints"]


def test_sdk2_is_refused_a_pipeline(notebook: Saw) -> None:
    assert notebook["pipeline"]["code"] == "ValidationException"
    assert "more than one container is not supported" in notebook["pipeline"]["message"]


def test_sdk2_with_a_prefix_without_its_slash_lists_names_that_do_not_work_with_it(notebook: Saw) -> None:
    assert notebook["bare status"] == "InService"
    assert notebook["bare listed"] == [f"/{name}" for name in notebook["listed"]]
    assert notebook["bare"]["result"] == "from a"
    assert "without a slash at its start" in notebook["bare slash"]["message"]


def test_sdk2_deletes_everything_but_the_archives(notebook: Saw) -> None:
    assert notebook["left"] == {"models": [], "configurations": [], "endpoints": []}
    assert "Endpoint fleet of account 123456789012 not found" in notebook["after"]["message"]
    assert "Could not find endpoint" in notebook["described after"]["message"]


def test_sdk2_asks_sts_and_nothing_else_at_an_address_of_its_own(notebook: Saw) -> None:
    """An account's own bucket and role cannot be had from the local endpoint: name them."""
    assert notebook.asked == {"sts.us-east-1.amazonaws.com:443"}
    for name in ("account", "own bucket", "execution role"):
        assert notebook[name]["type"] == "ProxyConnectionError"


def test_sdk2_and_the_service_complain_of_nothing(notebook: Saw) -> None:
    own = ("on path of deprecation", "Using already existing model")
    assert [line for line in notebook["complaints"] if not any(text in line for text in own)] == []
    assert len(notebook.lines) == 2, "the service's greeting"


# --- version 3


@pytest.fixture(scope="module")
def resources(sdk3: Path, tmp_path_factory: pytest.TempPathFactory) -> Saw:
    home = tmp_path_factory.mktemp("sdk3")
    with Service(home / "state", *KEY) as service:
        service.upload(**archives())
        return _run(sdk3, "resources3.py", service, home)


def test_sdk3_creates_a_multi_model_endpoint(resources: Saw) -> None:
    assert resources["version"].startswith("3.")
    assert resources["model"]["mode"] == "MultiModel"
    assert resources["model"]["cache"] == "Enabled"
    assert resources["model"]["arn"].endswith(":model/fleet")
    assert resources["variant"] == 1.0
    assert resources["endpoint"] == {"status": "InService", "configuration": "fleet", "instances": 1}


def test_sdk3_invokes_target_models(resources: Saw) -> None:
    answer = resources["answer"]
    assert (answer["content type"], answer["variant"], answer["attributes"]) == (
        "application/json",
        "AllTraffic",
        "trace=1",
    )
    body = json.loads(answer["body"])
    assert (body["value"], body["body"], body["headers"]["content-type"]) == ("from a", "1,2", "text/csv")
    assert resources["deserialized"] == "1,2"


def test_sdk3_raises_what_its_users_catch(resources: Saw) -> None:
    assert (resources["fails"]["type"], resources["fails"]["OriginalStatusCode"]) == ("ModelError", 500)
    assert "there is no such object" in resources["missing"]["message"]
    assert "target model header" in resources["no target"]["message"]
    for name in ("second model", "second endpoint"):
        assert resources[name]["code"] == "ValidationException"
        assert "Cannot create already existing" in resources[name]["message"]


def test_sdk3_lists(resources: Saw) -> None:
    assert resources["models"] == ["fleet", "other-x", "other-y", "other-z"]
    assert resources["models named"] == ["other-y"]
    assert resources["configurations"] == ["fleet"]
    assert resources["endpoints"] == [["fleet", "InService"]]


def test_sdk3_updates_counts_and_configurations(resources: Saw) -> None:
    assert resources["instances"] == 2
    assert resources["updated"] == "fleet-2"
    assert resources["deserialized after"] == "from a"


def test_sdk3_deletes_everything(resources: Saw) -> None:
    assert resources["left"] == []
    assert "Could not find endpoint" in resources["after"]["message"]
    assert "Endpoint fleet of account 123456789012 not found" in resources["invoked after"]["message"]


def test_sdk3_asks_nothing_elsewhere_and_complains_of_nothing(resources: Saw) -> None:
    assert resources.asked == set()
    assert resources["complaints"] == ["WARNING: No region provided. Using default region."]
    assert len(resources.lines) == 2, "the service's greeting"
