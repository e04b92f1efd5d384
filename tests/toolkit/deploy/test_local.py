"""deploy, update and delete against a real local endpoint."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.endpoint.service import Service, stub_model
from tests.support.server import until
from tests.toolkit.deploy.conftest import Mmekit
from tests.toolkit.deploy.proxy import Answer, Proxy

IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/any:latest"


def described(name: str, more: str = "") -> str:
    return f"""\
name: {name}
image: {IMAGE}
role: churn-execution
models: s3://models/m/
variants:
  - instance_type: ml.m5.large
{more}"""


@pytest.fixture(scope="module", autouse=True)
def throttled(
    local: Service, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Proxy, subprocess.Popen[str]]]:
    """A deploy whose calls are throttled; its patience takes half a minute, in which other tests run."""
    answers = [
        Answer("DescribeEndpoint", "ThrottlingException", "Rate exceeded", times=2),
        Answer("CreateModel", "ThrottlingException", "Rate exceeded", times=2),
        Answer("CreateEndpoint", "ThrottlingException", "Rate exceeded", times=None),
    ]
    with Proxy(local.url, answers) as proxy:
        mmekit = Mmekit(tmp_path_factory.mktemp("throttled"), proxy.url, local.environ)
        process = mmekit.start("deploy", mmekit.write(described("throttled")))
        yield proxy, process
        process.kill()
        process.communicate()


def names(service: Service, endpoint: str) -> set[str]:
    """Return the models and configurations that begin with the endpoint's name."""
    models = service.sagemaker.list_models(NameContains=endpoint)["Models"]
    configs = service.sagemaker.list_endpoint_configs(NameContains=endpoint)["EndpointConfigs"]
    return {model["ModelName"] for model in models} | {config["EndpointConfigName"] for config in configs}


def endpoints(service: Service) -> set[str]:
    return {endpoint["EndpointName"] for endpoint in service.sagemaker.list_endpoints()["Endpoints"]}


def test_deploy_update_and_back_each_change_only_what_differs(local: Service, mmekit: Mmekit) -> None:
    local.upload(a=stub_model("a"))
    first = mmekit.write(described("life"), "first.yaml")
    second = mmekit.write(described("life", 'environment: {A: "1"}\ntags: {team: risk}\n'), "second.yaml")

    done = mmekit("deploy", first)
    assert done.stdout == "life is InService: AllTraffic 1 × ml.m5.large.\n"
    assert local.invoke("life", "a.tar.gz")["value"] == "a"
    (model, config) = sorted(names(local, "life"), key=lambda name: "ModelName" in name)
    described_endpoint = local.sagemaker.describe_endpoint(EndpointName="life")
    for arn in (
        described_endpoint["EndpointArn"],
        *(found["ModelArn"] for found in local.sagemaker.list_models(NameContains="life")["Models"]),
    ):
        tags = {tag["Key"]: tag["Value"] for tag in local.sagemaker.list_tags(ResourceArn=arn)["Tags"]}
        assert tags["mmekit:endpoint"] == "life"
    assert {model, config} == names(local, "life")

    with Proxy(local.url) as proxy:
        done = mmekit.at(proxy.url)("deploy", first)
        assert done.stdout == "nothing to do: life is InService: AllTraffic 1 × ml.m5.large, as described.\n"
        done = mmekit.at(proxy.url)("deploy", second, code=3)
        assert done.stdout.startswith("variant AllTraffic: environment.A: nothing → 1\n")
        assert "Nothing was changed: `mmekit update` makes it as described." in done.stderr
        mmekit.at(proxy.url)("update", second, "--dry-run")
        assert proxy.writes == []

        done = mmekit.at(proxy.url)("update", second)
        assert done.stdout == "life is InService: AllTraffic 1 × ml.m5.large.\n"
        assert proxy.writes == ["CreateModel", "CreateEndpointConfig", "UpdateEndpoint", "AddTags"]
        assert "To go back, update with the earlier file: life-" in done.stderr
        assert mmekit.at(proxy.url)("update", second).stdout.startswith("nothing to do: life is InService")

        proxy.seen.clear()
        mmekit.at(proxy.url)("update", first)
        assert proxy.writes == ["UpdateEndpoint"], "what the earlier file needs is still there"

    before = local.instances("life")
    done = mmekit("update", first, "--instances", "2")
    assert "variant AllTraffic: instances: 1 → 2" in done.stderr
    assert done.stdout == "life is InService: AllTraffic 2 × ml.m5.large.\n"
    after = local.instances("life")
    assert len(after) == 2
    assert before[0]["instance_id"] in [instance["instance_id"] for instance in after]


def test_a_silent_rollback_is_noticed_and_explained(local: Service, mmekit: Mmekit) -> None:
    good = mmekit.write(described("silent"), "good.yaml")
    bad = mmekit.write(described("silent", "environment: {STUB_PING: dies}\n"), "bad.yaml")
    mmekit("deploy", good)
    kept = names(local, "silent")
    for _ in range(2):  # the reason of the first stands when the second begins
        done = mmekit("update", bad, code=4)
        assert "SageMaker rolled the update of silent back" in done.stderr
        assert "did not pass the ping health check" in done.stderr
        assert "The last lines of /aws/sagemaker/Endpoints/silent:\n  Listening on port" in done.stderr
        assert "mmekit delete silent --unused" in done.stderr
        assert local.status("silent") == "InService"
    assert mmekit("deploy", good).stdout.startswith("nothing to do")

    assert len(names(local, "silent") - kept) == 2
    done = mmekit("delete", "silent", "--unused", "--yes")
    assert names(local, "silent") == kept
    assert local.status("silent") == "InService"
    assert mmekit("delete", good, "--unused", "--yes").stdout == (
        "nothing to do: nothing unused of silent is there in us-east-1.\n"
    )


def test_a_failed_endpoint_is_explained_and_then_replaced(local: Service, mmekit: Mmekit) -> None:
    file = mmekit.write(described("failed", "environment: {STUB_PING: dies}\n"))
    done = mmekit("deploy", file, code=4)
    assert "the endpoint failed is Failed. Reason: The primary container" in done.stderr
    assert "The last lines of /aws/sagemaker/Endpoints/failed:\n  Listening on port" in done.stderr
    assert "run `mmekit deploy` again, which replaces a Failed endpoint" in done.stderr
    assert "can only be replaced: `mmekit deploy`" in mmekit("update", file, code=4).stderr
    mmekit.write(described("failed"))
    done = mmekit("deploy", file)
    assert "delete the endpoint failed, which is Failed" in done.stderr
    assert done.stdout.startswith("failed is InService")


def test_delete_asks_and_takes_only_what_is_ours(local: Service, mmekit: Mmekit) -> None:
    local.upload(prefix="gone/", a=stub_model("a"))
    alarms = "    alarms: {errors_5xx_percent: 1, cache_hit_percent: 50}\n"
    file = mmekit.write(described("gone", alarms).replace("/m/", "/gone/"))
    mmekit("deploy", file)
    local.sagemaker.create_model(
        ModelName="gone-12345678",
        ExecutionRoleArn="arn:aws:iam::123456789012:role/x",
        PrimaryContainer={"Image": IMAGE},
    )
    done = mmekit("delete", "gone", code=2)
    assert "There is no terminal to ask at: --yes deletes without a question." in done.stderr
    assert local.status("gone") == "InService"

    told = json.loads(mmekit("delete", "gone", "--dry-run", "--json").stdout)
    assert [step.get("operation") or step["waiter"] for step in told] == [
        *("DeleteEndpoint", "endpoint_deleted", "DeleteEndpointConfig", "DeleteModel", "DeleteAlarms"),
    ]
    done = mmekit("delete", "gone", "--yes")
    assert done.stdout == "gone: the endpoint is deleted.\n"
    assert "Left as they are: archives in S3, images in ECR" in done.stderr
    assert names(local, "gone") == {"gone-12345678"}, "somebody else's, although its name is like ours"
    assert local.s3.list_objects_v2(Bucket="models", Prefix="gone/")["KeyCount"] == 1
    assert local.client("cloudwatch").describe_alarms(AlarmNamePrefix="gone-")["MetricAlarms"] == []
    assert mmekit("delete", file, "--yes").stdout == "nothing to do: nothing of gone is there in us-east-1.\n"


def test_what_another_run_deletes_meanwhile_is_gone(local: Service, mmekit: Mmekit) -> None:
    mmekit("deploy", mmekit.write(described("twice")))

    def delete_first(operation: str) -> None:  # between the look at the endpoint and that at its tags
        if operation == "ListTags" and "ListTags" not in proxy.seen[:-1]:
            local.sagemaker.delete_endpoint(EndpointName="twice")
            until(lambda: "twice" not in endpoints(local), what="the end of the endpoint")

    with Proxy(local.url, intercept=delete_first) as proxy:
        assert mmekit.at(proxy.url)("delete", "twice", "--yes").stdout == "twice: the endpoint is deleted.\n"
    assert names(local, "twice") == set()


def test_delete_does_nothing_when_the_answer_is_no(local: Service, mmekit: Mmekit) -> None:
    mmekit("deploy", mmekit.write(described("asked")))
    terminal, ours = pty.openpty()
    os.write(terminal, b"n\n")
    process = mmekit.start("delete", "asked", stdin=ours)
    _, said = process.communicate(timeout=60)
    os.close(ours)
    os.close(terminal)
    assert process.returncode == 1
    assert "This is to be done:\n  delete the endpoint asked\n" in said
    assert "Do it? [y/N]: " in said
    assert local.status("asked") == "InService"


def test_an_endpoint_that_is_not_ours_is_left_as_it_is(local: Service, mmekit: Mmekit) -> None:
    local.create("foreign")
    before = local.sagemaker.describe_endpoint(EndpointName="foreign")
    file = mmekit.write(described("foreign"))
    for command in (["deploy", file], ["update", file], ["delete", "foreign", "--yes"]):
        done = mmekit(*command, code=1)
        assert "the endpoint foreign is there already and is not mmekit's" in done.stderr
        assert "aws sagemaker add-tags --resource-arn" in done.stderr
    after = local.sagemaker.describe_endpoint(EndpointName="foreign")
    assert after["LastModifiedTime"] == before["LastModifiedTime"]


def test_a_model_of_our_name_that_is_not_ours_is_left_as_it_is(local: Service, mmekit: Mmekit) -> None:
    file = mmekit.write(described("taken"))
    told: Any = json.loads(mmekit("deploy", file, "--dry-run", "--json").stdout)
    model = told[0]["parameters"]["ModelName"]
    local.sagemaker.create_model(
        ModelName=model,
        ExecutionRoleArn="arn:aws:iam::123456789012:role/x",
        PrimaryContainer={"Image": IMAGE},
    )
    done = mmekit("deploy", file, code=1)
    assert f"the model {model} is there already and is not mmekit's" in done.stderr
    assert names(local, "taken") == {model}


def test_a_failure_half_way_is_told_and_picked_up(local: Service, mmekit: Mmekit) -> None:
    file = mmekit.write(described("half"))
    quota = Answer(
        "CreateEndpoint", "ResourceLimitExceeded", "The limit 'ml.m5.large for endpoint usage' is 0"
    )
    with Proxy(local.url, [quota]) as proxy:
        done = mmekit.at(proxy.url)("deploy", file, code=1)
        assert "CreateEndpoint: The limit 'ml.m5.large for endpoint usage' is 0" in done.stderr
        assert "Ask for more with Service Quotas" in done.stderr
        assert "Done:\n  create the model half-" in done.stderr
        assert "Not done, or not to the end:\n  create the endpoint half\n" in done.stderr
        left = names(local, "half")
        assert len(left) == 2
        proxy.seen.clear()
        assert mmekit.at(proxy.url)("deploy", file).stdout.startswith("half is InService")
        assert proxy.writes == ["CreateEndpoint"]
    assert names(local, "half") == left


def test_ctrl_c_says_what_was_done_and_the_next_run_goes_on_waiting(
    local: Service, mmekit: Mmekit, tmp_path: Path
) -> None:
    start = tmp_path / "start"
    file = mmekit.write(described("held", f"environment: {{START_AFTER: {start}}}\n"))
    process = mmekit.start("deploy", file)
    assert process.stdout
    assert process.stderr
    for line in process.stderr:
        if line.startswith("  held: Creating"):
            break
    process.send_signal(signal.SIGINT)
    said = process.stderr.read()
    assert process.wait(30) == 130
    process.stdout.close()
    process.stderr.close()
    assert "mmekit deploy: interrupted.\nDone:\n  create the model held-" in said
    assert (
        "  create the endpoint held\nNot done, or not to the end:\n  wait until held is in service\n" in said
    )
    assert "The same command goes on from there." in said
    assert "Traceback" not in said

    # While it is Creating, deploy waits, and gives up where it is told to.
    done = mmekit("deploy", file, "--timeout", "1", code=1)
    assert "held is still Creating after" in done.stderr
    again = mmekit.start("deploy", file)
    assert again.stderr
    assert again.stdout
    until(lambda: "held: Creating" in (again.stderr.readline() if again.stderr else ""), what="the wait")
    start.touch()
    output, _ = again.communicate(timeout=60)
    assert again.returncode == 0
    assert output.startswith("nothing to do: held is InService")


def test_an_update_that_fails_while_nobody_looks_is_told_to_the_next(
    local: Service, mmekit: Mmekit, tmp_path: Path
) -> None:
    start = tmp_path / "start"
    good = mmekit.write(described("alone"), "good.yaml")
    bad = mmekit.write(described("alone", f"environment: {{STUB_PING: dies, START_AFTER: {start}}}\n"))
    mmekit("deploy", good)
    killed = mmekit.start("update", bad)
    assert killed.stderr
    until(lambda: "alone: Updating" in (killed.stderr.readline() if killed.stderr else ""), what="the update")
    killed.kill()
    killed.communicate(timeout=30)
    again = mmekit.start("deploy", good)
    until(lambda: "alone: Updating" in (again.stderr.readline() if again.stderr else ""), what="the wait")
    start.touch()
    output, said = again.communicate(timeout=60)
    assert output.startswith("nothing to do: alone is InService")
    assert "note: the change that was under way failed: " in said
    assert "did not pass the ping health check" in said


def test_a_second_of_inconsistency_is_waited_out(local: Service, mmekit: Mmekit) -> None:
    file = mmekit.write(described("lag"))
    unknown = Answer(
        "CreateEndpoint", "ValidationException", 'Could not find endpoint configuration "x".', times=2
    )
    with Proxy(local.url, [unknown]) as proxy:
        assert mmekit.at(proxy.url)("deploy", file).stdout.startswith("lag is InService")
        assert proxy.writes.count("CreateEndpoint") == 3

        # After an update, the first looks still show what was there before.
        for change, operation in (
            ('environment: {A: "1"}\n', "UpdateEndpoint"),
            ('    weight: 2\nenvironment: {A: "1"}\n', "UpdateEndpointWeightsAndCapacities"),
        ):
            shown: list[bytes] = []

            def stale(asked: str, operation: str = operation, shown: list[bytes] = shown) -> bytes | None:
                if asked == "DescribeEndpoint" and operation in proxy.seen and len(shown) < 2:
                    shown.append(proxy.last["DescribeEndpoint"])
                    return shown[0]
                return None

            proxy.intercept = stale
            mmekit.write(described("lag", change))
            assert mmekit.at(proxy.url)("update", file).stdout.startswith("lag is InService")
            assert len(shown) == 2


def test_what_another_run_creates_meanwhile_is_used(local: Service, mmekit: Mmekit) -> None:
    file = mmekit.write(described("race"))
    mmekit("deploy", file)
    unknown = [
        Answer(operation, "ValidationException", f'Could not find {noun} "x".')
        for operation, noun in (
            ("DescribeModel", "model"),
            ("DescribeEndpointConfig", "endpoint configuration"),
            ("DescribeEndpoint", "endpoint"),
        )
    ]
    unknown[2].times = 3  # the wait for a state that lasts, the look, and the look before the creation
    with Proxy(local.url, unknown) as proxy:
        assert mmekit.at(proxy.url)("deploy", file).stdout.startswith("race is InService")
        assert proxy.writes == ["CreateModel", "CreateEndpointConfig", "CreateEndpoint"]


def test_what_a_local_endpoint_has_not_is_left_out_and_told(local: Service, mmekit: Mmekit) -> None:
    scaled = "    autoscaling: {min: 1, max: 4, memory_percent: 80}\n    alarms: {errors_5xx_percent: 1}\n"
    file = mmekit.write(described("plain", scaled + "update: {traffic: canary}\n"))
    done = mmekit("deploy", file)
    assert "note: autoscaling is left out: a local endpoint has as many instances as the file" in done.stderr
    assert "note: update is left out: a local endpoint replaces all instances at once." in done.stderr
    assert f"note: {IMAGE} is taken as it is" in done.stderr
    mmekit.write(described("plain", scaled + "cache: false\n"))
    mmekit("update", file)
    assert mmekit("update", file).stdout.startswith("nothing to do")


def test_options_alone_deploy_an_endpoint(local: Service, mmekit: Mmekit) -> None:
    options = ["--name", "opts", "--image", IMAGE, "--role", "any", "--models", "s3://models/m/"]
    assert mmekit("deploy", *options, "--instance-type", "ml.c5.large").stdout == (
        "opts is InService: AllTraffic 1 × ml.c5.large.\n"
    )
    done = mmekit("deploy", *options, code=78)
    assert "variants[0].instance_type: is missing" in done.stderr
    assert "Give the YAML file that describes the endpoint, or --name" in mmekit("deploy", code=2).stderr


def test_update_creates_nothing_where_there_is_no_endpoint(local: Service, mmekit: Mmekit) -> None:
    file = mmekit.write(described("none"))
    assert (
        "there is no endpoint none to update: `mmekit deploy` creates it"
        in mmekit("update", file, code=7).stderr
    )
    with pytest.raises(ClientError, match="Could not find"):
        local.status("none")


def test_a_throttling_aws_is_asked_again_and_not_for_ever(
    throttled: tuple[Proxy, subprocess.Popen[str]],
) -> None:
    proxy, process = throttled
    _, said = process.communicate(timeout=100)
    assert process.returncode == 1
    assert proxy.seen.count("CreateModel") == 3
    assert 2 < proxy.seen.count("CreateEndpoint") < 20
    assert "CreateEndpoint: AWS throttles this account's calls" in said
    assert "Done:\n  create the model throttled-" in said
    assert "The same command goes on from there." in said
