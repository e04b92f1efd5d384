"""Puts archives and folders with manifests into the store."""

from __future__ import annotations

import json
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

from tests.support.mms import MMS

_MANIFEST = {
    "runtime": "python3",
    "engine": {"engineName": "Own", "engineVersion": "2"},
    "model": {"modelName": "from-manifest", "modelVersion": "1.5", "handler": "service:handle"},
    "specificationVersion": "1.0",
}


def _pack(store: Path, source: str, name: str, archive_format: str) -> None:
    """Pack with MMS's own model-archiver."""
    # As a module: pip may have found it among the packages that build/mms borrows.
    archiver = [MMS / "bin" / "python", "-m", "model_archiver.model_packaging"]
    command = [*archiver, "--model-name", name, "--model-path", store / source]
    options = ["--handler", "service:handle", "--export-path", store, "--archive-format", archive_format]
    subprocess.run([*command, *options], check=True, capture_output=True)


def _folder(store: Path, name: str, manifest: Any = None, source: str = "echo") -> Path:
    """Copy a model under another name, with a manifest: text as it is, other values as JSON."""
    folder = store / name
    shutil.copytree(store / source, folder, ignore=shutil.ignore_patterns("__pycache__"))
    if manifest is not None:
        (folder / "MAR-INF").mkdir()
        text = manifest if isinstance(manifest, str) else json.dumps(manifest)
        (folder / "MAR-INF" / "MANIFEST.json").write_text(text)
    return folder


def _manifest(**changed: Any) -> dict[str, Any]:
    return {name: value for name, value in {**_MANIFEST, **changed}.items() if value is not None}


def archives(store: Path) -> None:
    """What is packed well and badly."""
    _pack(store, "echo", "packed", "default")
    _pack(store, "echo", "packed-tgz", "tgz")
    _pack(store, "echo", "packed-folder", "no-archive")
    _folder(store, "with-manifest", _manifest())
    _folder(store, "broken-manifest", "{broken")
    _folder(store, "array-manifest", [])
    _folder(store, "no-model", _manifest(model=None))
    _folder(store, "no-name", _manifest(model={"handler": "service:handle"}))
    _folder(store, "no-handler", _manifest(model={"modelName": "no-handler"}))
    _folder(store, "no-engine-name", _manifest(engine={"engineVersion": "2"}))
    _folder(store, "no-runtime", _manifest(runtime=None))
    _folder(store, "other-runtime", _manifest(runtime="perl"))
    with zipfile.ZipFile(store / "plain.zip", "w") as archive:
        archive.write(store / "echo" / "service.py", "service.py")
    with zipfile.ZipFile(store / "escaping.zip", "w") as archive:
        archive.write(store / "echo" / "service.py", "service.py")
        archive.writestr("../escaped.txt", "escaped")
    (store / "garbage.mar").write_text("no archive")
    (store / "empty.mar").touch()
    (store / "empty").mkdir()
    _folder(store, "two..dots")


def startup(store: Path) -> None:
    """A folder `startup` for load_models=ALL."""
    startup = store / "startup"
    startup.mkdir()
    _folder(store, "startup/folder", _manifest())
    _folder(store, "startup/.hidden", _manifest())
    _folder(store, "startup/without manifest")
    for name in ("first.mar", "second.model", "third.zip"):
        model = Path(name).stem
        _pack(store, "echo", model, "default")
        shutil.move(store / f"{model}.mar", startup / name)
    (startup / "notes.txt").write_text("no model")
