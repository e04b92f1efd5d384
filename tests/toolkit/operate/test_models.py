"""``mmekit models``: what is uploaded, under which key, and what is removed again."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mmekit import __version__
from tests.endpoint.object_store import ObjectStore
from tests.endpoint.service import Service, stub_model
from tests.support.server import until
from tests.toolkit.commands import MMEKIT, Mmekit, described
from tests.toolkit.cutting_proxy import CuttingProxy

pytestmark = pytest.mark.usefixtures("shop")


@pytest.fixture(scope="module")
def shop(service: Service) -> None:
    service.s3.create_bucket(Bucket="shop")
    service.create("shop", url="s3://shop/prod/")


@pytest.fixture
def empty(service: Service) -> Iterator[Any]:
    """The client of S3; nothing is below the prefix before or after."""
    yield service.s3
    for found in service.s3.list_objects_v2(Bucket="shop").get("Contents", []):
        service.s3.delete_object(Bucket="shop", Key=found["Key"])


def write(file: Path, content: bytes) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file


def keys(s3: Any) -> list[str]:
    return [found["Key"] for found in s3.list_objects_v2(Bucket="shop").get("Contents", [])]


def test_an_archive_goes_up_once_under_the_hash_of_its_content(
    mmekit: Mmekit, empty: Any, tmp_path: Path
) -> None:
    file = write(tmp_path / "churn.tar.gz", stub_model("1"))
    first = mmekit("models", "add", "shop", "--no-check", file)
    (target,) = first.lines
    assert target.startswith("churn-")
    assert keys(empty) == [f"prod/{target}"]
    head = empty.head_object(Bucket="shop", Key=f"prod/{target}")
    sha256 = head["Metadata"].pop("mmekit-sha256")
    assert target == f"churn-{sha256[:12]}.tar.gz"
    assert head["Metadata"] == {"mmekit-name": "churn", "mmekit-version": __version__}
    again = mmekit("models", "add", "shop", "--no-check", file, file)
    assert again.lines == [target, target]
    assert again.stderr == f"{target} is there already.\n" * 2


def test_an_archive_that_changed_gets_another_key_and_overwrites_nothing(
    mmekit: Mmekit, empty: Any, tmp_path: Path
) -> None:
    file, old = tmp_path / "churn.tar.gz", stub_model("1")
    (first,) = mmekit("models", "add", "shop", "--no-check", write(file, old)).lines
    write(file, stub_model("2"))
    until(lambda: seconds_passed(empty, first))
    (second,) = mmekit("models", "add", "shop", "--no-check", file).lines
    assert sorted(keys(empty)) == sorted([f"prod/{first}", f"prod/{second}"])
    listed = json.loads(mmekit("models", "list", "shop", "--json").stdout)
    assert [(entry["target_model"], entry["current"]) for entry in listed] == [(second, True), (first, False)]
    again = mmekit("models", "add", "shop", "--no-check", write(file, old))
    assert again.lines == [first]
    assert f"{first} is there already, and {second} is newer: `mmekit invoke` with" in again.stderr


def seconds_passed(s3: Any, target: str) -> bool:
    """Say whether S3's clock has left the second in which the object came."""
    s3.put_object(Bucket="shop", Key="clock/now", Body=b"")
    now = s3.head_object(Bucket="shop", Key="clock/now")["LastModified"]
    s3.delete_object(Bucket="shop", Key="clock/now")
    return bool(now > s3.head_object(Bucket="shop", Key=f"prod/{target}")["LastModified"])


def test_what_was_added_can_be_called_at_once(
    mmekit: Mmekit, empty: Any, service: Service, tmp_path: Path
) -> None:
    file = write(tmp_path / "churn.tar.gz", stub_model("called"))
    (target,) = mmekit("models", "add", "shop", "--no-check", file, "--name", "tenant_a/churn").lines
    assert target.startswith("tenant_a/churn-")
    assert service.invoke("shop", target)["value"] == "called"


def test_a_hash_that_a_file_has_in_its_name_is_not_doubled(
    mmekit: Mmekit, empty: Any, tmp_path: Path
) -> None:
    file = write(tmp_path / "churn.tar.gz", stub_model("1"))
    (target,) = mmekit("models", "add", "shop", "--no-check", file).lines
    renamed = file.rename(tmp_path / target)
    assert mmekit("models", "add", "shop", "--no-check", renamed).lines == [target]


def test_a_dry_run_names_the_target_and_uploads_nothing(mmekit: Mmekit, empty: Any, tmp_path: Path) -> None:
    file = write(tmp_path / "churn.tar.gz", stub_model("1"))
    done = mmekit("models", "add", "shop", "--no-check", file, "--dry-run")
    assert done.lines[0].startswith("churn-")
    assert "would be uploaded" in done.stderr
    assert not keys(empty)


def test_the_same_archive_twice_goes_up_once(mmekit: Mmekit, empty: Any, tmp_path: Path) -> None:
    file = write(tmp_path / "churn.tar.gz", stub_model("1"))
    done = mmekit("models", "add", "shop", "--no-check", file, file)
    (target,) = set(done.lines)
    assert re.fullmatch(rf"{target} uploaded .*\n{target} is there already.\n", done.stderr)


def test_an_object_of_the_same_key_and_other_content_is_left_alone(
    mmekit: Mmekit, empty: Any, tmp_path: Path
) -> None:
    file = write(tmp_path / "churn.tar.gz", stub_model("1"))
    (target,) = mmekit("models", "add", "shop", "--no-check", file, "--dry-run").lines
    empty.put_object(Bucket="shop", Key=f"prod/{target}", Body=b"another")
    done = mmekit("models", "add", "shop", "--no-check", file, code=1)
    assert "is there with other content: 7 bytes" in done.stderr
    assert empty.get_object(Bucket="shop", Key=f"prod/{target}")["Body"].read() == b"another"


def test_a_file_says_where_models_lie_before_the_endpoint_is_there(
    mmekit: Mmekit, empty: Any, tmp_path: Path
) -> None:
    file = described(tmp_path, "coming", "s3://shop/coming/")
    archive = write(tmp_path / "churn.tar.gz", stub_model("1"))
    (target,) = mmekit("models", "add", file, "--no-check", archive).lines
    assert keys(empty) == [f"coming/{target}"]


def test_foreign_objects_are_listed_and_marked(mmekit: Mmekit, empty: Any) -> None:
    empty.put_object(Bucket="shop", Key="prod/by-hand.tar.gz", Body=stub_model("1"))
    empty.put_object(Bucket="shop", Key="prod/folder/", Body=b"")
    empty.put_object(Bucket="shop", Key="prod/\x1b[2Jred.tar.gz", Body=b"")
    done = mmekit("models", "list", "shop")
    assert "(not by mmekit)  by-hand.tar.gz" in done.stdout
    assert "(not by mmekit)  \\x1b[2Jred.tar.gz" in done.stdout, "a key may have what moves a cursor"
    assert "folder" not in done.stdout
    assert done.stderr.startswith("2 objects, ")


def test_old_versions_are_removed_and_the_newest_stays(mmekit: Mmekit, empty: Any, tmp_path: Path) -> None:
    files = [write(tmp_path / str(n) / "churn.tar.gz", stub_model(str(n))) for n in range(3)]
    targets = mmekit("models", "add", "shop", "--no-check", *files).lines
    done = mmekit("models", "remove", "shop", "churn", "--keep", 1, "--yes")
    assert keys(empty) == [f"prod/{targets[2]}"]
    assert "Removed 2 objects" in done.stderr
    assert "serve it until they evict it" in done.stderr
    assert "Nothing to remove" in mmekit("models", "remove", "shop", "--keep", 1, "--yes").stderr


def test_nothing_is_removed_without_an_answer(mmekit: Mmekit, empty: Any, tmp_path: Path) -> None:
    file = write(tmp_path / "churn.tar.gz", stub_model("1"))
    (target,) = mmekit("models", "add", "shop", "--no-check", file).lines
    asked = mmekit("models", "remove", "shop", target, code=2)
    assert target in asked.stderr
    assert "There is no terminal to ask at: --yes deletes without a question." in asked.stderr
    assert "would be removed" in mmekit("models", "remove", "shop", target, "--dry-run").stderr
    assert keys(empty) == [f"prod/{target}"]


@pytest.mark.parametrize(("answer", "left"), [("y", 0), ("n", 1)])
def test_at_a_terminal_the_command_asks(
    mmekit: Mmekit, empty: Any, tmp_path: Path, answer: str, left: int
) -> None:
    file = write(tmp_path / "churn.tar.gz", stub_model("1"))
    (target,) = mmekit("models", "add", "shop", "--no-check", file).lines
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [MMEKIT, "models", "remove", "shop", target],
        env=mmekit.environ,
        stdin=theirs,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.write(ours, f"{answer}\n".encode())
    _, stderr = process.communicate(timeout=60)
    os.close(ours)
    os.close(theirs)
    assert "Remove 1 object" in stderr
    assert process.returncode == (1 if left else 0)
    assert len(keys(empty)) == left


def test_what_others_uploaded_is_not_removed(mmekit: Mmekit, empty: Any) -> None:
    hashed = "churn-0123456789ab.tar.gz"
    for name in ("by-hand.tar.gz", hashed):
        empty.put_object(Bucket="shop", Key=f"prod/{name}", Body=b"1")
    done = mmekit("models", "remove", "shop", "by-hand.tar.gz", "churn", "--yes", code=1)
    assert f"not uploaded by mmekit, and therefore not removed by it: by-hand.tar.gz, {hashed}" in done.stderr
    empty.put_object(Bucket="shop", Key="prod/churn-0123456789ac.tar.gz", Body=b"1")
    assert "Nothing to remove" in mmekit("models", "remove", "shop", "--keep", 1, "--yes").stderr
    assert len(keys(empty)) == 3


def test_a_model_that_is_not_there_is_named_with_its_neighbours(mmekit: Mmekit, empty: Any) -> None:
    empty.put_object(Bucket="shop", Key="prod/churn-0123456789ab.tar.gz", Body=b"1")
    done = mmekit("models", "remove", "shop", "chrun", "--yes", code=7)
    assert "there is no model chrun. Did you mean churn" in done.stderr


# --- sync -------------------------------------------------------------------------------------------


def test_a_prefix_becomes_what_the_folder_has_and_then_there_is_nothing_to_do(
    mmekit: Mmekit, empty: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "models"
    write(folder / "churn.tar.gz", stub_model("1"))
    write(folder / "tenant_a" / "fraud.tar.gz", stub_model("2"))
    empty.put_object(Bucket="shop", Key="prod/by-hand-0123456789ab.tar.gz", Body=b"1")
    mmekit("models", "sync", "shop", folder, "--no-check")
    names = [key.removeprefix("prod/")[:-20] for key in keys(empty)]
    assert names == ["by-hand", "churn", "tenant_a/fraud"]
    assert (
        "Nothing to do" in mmekit("models", "sync", "shop", folder, "--no-check", "--delete", "--yes").stderr
    )
    write(folder / "churn.tar.gz", stub_model("3"))
    dry = mmekit("models", "sync", "shop", folder, "--no-check", "--delete", "--dry-run").stderr
    assert "would be uploaded" in dry
    assert "1 object (" in dry
    assert len(keys(empty)) == 3
    refused = mmekit("models", "sync", "shop", folder, "--no-check", "--delete", code=2)
    assert "--yes deletes without a question" in refused.stderr, "uploads need no answer, removals do"
    assert len(keys(empty)) == 4
    mmekit("models", "sync", "shop", folder, "--no-check", "--delete", "--yes")
    assert [key.removeprefix("prod/")[:-20] for key in keys(empty)] == ["by-hand", "churn", "tenant_a/fraud"]
    assert (
        "Nothing to do" in mmekit("models", "sync", "shop", folder, "--no-check", "--delete", "--yes").stderr
    )


def test_a_folder_without_models_is_an_error_and_removes_nothing(
    mmekit: Mmekit, empty: Any, tmp_path: Path
) -> None:
    done = mmekit("models", "sync", "shop", tmp_path, "--delete", "--yes", code=1)
    assert "has no archives and no model folders" in done.stderr


# --- which prefix -----------------------------------------------------------------------------------


def test_variants_with_prefixes_of_their_own_must_be_named(
    mmekit: Mmekit, service: Service, empty: Any, tmp_path: Path
) -> None:
    for name in ("blue", "green"):
        service.sagemaker.create_model(
            ModelName=f"ab-{name}",
            ExecutionRoleArn="arn:aws:iam::123456789012:role/any",
            PrimaryContainer={"Image": "any", "Mode": "MultiModel", "ModelDataUrl": f"s3://shop/{name}/"},
        )
    service.configure("ab", [("ab-blue", "blue", 1, 1.0, {}), ("ab-green", "green", 1, 1.0, {})])
    service.sagemaker.create_endpoint(EndpointName="ab", EndpointConfigName="ab")
    refused = mmekit("models", "list", "ab", code=1)
    assert "--variant blue   s3://shop/blue/" in refused.stderr
    assert "--variant green   s3://shop/green/" in refused.stderr
    archive = write(tmp_path / "churn.tar.gz", stub_model("1"))
    mmekit("models", "add", "ab", archive, "--no-check", "--variant", "green")
    assert keys(empty)[0].startswith("green/churn-")
    assert "blue, green" in mmekit("models", "list", "ab", "--variant", "red", code=7).stderr


def test_an_endpoint_of_one_model_is_told_so(mmekit: Mmekit, service: Service) -> None:
    service.upload(single=stub_model("1"))
    service.create("single", url="s3://models/m/single.tar.gz", mode="SingleModel")
    assert "serves one model only" in mmekit("models", "list", "single", code=1).stderr


def test_an_endpoint_that_is_not_there_is_not_found(mmekit: Mmekit) -> None:
    done = mmekit("models", "list", "nowhere", code=7)
    assert "there is no endpoint nowhere in us-east-1" in done.stderr
    assert mmekit("models", "list", "nowhere.yaml", code=7).stderr.count("\n") == 1


def test_a_bucket_that_is_not_there_is_named(mmekit: Mmekit, tmp_path: Path) -> None:
    file = described(tmp_path, "coming", "s3://nobodys-bucket/coming/")
    assert "there is no bucket nobodys-bucket" in mmekit("models", "list", file, code=7).stderr


# --- a real S3 --------------------------------------------------------------------------------------


def test_thousands_of_versions_are_listed_and_removed(
    with_store: Mmekit, store: ObjectStore, tmp_path: Path
) -> None:
    client = store.client()
    metadata = {"mmekit-sha256": "0" * 64}

    def put(number: int) -> None:
        key = f"shop/many-{number:012x}.tar.gz"
        client.put_object(Bucket="models", Key=key, Body=b"1", Metadata=metadata)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, range(1100)))
    listed = json.loads(with_store("models", "list", "shop", "--json").stdout)
    assert len(listed) == 1100
    assert [entry["current"] for entry in listed] == [True] + [False] * 1099
    with_store("models", "remove", "shop", "many", "--yes", timeout_s=100)
    assert json.loads(with_store("models", "list", "shop", "--json").stdout) == []


def test_large_archives_go_up_in_parts_and_come_down_as_they_were(
    with_store: Mmekit, store: ObjectStore, tmp_path: Path
) -> None:
    content = stub_model("1") + os.urandom(40 * 1024 * 1024)
    file = write(tmp_path / "large.tar.gz", content)
    (target,) = with_store("models", "add", "shop", "--no-check", file).lines
    got = store.client().get_object(Bucket="models", Key=f"shop/{target}")
    assert got["Body"].read() == content
    assert got["Metadata"]["mmekit-name"] == "large"
    with_store("models", "remove", "shop", target, "--yes")


def test_keys_that_the_store_does_not_know_are_called_so(with_store: Mmekit, tmp_path: Path) -> None:
    wrong = with_store.also(AWS_SECRET_ACCESS_KEY="wrong")
    file = described(tmp_path, "shop", "s3://models/shop/")
    done = wrong("models", "list", file, code=5)
    assert "AWS does not accept the credentials" in done.stderr


def test_a_prefix_that_may_not_be_read_is_named(
    with_store: Mmekit, store: ObjectStore, tmp_path: Path
) -> None:
    key_id, secret = store.stranger
    stranger = with_store.also(AWS_ACCESS_KEY_ID=key_id, AWS_SECRET_ACCESS_KEY=secret)
    file = described(tmp_path, "shop", "s3://models/shop/")
    archive = write(tmp_path / "churn.tar.gz", stub_model("1"))
    for command in (("list", file), ("add", file, archive, "--no-check")):
        done = stranger("models", *command, code=5)
        assert "is not allowed at s3://models/" in done.stderr
        assert "`mmekit iam deployer`" in done.stderr


def test_an_upload_that_breaks_off_is_tried_again(
    with_store: Mmekit, store: ObjectStore, tmp_path: Path
) -> None:
    content = stub_model("1") + os.urandom(20 * 1024 * 1024)
    file = write(tmp_path / "cut.tar.gz", content)
    with CuttingProxy(store.url, after_bytes=5 * 1024 * 1024, times=2) as proxy:
        (target,) = with_store.also(AWS_ENDPOINT_URL_S3=proxy.url)(
            "models", "add", "shop", "--no-check", file
        ).lines
        assert proxy.cut == 2
    assert store.client().get_object(Bucket="models", Key=f"shop/{target}")["Body"].read() == content
    with_store("models", "remove", "shop", target, "--yes")


def test_an_interrupted_upload_says_how_far_it_came_and_leaves_no_half(
    with_store: Mmekit, store: ObjectStore, tmp_path: Path
) -> None:
    small = write(tmp_path / "small.tar.gz", stub_model("1"))
    large = write(tmp_path / "large.tar.gz", stub_model("1") + os.urandom(40 * 1024 * 1024))
    with CuttingProxy(store.url, hang_after_bytes=20 * 1024 * 1024) as proxy:
        slow = with_store.also(AWS_ENDPOINT_URL_S3=proxy.url)
        with slow.running("models", "add", "shop", "--no-check", small, large) as running:
            until(lambda: proxy.hanging, 30, "the upload hanging")
            assert running.interrupt(then=proxy.release_soon) == 130
    assert any("interrupted: 1 of 2 archives are there" in line for line in running.lines), running.lines
    client = store.client()
    assert not client.list_multipart_uploads(Bucket="models").get("Uploads")
    listed = client.list_objects_v2(Bucket="models", Prefix="shop/")["Contents"]
    assert [found["Key"][:11] for found in listed] == ["shop/small-"]
    with_store("models", "remove", "shop", "small", "--yes")
