"""S3's objects: what is there after the process was killed."""

from __future__ import annotations

import io
import random
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

from tests.endpoint.control import ControlPlane, control_plane, refusal, without_metadata

MIB = 1024 * 1024


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[ControlPlane]:
    with control_plane(tmp_path) as started:
        yield started


@pytest.fixture
def s3(plane: ControlPlane) -> Any:
    client = plane.client("s3")
    client.create_bucket(Bucket="bucket", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    return client


def restart(plane: ControlPlane) -> None:
    plane.kill()
    plane.start()


def body(s3: Any, key: str, bucket: str = "bucket", **members: Any) -> bytes:
    return bytes(s3.get_object(Bucket=bucket, Key=key, **members)["Body"].read())


def files(plane: ControlPlane) -> list[Path]:
    return list((plane.state / "s3" / "bodies").iterdir())


def head(s3: Any, key: str) -> dict[str, Any]:
    return without_metadata(s3.head_object(Bucket="bucket", Key=key, ChecksumMode="ENABLED"))


def test_objects_are_all_that_they_were(plane: ControlPlane, s3: Any) -> None:
    s3.put_object(
        Bucket="bucket",
        Key="folder/ä b+c?.tar.gz",
        Body=b"content",
        ContentType="application/x-tar",
        ContentEncoding="gzip",
        CacheControl="no-store",
        Metadata={"plain": "1", "with_underscore": "2", "with-hyphen": "3"},
        StorageClass="STANDARD_IA",
        ChecksumAlgorithm="SHA256",
        Tagging="team=a%20b&stage=test",
    )
    s3.put_object(Bucket="bucket", Key="empty", Body=b"")
    before = head(s3, "folder/ä b+c?.tar.gz"), head(s3, "empty")
    assert before[0]["Metadata"] == {"plain": "1", "with_underscore": "2", "with-hyphen": "3"}
    listing = s3.list_objects_v2(Bucket="bucket")["Contents"]
    buckets = s3.list_buckets()["Buckets"]
    restart(plane)
    assert (head(s3, "folder/ä b+c?.tar.gz"), head(s3, "empty")) == before
    assert s3.list_objects_v2(Bucket="bucket")["Contents"] == listing
    assert s3.list_buckets()["Buckets"] == buckets
    assert s3.get_bucket_location(Bucket="bucket")["LocationConstraint"] == "eu-west-1"
    assert body(s3, "folder/ä b+c?.tar.gz") == b"content"
    assert body(s3, "empty") == b""
    tags = s3.get_object_tagging(Bucket="bucket", Key="folder/ä b+c?.tar.gz")["TagSet"]
    assert tags == [{"Key": "team", "Value": "a b"}, {"Key": "stage", "Value": "test"}]


def test_ranges_are_read_before_and_after(plane: ControlPlane, s3: Any) -> None:
    s3.put_object(Bucket="bucket", Key="k", Body=b"0123456789")
    assert body(s3, "k", Range="bytes=3-5") == b"345"
    restart(plane)
    assert body(s3, "k", Range="bytes=3-5") == b"345"
    assert body(s3, "k", Range="bytes=-2") == b"89"


def test_uploads_in_parts_and_copies_stay(plane: ControlPlane, s3: Any) -> None:
    data = random.Random(0).randbytes(11 * MIB)
    config = TransferConfig(multipart_threshold=5 * MIB, multipart_chunksize=5 * MIB)
    s3.upload_fileobj(io.BytesIO(data), "bucket", "large", Config=config)
    etag = s3.head_object(Bucket="bucket", Key="large")["ETag"]
    assert etag.endswith('-3"')
    s3.copy_object(Bucket="bucket", Key="copy", CopySource={"Bucket": "bucket", "Key": "large"})
    assert body(s3, "copy") == data
    restart(plane)
    assert body(s3, "large") == data
    assert body(s3, "copy") == data
    assert s3.head_object(Bucket="bucket", Key="large")["ETag"] == etag
    s3.copy_object(Bucket="bucket", Key="again", CopySource={"Bucket": "bucket", "Key": "copy"})
    s3.delete_object(Bucket="bucket", Key="copy")
    assert body(s3, "again") == data


def test_what_was_overwritten_or_deleted_stays_so(plane: ControlPlane, s3: Any) -> None:
    for key in ("a", "b", "c", "d", "e"):
        s3.put_object(Bucket="bucket", Key=key, Body=b"first")
    s3.put_object(Bucket="bucket", Key="a", Body=b"second")
    s3.delete_object(Bucket="bucket", Key="b")
    s3.delete_objects(Bucket="bucket", Delete={"Objects": [{"Key": "c"}, {"Key": "d"}]})
    assert len(files(plane)) == 2
    restart(plane)
    assert [entry["Key"] for entry in s3.list_objects_v2(Bucket="bucket")["Contents"]] == ["a", "e"]
    assert body(s3, "a") == b"second"
    for key in ("a", "e"):
        s3.delete_object(Bucket="bucket", Key=key)
    s3.delete_bucket(Bucket="bucket")
    assert files(plane) == []
    restart(plane)
    assert s3.list_buckets()["Buckets"] == []
    s3.create_bucket(Bucket="bucket", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})


def test_tags_that_change_later_stay(plane: ControlPlane, s3: Any) -> None:
    s3.put_object(Bucket="bucket", Key="k", Body=b"x")
    tags = {"TagSet": [{"Key": "a", "Value": "1"}]}
    s3.put_object_tagging(Bucket="bucket", Key="k", Tagging=tags)
    s3.put_bucket_tagging(Bucket="bucket", Tagging=tags)
    restart(plane)
    assert s3.get_object_tagging(Bucket="bucket", Key="k")["TagSet"] == tags["TagSet"]
    assert s3.get_bucket_tagging(Bucket="bucket")["TagSet"] == tags["TagSet"]
    s3.delete_object_tagging(Bucket="bucket", Key="k")
    restart(plane)
    assert s3.get_object_tagging(Bucket="bucket", Key="k")["TagSet"] == []


def test_versioned_buckets_keep_their_current_versions(plane: ControlPlane, s3: Any) -> None:
    s3.put_bucket_versioning(Bucket="bucket", VersioningConfiguration={"Status": "Enabled"})
    s3.put_object(Bucket="bucket", Key="k", Body=b"first")
    s3.put_object(Bucket="bucket", Key="k", Body=b"second")
    s3.put_object(Bucket="bucket", Key="gone", Body=b"x")
    s3.delete_object(Bucket="bucket", Key="gone")
    restart(plane)
    assert s3.get_bucket_versioning(Bucket="bucket")["Status"] == "Enabled"
    assert body(s3, "k") == b"second"
    assert [entry["Key"] for entry in s3.list_objects_v2(Bucket="bucket")["Contents"]] == ["k"]
    s3.put_object(Bucket="bucket", Key="k", Body=b"third")
    restart(plane)
    assert body(s3, "k") == b"third"


def test_settings_that_end_with_the_service_are_told_of(plane: ControlPlane, s3: Any) -> None:
    for _ in range(2):
        s3.put_bucket_policy(Bucket="bucket", Policy='{"Version": "2012-10-17", "Statement": []}')
    assert plane.log.read_text().count("S3: settings of the kind ?policy end with this service") == 1


def test_an_upload_that_is_not_complete_ends_with_the_service(plane: ControlPlane, s3: Any) -> None:
    upload = s3.create_multipart_upload(Bucket="bucket", Key="k")["UploadId"]
    s3.upload_part(Bucket="bucket", Key="k", UploadId=upload, PartNumber=1, Body=b"x")
    restart(plane)
    with pytest.raises(ClientError):
        s3.complete_multipart_upload(Bucket="bucket", Key="k", UploadId=upload)
    assert s3.list_objects_v2(Bucket="bucket")["KeyCount"] == 0


def test_a_failed_write_is_answered_as_such(plane: ControlPlane, s3: Any) -> None:
    folder = plane.state / "s3" / "bodies"
    folder.rmdir()
    folder.write_text("in the way")
    with pytest.raises(ClientError) as caught:
        s3.put_object(Bucket="bucket", Key="k", Body=b"x")
    assert caught.value.response["Error"]["Code"] == "InternalError"
    assert "could not write this to its state folder" in str(caught.value)
    folder.unlink()
    folder.mkdir()
    s3.put_object(Bucket="bucket", Key="k", Body=b"x")
    restart(plane)
    assert body(s3, "k") == b"x"


def test_a_body_that_is_not_whole_is_left_out_and_named(plane: ControlPlane, s3: Any) -> None:
    s3.put_object(Bucket="bucket", Key="k", Body=b"whole")
    (file,) = files(plane)
    plane.kill()
    file.write_bytes(b"cut")
    plane.start()
    with pytest.raises(ClientError, match="404"):
        s3.head_object(Bucket="bucket", Key="k")
    assert "s3://bucket/k is lost" in plane.log.read_text()


def test_an_index_that_cannot_be_read_is_told_of(plane: ControlPlane, s3: Any) -> None:
    plane.kill()
    shutil.rmtree(plane.state / "s3")
    (plane.state / "s3").mkdir()
    (plane.state / "s3" / "index.sqlite").write_bytes(b"not a database" * 100)
    plane.start()
    with pytest.raises(ClientError, match="file is not a database"):
        s3.list_buckets()
    assert "cannot be used" in plane.log.read_text()
    assert refusal(plane.client("sagemaker").describe_model, ModelName="m")[0] == "ValidationException"


def test_all_that_was_answered_is_there_after_a_kill_at_any_moment(plane: ControlPlane, s3: Any) -> None:
    """Four clients write and delete; what was under way at the kill is sent again by them."""
    answered: dict[str, bytes | None] = {}
    done: list[str] = []
    stopping = threading.Event()

    def work(number: int) -> None:
        client = plane.client("s3")
        for index in range(10_000):
            key = f"{number}/{index % 7}"
            if index % 5 == 4:
                answered[key] = None
                client.delete_object(Bucket="bucket", Key=key)
            else:
                data = f"{key} {index} ".encode() * (1 + 40_000 * (index % 2))
                client.put_object(Bucket="bucket", Key=key, Body=data)
                answered[key] = data
            done.append(key)
            if stopping.is_set():
                return

    for moment in (60, 23):
        stopping.clear()
        done.clear()
        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        while len(done) < moment:
            time.sleep(0.001)
        stopping.set()
        restart(plane)
        for thread in threads:
            thread.join()
        found = {
            entry["Key"]: body(s3, entry["Key"]) for entry in s3.list_objects_v2(Bucket="bucket")["Contents"]
        }
        assert found == {key: data for key, data in answered.items() if data is not None}
        assert len(files(plane)) == len(found)
