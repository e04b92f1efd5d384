"""How a person names an endpoint: by its name, or by the file that describes it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import click

from mmekit_toolkit.deploy.description import Description
from mmekit_toolkit.errors import NotFound

_SUFFIXES = (".yaml", ".yml")
#: botocore: EndpointName.
_NAME = re.compile("[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")


@dataclass(frozen=True)
class Reference:
    """An endpoint; ``description`` is there when it was named by its file."""

    name: str
    description: Description | None = None

    @property
    def region(self) -> str | None:
        """The region that the file names."""
        return self.description.region if self.description else None


def resolve(text: str) -> Reference:
    """Return what an argument ``ENDPOINT`` names: ``churn``, or ``endpoint.yaml``.

    Raises BadDescription for a file that cannot be used, NotFound for one that is not there, UsageError for
    what can be neither.
    """
    if not text.endswith(_SUFFIXES):
        if not _NAME.fullmatch(text):
            raise click.UsageError(
                f'"{text}" is neither an endpoint\'s name nor a file that ends with .yaml.'
            )
        return Reference(text)
    path = Path(text)
    if not path.is_file():
        raise NotFound(f"there is no file {text}. Expected an endpoint's name, or the YAML file of one.")
    from mmekit_toolkit.deploy import file  # and with it YAML, which the base install lacks

    description = file.read(path)
    return Reference(description.name, description)
