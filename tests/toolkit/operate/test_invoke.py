"""``mmekit invoke``: bytes in, bytes out, and what an error means."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.endpoint.service import Service, stub_model
from tests.toolkit.commands import Mmekit, described, local

CSV = ("--content-type", "text/csv")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A local endpoint that answers 429 after 2 s: of its own, since its callers must try again."""
    state = tmp_path_factory.mktemp("impatient") / "state"
    options = ("--invoke-timeout", "2", "--failure-memory", "0", "--settle", "0")
    with Service(state, *options) as running:
        yield running


@pytest.fixture(scope="module")
def mmekit(service: Service) -> Mmekit:
    return local(service.url)


@pytest.fixture(scope="module", autouse=True)
def calls(service: Service) -> None:
    """An endpoint with models that behave in different ways."""
    service.upload(
        "calls",
        "m/",
        **{
            "churn-000000000001": stub_model("old"),
            "plain": stub_model("plain"),
            "slow": stub_model("slow", load_s="4"),
            "endless": stub_model("endless", load_s="60"),
            "refuses": stub_model("", invoke_status="415"),
            "fails": stub_model("", invoke_status="500"),
            "dies": stub_model("", dies="invoke"),
            "broken": stub_model("", load_status="500"),
        },
    )
    service.upload("calls", "m/tenant_a/", **{"churn-000000000003": stub_model("tenant")})
    service.create("calls", url="s3://calls/m/")


def test_a_target_model_is_called_with_the_bytes_of_a_file(mmekit: Mmekit, tmp_path: Path) -> None:
    file = tmp_path / "payload.csv"
    file.write_bytes(b"1,2,3\n")
    told = json.loads(mmekit("invoke", "calls", "plain.tar.gz", "--file", file).raw)
    assert told["value"] == "plain"
    assert told["body"] == "1,2,3\n"
    assert told["headers"]["content-type"] == "text/csv"


def test_a_name_is_its_newest_version(mmekit: Mmekit) -> None:
    assert json.loads(mmekit("invoke", "calls", "churn", "--data", "1", *CSV).raw)["value"] == "old"
    told = json.loads(mmekit("invoke", "calls", "tenant_a/churn", "--data", "1", *CSV).raw)
    assert told["value"] == "tenant"


def test_a_file_that_describes_the_endpoint_names_it(mmekit: Mmekit, tmp_path: Path) -> None:
    file = described(tmp_path, "calls", "s3://calls/m/")
    assert json.loads(mmekit("invoke", file, "churn", "--data", "1", *CSV).raw)["value"] == "old"


def test_standard_input_is_the_request_and_nothing_is_added_to_the_answer(mmekit: Mmekit) -> None:
    body = bytes(range(256))
    done = mmekit("invoke", "calls", "plain.tar.gz", "--content-type", "application/x-npy", "-v", stdin=body)
    assert json.loads(done.raw)["body_bytes"] == 256
    assert not done.raw.endswith(b"\n")
    assert re.search(r"plain.tar.gz: application/json, \d+ bytes, variant AllTraffic, [\d.]+ ms", done.stderr)


def test_all_that_a_call_may_carry_arrives(mmekit: Mmekit) -> None:
    more = ("--accept", "text/plain", "--custom-attributes", "a=1", "--inference-id", "id-1")
    done = mmekit(
        "invoke", "calls", "plain.tar.gz", "--data", "1", *CSV, *more, "--target-variant", "AllTraffic"
    )
    headers = json.loads(done.raw)["headers"]
    assert headers["accept"] == "text/plain"
    assert headers["x-amzn-sagemaker-custom-attributes"] == "a=1"
    assert headers["x-amzn-sagemaker-inference-id"] == "id-1"


def test_the_answer_can_go_to_a_file(mmekit: Mmekit, tmp_path: Path) -> None:
    done = mmekit("invoke", "calls", "plain.tar.gz", "--data", "1", *CSV, "--output", tmp_path / "answer")
    assert not done.raw
    assert json.loads((tmp_path / "answer").read_bytes())["value"] == "plain"


def test_a_model_that_is_being_loaded_is_waited_for(mmekit: Mmekit) -> None:
    done = mmekit("invoke", "calls", "slow.tar.gz", "--data", "1", *CSV, "-v")
    assert json.loads(done.raw)["value"] == "slow"
    line = r"^slow.tar.gz: not loaded yet \((\d+) s\); calling again\.$"
    told = re.findall(line, done.stderr, re.MULTILINE)
    assert told
    assert all(int(waited_s) >= 2 for waited_s in told)
    assert f"{len(told) + 1} tries" in done.stderr


def test_waiting_ends_and_says_that_loading_goes_on(mmekit: Mmekit) -> None:
    done = mmekit("invoke", "calls", "endless.tar.gz", "--data", "1", *CSV, "--wait", 0, code=1)
    told = re.search(r"endless.tar.gz is still not loaded after (\d+) s. Loading goes on: call", done.stderr)
    assert told, done.stderr
    assert int(told[1]) >= 2


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("refuses", "the model does not take the request: the container answered 415: "),
        ("fails", "the model failed: the container answered 500: "),
        ("dies", "the container did not answer: "),
        ("broken", "the container answered 500: "),
    ],
)
def test_what_the_container_answered_is_told_with_its_log(mmekit: Mmekit, model: str, said: str) -> None:
    done = mmekit("invoke", "calls", f"{model}.tar.gz", "--data", "1", *CSV, code=1)
    assert not done.raw
    assert said in done.stderr
    assert "Its log: `mmekit logs calls` (arn:aws:logs:" in done.stderr
    if model in ("refuses", "fails"):
        assert "the stub was told to answer" in done.stderr, "the container's own message"


def test_what_is_not_there_is_named(mmekit: Mmekit) -> None:
    done = mmekit("invoke", "nowhere", "a.tar.gz", "--data", "1", *CSV, code=7)
    assert "Endpoint nowhere of account 123456789012 not found" in done.stderr
    done = mmekit("invoke", "calls", "plian", "--data", "1", *CSV, code=7)
    assert "there is no model plian. Did you mean plain" in done.stderr
    done = mmekit("invoke", "calls", "missing.tar.gz", "--data", "1", *CSV, code=1)
    assert "SageMaker does not take the call: Failed to download model data" in done.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--data", "1"), "give --content-type"),
        (("--data", "1", "--file", __file__, *CSV), "--file and --data are both the request"),
    ],
)
def test_a_request_that_is_none_is_a_usage_error(mmekit: Mmekit, options: tuple[str, ...], said: str) -> None:
    assert said in mmekit("invoke", "calls", "plain.tar.gz", *options, code=2).stderr


def test_an_address_where_nobody_listens_is_told_at_once() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        done = local(url)("invoke", "calls", "a.tar.gz", "--data", "1", *CSV, code=1, timeout_s=20)
    assert "Could not connect to the endpoint URL" in done.stderr
    assert "--endpoint-url" in done.stderr


def test_without_credentials_or_a_region_the_command_says_what_to_do(mmekit: Mmekit) -> None:
    command = ("invoke", "calls", "a.tar.gz", "--data", "1", *CSV)
    nobody = mmekit.also(AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="")
    assert "no AWS credentials were found" in nobody(*command, code=5).stderr
    assert "no AWS region is set" in mmekit.also(AWS_REGION="")(*command, code=1).stderr
    assert "no-such-profile" in mmekit(*command, "--profile", "no-such-profile", code=5).stderr
