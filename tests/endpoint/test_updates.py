"""UpdateEndpoint and UpdateEndpointWeightsAndCapacities: new fleet first, then the switch, or back."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from tests.endpoint.service import IMAGE, ROLE, Service, stub_model
from tests.support.server import until


class Caller:
    """Calls a model again and again; every answer must be good."""

    def __init__(self, service: Service, endpoint: str, target: str) -> None:
        self.variants: Counter[str] = Counter()
        self.errors: list[str] = []
        self._stop = threading.Event()
        self._service, self._endpoint, self._target = service, endpoint, target
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                answer = self._service.runtime.invoke_endpoint(
                    EndpointName=self._endpoint, TargetModel=self._target, Body=b"1"
                )
                answer["Body"].read()
                self.variants[answer["InvokedProductionVariant"]] += 1
            except ClientError as error:
                self.errors.append(str(error))

    def __enter__(self) -> Caller:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def _model(service: Service, name: str, **environment: str) -> None:
    service.sagemaker.create_model(
        ModelName=name,
        ExecutionRoleArn=ROLE,
        PrimaryContainer={
            "Image": IMAGE,
            "Mode": "MultiModel",
            "ModelDataUrl": "s3://models/m/",
            "Environment": environment,
        },
    )


def test_an_update_switches_without_a_failed_call_and_starts_with_empty_caches(tmp_path: Path) -> None:
    with Service(tmp_path / "state") as service:
        service.upload(a=stub_model("a"))
        service.create("blue")
        service.invoke("blue", "a.tar.gz")
        (before,) = service.instances("blue")
        _model(service, "green", GREEN="1")
        service.configure("green", [("green", "AllTraffic", 1, 1.0, {})])
        with Caller(service, "blue", "a.tar.gz") as caller:
            service.sagemaker.update_endpoint(EndpointName="blue", EndpointConfigName="green")
            until(lambda: service.status("blue") == "InService", what="the update")
            before_it = sum(caller.variants.values())
            until(lambda: sum(caller.variants.values()) > before_it + 50, what="calls after the update")
        assert not caller.errors
        described = service.sagemaker.describe_endpoint(EndpointName="blue")
        assert described["EndpointConfigName"] == "green"
        (after,) = service.instances("blue")
        assert after["instance_id"] != before["instance_id"]
        assert len(service.events("downloaded")) == 2


def test_an_update_that_does_not_start_rolls_back_with_the_reason(tmp_path: Path) -> None:
    with Service(tmp_path / "state") as service:
        service.upload(a=stub_model("a"))
        service.create("stays")
        (before,) = service.instances("stays")
        _model(service, "broken", STUB_PING="dies")
        service.configure("broken", [("broken", "AllTraffic", 1, 1.0, {})])
        with Caller(service, "stays", "a.tar.gz") as caller:
            service.sagemaker.update_endpoint(EndpointName="stays", EndpointConfigName="broken")
            until(lambda: service.status("stays") == "InService", what="the roll-back")
        assert not caller.errors
        described = service.sagemaker.describe_endpoint(EndpointName="stays")
        assert described["EndpointConfigName"] == "stays"
        assert "exited with code 3" in described["FailureReason"]
        assert [i["instance_id"] for i in service.instances("stays")] == [before["instance_id"]]
        # The reason stands until the next update succeeds.
        service.configure("again", [("stays", "AllTraffic", 1, 1.0, {})])
        service.sagemaker.update_endpoint(EndpointName="stays", EndpointConfigName="again")
        until(lambda: service.status("stays") == "InService", what="the update")
        assert "FailureReason" not in service.sagemaker.describe_endpoint(EndpointName="stays")


def test_counts_and_weights_change_in_place(tmp_path: Path) -> None:
    with Service(tmp_path / "state") as service:
        service.upload(a=stub_model("a"))
        service.create("scale")
        service.invoke("scale", "a.tar.gz")
        (first,) = service.instances("scale")
        with Caller(service, "scale", "a.tar.gz") as caller:
            for count in (3, 1):
                service.sagemaker.update_endpoint_weights_and_capacities(
                    EndpointName="scale",
                    DesiredWeightsAndCapacities=[
                        {"VariantName": "AllTraffic", "DesiredInstanceCount": count}
                    ],
                )
                until(lambda: service.status("scale") == "InService", what="the new count")
                (variant,) = service.sagemaker.describe_endpoint(EndpointName="scale")["ProductionVariants"]
                assert variant["CurrentInstanceCount"] == variant["DesiredInstanceCount"] == count
                assert len(service.instances("scale")) == count
        assert not caller.errors
        (left,) = service.instances("scale")
        assert left["instance_id"] == first["instance_id"], "the one that holds the model stays"


def test_a_count_that_cannot_be_had_rolls_back(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    program = tmp_path / "sometimes.py"
    inner = Path(__file__).parent / "programs/multi_model.py"
    program.write_text(
        f"#!/usr/bin/env python3\nimport os, sys\n"
        f"if os.path.exists({str(flag)!r}): sys.exit(9)\n"
        f"os.execv({str(inner)!r}, [{str(inner)!r}, *sys.argv[1:]])\n"
    )
    program.chmod(0o755)
    with Service(
        tmp_path / "state", "--launcher", "process", "--program", str(program), program=None
    ) as service:
        service.upload(a=stub_model("a"))
        service.create("rolled")
        flag.touch()
        service.sagemaker.update_endpoint_weights_and_capacities(
            EndpointName="rolled",
            DesiredWeightsAndCapacities=[{"VariantName": "AllTraffic", "DesiredInstanceCount": 3}],
        )
        until(lambda: service.status("rolled") == "InService", what="the roll-back")
        described = service.sagemaker.describe_endpoint(EndpointName="rolled")
        assert "exited with code 9" in described["FailureReason"]
        assert described["ProductionVariants"][0]["DesiredInstanceCount"] == 1
        assert service.invoke("rolled", "a.tar.gz")["value"] == "a"


def test_variants_share_calls_by_weight_and_have_caches_of_their_own(tmp_path: Path) -> None:
    with Service(tmp_path / "state") as service:
        service.upload(prefix="a/", m=stub_model("from a"))
        service.upload(prefix="b/", m=stub_model("from b"))
        for name in "ab":
            service.sagemaker.create_model(
                ModelName=name,
                ExecutionRoleArn=ROLE,
                PrimaryContainer={
                    "Image": IMAGE,
                    "Mode": "MultiModel",
                    "ModelDataUrl": f"s3://models/{name}/",
                },
            )
        service.configure("ab", [("a", "A", 1, 3.0, {}), ("b", "B", 1, 1.0, {})])
        service.sagemaker.create_endpoint(EndpointName="ab", EndpointConfigName="ab")
        until(lambda: service.status("ab") == "InService", what="the endpoint")
        counts: Counter[str] = Counter()
        for _ in range(200):
            answer = service.runtime.invoke_endpoint(EndpointName="ab", TargetModel="m.tar.gz", Body=b"1")
            counts[answer["InvokedProductionVariant"]] += 1
            answer["Body"].read()
        assert 110 < counts["A"] < 185, counts
        for variant, value in (("A", "from a"), ("B", "from b")):
            assert service.invoke("ab", "m.tar.gz", TargetVariant=variant)["value"] == value
        service.sagemaker.update_endpoint_weights_and_capacities(
            EndpointName="ab",
            DesiredWeightsAndCapacities=[
                {"VariantName": "A", "DesiredWeight": 0},
                {"VariantName": "B", "DesiredWeight": 1},
            ],
        )
        until(lambda: service.status("ab") == "InService", what="the new weights")
        values = {service.invoke("ab", "m.tar.gz")["value"] for _ in range(30)}
        assert values == {"from b"}
        assert service.invoke("ab", "m.tar.gz", TargetVariant="A")["value"] == "from a"


def test_what_an_endpoint_runs_may_be_deleted_under_it(tmp_path: Path) -> None:
    with Service(tmp_path / "state") as service:
        service.upload(a=stub_model("a"))
        service.create("snapshot")
        service.sagemaker.delete_endpoint_config(EndpointConfigName="snapshot")
        service.sagemaker.delete_model(ModelName="snapshot")
        assert service.invoke("snapshot", "a.tar.gz")["value"] == "a"
        service.sagemaker.delete_endpoint(EndpointName="snapshot")
        service.sagemaker.get_waiter("endpoint_deleted").wait(EndpointName="snapshot")
        with pytest.raises(ClientError, match="Endpoint snapshot of account 123456789012 not found"):
            service.invoke("snapshot", "a.tar.gz")
        with pytest.raises(ClientError, match="Could not find endpoint"):
            service.status("snapshot")
