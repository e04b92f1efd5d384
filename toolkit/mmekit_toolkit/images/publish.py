"""Publishing an image: what is there is left alone, what is not is pushed, the registry is asked again."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mmekit_toolkit.errors import ToolkitError
from mmekit_toolkit.images.image import Image
from mmekit_toolkit.images.name import ImageName
from mmekit_toolkit.images.remote import CannotAsk, Event, Published, Remote
from mmekit_toolkit.images.repository import Repository


@dataclass(frozen=True)
class Result:
    """An image in a registry."""

    name: ImageName
    digest: str
    #: None where the engine cannot ask the registry.
    media_type: str | None
    #: False: it was there already.
    pushed: bool

    @property
    def uri(self) -> str:
        """The name by digest."""
        return f"{self.name.address}@{self.digest}"


class Publication:
    """One image on its way to one tag of one repository."""

    def __init__(
        self,
        client: Any,
        image: Image,
        repository: Repository,
        name: ImageName,
        remark: Callable[[str], None],
    ) -> None:
        self._client = client
        self._image = image
        self._repository = repository
        self._name = name
        self._remote = Remote(client, name, repository.sign_in, remark)
        self._remark = remark

    def commands(self) -> list[str]:
        """Return what a person would type for the same, one command a line; nothing where it is there.

        Raises ToolkitError when the tag is another image's and cannot be moved.
        """
        if not self._repository.missing() and self._standing():
            return []
        words = ["docker", "tag", self._image.name, str(self._name)], ["docker", "push", str(self._name)]
        return [*self._repository.sign_in_command(), *map(shlex.join, words)]

    def publish(self, watch: Callable[[Event], None]) -> Result:
        """Push unless it is there. Raises ToolkitError, and KeyboardInterrupt with what was not done."""
        if there := self._standing():
            return Result(self._name, there.digest, there.media_type, pushed=False)
        self._client.api.tag(self._image.name, self._name.address, self._name.tag)
        digest = self._remote.push(watch)
        after = self._published()
        if after is None:
            self._remark("this engine cannot ask the registry; the digest is what it reports itself.")
            return Result(self._name, digest, None, pushed=True)
        if after.digest != digest:
            raise ToolkitError(
                f"{self._name} is {after.digest} in the registry, but {digest} was pushed: somebody else has "
                "written the tag at the same time. Push to a tag of your own."
            )
        return Result(self._name, digest, after.media_type, pushed=True)

    def _standing(self) -> Published | None:
        """Return what is under the tag if it is this image, None if the tag is free or may be moved."""
        there = self._published()
        if there is None:
            return None
        if is_same(self._image, there.digest, self._repository.image_id(str(self._name.tag))):
            return there
        if self._repository.keeps(str(self._name.tag)):
            raise ToolkitError(
                f"{self._name} is another image already ({there.digest}), and tags of this repository cannot "
                "be moved. Choose another with --tag."
            )
        self._remark(f"the tag {self._name.tag} moves: it is {there.digest} until now.")
        return None

    def _published(self) -> Published | None:
        try:
            return self._remote.published()
        except CannotAsk:
            return None


def is_same(image: Image, digest: str, image_id: str | None) -> bool:
    """Say whether what a registry has is this image.

    By its manifest, where this engine has pushed or pulled it; else by its configuration, which names all
    layers: the same image, pushed by another engine, may be compressed otherwise and have another digest.
    """
    pushed_or_pulled = {name.partition("@")[2] for name in image.digests}
    return digest in pushed_or_pulled or image.id in (digest, image_id)
