"""Archives of a folder, and how a prefix becomes what the folder has."""

from __future__ import annotations

import gzip
import os
from datetime import datetime, timezone
from pathlib import Path

import pytest

from mmekit_toolkit.aws.s3 import StoredObject
from mmekit_toolkit.errors import NotFound, ToolkitError
from mmekit_toolkit.operate import archives, catalog, sync

NOON = datetime(2026, 11, 27, 12, tzinfo=timezone.utc)


def write(file: Path, content: bytes, at: int = 1) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(gzip.compress(content, mtime=0))
    os.utime(file, (at, at))
    return file


def test_a_folder_of_archives_is_part_of_names_and_any_other_is_a_model(tmp_path: Path) -> None:
    write(tmp_path / "churn.tar.gz", b"1")
    write(tmp_path / "tenants" / "a" / "churn.tar.gz", b"2")
    write(tmp_path / "tenants" / "b" / "churn.tgz", b"3")
    (tmp_path / "model" / "code").mkdir(parents=True)
    (tmp_path / "model" / "code" / "inference.py").write_text("")
    (tmp_path / "README.md").write_text("")
    (tmp_path / ".git").mkdir()
    (tmp_path / "empty").mkdir()
    found = [(path.relative_to(tmp_path).as_posix(), above) for path, above in archives.find(tmp_path)]
    assert found == [
        ("churn.tar.gz", ""),
        ("empty", ""),
        ("model", ""),
        ("tenants/a/churn.tar.gz", "tenants/a/"),
        ("tenants/b/churn.tgz", "tenants/b/"),
    ]


def test_what_is_no_archive_is_refused_before_anything_is_uploaded(tmp_path: Path) -> None:
    (tmp_path / "plain.tar.gz").write_bytes(b"plain")
    (tmp_path / "model.zip").write_bytes(b"PK")
    for name in ("plain.tar.gz", "model.zip"):
        with pytest.raises(ToolkitError, match=r"not a \.tar\.gz"):
            archives.of_file(tmp_path / name)
    with pytest.raises(NotFound):
        archives.of_file(tmp_path / "missing.tar.gz")


def test_a_plan_uploads_what_is_missing_the_oldest_first_and_names_what_is_surplus(tmp_path: Path) -> None:
    new = archives.of_file(write(tmp_path / "churn-2.tar.gz", b"new", at=200), "churn")
    old = archives.of_file(write(tmp_path / "churn-1.tar.gz", b"old", at=100), "churn")
    there = archives.of_file(write(tmp_path / "fraud.tar.gz", b"there", at=300))
    again = archives.of_file(write(tmp_path / "copy" / "fraud.tar.gz", b"there", at=300))
    keys = [there.target, "fraud-000000000000.tar.gz", "foreign.tar.gz"]
    entries = catalog.entries(StoredObject(key, 1, NOON) for key in keys)
    plan = sync.plan([new, old, there, again], entries)
    assert [archive.file.name for archive in plan.uploads] == ["churn-1.tar.gz", "churn-2.tar.gz"]
    assert [entry.target for entry in plan.surplus] == ["fraud-000000000000.tar.gz"]
