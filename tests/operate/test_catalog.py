"""Objects below a prefix, seen as models with versions."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from mmekit_toolkit.aws.s3 import StoredObject
from mmekit_toolkit.errors import NotFound
from mmekit_toolkit.operate import catalog

NOON = datetime(2026, 11, 27, 12, tzinfo=timezone.utc)


def stored(path: str, age_s: int = 0) -> StoredObject:
    return StoredObject(path, 100, NOON - timedelta(seconds=age_s))


OLD, NEW = "churn-000000000001.tar.gz", "churn-000000000002.tar.gz"
OTHER = "tenant_a/churn-000000000003.tar.gz"
ALL = catalog.entries(
    [stored(OLD, 60), stored(NEW), stored(OTHER), stored("plain.tar.gz"), stored("notes.txt")]
)


def test_versions_stand_by_name_the_newest_first_and_foreign_keys_among_them() -> None:
    assert [entry.target for entry in ALL] == [NEW, OLD, "notes.txt", "plain.tar.gz", OTHER]
    assert [entry.target for entry in ALL if entry.current] == [NEW, OTHER]
    assert [entry.target for entry in ALL if entry.name is None] == ["notes.txt", "plain.tar.gz"]


def test_of_two_versions_of_one_second_the_later_key_is_current() -> None:
    entries = catalog.entries([stored(NEW), stored(OLD)])
    assert [entry.target for entry in entries if entry.current] == [NEW]


def test_a_name_is_its_newest_version_or_the_foreign_archive_of_that_name() -> None:
    assert catalog.newest(ALL, "churn") == NEW
    assert catalog.newest(ALL, "tenant_a/churn") == OTHER
    assert catalog.newest(ALL, "plain") == "plain.tar.gz"


def test_a_name_that_is_not_there_gets_what_is_similar() -> None:
    with pytest.raises(NotFound, match=r"no model chrun. Did you mean .*churn"):
        catalog.newest(ALL, "chrun")
    with pytest.raises(NotFound, match="models add"):
        catalog.newest([], "churn")


@pytest.mark.parametrize(
    ("wanted", "keep", "targets"),
    [
        (["churn"], None, [NEW, OLD]),
        (["churn"], 1, [OLD]),
        (["churn"], 2, []),
        ([], 1, [OLD]),
        ([NEW], None, [NEW]),
        ([NEW, "churn"], None, [NEW, OLD]),
        (["plain.tar.gz"], None, ["plain.tar.gz"]),
    ],
)
def test_a_target_is_one_version_and_a_name_all_but_those_kept(
    wanted: list[str], keep: int | None, targets: list[str]
) -> None:
    assert [entry.target for entry in catalog.chosen(ALL, wanted, keep)] == targets


def test_keeping_some_of_all_names_leaves_foreign_keys_alone() -> None:
    assert not [entry for entry in catalog.chosen(ALL, [], 1) if entry.name is None]
