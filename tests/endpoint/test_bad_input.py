"""What callers, archives, containers and stores can do wrong: each has an answer that says what and why."""

from __future__ import annotations

import gzip
import http.client
import io
import json
import subprocess
import tarfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError

from mmekit_endpoint.client import invoke
from tests.endpoint.flaky_store import FlakyStore
from tests.endpoint.service import COMMAND, Service, archive, stub_model
from tests.support.server import until


def _tar(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as tar:
        for member, data in members:
            tar.addfile(member, io.BytesIO(data))
    return raw.getvalue()


def _link() -> bytes:
    member = tarfile.TarInfo("link")
    member.type = tarfile.SYMTYPE
    member.linkname = "/etc/passwd"
    return _tar((member, b""))


def _bomb() -> bytes:
    member = tarfile.TarInfo("zeros")
    member.size = 64 * 1024 * 1024
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        tar.addfile(member, io.BytesIO(bytes(member.size)))
    return gzip.compress(raw.getvalue(), 9)


#: No other run and no other program has made it.
ESCAPED = Path("/tmp", f"escaped-{uuid.uuid4().hex}")

#: Archives that are not taken, and what the error says of them.
ARCHIVES = {
    "plain_text": (b"this is no archive", "gzip-compressed tar file"),
    "empty": (b"", "gzip-compressed tar file"),
    "plain_tar": (gzip.decompress(archive({"value": "v"})), "gzip-compressed tar file"),
    "cut_off": (archive({"value": "v" * 10000})[:-20], "damaged or incomplete"),
    "gzip_of_text": (gzip.compress(b"this is no tar"), "cannot be used"),
    "traversal": (archive({"../../escaped": "e"}), "cannot be used"),
    "absolute": (archive({str(ESCAPED): "e"}), "cannot be used"),
    "link": (_link(), "cannot be used"),
    "bomb": (_bomb(), "more than 20971520 bytes"),
}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with one endpoint, `shared`, that no test may break."""
    with Service(tmp_path_factory.mktemp("state"), "--volume", "20M") as service:
        service.upload(good=stub_model("good"), **{name: data for name, (data, _) in ARCHIVES.items()})
        service.create("shared")
        yield service


@pytest.fixture(autouse=True)
def _still_fine(service: Service) -> Iterator[None]:
    yield
    assert service.invoke("shared", "good.tar.gz")["value"] == "good"
    assert "Traceback" not in service.log


def _raw(service: Service, headers: dict[str, Any], path: str = "shared") -> tuple[int, str, str]:
    """Send what no client would; return status, error type and body."""
    url = urlsplit(service.url)
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=30)
    try:
        connection.request("POST", f"/endpoints/{path}/invocations", b"1", headers)
        answer = connection.getresponse()
        return answer.status, answer.getheader("x-amzn-ErrorType", ""), answer.read().decode()
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("target", "text"),
    [
        (None, "target model header x-amzn-sagemaker-target-model is missing"),
        ("/good.tar.gz", "absolute"),
        ("../good.tar.gz", "not a plain path"),
        ("a/../good.tar.gz", "not a plain path"),
        ("a//good.tar.gz", "not a plain path"),
        ("./good.tar.gz", "not a plain path"),
        ("good.tar.gz/", "not a plain path"),
        ("a\\good.tar.gz", "character"),
        ("x" * 1025, "length less than or equal to 1024"),
        ("absent.tar.gz", "no such object"),
        ("deep/er/absent.tar.gz", "key: m/deep/er/absent.tar.gz"),
    ],
)
def test_a_target_model_that_names_nothing(service: Service, target: str | None, text: str) -> None:
    headers = {} if target is None else {"X-Amzn-SageMaker-Target-Model": target}
    status, kind, body = _raw(service, headers)
    assert (status, kind) == (400, "ValidationError")
    assert text in body


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_that_cannot_be_used(service: Service, name: str) -> None:
    with pytest.raises(ClientError) as caught:
        service.invoke("shared", f"{name}.tar.gz")
    error = caught.value.response["Error"]
    assert error["Code"] == "ValidationError"
    assert ARCHIVES[name][1] in error["Message"]
    assert f"{name}.tar.gz" in error["Message"]
    assert not list(service.state.glob("**/*escaped*"))
    assert not ESCAPED.exists()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"EndpointName": "nobody"}, "Endpoint nobody of account 123456789012 not found"),
        ({"EndpointName": "SHARED"}, "Endpoint SHARED of account 123456789012 not found"),
        ({"TargetVariant": "B"}, "Variant B not found for endpoint shared. It has: AllTraffic"),
        ({"TargetContainerHostname": "host"}, "TargetContainerHostname"),
        ({"EnableExplanations": "`true`"}, "EnableExplanations is not supported"),
        ({"InferenceComponentName": "part"}, "InferenceComponentName is not supported"),
        ({"CustomAttributes": "x" * 1025}, "length less than or equal to 1024"),
        ({"InferenceId": "x" * 65}, "length less than or equal to 64"),
        ({"Body": b"x" * (25 * 1024 * 1024 + 1)}, "26214401 bytes"),
    ],
)
def test_a_call_that_cannot_be_meant(service: Service, arguments: dict[str, Any], text: str) -> None:
    call = {"EndpointName": "shared", "TargetModel": "good.tar.gz", "Body": b"1", **arguments}
    with pytest.raises(ClientError) as caught:
        service.runtime.invoke_endpoint(**call)
    error = caught.value.response["Error"]
    assert error["Code"] == "ValidationError"
    assert text in error["Message"]


def test_operations_without_a_target_model_are_not_for_multi_model_endpoints(service: Service) -> None:
    with pytest.raises(ClientError, match="not for multi-model endpoints"):
        service.runtime.invoke_endpoint_with_response_stream(EndpointName="shared", Body=b"1")
    with pytest.raises(ClientError, match="not for multi-model endpoints"):
        service.runtime.invoke_endpoint_async(
            EndpointName="shared", InputLocation="s3://models/m/good.tar.gz"
        )


def test_what_is_no_invocation_and_no_api_is_not_answered_as_one(service: Service) -> None:
    status, _, body = _raw(service, {}, path="shared/more")
    assert status == 500  # an unsigned POST is S3's, and moto cannot read this one
    assert "moto, which is the service s3 here, failed at POST /endpoints/shared/more/invocations" in body


def test_pages_of_other_machines_are_refused(service: Service) -> None:
    """Any page can post a form, and archives hold code."""
    url = urlsplit(service.url)
    for origin, refused in (("http://evil.example", True), ("null", True), ("http://localhost:8888", False)):
        connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=30)
        connection.request("GET", "/models?list-type=2", headers={"Origin": origin})
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        assert (answer.status == 403) is refused
        assert ("Web pages of other machines are refused" in text) is refused


# --- containers ------------------------------------------------------------------------------------


#: How a container is told not to become healthy, and what the reason says of it.
UNHEALTHY = {
    "never": ({"STUB_PING": "never"}, "GET /ping was answered with 503"),
    "slow": ({"STUB_PING": "slow"}, "did not answer GET /ping within 2 s"),
    "dies": ({"STUB_PING": "dies"}, "exited with code 3"),
    "no-list": ({"STUB_MODELS": "404"}, "GET /models was answered with 404"),
    "rubbish-list": ({"STUB_MODELS": "rubbish"}, "GET /models was not answered with"),
}


@pytest.fixture(scope="module")
def unhealthy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose endpoints have all failed. They do so side by side, so that there is time for each."""
    options = ("--startup-timeout", "10", "--settle", "0")
    with Service(tmp_path_factory.mktemp("unhealthy"), *options) as own:
        own.s3.create_bucket(Bucket="models")
        for name, (environment, _) in UNHEALTHY.items():
            own.create(name, environment=environment, wait=False)
        until(lambda: all(own.status(name) != "Creating" for name in UNHEALTHY), 60, "the end of Creating")
        yield own


@pytest.mark.parametrize("name", UNHEALTHY)
def test_a_container_that_does_not_become_healthy(unhealthy: Service, name: str) -> None:
    described = unhealthy.sagemaker.describe_endpoint(EndpointName=name)
    assert described["EndpointStatus"] == "Failed"
    assert "did not pass the ping health check" in described["FailureReason"]
    assert UNHEALTHY[name][1] in described["FailureReason"]
    assert not list((unhealthy.state / "instances").iterdir()), "nothing is left of what did not start"
    with pytest.raises(ClientError, match="takes no calls: its status is Failed"):
        unhealthy.invoke(name, "any.tar.gz")
    unhealthy.sagemaker.delete_endpoint(EndpointName=name)
    unhealthy.sagemaker.get_waiter("endpoint_deleted").wait(EndpointName=name, WaiterConfig={"Delay": 1})


def test_load_answers_that_are_none(service: Service) -> None:
    service.upload(
        rubbish=stub_model("r", load_status="rubbish"),
        conflict=stub_model("c", load_status="409"),
        refused=stub_model("n", load_status="400"),
    )
    for name, original in (("rubbish", 0), ("refused", 400)):
        with pytest.raises(service.runtime.exceptions.ModelError) as caught:
            service.invoke("shared", f"{name}.tar.gz")
        assert caught.value.response["OriginalStatusCode"] == original
    # 409 says that the model is loaded, but the container does not know it: it is loaded again once.
    with pytest.raises(service.runtime.exceptions.ModelError) as caught:
        service.invoke("shared", "conflict.tar.gz")
    assert caught.value.response["OriginalStatusCode"] == 404


@pytest.mark.parametrize(("answer", "original"), [("500", 500), ("418", 418), ("rubbish", 0)])
def test_a_model_that_fails_is_a_model_error_with_its_own_status(
    service: Service, answer: str, original: int
) -> None:
    name = f"fails_{answer}"
    service.upload(**{name: stub_model("f", invoke_status=answer)})
    with pytest.raises(service.runtime.exceptions.ModelError) as caught:
        service.invoke("shared", f"{name}.tar.gz")
    response = caught.value.response
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 424
    assert response["OriginalStatusCode"] == original
    side = "client" if original == 418 else "server"
    assert f"Received {side} error ({original}) from primary" in response["Error"]["Message"]
    assert response["LogStreamArn"].endswith("log-group:/aws/sagemaker/Endpoints/shared")


def test_a_model_that_does_not_answer_in_time(service: Service) -> None:
    with Service(service.state / "own-time", "--invoke-timeout", "1") as own:
        own.upload(hangs=stub_model("h", invoke_status="hang"), fine=stub_model("f"))
        own.create("time")
        begun = time.monotonic()
        with pytest.raises(own.runtime.exceptions.ModelError, match="timed out while waiting") as caught:
            # A load that takes longer than a call is ModelNotReady, and is waited for.
            invoke(own.runtime, EndpointName="time", TargetModel="hangs.tar.gz", Body=b"1")
        assert caught.value.response["OriginalStatusCode"] == 0
        assert 1 <= time.monotonic() - begun < 30, "the default is 60 s"
        answer = invoke(own.runtime, EndpointName="time", TargetModel="fine.tar.gz", Body=b"1")
        assert json.load(answer["Body"])["value"] == "f"


def test_a_container_that_dies_is_replaced_and_others_are_told_why(service: Service) -> None:
    with Service(service.state / "own-dies") as own:
        own.upload(
            dies=stub_model("d", dies="invoke"), load_dies=stub_model("d", dies="load"), ok=stub_model("o")
        )
        own.create("dying")
        seen = [own.instances("dying")[0]["instance_id"]]

        def replaced() -> bool:
            found = [instance["instance_id"] for instance in own.instances("dying")]
            return bool(found) and found[0] not in seen

        for name in ("dies", "load_dies"):
            with pytest.raises(own.runtime.exceptions.ModelError) as caught:
                own.invoke("dying", f"{name}.tar.gz")
            assert caught.value.response["OriginalStatusCode"] == 0
            assert "the container exited with code 3" in caught.value.response["OriginalMessage"]
            until(replaced, what="a new instance")
            seen.append(own.instances("dying")[0]["instance_id"])
        assert own.invoke("dying", "ok.tar.gz")["value"] == "o"
        reasons = [event["text"] for event in own.events("instance_unhealthy")]
        assert reasons == ["the container exited with code 3"] * 2
        assert own.status("dying") == "InService"


def test_a_container_that_lost_a_model_gets_it_again(service: Service) -> None:
    """A 404 that the container means: its restart, or an unload behind the platform's back."""
    with Service(service.state / "own-lost") as own:
        own.upload(a=stub_model("a"))
        own.create("lost")
        own.invoke("lost", "a.tar.gz")
        (instance,) = own.instances("lost")
        host, port = instance["address"].split(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=10)
        connection.request("DELETE", f"/models/{instance['models'][0]['model_name']}")
        assert connection.getresponse().status == 200
        connection.close()
        assert own.invoke("lost", "a.tar.gz")["value"] == "a"
        assert len(own.events("model_lost")) == 1
        assert len(own.events("downloaded")) == 1


def test_a_404_of_the_model_itself_is_passed_on(service: Service) -> None:
    service.upload(not_found=stub_model("n", invoke_status="404"))
    with pytest.raises(service.runtime.exceptions.ModelError) as caught:
        service.invoke("shared", "not_found.tar.gz")
    assert caught.value.response["OriginalStatusCode"] == 404
    assert "told to answer 404" in caught.value.response["OriginalMessage"]


# --- stores ----------------------------------------------------------------------------------------


def test_a_store_that_breaks_off_in_the_middle_of_a_download_is_asked_for_the_rest(tmp_path: Path) -> None:
    data = stub_model("whole", block="".join(chr(33 + n * 7919 % 90) for n in range(600_000)))
    with FlakyStore({"models/m/big.tar.gz": data}, break_after=len(data) // 3) as store:
        environ = {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any"}
        with Service(tmp_path / "state", "--s3-endpoint-url", store.url, **environ) as own:
            own.create("flaky")
            assert own.invoke("flaky", "big.tar.gz")["value"] == "whole"
        assert store.ranges, "the rest was asked for, not the whole again"


def test_a_store_that_is_down_is_503_and_not_for_long(tmp_path: Path) -> None:
    with FlakyStore({"models/m/a.tar.gz": stub_model("a")}) as store:
        environ = {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any"}
        options = ("--s3-endpoint-url", store.url, "--store-patience", "1", "--failure-memory", "0.5")
        with Service(tmp_path / "state", *options, **environ) as own:
            own.create("down")
            store.down = True
            with pytest.raises(
                ClientError, match=r"model store does not deliver s3://models/m/a\.tar\.gz"
            ) as caught:
                own.invoke("down", "a.tar.gz")
            assert caught.value.response["Error"]["Code"] == "ServiceUnavailable"
            store.down = False
            time.sleep(0.6)
            assert own.invoke("down", "a.tar.gz")["value"] == "a"


def test_a_full_disk_is_said_with_the_place(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", state], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"a small disk needs mount: {mounted.stderr.decode().strip()}")
    try:
        with Service(state, "--failure-memory", "0.1", "--models", str(tmp_path)) as own:
            for name in ("a", "b"):
                (tmp_path / f"{name}.tar.gz").write_bytes(stub_model(name, block="x" * 2_500_000))
            (tmp_path / "huge.tar.gz").write_bytes(stub_model("h", block="x" * 9_000_000))
            until(lambda: own.status("local") == "InService", what="the endpoint")
            assert own.invoke("local", "a.tar.gz")["value"] == "a"
            with pytest.raises(ClientError, match="No space left on device") as caught:
                own.invoke("local", "huge.tar.gz")
            assert caught.value.response["Error"]["Code"] == "ServiceUnavailable"
            assert own.invoke("local", "b.tar.gz")["value"] == "b"
    finally:
        until(lambda: subprocess.run(["umount", state]).returncode == 0, what="a disk that nobody uses")


# --- the command -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--host", "0.0.0.0"], 78, "give --key ID=SECRET"),
        (["--key", "nothing"], 78, "--key is ID=SECRET"),
        (["--instance-type", "ml.none.large"], 78, "none of SageMaker's"),
        (["--invoke-timeout", "-1"], 2, "not in the range x>0"),
        (["--memory-percent", "101"], 2, "not in the range 0<=x<=100"),
        (["--volume", "much"], 2, "expected a size such as 500M or 20G"),
        (["--models", "/nowhere"], 2, "does not exist"),
    ],
)
def test_options_that_cannot_be_used(tmp_path: Path, arguments: list[str], code: int, text: str) -> None:
    done = subprocess.run(
        [COMMAND, "local", "--port", "0", "--state", str(tmp_path / "s"), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == code
    assert text in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_that_is_taken_and_a_state_that_is_in_use(service: Service, tmp_path: Path) -> None:
    port = urlsplit(service.url).port
    for state, text in (
        (tmp_path / "s", f"127.0.0.1:{port} cannot be listened on"),
        (service.state, "in use by"),
    ):
        done = subprocess.run(
            [COMMAND, "local", "--port", str(port), "--state", str(state), "--launcher", "process"],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 1
        assert text in done.stderr
        assert "Traceback" not in done.stderr
