"""Repositories of ECR, as a push finds or makes them, against moto's server over HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from mmekit_toolkit.aws import ecr
from mmekit_toolkit.aws.clients import Aws
from mmekit_toolkit.errors import CredentialsError, NotFound, ToolkitError
from mmekit_toolkit.images.ecr_repository import EcrRepository
from mmekit_toolkit.images.repository import Repository
from tests.toolkit.moto_server import ACCOUNT, REGION, MotoServer

HOST = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com"
KEY = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/12345678-1234-1234-1234-123456789012"
DIGEST = "sha256:" + "1" * 64


@pytest.fixture
def aws(moto: MotoServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Aws]:
    moto.reset()
    for name, value in moto.environ.items():
        monkeypatch.setenv(name, value)
    aws = Aws()
    client = aws.client("ecr")
    yield aws
    client.close()


def repository(aws: Aws, name: str = "churn", **options: Any) -> Repository:
    return EcrRepository(aws, name, **{"host": None, "stand_in": None, "kms_key": None, **options})


def described(aws: Aws, name: str = "churn") -> Any:
    return aws.client("ecr").describe_repositories(repositoryNames=[name])["repositories"][0]


def put_image(aws: Aws, tag: str, config: str) -> str:
    """Put an image with this configuration's digest into the repository churn; return its digest."""
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": {
            "digest": config,
            "size": 7,
            "mediaType": "application/vnd.docker.container.image.v1+json",
        },
        "layers": [],
    }
    put = aws.client("ecr").put_image(
        repositoryName="churn",
        imageManifest=json.dumps(manifest),
        imageManifestMediaType=manifest["mediaType"],
        imageTag=tag,
    )
    return str(put["image"]["imageId"]["imageDigest"])


def test_a_repository_is_made_with_immutable_tags_scans_encryption_and_our_tags(aws: Aws) -> None:
    assert "created the repository churn" in repository(aws).make()[0]
    found = described(aws)
    assert found["imageTagMutability"] == "IMMUTABLE"
    assert found["imageScanningConfiguration"] == {"scanOnPush": True}
    assert found["encryptionConfiguration"] == {"encryptionType": "AES256"}
    tags = aws.client("ecr").list_tags_for_resource(resourceArn=found["repositoryArn"])["tags"]
    assert {"Key": "mmekit:endpoint", "Value": "churn"} in tags
    assert "mmekit:version" in {tag["Key"] for tag in tags}


def test_making_it_again_changes_nothing(aws: Aws) -> None:
    repository(aws).make()
    before = described(aws)
    again = repository(aws)
    assert again.missing() is None
    assert again.make() == []
    assert described(aws) == before


def test_a_key_of_kms_encrypts_a_repository_that_is_made(aws: Aws) -> None:
    repository(aws, kms_key=KEY).make()
    assert described(aws)["encryptionConfiguration"] == {"encryptionType": "KMS", "kmsKey": KEY}


def test_a_key_has_no_effect_on_a_repository_that_is_there_and_that_is_said(aws: Aws) -> None:
    repository(aws).make()
    (remark,) = repository(aws, kms_key=KEY).make()
    assert "--kms-key has no effect" in remark


def test_mutable_tags_of_a_repository_that_is_there_are_a_remark_and_not_changed(aws: Aws) -> None:
    aws.client("ecr").create_repository(repositoryName="churn")
    there = repository(aws)
    (remark,) = there.make()
    assert "deploy by digest" in remark
    assert not there.keeps("1.0")
    assert described(aws)["imageTagMutability"] == "MUTABLE"


def test_a_repository_that_another_push_makes_at_the_same_time_is_used(aws: Aws) -> None:
    client, made = aws.client("ecr"), []

    def make_first(**_: Any) -> None:
        if not made:
            made.append(True)
            client.create_repository(repositoryName="churn", imageTagMutability="IMMUTABLE")

    client.meta.events.register("before-call.ecr.CreateRepository", make_first)
    late = repository(aws)
    assert late.make() == []
    assert made
    assert late.host == HOST


def test_what_is_missing_is_a_request_that_aws_would_take(aws: Aws) -> None:
    request = repository(aws, "team/churn").missing()
    assert request
    assert request.operation == "CreateRepository"
    assert request.send(aws)["repository"]["repositoryName"] == "team/churn"


def test_the_host_is_that_of_the_repository_or_of_the_account_before_it_is_there(aws: Aws) -> None:
    before = repository(aws)
    assert before.host == HOST
    before.make()
    assert repository(aws).host == HOST
    assert repository(aws, stand_in="localhost:5000").host == "localhost:5000"


def test_the_token_is_decoded_and_never_shown(aws: Aws) -> None:
    login = repository(aws).sign_in()
    assert login
    assert (login.username, login.password) == ("AWS", f"{ACCOUNT}-auth-token")
    assert login.password not in repr(login)


def test_a_registry_of_another_region_than_asked_for_is_refused(aws: Aws) -> None:
    elsewhere = f"{ACCOUNT}.dkr.ecr.us-west-2.amazonaws.com"
    with pytest.raises(ToolkitError, match="in us-west-2, but --region is us-east-1"):
        repository(Aws(region="us-east-1"), host=elsewhere)


def test_the_region_of_a_registry_is_used_where_none_is_asked_for(aws: Aws) -> None:
    repository(aws, host=f"{ACCOUNT}.dkr.ecr.eu-central-1.amazonaws.com").make()
    there = Aws(region="eu-central-1")
    assert described(there)["repositoryUri"] == f"{ACCOUNT}.dkr.ecr.eu-central-1.amazonaws.com/churn"
    there.client("ecr").close()
    with pytest.raises(aws.client("ecr").exceptions.RepositoryNotFoundException):
        described(aws)


def test_a_repository_of_another_account_is_not_made_in_it(aws: Aws) -> None:
    with pytest.raises(NotFound, match="the account 999999999999 has no repository churn in us-east-1"):
        repository(aws, host=f"999999999999.dkr.ecr.{REGION}.amazonaws.com").make()
    assert aws.client("ecr").describe_repositories()["repositories"] == []


def test_an_image_is_known_by_the_digest_of_its_configuration(aws: Aws) -> None:
    repository(aws).make()
    put_image(aws, "1.0", DIGEST)
    assert repository(aws).image_id("1.0") == DIGEST
    assert repository(aws).image_id("2.0") is None
    assert repository(aws, stand_in="localhost:5000").image_id("1.0") is None, "it has other images"


def test_no_scan_yet_is_no_finding(aws: Aws) -> None:
    repository(aws).make()
    digest = put_image(aws, "1.0", DIGEST)
    assert repository(aws).scan_findings(digest) is None
    assert repository(aws).scan_findings(DIGEST) is None, "there is no such image"


def test_findings_of_a_scan_are_counted_by_severity(aws: Aws) -> None:
    repository(aws).make()
    digest = put_image(aws, "1.0", DIGEST)
    aws.client("ecr").start_image_scan(repositoryName="churn", imageId={"imageDigest": digest})
    assert repository(aws).scan_findings(digest) == {"HIGH": 1}


@pytest.mark.parametrize(
    ("mutability", "filters", "tag", "expected"),
    [
        ("IMMUTABLE", [], "1.0", True),
        ("MUTABLE", [], "1.0", False),
        ("IMMUTABLE_WITH_EXCLUSION", ["dev-*"], "dev-1", False),
        ("IMMUTABLE_WITH_EXCLUSION", ["dev-*"], "1.0", True),
        ("MUTABLE_WITH_EXCLUSION", ["1.*"], "1.0", True),
        ("MUTABLE_WITH_EXCLUSION", ["1.*"], "dev", False),
    ],
)
def test_whether_a_tag_can_be_moved_follows_the_repositorys_exclusions(
    aws: Aws, mutability: str, filters: list[str], tag: str, expected: bool
) -> None:
    exclusions = [{"filterType": "WILDCARD", "filter": each} for each in filters]
    more = {"imageTagMutabilityExclusionFilters": exclusions} if exclusions else {}
    made = aws.client("ecr").create_repository(repositoryName="churn", imageTagMutability=mutability, **more)[
        "repository"
    ]
    assert ecr.is_immutable(made, tag) is expected
    assert repository(aws).keeps(tag) is expected


def test_without_credentials_or_region_it_is_said_before_anything_is_sent(
    aws: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(CredentialsError, match="aws sso login"):
        repository(Aws()).make()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "any")
    monkeypatch.delenv("AWS_REGION")
    with pytest.raises(ToolkitError, match="no AWS region"):
        repository(Aws()).make()
