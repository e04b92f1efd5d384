"""Reads the YAML file that describes an endpoint; every error names its line."""

from __future__ import annotations

from pathlib import Path

import msgspec
import yaml

from mmekit_toolkit.deploy.description import Description
from mmekit_toolkit.errors import BadDescription


def read(path: Path) -> Description:
    """Return what the file says. Raises BadDescription with ``file:line`` and what was expected."""
    try:
        return msgspec.convert(yaml.safe_load(path.read_bytes()), Description)
    except (yaml.YAMLError, msgspec.ValidationError) as error:
        raise BadDescription(f"{path}: {error}") from error
