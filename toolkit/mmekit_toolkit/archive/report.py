"""The result of a check, as people and programs read it: ``--json`` is these structures as they are."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from mmekit_toolkit.archive.findings import Finding
from mmekit_toolkit.archive.signature import Signature


class Sizes(msgspec.Struct):
    """In bytes. ``memory_bytes`` is the server's first estimate for a load, None where nothing is loaded."""

    archive_bytes: int | None
    unpacked_bytes: int
    files: int
    memory_bytes: int | None = None
    memory_estimate: str | None = None


class Loads(msgspec.Struct):
    """What would be loaded and by what."""

    by: str
    handler: str | None
    program: str | None
    framework: str | None
    #: Functions and classes at the top of the program or the handler's file.
    defines: list[str]
    #: Python files of the model.
    code: list[str]
    requirements: list[str]
    #: What the manifest says, None without one.
    model_name: str | None
    model_version: str | None


class Import(msgspec.Struct):
    """What a pickle looks up when it is loaded, and what that is (``imports.Kind``)."""

    name: str
    kind: str


class Model(msgspec.Struct):
    """A file of the model; what it does not say is None or empty."""

    file: str
    size_bytes: int
    is_loaded: bool
    form: str
    model: str | None
    written_by: dict[str, str]
    columns: int | None
    column_names: list[str] | None
    imports: list[Import]


class SampleRequest(msgspec.Struct):
    """The archive's own request (mmekit.archive.sample)."""

    content_type: str
    accept: str | None
    size_bytes: int
    warm_up: int


class Compared(msgspec.Struct):
    """What versions and modules were compared with."""

    #: None: this environment.
    image: str | None
    python: str
    packages: dict[str, str]


class Loaded(msgspec.Struct):
    """What a real load and two calls took."""

    load_ms: float
    memory_bytes: int | None
    first_call_ms: float | None = None
    second_call_ms: float | None = None
    answer_status: int | None = None
    answer_type: str | None = None


class Report(msgspec.Struct):
    """All about one archive or folder."""

    source: str
    #: ``tar.gz``, ``tar``, ``zip``, ``folder``; None when it is none of these.
    form: str | None
    sha256: str | None
    sizes: Sizes
    loads: Loads | None
    models: list[Model]
    sample_request: SampleRequest | None
    signature: Signature | None
    compared_with: Compared
    findings: list[Finding]
    loaded: Loaded | None = None


def json_text(document: Any) -> str:  # Any: reports, and plain values around them
    """Return a document as JSON in ASCII: names in it may hold what is no UTF-8."""
    return json.dumps(msgspec.to_builtins(document), indent=2)
