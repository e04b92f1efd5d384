"""Addresses in S3, in the forms that SageMaker takes them."""

from __future__ import annotations

import pytest

from mmekit_toolkit.aws.s3 import Location, parse, parse_prefix
from mmekit_toolkit.errors import ToolkitError


@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("s3://models/prod/a.tar.gz", Location("models", "prod/a.tar.gz")),
        ("s3://models", Location("models", "")),
        ("s3://models/", Location("models", "")),
        ("https://models.s3.eu-west-1.amazonaws.com/prod/", Location("models", "prod/")),
        ("https://my.models.s3-eu-west-1.amazonaws.com/prod/", Location("my.models", "prod/")),
        ("https://models.s3.amazonaws.com/prod/", Location("models", "prod/")),
        ("https://s3.eu-west-1.amazonaws.com/models/prod/", Location("models", "prod/")),
        ("https://s3.cn-north-1.amazonaws.com.cn/models/prod/", Location("models", "prod/")),
    ],
)
def test_each_form_names_bucket_and_key(url: str, location: Location) -> None:
    assert parse(url) == location


@pytest.mark.parametrize("url", ["", "models/prod", "s3:///prod", "https://example.com/models/", "gs://a/b"])
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(ToolkitError, match="Expected s3://BUCKET/KEY"):
        parse(url)


def test_a_prefix_ends_with_a_slash_or_is_the_whole_bucket() -> None:
    assert str(parse_prefix("s3://models/prod")) == "s3://models/prod/"
    assert str(parse_prefix("s3://models")) == "s3://models/"
    assert parse_prefix("s3://models/prod/").below("a.tar.gz") == Location("models", "prod/a.tar.gz")
