"""The process: its start, its end, the end of the process that started it, and the AWS CLI against it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from tests.endpoint.control import (
    REGION,
    ControlPlane,
    arn,
    control_plane,
    fleet,
    multi_model,
    never,
    variant,
    workers_of,
)
from tests.support.server import until


def test_sagemakers_operations_are_answered_while_moto_is_imported(tmp_path: Path) -> None:
    (tmp_path / "endless" / "moto").mkdir(parents=True)
    (tmp_path / "endless" / "moto" / "__init__.py").write_text("import time\ntime.sleep(3600)\n")
    with control_plane(tmp_path, environment={"PYTHONPATH": str(tmp_path / "endless")}) as plane:
        assert plane.send(b"{}", "SageMaker.ListModels").status == 200


def test_a_stop_does_not_wait_for_what_waits(tmp_path: Path) -> None:
    with control_plane(tmp_path, "--settle", "60") as plane, fleet(tmp_path) as running:
        running.settle = never
        client = plane.client("sagemaker", tcp_keepalive=True)
        client.create_model(ModelName="m", PrimaryContainer=multi_model())
        client.create_endpoint_config(EndpointConfigName="c", ProductionVariants=[variant("m")])
        waiting = threading.Thread(target=_ignored, args=(plane,))
        waiting.start()
        until(lambda: running.database.endpoint("e"), what="the request that waits")
        assert plane.terminate() < 15, "1 s and what the machine is busy with"
        assert workers_of(tmp_path) == []
        waiting.join()
        assert plane.log.read_text() == ""


def test_a_stop_that_kills_tells_of_no_lack_of_memory(tmp_path: Path) -> None:
    """gunicorn says so where the worker has ended before it looks: here it looks late."""
    (tmp_path / "late").mkdir()
    (tmp_path / "late" / "sitecustomize.py").write_text(
        "import signal, time\n"
        "from gunicorn.arbiter import Arbiter\n"
        "kill = Arbiter.kill_worker\n"
        "def kill_worker(self, pid, sig):\n"
        "    kill(self, pid, sig)\n"
        "    time.sleep(0.2 if sig == signal.SIGKILL else 0)\n"
        "Arbiter.kill_worker = kill_worker\n"
    )
    with control_plane(tmp_path, environment={"PYTHONPATH": str(tmp_path / "late")}) as plane:
        # Its connection is kept, and outlasts the second that the worker has.
        plane.client("sagemaker").list_models()
        plane.terminate()
        assert workers_of(tmp_path) == []
        assert plane.log.read_text() == ""


def test_one_whose_parent_has_ended_already_does_not_start(tmp_path: Path) -> None:
    with control_plane(tmp_path, "--parent", str(os.getpid() + 1)) as plane:
        assert plane.process.wait(60) == 0


def _ignored(plane: ControlPlane) -> None:
    try:
        plane.send(b'{"EndpointName": "e", "EndpointConfigName": "c"}', "SageMaker.CreateEndpoint")
    except OSError:
        pass


def test_an_interrupt_is_left_to_the_service(tmp_path: Path) -> None:
    with control_plane(tmp_path) as plane:
        assert plane.send(b"{}", "SageMaker.ListModels").status == 200
        for pid in workers_of(tmp_path):
            os.kill(pid, signal.SIGINT)
        assert plane.send(b"{}", "SageMaker.ListModels").status == 200


def test_a_worker_that_is_killed_is_started_again_with_all_objects(tmp_path: Path) -> None:
    with control_plane(tmp_path) as plane:
        s3 = plane.client("s3", "us-east-1")
        s3.create_bucket(Bucket="bucket")
        s3.put_object(Bucket="bucket", Key="k", Body=b"x")
        (worker,) = set(workers_of(tmp_path)) - {plane.process.pid}
        os.kill(worker, signal.SIGKILL)
        assert s3.get_object(Bucket="bucket", Key="k")["Body"].read() == b"x"


def test_it_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    script = (
        "import socket, subprocess, sys, time\n"
        "s = socket.create_server(('127.0.0.1', 0))\n"
        "subprocess.Popen([sys.executable, '-m', 'mmekit_endpoint.api.control', '--fd', str(s.fileno()),\n"
        "    '--state', sys.argv[1], '--launcher', 'process'], pass_fds=[s.fileno()])\n"
        "print(s.getsockname()[1], flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    try:
        parent.stdout.readline()
        until(lambda: len(workers_of(tmp_path)) == 3, what="parent, arbiter and worker")
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
    until(lambda: not workers_of(tmp_path), what="the end of all")


def test_the_aws_cli_creates_and_describes_a_model(tmp_path: Path) -> None:
    with control_plane(tmp_path) as plane:
        environment = {
            **os.environ,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_CONFIG_FILE": str(tmp_path / "none"),
            "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
        }

        def aws(*arguments: str) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-m", "awscli", "--endpoint-url", plane.url, *arguments]
            return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

        container = json.dumps(multi_model())
        created = aws("sagemaker", "create-model", "--model-name", "cli", "--primary-container", container)
        assert json.loads(created.stdout) == {"ModelArn": arn("model", "cli")}, created.stderr
        described = aws("sagemaker", "describe-model", "--model-name", "cli")
        assert json.loads(described.stdout)["PrimaryContainer"]["ModelDataUrl"] == "s3://models/all/"
        refused = aws("sagemaker", "describe-model", "--model-name", "none")
        assert refused.returncode != 0
        assert f'Could not find model "{arn("model", "none")}".' in refused.stderr
