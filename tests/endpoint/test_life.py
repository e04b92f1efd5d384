"""The service's life: start, stop, SIGKILL and start again, and the deaths of what it consists of."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import psutil
import pytest
from botocore.exceptions import ClientError

from tests.endpoint.service import IMAGE, ROLE, Service, stub_model
from tests.support.server import until


def _descendants(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != "zombie"
    except psutil.NoSuchProcess:  # it went between the two
        return False


def _all_gone(processes: list[psutil.Process]) -> bool:
    return not any(map(_is_alive, processes))


def _stubs(service: Service) -> list[psutil.Process]:
    """The containers, also those that are on their way to be."""
    assert service.process
    found = []
    for process in _descendants(service.process.pid):
        with contextlib.suppress(psutil.Error):  # it went meanwhile
            if "multi_model.py" in " ".join(process.cmdline()):
                found.append(process)
    return found


def test_sigterm_ends_everything_and_leaves_the_definitions(tmp_path: Path) -> None:
    with Service(tmp_path / "state") as service:
        service.upload(a=stub_model("a"))
        service.create("kept", count=2)
        service.invoke("kept", "a.tar.gz")
        assert service.process
        processes = _descendants(service.process.pid)
        assert len(processes) >= 3
        assert service.stop() == 0
        until(lambda: _all_gone(processes), 10, "the end of all processes")
        assert not list((tmp_path / "state/instances").iterdir())
        assert "Traceback" not in service.log
    with Service(tmp_path / "state") as service:
        until(lambda: service.status("kept") == "InService", what="the endpoint")
        assert service.invoke("kept", "a.tar.gz")["value"] == "a"


def test_sigkill_loses_no_definition_and_leaves_no_process(tmp_path: Path) -> None:
    with Service(tmp_path / "state") as service:
        service.upload(a=stub_model("a"), slow=stub_model("s", load_s="60"))
        service.create("killed", environment={"STUB_CAPACITY": "2"})
        service.invoke("killed", "a.tar.gz")
        service.sagemaker.create_model(
            ModelName="also",
            ExecutionRoleArn=ROLE,
            PrimaryContainer={"Image": IMAGE},
            Tags=[{"Key": "k", "Value": "v"}],
        )
        assert service.process
        processes = _descendants(service.process.pid)
        service.kill()
        until(lambda: _all_gone(processes), what="the end of all processes")
    with Service(tmp_path / "state") as service:
        arn = service.sagemaker.describe_model(ModelName="also")["ModelArn"]
        assert service.sagemaker.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "k", "Value": "v"}]
        until(lambda: service.status("killed") == "InService", what="the endpoint")
        assert service.invoke("killed", "a.tar.gz")["value"] == "a"
        assert len(list((tmp_path / "state/instances").iterdir())) == 1, (
            "volumes of the killed service are gone"
        )


def test_a_kill_during_a_creation_lets_the_next_service_finish_it(tmp_path: Path) -> None:
    with Service(tmp_path / "state", "--settle", "0") as service:
        service.upload(a=stub_model("a"))
        service.create("begun", environment={"STUB_PING": "never"}, wait=False)
        assert service.status("begun") == "Creating"
        service.kill()
    with Service(tmp_path / "state", "--startup-timeout", "1") as service:
        until(lambda: service.status("begun") == "Failed", what="the end of Creating")


def test_the_control_plane_is_started_again_and_invocations_go_on(tmp_path: Path) -> None:
    with Service(tmp_path / "state") as service:
        service.upload(a=stub_model("a"))
        service.create("on")
        service.invoke("on", "a.tar.gz")
        assert service.process
        control = [
            p
            for p in _descendants(service.process.pid)
            if "mmekit_endpoint.api.control" in " ".join(p.cmdline())
        ]
        for process in control:
            with contextlib.suppress(psutil.NoSuchProcess):  # the worker ends with the arbiter
                process.kill()
        assert service.invoke("on", "a.tar.gz")["value"] == "a"

        def answers() -> bool:
            try:
                return service.status("on") == "InService"
            except ClientError as error:
                return error.response["Error"]["Code"] != "ServiceUnavailable"

        until(answers, what="the control plane")
        assert [b["Name"] for b in service.s3.list_buckets()["Buckets"]] == ["models"]
        service.upload(b=stub_model("b"))
        assert service.invoke("on", "b.tar.gz")["value"] == "b"


def test_sigterm_waits_for_calls_in_flight(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with Service(tmp_path / "state") as service, ThreadPoolExecutor(1) as threads:
        gate = tmp_path / "gate"
        service.upload(slow=stub_model("s", invoke_until=str(gate)))
        service.create("last")
        call = threads.submit(service.invoke, "last", "slow.tar.gz")
        until(lambda: service.instances("last")[0]["in_flight"], what="the call in flight")
        assert service.process
        service.process.send_signal(signal.SIGTERM)
        until(lambda: not service.listens(), what="the service listening no more")
        gate.touch()
        assert service.process.wait(30) == 0
        assert call.result()["value"] == "s"


def test_without_a_state_folder_nothing_is_left(tmp_path: Path) -> None:
    import subprocess
    import sys

    from tests.endpoint.service import COMMAND, PROGRAMS

    environ = {**os.environ, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(
        [
            sys.executable,
            COMMAND,
            "local",
            "--port",
            "0",
            "--launcher",
            "process",
            "--program",
            PROGRAMS / "multi_model.py",
        ],
        stdout=subprocess.PIPE,
        text=True,
        env=environ,
    )
    assert process.stdout
    assert "listening on" in process.stdout.readline()
    assert list(tmp_path.iterdir())
    process.terminate()
    assert process.wait(30) == 0
    process.stdout.close()
    assert not list(tmp_path.iterdir())


def test_a_program_that_is_not_there_is_a_failure_reason(tmp_path: Path) -> None:
    with Service(
        tmp_path / "state", "--launcher", "process", "--program", "/no/such/program", program=None
    ) as service:
        service.s3.create_bucket(Bucket="models")
        described = service.create("none")
        assert described["EndpointStatus"] == "Failed"
        assert "/no/such/program" in described["FailureReason"]


def test_an_instance_whose_health_checks_fail_is_replaced(tmp_path: Path) -> None:
    with Service(tmp_path / "state", "--health-period", "0.2") as service:
        service.upload(a=stub_model("a"))
        service.create("health", count=2)
        first, second = (instance["instance_id"] for instance in service.instances("health"))
        stub = _stubs(service)[0]
        stub.suspend()
        begun = time.monotonic()
        until(lambda: service.events("instance_unhealthy"), 30, "the notice")
        for _ in range(20):
            assert service.invoke("health", "a.tar.gz")["value"] == "a", "the other instance takes all calls"

        def replaced() -> bool:
            ids = {instance["instance_id"] for instance in service.instances("health")}
            return len(ids) == 2 and ids != {first, second}

        until(replaced, what="two instances again")
        assert time.monotonic() - begun < 25, "nobody waits for the end of what does not answer"
        with contextlib.suppress(psutil.NoSuchProcess):
            stub.kill()


def test_a_state_folder_belongs_to_one_service(tmp_path: Path) -> None:
    second = Service(tmp_path / "state")
    with Service(tmp_path / "state"), pytest.raises(AssertionError, match="in use by another mmekit local"):
        second.start()


def test_deleting_while_in_change_is_refused(tmp_path: Path) -> None:
    with Service(tmp_path / "state", "--settle", "0") as service:
        service.s3.create_bucket(Bucket="models")
        service.create("busy", environment={"STUB_PING": "never"}, wait=False)
        with pytest.raises(ClientError, match="in-progress"):
            service.sagemaker.delete_endpoint(EndpointName="busy")
        for stub in until(lambda: _stubs(service), what="the container"):
            stub.kill()
        until(lambda: service.status("busy") == "Failed", what="the end of Creating")
        service.sagemaker.delete_endpoint(EndpointName="busy")
        until(lambda: not service.get("status")["endpoints"], what="the deletion")


def test_the_command_says_when_the_endpoint_of_a_folder_serves_and_why_not(tmp_path: Path) -> None:
    models = tmp_path / "with space, # and %41"
    models.mkdir()
    (models / "a.tar.gz").write_bytes(stub_model("a"))
    with Service(tmp_path / "state", "--models", str(models)) as service:
        until(lambda: "endpoint local is InService" in service.log, what="the line")
        assert service.invoke("local", "a.tar.gz")["value"] == "a"
    with Service(tmp_path / "other", "--models", str(models), program="no_such_program.py") as service:
        until(lambda: "endpoint local is Failed" in service.log, what="the line")
        assert "no_such_program.py" in service.log
