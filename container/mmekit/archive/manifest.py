"""A model's manifest: MAR-INF/MANIFEST.json, or the MANIFEST.json of archives before MMS 1.0.

Facts: MMS archive/Manifest.java, archive/LegacyManifest.java, archive/ModelArchive.java. Reads files,
so it is called off the event loop.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmekit.errors import BadRequest, InvalidModel

MANIFEST = "MAR-INF/MANIFEST.json"
#: At the top of an archive made for MMS 0.4 and before.
LEGACY_MANIFEST = "MANIFEST.json"

#: What MMS takes for ``runtime``; all of them mean Python here.
RUNTIMES = ("python", "python2", "python3")

#: A manifest is a few hundred bytes; more is not one.
MAX_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Manifest:
    """What a manifest says; ``raw`` is the whole document, as handlers get it."""

    model_name: str | None
    #: A handler string; of a legacy archive the name of a file.
    handler: str | None
    model_version: str | None
    #: One of ``RUNTIMES``.
    runtime: str
    engine_name: str | None
    engine_version: str | None
    #: An archive for MMS 0.4: its handler is a file with a subclass of SingleNodeService.
    legacy: bool
    raw: dict[str, Any]


def read_manifest(folder: Path) -> Manifest | None:
    """Return the manifest of a model's folder, None when it has none.

    A MANIFEST.json at the top that has no "Model" is some other file. Raises InvalidModel when a
    manifest cannot be used, OSError when it cannot be read.
    """
    file = folder / MANIFEST
    if file.is_file():
        return parse(_content(file, MANIFEST), MANIFEST)
    file = folder / LEGACY_MANIFEST
    if file.is_file():
        return parse_legacy(_content(file, LEGACY_MANIFEST))
    return None


def parse(content: bytes, name: str = MANIFEST) -> Manifest:
    """Return what a MAR-INF/MANIFEST.json says. Raises InvalidModel."""
    raw = _document(content, name)
    model = _object(raw, "model", name)
    engine = _object(raw, "engine", name)
    if raw.get("engine") is not None and not engine.get("engineName"):
        raise InvalidModel(f"engineName is required in <engine>. {name} has the engine {engine!r:.200}.")
    runtime = raw.get("runtime", "python")
    if runtime not in RUNTIMES:
        raise InvalidModel(
            f'Runtime is not defined or invalid. Expected one of {", ".join(RUNTIMES)} in "runtime" of '
            f"{name}, found {runtime!r:.200}."
        )
    return Manifest(
        model_name=_text(model, "modelName", name),
        handler=_handler(model.get("handler"), "model.handler", name),
        model_version=_text(model, "modelVersion", name),
        runtime=runtime,
        engine_name=_text(engine, "engineName", name),
        engine_version=_text(engine, "engineVersion", name),
        legacy=False,
        raw=raw,
    )


def parse_legacy(content: bytes) -> Manifest | None:
    """Return what the MANIFEST.json of an old archive says, None when it is no manifest.

    Raises InvalidModel when it is not JSON or names no service.
    """
    name = LEGACY_MANIFEST
    raw = _document(content, name)
    if not isinstance(model := raw.get("Model"), dict):
        return None
    handler = _handler(model.get("Service"), "Model.Service", name)
    if handler is None:
        raise InvalidModel(
            f'Missing Service entry in {name}. Expected the name of a file in "Model", as "Service": '
            f'"service.py"; found {model!r:.200}.'
        )
    engine = raw.get("Engine")
    version = engine.get("MXNet") if isinstance(engine, dict) else None
    return Manifest(
        model_name=_text(model, "Model-Name", name),
        handler=handler,
        model_version="snapshot",  # MMS: LegacyManifest.migrate
        runtime="python",
        engine_name="MXNet" if version is not None else None,
        engine_version=str(version) if version is not None else None,
        legacy=True,
        raw=raw,
    )


def checked_runtime(runtime: str) -> str:
    """Return the ``runtime`` of a register request. Raises BadRequest for one that MMS does not know."""
    if runtime not in RUNTIMES:
        raise BadRequest(f"Invalid RuntimeType value: {runtime:.200}. Expected one of {', '.join(RUNTIMES)}.")
    return runtime


def _content(file: Path, name: str) -> bytes:
    with file.open("rb") as opened:
        content = opened.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise InvalidModel(f"Failed to parse {name}: it is larger than {MAX_BYTES} bytes.")
    return content


def _document(content: bytes, name: str) -> dict[str, Any]:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InvalidModel(f"Failed to parse {name}: {error}") from error
    if not isinstance(document, dict):
        raise InvalidModel(f"Failed to parse {name}: expected an object, found {_json_type(document)}.")
    return document


def _object(raw: dict[str, Any], key: str, name: str) -> dict[str, Any]:
    """Return an object of the document, an empty one when it is not there."""
    found = raw.get(key)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise InvalidModel(
            f'Failed to parse {name}: expected an object in "{key}", found {_json_type(found)}.'
        )
    return found


def _text(found: dict[str, Any], key: str, name: str) -> str | None:
    """Return a text; numbers are taken as texts, as MMS's reader does (modelVersion is often one)."""
    value = found.get(key)
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise InvalidModel(
            f'Failed to parse {name}: expected a string in "{key}", found {_json_type(value)}.'
        )
    return _sendable(str(value), key, name)


def _sendable(text: str, key: str, name: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidModel(
            f'Failed to parse {name}: "{key}" has a lone surrogate, half a character: {text!a:.99}.'
        ) from None
    return text


def _handler(value: object, key: str, name: str) -> str | None:
    if value is not None and not isinstance(value, str):
        raise InvalidModel(
            f'Failed to parse {name}: expected a string such as "service.py:handle" in "{key}", found '
            f"{_json_type(value)}."
        )
    return _sendable(value, key, name) if value else None


def _json_type(value: object) -> str:
    names = {list: "a list", dict: "an object", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
