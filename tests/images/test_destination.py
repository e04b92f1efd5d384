from __future__ import annotations

import pytest

from mmekit_toolkit.errors import ToolkitError
from mmekit_toolkit.images.destination import Destination, choose
from mmekit_toolkit.images.image import Image, read

ECR = "123456789012.dkr.ecr.us-east-1.amazonaws.com"
ID = "sha256:" + "0123456789abcdef" * 4


def image(name: str) -> Image:
    return read(name, {"Id": ID})


@pytest.mark.parametrize(
    ("name", "repository", "tag", "expected"),
    [
        ("churn:1.0", None, None, Destination(None, "churn", "1.0")),
        ("churn", None, None, Destination(None, "churn", "sha-0123456789ab")),
        ("churn:1.0", "team/models", None, Destination(None, "team/models", "1.0")),
        ("churn:1.0", None, "2.0", Destination(None, "churn", "2.0")),
        (f"{ECR}/churn:1.0", None, None, Destination(ECR, "churn", "1.0")),
        (f"{ECR}/churn:1.0", "churn", None, Destination(None, "churn", "1.0")),
        ("churn:1.0", "ghcr.io/team/churn", None, Destination("ghcr.io", "team/churn", "1.0")),
        ("0123456789ab", "churn", None, Destination(None, "churn", "sha-0123456789ab")),
        (ID, "churn", None, Destination(None, "churn", "sha-0123456789ab")),
    ],
)
def test_an_image_goes_where_its_name_says_unless_told_otherwise(
    name: str, repository: str | None, tag: str | None, expected: Destination
) -> None:
    assert choose(image(name), repository, tag) == expected


def test_a_host_that_is_not_ecr_needs_no_aws() -> None:
    assert choose(image("churn:1"), None, None).is_ecr
    assert choose(image("churn:1"), f"{ECR}/churn", None).is_ecr
    assert choose(image("churn:1"), "123456789012.dkr-ecr.us-east-1.on.aws/churn", None).is_ecr
    assert choose(image("churn:1"), "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn/churn", None).is_ecr
    assert not choose(image("churn:1"), "localhost:5000/churn", None).is_ecr


@pytest.mark.parametrize(
    ("name", "repository", "expected"),
    [
        ("Churn:1.0", None, "lower-case"),
        ("churn:1.0", "c", "2 to 256"),
        ("churn:1.0", "a" * 257, "2 to 256"),
        ("churn:1.0", "team//churn", "lower-case"),
        ("churn:1.0", "churn:2.0", "--tag gives one"),
        ("0123456789ab", None, "--repository"),
        (ID, None, "--repository"),
    ],
)
def test_what_cannot_be_a_repository_says_what_can(name: str, repository: str | None, expected: str) -> None:
    with pytest.raises(ToolkitError, match=expected):
        choose(image(name), repository, None)
