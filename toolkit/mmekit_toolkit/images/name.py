"""Names of images, as docker reads them: ``registry/repository:tag@digest``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mmekit_toolkit.errors import ToolkitError

# https://github.com/distribution/reference, reference.go: the grammar is in its first lines.
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class ImageName:
    """A parsed name; ``registry`` is None where docker would take Docker Hub."""

    registry: str | None
    repository: str
    tag: str | None = None
    digest: str | None = None

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return self.address + tag + (f"@{self.digest}" if self.digest else "")

    @property
    def address(self) -> str:
        """The name without tag and digest: what AWS calls the repository's URI."""
        return f"{self.registry}/{self.repository}" if self.registry else self.repository


def parse(text: str) -> ImageName:
    """Return the parts of a name. Raises ToolkitError for what cannot be one."""
    rest, _, digest = text.partition("@")
    first, slash, after = rest.partition("/")
    is_registry = slash and ("." in first or ":" in first or first == "localhost")
    registry, path = (first, after) if is_registry else (None, rest)
    repository, _, tag = path.partition(":")
    complete = not text.endswith((":", "@", "/")) and bool(repository)
    if not complete or (tag and not _TAG.fullmatch(tag)) or (digest and not _DIGEST.fullmatch(digest)):
        raise ToolkitError(f"{text!r} is no name of an image. Expected NAME:TAG, such as churn:1.0.")
    return ImageName(registry, repository, tag or None, digest or None)


def check_tag(tag: str) -> str:
    """Return the tag. Raises ToolkitError for what no registry takes."""
    if not _TAG.fullmatch(tag):
        raise ToolkitError(
            f"{tag!r} is no tag of an image. Expected up to 128 letters, digits, '_', '.' and '-', the first "
            "no '.' or '-'."
        )
    return tag
