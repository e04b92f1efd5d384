from __future__ import annotations

import pytest

from mmekit_toolkit.errors import ToolkitError
from mmekit_toolkit.images.name import ImageName, check_tag, parse

DIGEST = "sha256:" + "ab" * 32
ECR = "123456789012.dkr.ecr.us-east-1.amazonaws.com"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("churn", ImageName(None, "churn")),
        ("churn:1.0", ImageName(None, "churn", "1.0")),
        ("team/churn:1.0", ImageName(None, "team/churn", "1.0")),
        ("localhost/churn", ImageName("localhost", "churn")),
        ("localhost:5000/a/b:x", ImageName("localhost:5000", "a/b", "x")),
        (f"{ECR}/churn:1.0", ImageName(ECR, "churn", "1.0")),
        (f"{ECR}/churn@{DIGEST}", ImageName(ECR, "churn", None, DIGEST)),
        (f"{ECR}/churn:1.0@{DIGEST}", ImageName(ECR, "churn", "1.0", DIGEST)),
    ],
)
def test_a_name_is_read_as_docker_reads_it_and_written_as_it_was(text: str, expected: ImageName) -> None:
    assert parse(text) == expected
    assert str(parse(text)) == text


@pytest.mark.parametrize(
    "text", ["", ":1.0", "churn:", "churn@", "host.io/", "churn:a b", "churn:.1", "churn@sha256:12", "a:b:c"]
)
def test_what_cannot_be_a_name_is_refused(text: str) -> None:
    with pytest.raises(ToolkitError, match="Expected NAME:TAG"):
        parse(text)


def test_tags_are_those_that_registries_take() -> None:
    assert check_tag("1.0_a-B") == "1.0_a-B"
    for tag in ("", "-a", ".a", "a/b", "a" * 129):
        with pytest.raises(ToolkitError, match="is no tag"):
            check_tag(tag)
