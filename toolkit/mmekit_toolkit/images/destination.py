"""Where an image goes: the account's ECR by default, another registry where its host is named."""

from __future__ import annotations

from dataclasses import dataclass

from mmekit_toolkit.aws import ecr
from mmekit_toolkit.errors import ToolkitError
from mmekit_toolkit.images import name
from mmekit_toolkit.images.image import Image


@dataclass(frozen=True)
class Destination:
    """A repository and a tag; without a host it is one of the caller's own ECR."""

    host: str | None
    repository: str
    tag: str

    @property
    def is_ecr(self) -> bool:
        """Whether AWS is asked for repository and token."""
        return self.host is None or ecr.address(self.host) is not None


def choose(image: Image, repository: str | None, tag: str | None) -> Destination:
    """Return where an image goes, by its own name and what the caller asks for.

    ``repository`` is a name, with the registry's host before it or without. Raises ToolkitError for names
    that cannot be.
    """
    own = None if _is_id(image) else name.parse(image.name)
    if repository is None and own is None:
        raise ToolkitError(f"{image.name} is an image's id, not a name: say where it goes with --repository.")
    wanted = name.parse(repository) if repository is not None else own
    assert wanted
    if repository is not None and (wanted.tag or wanted.digest):
        raise ToolkitError(f"--repository {repository}: expected a name without tag; --tag gives one.")
    found = Destination(
        host=wanted.registry,
        repository=wanted.repository,
        tag=name.check_tag(tag or (own and own.tag) or f"sha-{image.short_id}"),
    )
    if found.is_ecr:
        ecr.check_repository(found.repository)
    return found


def _is_id(image: Image) -> bool:
    text = image.name.removeprefix("sha256:")
    return len(text) >= 7 and image.id.removeprefix("sha256:").startswith(text)
