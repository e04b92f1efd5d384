"""Which models ``load_models`` names, and how they are called."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from mmekit.archive.startup import default_name, startup_models
from mmekit.archive.store import ModelStore
from tests.archive.support import FORMATS, MIB, archive_bytes, model_files


def store(root: Path | None) -> ModelStore:
    return ModelStore(root, False, MIB)


def test_all_takes_folders_and_archives_that_are_not_hidden(tmp_path: Path) -> None:
    for name in ("folder", ".hidden", "lost+found"):
        (tmp_path / name).mkdir()
    for name in (
        "a.mar",
        "b.model",
        "c.zip",
        "d.tar.gz",
        "e.tgz",
        "f.tar",
        ".x.mar",
        "notes.txt",
        "model.ubj",
    ):
        (tmp_path / name).write_bytes(b"no archive")
    found = startup_models("ALL", store(tmp_path))
    assert found == [
        ("a", "a.mar"),
        ("b", "b.model"),
        ("c", "c.zip"),
        ("d", "d.tar.gz"),
        ("e", "e.tgz"),
        ("f", "f.tar"),
        ("folder", "folder"),
    ]
    assert startup_models(" all ", store(tmp_path)) == found


def test_a_list_has_urls_with_and_without_names(tmp_path: Path) -> None:
    text = " one=a.mar, b/resnet-18.mar ,,two=,http://host/c.mar,three=http://host/d=e.mar"
    assert startup_models(text, store(tmp_path)) == [
        ("one", "a.mar"),
        ("resnet_18", "b/resnet-18.mar"),
        ("", "http://host/c.mar"),
        ("three", "http://host/d=e.mar"),
    ]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("above", ["", "iris/"])
def test_an_archives_manifest_names_the_model(tmp_path: Path, form: str, above: str) -> None:
    files = {above + name: content for name, content in model_files("from-manifest").items()}
    (tmp_path / "file.mar").write_bytes(archive_bytes(form, files.items()))
    assert startup_models("file.mar", store(tmp_path)) == [("from-manifest", "file.mar")]
    assert startup_models("given=file.mar", store(tmp_path)) == [("given", "file.mar")]


def test_a_folders_manifest_names_the_model(tmp_path: Path) -> None:
    (tmp_path / "folder/MAR-INF").mkdir(parents=True)
    (tmp_path / "folder/MAR-INF/MANIFEST.json").write_text('{"model": {"modelName": "named"}}')
    assert startup_models("ALL", store(tmp_path)) == [("named", "folder")]


def test_a_legacy_archives_manifest_names_the_model(tmp_path: Path) -> None:
    manifest = json.dumps({"Model": {"Model-Name": "old", "Service": "service.py"}}).encode()
    (tmp_path / "x.model").write_bytes(archive_bytes("zip", [("MANIFEST.json", manifest)]))
    assert startup_models("ALL", store(tmp_path)) == [("old", "x.model")]


@pytest.mark.parametrize("url", ["gone", "../gone", "s3://bucket/gone", "broken.mar", "bad"])
def test_what_cannot_be_read_is_listed_for_its_load_to_say_why(tmp_path: Path, url: str) -> None:
    (tmp_path / "broken.mar").write_bytes(b"PK\3\4")
    (tmp_path / "bad/MAR-INF").mkdir(parents=True)
    (tmp_path / "bad/MAR-INF/MANIFEST.json").write_text("{")
    ((name, found),) = startup_models(url, store(tmp_path))
    assert found == url
    assert name


@pytest.mark.parametrize("root", [None, Path("/nowhere/at/all")])
def test_all_without_a_store_is_a_warning(root: Path | None, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert startup_models("ALL", store(root)) == []
    assert "No models are loaded at start" in caplog.text


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("a/b/resnet-18.mar", "resnet_18"),
        ("model.tar.gz", "model"),
        ("noop-v1.0", "noop_v1_0"),
        ("folder/", "folder"),
        ("https://host/a%20b.mar?x=1.mar", "a_20b"),
        ("größe.zip", "gr__e"),
    ],
)
def test_the_default_name_is_the_files_with_underscores(url: str, name: str) -> None:
    assert default_name(url) == name
