"""What happens while something else does: each of these calls was once lost, doubled or answered wrongly."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
import urllib.request
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from botocore.exceptions import ClientError

from tests.endpoint.flaky_store import FlakyStore
from tests.endpoint.service import PROGRAMS, Service, stub_model
from tests.support.server import until


def _stubs(service: Service) -> list[psutil.Process]:
    assert service.process
    children = psutil.Process(service.process.pid).children(recursive=True)
    return [child for child in children if "programs/" in " ".join(child.cmdline())]


def _outcome(service: Service, endpoint: str, target: str) -> str:
    """The value that a model answers, or the code of its error."""
    try:
        return str(service.invoke(endpoint, target)["value"])
    except ClientError as error:
        return str(error.response["Error"]["Code"])


def test_a_call_that_comes_while_its_model_is_unloaded_for_another_is_answered(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with Service(tmp_path / "state") as service, ThreadPoolExecutor(4) as threads:
        service.upload(a=stub_model("a", unload_until=str(gate)), b=stub_model("b"))
        service.create("wake", environment={"STUB_CAPACITY": "1"})
        service.invoke("wake", "a.tar.gz")
        other = threads.submit(service.invoke, "wake", "b.tar.gz")
        until(lambda: service.instances("wake")[0]["models"][0]["state"] == "unloading", what="the unload")
        call = threads.submit(service.invoke, "wake", "a.tar.gz")
        until(lambda: service.instances("wake")[0]["models"][0]["waiting"], what="the call")
        gate.touch()
        assert call.result(30)["value"] == "a"
        assert other.result(30)["value"] == "b"


def test_a_download_that_nobody_waits_for_any_more_touches_nothing(tmp_path: Path) -> None:
    data = stub_model("whole", block="x" * 100_000)
    environ = {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any"}
    with FlakyStore({"models/m/a.tar.gz": data}, hang_first_s=3) as store:
        options = ("--s3-endpoint-url", store.url, "--load-timeout", "1", "--failure-memory", "0.1")
        with Service(tmp_path / "state", *options, **environ) as service:
            service.create("hang")
            with pytest.raises(service.runtime.exceptions.ModelError, match="still downloading after 1 s"):
                service.invoke("hang", "a.tar.gz")
            # The failure is soon forgotten; the next download, too, may take too long where a machine stalls.
            until(lambda: _outcome(service, "hang", "a.tar.gz") == "whole", what="the second download")
            (instance,) = (tmp_path / "state/instances").iterdir()
            until(lambda: not list((instance / "incoming").iterdir()), what="the end of the first download")
            assert service.invoke("hang", "a.tar.gz")["value"] == "whole", "its files are still there"


def test_a_load_that_ends_after_its_time_does_not_hold_memory_for_ever(tmp_path: Path) -> None:
    with Service(tmp_path / "state", "--load-timeout", "1", "--failure-memory", "0.1") as service:
        gate = tmp_path / "gate"
        service.upload(slow=stub_model("s", load_until=str(gate)), b=stub_model("b"))
        service.create("phantom", environment={"STUB_CAPACITY": "1"})

        def was_loading() -> bool:
            """Whether the time ended while it was loaded; on a machine that stalls that may be earlier."""
            with pytest.raises(service.runtime.exceptions.ModelError, match=r"still .* after 1 s") as caught:
                service.invoke("phantom", "slow.tar.gz")
            return "still loading" in str(caught.value)

        until(was_loading, what="a load that takes too long")
        gate.touch()
        until(lambda: _listed(service, "phantom"), what="the end of the load")
        until(lambda: _outcome(service, "phantom", "b.tar.gz") == "b", what="the other model")


def _listed(service: Service, endpoint: str) -> list[Any]:
    """The models that the container of the one instance says it has."""
    (instance,) = service.instances(endpoint)
    with urllib.request.urlopen(f"http://{instance['address']}/models", timeout=30) as response:
        models: list[Any] = json.load(response)["models"]
    return models


def test_models_that_come_together_do_not_overfill_the_volume(tmp_path: Path) -> None:
    with Service(tmp_path / "state", "--volume", "1M") as service, ThreadPoolExecutor(8) as threads:
        names = [f"m{number}" for number in range(8)]
        service.upload(**{name: stub_model(name, block="x" * 350_000) for name in names})
        service.create("volume")
        calls = [threads.submit(service.invoke, "volume", f"{name}.tar.gz") for name in names]
        most = 0
        while not all(call.done() for call in calls):
            most = max(most, service.instances("volume")[0]["disk_bytes"])
        most = max(most, service.instances("volume")[0]["disk_bytes"])
        assert [call.result()["value"] for call in calls] == names
        assert 0 < most <= 1024 * 1024
        (folder,) = (tmp_path / "state/instances").iterdir()
        until(lambda: not list((folder / "incoming").iterdir()), what="the end of what the downloads left")
        stored = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        assert stored <= 1024 * 1024


def test_calls_refused_for_memory_together_unload_no_more_than_they_must(tmp_path: Path) -> None:
    with Service(tmp_path / "state", program="gpu_memory.py") as service, ThreadPoolExecutor(8) as threads:
        others = [f"o{number}" for number in range(6)]
        service.upload(
            a=stub_model("a", others="5"), **{name: stub_model(name, unload_s="0.3") for name in others}
        )
        service.create("gpu")
        for name in ["a", *others]:
            service.invoke("gpu", f"{name}.tar.gz")
        answers = list(threads.map(lambda _: service.invoke("gpu", "a.tar.gz"), range(8)))
        assert {answer["value"] for answer in answers} == {"a"}
        assert [event["model"] for event in service.events("unloaded")] == ["o0.tar.gz"]


def test_a_refusal_for_memory_that_comes_after_another_model_has_left_unloads_no_more(tmp_path: Path) -> None:
    said, gate = tmp_path / "said", tmp_path / "gate"
    program = tmp_path / "programs/late.py"
    program.parent.mkdir()
    program.write_text(
        f"""#!/usr/bin/env python3
import pathlib, sys, time
sys.path.insert(0, {str(PROGRAMS)!r})
from gpu_memory import GpuMemory
from stub import serve

class Late(GpuMemory):
    def invoke(self, name, headers, body):
        try:
            return super().invoke(name, headers, body)
        finally:  # whatever it is, it is answered late
            if body == b"late":
                pathlib.Path({str(said)!r}).touch()
                while not pathlib.Path({str(gate)!r}).exists():
                    time.sleep(0.01)

serve(Late())
"""
    )
    program.chmod(0o755)
    options = ("--launcher", "process", "--program", str(program))
    with Service(tmp_path / "state", *options, program=None) as service, ThreadPoolExecutor(1) as threads:
        service.upload(a=stub_model("a", others="1"), **{name: stub_model(name) for name in ("o0", "o1")})
        service.create("late")
        for name in ("a", "o0", "o1"):
            service.invoke("late", f"{name}.tar.gz")
        late = threads.submit(service.invoke, "late", "a.tar.gz", b"late")
        until(said.exists, what="the refusal of the late call")
        assert service.invoke("late", "a.tar.gz")["value"] == "a"
        gate.touch()
        assert late.result(30)["value"] == "a"
        assert [event["model"] for event in service.events("unloaded")] == ["o0.tar.gz"]


def test_two_cold_models_wait_for_the_same_room(tmp_path: Path) -> None:
    with Service(tmp_path / "state", program="reserves.py") as service, ThreadPoolExecutor(4) as threads:
        service.upload(a=stub_model("a", load_s="0.5"), b=stub_model("b", load_s="0.5"))
        service.create("room")
        calls = [threads.submit(service.invoke, "room", f"{name}.tar.gz") for name in "ab"]
        assert [call.result()["value"] for call in calls] == ["a", "b"]


def test_without_a_cache_nothing_stays_that_nobody_called_to_the_end(tmp_path: Path) -> None:
    with Service(tmp_path / "state", "--invoke-timeout", "0.5") as service:
        gate = tmp_path / "gate"
        slow = stub_model("s", load_until=str(gate))
        service.upload(slow=slow, broken=stub_model("b", load_status="500"))
        service.create("gone", cache="Disabled")
        assert _outcome(service, "gone", "slow.tar.gz") == "ModelNotReadyException"
        # Its time, too, may end before its load has failed.
        until(lambda: _outcome(service, "gone", "broken.tar.gz") == "ModelError", what="the failure")
        gate.touch()
        until(lambda: service.loaded("gone") == [[]], what="an empty memory")
        until(lambda: not list((tmp_path / "state/instances").glob("*/models/*")), what="an empty volume")


@pytest.mark.parametrize("answer", ["507", "rubbish", "slow"])
def test_every_call_is_answered_when_its_endpoint_is_deleted(tmp_path: Path, answer: str) -> None:
    told = {"invoke_s": "3"} if answer == "slow" else {"invoke_status": answer}
    with Service(tmp_path / "state") as service, ThreadPoolExecutor(4) as threads:
        service.upload(a=stub_model("a", **told), b=stub_model("b", unload_s="3"))
        service.create("deleted")
        service.invoke("deleted", "b.tar.gz")
        call = threads.submit(service.invoke, "deleted", "a.tar.gz")
        until(lambda: call.done() or service.instances("deleted")[0]["in_flight"], what="the call in flight")
        service.sagemaker.delete_endpoint(EndpointName="deleted")
        error = call.exception(20)
        assert error is None or isinstance(error, ClientError)


def test_a_call_whose_time_ends_while_another_model_leaves_for_it_is_answered_then(tmp_path: Path) -> None:
    with Service(tmp_path / "state", "--invoke-timeout", "1") as service:
        service.upload(a=stub_model("a", invoke_status="507"), b=stub_model("b", unload_s="90"))
        service.create("late")
        # Loaded before: a second is little for a cold model on a machine that stalls.
        until(lambda: _outcome(service, "late", "a.tar.gz") == "ModelError", what="the first model")
        until(lambda: _outcome(service, "late", "b.tar.gz") == "b", what="the second model")
        begun = time.monotonic()
        with pytest.raises(service.runtime.exceptions.ModelError, match="timed out"):
            service.invoke("late", "a.tar.gz")
        assert time.monotonic() - begun < 30


def test_sigterm_in_a_deletion_leaves_nothing(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with Service(tmp_path / "state", "--settle", "0") as service, ThreadPoolExecutor(1) as threads:
        service.upload(slow=stub_model("s", invoke_until=str(gate)))
        service.create("ending")
        call = threads.submit(service.invoke, "ending", "slow.tar.gz")
        until(lambda: service.instances("ending")[0]["in_flight"], what="the call in flight")
        service.sagemaker.delete_endpoint(EndpointName="ending")
        until(lambda: service.get("status")["endpoints"][0]["status"] == "Deleting", what="the deletion")
        assert service.process
        service.process.send_signal(signal.SIGTERM)
        until(lambda: not service.listens(), what="the service listening no more")
        gate.touch()
        assert service.process.wait(30) == 0
        assert not list((tmp_path / "state/instances").iterdir())
        assert call.result()["value"] == "s", "it had its last seconds"


def test_calls_of_a_fleet_that_is_replaced_keep_their_time(tmp_path: Path) -> None:
    with Service(tmp_path / "state", "--invoke-timeout", "2") as service, ThreadPoolExecutor(4) as threads:
        gate = tmp_path / "gate"
        gate.touch()
        service.upload(
            hangs=stub_model("h", invoke_until=str(gate)),
            cold=stub_model("c", load_until=str(tmp_path / "no")),
        )
        service.create("old")
        service.configure("new", [("old", "AllTraffic", 1, 1.0, {})])
        until(lambda: _outcome(service, "old", "hangs.tar.gz") == "h", what="a loaded model")
        gate.unlink()
        calls = [threads.submit(service.invoke, "old", f"{name}.tar.gz") for name in ("hangs", "cold")]
        until(lambda: calls[0].done() or service.instances("old")[0]["in_flight"], what="the call in flight")
        service.sagemaker.update_endpoint(EndpointName="old", EndpointConfigName="new")
        codes = [_code(call) for call in calls]
        assert codes == ["ModelError", "ModelNotReadyException"]


def _code(call: Future[Any]) -> str:
    error = call.exception(10)
    assert isinstance(error, ClientError)
    return str(error.response["Error"]["Code"])


def test_scaling_while_an_instance_is_replaced_ends_with_the_number_that_is_wanted(tmp_path: Path) -> None:
    flag = tmp_path / "slow"
    program = tmp_path / "programs/slow_start.py"
    program.parent.mkdir()
    inner = PROGRAMS / "multi_model.py"
    program.write_text(
        "#!/usr/bin/env python3\nimport os, sys, time\n"
        f"time.sleep(1.5 if os.path.exists({str(flag)!r}) else 0)\n"
        f"os.execv({str(inner)!r}, [{str(inner)!r}, *sys.argv[1:]])\n"
    )
    program.chmod(0o755)
    options = ("--launcher", "process", "--program", str(program), "--settle", "0")
    with Service(tmp_path / "state", *options, program=None) as service:
        service.s3.create_bucket(Bucket="models")
        service.create("number", count=2)
        flag.touch()
        _stubs(service)[0].kill()
        until(lambda: service.events("instance_unhealthy"), what="the loss of one")
        service.sagemaker.update_endpoint_weights_and_capacities(
            EndpointName="number",
            DesiredWeightsAndCapacities=[{"VariantName": "AllTraffic", "DesiredInstanceCount": 3}],
        )
        until(lambda: service.status("number") == "InService", what="the new number")
        until(lambda: len(service.instances("number")) == 3, what="three instances")
        time.sleep(2)
        assert len(service.instances("number")) == 3


def test_one_variant_that_cannot_grow_takes_the_other_back(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    program = tmp_path / "programs/sometimes.py"
    program.parent.mkdir()
    inner = PROGRAMS / "multi_model.py"
    program.write_text(
        "#!/usr/bin/env python3\nimport os, sys, time\n"
        f"if os.environ.get('FAILS') and os.path.exists({str(flag)!r}): time.sleep(0.5); sys.exit(9)\n"
        f"os.execv({str(inner)!r}, [{str(inner)!r}, *sys.argv[1:]])\n"
    )
    program.chmod(0o755)
    with Service(
        tmp_path / "state", "--launcher", "process", "--program", str(program), program=None
    ) as service:
        service.s3.create_bucket(Bucket="models")
        for name, environment in (("a", {"FAILS": "1"}), ("b", {})):
            service.sagemaker.create_model(
                ModelName=name,
                ExecutionRoleArn="arn:aws:iam::123456789012:role/any",
                PrimaryContainer={
                    "Image": "any",
                    "Mode": "MultiModel",
                    "ModelDataUrl": "s3://models/m/",
                    "Environment": environment,
                },
            )
        service.configure("two", [("a", "A", 1, 1.0, {}), ("b", "B", 1, 1.0, {})])
        service.sagemaker.create_endpoint(EndpointName="two", EndpointConfigName="two")
        until(lambda: service.status("two") == "InService", what="the endpoint")
        flag.touch()
        service.sagemaker.update_endpoint_weights_and_capacities(
            EndpointName="two",
            DesiredWeightsAndCapacities=[
                {"VariantName": "A", "DesiredInstanceCount": 2},
                {"VariantName": "B", "DesiredInstanceCount": 3},
            ],
        )
        until(lambda: service.status("two") == "InService", what="the roll-back")
        time.sleep(1)
        assert [len(service.instances("two", variant)) for variant in "AB"] == [1, 1]


def test_bodies_go_with_their_answers(tmp_path: Path) -> None:
    """Nothing waits for the collector, which looks rarely."""
    with Service(tmp_path / "state") as service:
        service.upload(a=stub_model("a"))
        service.create("bodies")
        body = b"x" * (20 * 1024 * 1024)
        assert service.invoke("bodies", "a.tar.gz", body)["body_bytes"] == len(body)
        assert service.process
        process = psutil.Process(service.process.pid)
        before = process.memory_info().rss
        for _ in range(25):
            service.invoke("bodies", "a.tar.gz", body)
        assert process.memory_info().rss - before < 150 * 1024 * 1024


def test_bodies_that_pass_through_go_with_their_answers(tmp_path: Path) -> None:
    """Archives are uploaded through the service's own port."""
    with Service(tmp_path / "state") as service:
        service.s3.create_bucket(Bucket="models")
        body = b"x" * (20 * 1024 * 1024)
        service.s3.put_object(Bucket="models", Key="a", Body=body)
        assert service.process
        process = psutil.Process(service.process.pid)
        before = process.memory_info().rss
        for _ in range(20):
            service.s3.put_object(Bucket="models", Key="a", Body=body)
        assert process.memory_info().rss - before < 150 * 1024 * 1024


def test_a_crowd_at_few_models_is_answered_whatever_is_loaded_and_unloaded(tmp_path: Path) -> None:
    """Many callers, more models than memory and volume hold, a container that is killed: nothing hangs."""
    environment = {"STUB_CAPACITY": "3"}
    with Service(tmp_path / "state", "--volume", "1M", "--max-in-flight", "4") as service:
        names = [f"m{number}" for number in range(9)]
        service.upload(**{name: stub_model(name, block="x" * 150_000, invoke_s="0.01") for name in names})
        service.create("crowd", count=2, environment=environment)
        outcomes: Counter[str] = Counter()
        wrong: list[str] = []
        end = time.monotonic() + 6

        def call(seed: int) -> None:
            number = seed
            while time.monotonic() < end + (0 if outcomes["good"] > 100 else 30):
                number = (number * 7 + 3) % 1009
                name = names[number % len(names)]
                try:
                    answer = service.invoke("crowd", f"{name}.tar.gz")
                    outcomes["good"] += 1
                    if answer["value"] != name:
                        wrong.append(f"{name} was answered by {answer['value']}")
                except ClientError as error:
                    outcomes[error.response["Error"]["Code"]] += 1

        callers = [threading.Thread(target=call, args=(seed,)) for seed in range(24)]
        for caller in callers:
            caller.start()
        time.sleep(2)
        os.kill(_stubs(service)[0].pid, 9)
        for caller in callers:
            caller.join(40)
            assert not caller.is_alive(), "a call hangs"
        assert not wrong
        assert outcomes["good"] > 100
        assert set(outcomes) <= {"good", "ModelError", "ServiceUnavailable"}, outcomes
        until(
            lambda: all(i["in_flight"] == 0 for i in service.instances("crowd")), what="the end of all calls"
        )
        for instance in service.instances("crowd"):
            assert all(model["in_flight"] == model["waiting"] == 0 for model in instance["models"])
        for name in names:
            assert service.invoke("crowd", f"{name}.tar.gz")["value"] == name
