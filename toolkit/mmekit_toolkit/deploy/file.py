"""Reads the YAML file that describes an endpoint; every error names its line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmekit_toolkit.deploy import rules
from mmekit_toolkit.deploy.conversion import convert
from mmekit_toolkit.deploy.description import Description
from mmekit_toolkit.deploy.document import Document, parse
from mmekit_toolkit.errors import BadDescription, NotFound

#: Options that say what a variant's field is; all others are named as the file's own fields.
_OF_THE_VARIANT = ("instance_type", "instances")


def read(path: Path, options: Mapping[str, Any] | None = None) -> Description:
    """Return what the file says, with ``options`` (field → value) in place of what it has.

    Raises
    ------
    BadDescription
        When the file cannot be used; the message has all errors that were found, each with ``file:line``.
    NotFound
        When there is no such file.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise NotFound(
            f"there is no file {path}; expected the YAML file that describes an endpoint."
        ) from error
    except OSError as error:
        raise BadDescription(f"{path}: cannot be read: {error.strerror}.") from error
    return _described(parse(str(path), data), options or {})


def compose(options: Mapping[str, Any]) -> Description:
    """Return an endpoint of one variant, from options (field → value) alone. Raises BadDescription."""
    return _described(Document("options", {"variants": [{}]}), options)


def _described(document: Document, options: Mapping[str, Any]) -> Description:
    if not document.errors:
        _overlay(document, options)
    description = convert(document)
    if description is not None:
        for path, text in rules.complaints(description):
            document.complain(path, text)
    if description is None or document.errors:
        raise BadDescription(_listed(document))
    return description


def _overlay(document: Document, options: Mapping[str, Any]) -> None:
    if not isinstance(document.values, dict):
        return  # the schema's own complaint is the better one
    for name, value in options.items():
        place = "--" + name.replace("_", "-")
        if name not in _OF_THE_VARIANT:
            document.set((name,), value, place)
            continue
        variants = document.values.get("variants")
        if not isinstance(variants, list) or len(variants) != 1 or not isinstance(variants[0], dict):
            document.errors.append(f"{place}: is for endpoints of one variant; change it in {document.name}.")
            continue
        document.set(("variants", 0, name), value, place)


def _listed(document: Document) -> str:
    if len(document.errors) == 1:
        return document.errors[0]
    lines = "\n  ".join(document.errors)
    return f"{len(document.errors)} errors in {document.name}:\n  {lines}"
