"""What the engine knows about an image: a snapshot, to be judged without the engine."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any

from mmekit_toolkit.errors import NotFound


@dataclass(frozen=True)
class Image:
    """An image of the engine's store."""

    #: As the caller named it.
    name: str
    #: The digest of its configuration; of its manifest where the engine keeps images in containerd.
    id: str
    #: ``repository@digest`` of what was pushed or pulled.
    digests: tuple[str, ...]
    labels: dict[str, str]
    #: None: the image has none. ``/bin/sh -c …`` is what docker makes of the shell form.
    entry_point: tuple[str, ...] | None
    user: str
    #: As EXPOSE has them: ``8080/tcp``.
    ports: frozenset[str]
    #: ``linux/amd64``.
    platform: str
    size_bytes: int
    #: Of its manifest, where the engine has one before a push: engines that keep images in containerd.
    media_type: str | None = None

    @property
    def short_id(self) -> str:
        """The twelve digits that docker shows."""
        return self.id.removeprefix("sha256:")[:12]


def look(client: Any, name: str) -> Image:  # Any: docker ships no types
    """Return what the engine knows about an image. Raises NotFound."""
    from docker.errors import ImageNotFound

    try:
        answer = client.api.inspect_image(name)
    except ImageNotFound as error:
        raise NotFound(_not_there(client, name)) from error
    return read(name, answer)


def read(
    name: str, answer: dict[str, Any]
) -> Image:  # Any: values of many types, as the engine's JSON has them
    """Return the image that the engine's answer describes (Docker Engine API: ImageInspect)."""
    config = answer.get("Config") or {}
    entry_point = config.get("Entrypoint")
    return Image(
        name=name,
        id=answer["Id"],
        digests=tuple(answer.get("RepoDigests") or ()),
        labels=config.get("Labels") or {},
        entry_point=tuple(entry_point) if entry_point else None,
        user=config.get("User") or "",
        ports=frozenset(config.get("ExposedPorts") or ()),
        platform=f"{answer.get('Os', 'linux')}/{answer.get('Architecture', '?')}",
        size_bytes=answer.get("Size") or 0,
        media_type=(answer.get("Descriptor") or {}).get("mediaType"),
    )


def _not_there(client: Any, name: str) -> str:
    known = [tag for image in client.api.images() for tag in image.get("RepoTags") or ()]
    similar = difflib.get_close_matches(name, known, n=3)
    others = f" It has {', '.join(similar)}." if similar else ""
    return f"the engine has no image {name}.{others} `mmekit build --tag {name}` makes one."
