"""Keys of versions, and what is read back from them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmekit_toolkit.errors import ToolkitError
from mmekit_toolkit.operate import naming

SHA256 = "fb8074535d04" + "0" * 52
_SEGMENT = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True)
_NAMES = st.lists(_SEGMENT, min_size=1, max_size=3).map("/".join)


@given(name=_NAMES, digest=st.binary(min_size=32, max_size=32))
def test_a_target_gives_its_name_back(name: str, digest: bytes) -> None:
    assert naming.name_of(naming.target_of(name, digest.hex())) == name


@given(name=_NAMES)
def test_names_of_plain_segments_can_be_used(name: str) -> None:
    assert naming.check(name, "prod/") == name


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("churn.tar.gz", "churn"),
        ("churn.tgz", "churn"),
        ("churn-fb8074535d04.tar.gz", "churn"),
        ("churn-fb8074535d05.tar.gz", "churn-fb8074535d05"),
    ],
)
def test_only_the_contents_own_hash_is_no_part_of_the_name(file: str, name: str) -> None:
    assert naming.name_from_file(file, SHA256) == name


@pytest.mark.parametrize("target", ["churn.tar.gz", "churn-1.tar.gz", "churn-FB8074535D04.tar.gz", "x.zip"])
def test_a_key_without_a_hash_is_nobodys_version(target: str) -> None:
    assert naming.name_of(target) is None


@pytest.mark.parametrize("name", ["", ".hidden", "a//b", "/a", "a/", "../a", "a b", "ä", "a" * 1100])
def test_names_that_would_need_quoting_or_do_not_fit_are_refused(name: str) -> None:
    with pytest.raises(ToolkitError):
        naming.check(name, "prod/")
