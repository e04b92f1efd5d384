"""What a manifest says, and what is said about one that cannot be used."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmekit import artifact, choice
from mmekit.archive.manifest import (
    LEGACY_MANIFEST,
    MANIFEST,
    checked_runtime,
    parse,
    parse_legacy,
    read_manifest,
)
from mmekit.errors import BadRequest, InvalidModel

FULL = {
    "runtime": "python3",
    "model": {
        "modelName": "resnet-18",
        "handler": "service.py:handle",
        "modelVersion": 1.1,
        "extensions": {},
    },
    "engine": {"engineName": "MXNet", "engineVersion": "1.3"},
    "specificationVersion": "1.0",
    "userData": {"anything": [1, 2]},
}
LEGACY = {
    "Engine": {"MXNet": 0.12},
    "Model-Archive-Version": 0.1,
    "Model": {"Model-Name": "squeezenet", "Service": "service.py", "Signature": "signature.json"},
}


def written(folder: Path, name: str, document: Any) -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(document if isinstance(document, str) else json.dumps(document))
    return folder


def test_a_manifest_names_model_handler_version_runtime_and_engine(tmp_path: Path) -> None:
    found = artifact.inspect(written(tmp_path, MANIFEST, FULL))
    assert (found.model_name, found.handler, found.model_version) == ("resnet-18", "service.py:handle", "1.1")
    assert (found.engine, found.runtime_name, found.legacy) == ("MXNet", "python3", False)
    assert found.manifest == FULL


def test_a_manifest_may_leave_out_everything() -> None:
    found = parse(b"{}")
    assert (found.model_name, found.handler, found.runtime, found.engine_name) == (None, None, "python", None)


def test_a_folder_needs_no_manifest(tmp_path: Path) -> None:
    (tmp_path / "model.ubj").write_bytes(b"x")
    found = artifact.inspect(tmp_path)
    assert (found.manifest, found.model_name, found.runtime_name, found.legacy) == (
        None,
        None,
        "python",
        False,
    )


def test_a_legacy_manifest_names_a_file_as_handler(tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text("")
    found = artifact.inspect(written(tmp_path, LEGACY_MANIFEST, LEGACY))
    assert (found.model_name, found.handler, found.legacy) == ("squeezenet", "service.py", True)
    assert (found.engine, found.manifest) == ("MXNet", LEGACY)
    assert choice.choose(found).handler == "service.py"


def test_the_manifest_in_mar_inf_comes_before_a_legacy_one(tmp_path: Path) -> None:
    written(tmp_path, LEGACY_MANIFEST, LEGACY)
    found = read_manifest(written(tmp_path, MANIFEST, FULL))
    assert found is not None
    assert not found.legacy


def test_another_file_of_the_legacy_name_is_no_manifest(tmp_path: Path) -> None:
    assert read_manifest(written(tmp_path, LEGACY_MANIFEST, {"files": ["a"]})) is None


@pytest.mark.parametrize(
    ("document", "start"),
    [
        ("{", "Failed to parse MAR-INF/MANIFEST.json: "),
        ("[]", "Failed to parse MAR-INF/MANIFEST.json: expected an object, found a list"),
        ("[" * 100_000, "Failed to parse MAR-INF/MANIFEST.json: "),
        ({"runtime": "java"}, "Runtime is not defined or invalid. Expected one of python, python2, python3"),
        ({"runtime": None}, "Runtime is not defined or invalid."),
        ({"runtime": ["python"]}, "Runtime is not defined or invalid."),
        ({"engine": {}}, "engineName is required in <engine>."),
        ({"engine": {"engineVersion": "1"}}, "engineName is required in <engine>."),
        ({"engine": "MXNet"}, 'Failed to parse MAR-INF/MANIFEST.json: expected an object in "engine"'),
        ({"model": []}, 'Failed to parse MAR-INF/MANIFEST.json: expected an object in "model", found a list'),
        (
            {"model": {"modelName": []}},
            'Failed to parse MAR-INF/MANIFEST.json: expected a string in "modelName"',
        ),
        ({"model": {"handler": 3}}, "Failed to parse MAR-INF/MANIFEST.json: expected a string such as"),
        (" " * 1024 * 1024 + "{}", "Failed to parse MAR-INF/MANIFEST.json: it is larger than"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_manifest_that_cannot_be_used_is_refused_in_mmss_words(
    tmp_path: Path, document: Any, start: str
) -> None:
    with pytest.raises(InvalidModel) as caught:
        artifact.inspect(written(tmp_path, MANIFEST, document))
    assert caught.value.message.startswith(start)


@pytest.mark.parametrize("service", [{}, {"Service": None}, {"Service": ""}])
def test_a_legacy_manifest_without_a_service_is_refused(service: dict[str, Any]) -> None:
    with pytest.raises(InvalidModel, match=r"^Missing Service entry in MANIFEST\.json") as caught:
        parse_legacy(json.dumps({"Model": service}).encode())
    assert caught.value.message.endswith(f"; found {service}.")


def test_a_legacy_manifest_that_is_not_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidModel, match=r"^Failed to parse MANIFEST\.json: "):
        read_manifest(written(tmp_path, LEGACY_MANIFEST, "{"))


def test_a_runtime_that_mms_does_not_know_is_a_bad_request() -> None:
    assert checked_runtime("python2") == "python2"
    with pytest.raises(BadRequest, match=r"^Invalid RuntimeType value: java"):
        checked_runtime("java")


_KEYS = st.text() | st.sampled_from(
    [
        "model",
        "engine",
        "runtime",
        "modelName",
        "handler",
        "modelVersion",
        "engineName",
        "Model",
        "Service",
        "Engine",
    ]
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda below: st.lists(below) | st.dictionaries(_KEYS, below),
    max_leaves=12,
)


@given(_JSON)
def test_any_json_is_a_manifest_or_refused(document: Any) -> None:
    content = json.dumps(document).encode()
    for read in (parse, parse_legacy):
        with contextlib.suppress(InvalidModel):
            read(content)
