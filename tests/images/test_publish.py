from __future__ import annotations

from collections.abc import Iterator

import pytest
from docker.errors import APIError

from mmekit_toolkit.images.image import read
from mmekit_toolkit.images.name import parse
from mmekit_toolkit.images.publish import Publication, is_same
from mmekit_toolkit.images.repository import OtherRepository

ID, MANIFEST, OTHER = ("sha256:" + digit * 64 for digit in "123")


@pytest.mark.parametrize(
    ("digests", "published", "image_id", "expected"),
    [
        ([f"ecr/churn@{MANIFEST}"], MANIFEST, None, True),
        ([f"elsewhere/churn@{MANIFEST}"], MANIFEST, None, True),
        ([f"ecr/churn@{OTHER}"], MANIFEST, None, False),
        ([], MANIFEST, None, False),
        ([], MANIFEST, OTHER, False),
        ([], MANIFEST, ID, True),  # pushed by another engine
        ([], ID, None, True),  # an engine that keeps images in containerd names them by manifest
    ],
)
def test_an_image_is_known_by_manifest_or_by_configuration(
    digests: list[str], published: str, image_id: str | None, expected: bool
) -> None:
    image = read("churn:1.0", {"Id": ID, "RepoDigests": digests})
    assert is_same(image, published, image_id) is expected


class Podman:
    """An engine that pushes but does not ask registries, as podman's docker API."""

    timeout = 120

    def __init__(self) -> None:
        self.tagged: list[tuple[str, ...]] = []

    @property
    def api(self) -> Podman:
        return self

    def tag(self, *names: str) -> None:
        self.tagged.append(names)

    def inspect_distribution(self, name: str, auth_config: object) -> None:
        raise APIError("500", explanation=f"Path /v1.41/distribution/{name}/json is not supported")

    def push(self, *_: object, **__: object) -> Iterator[dict[str, object]]:
        yield {"aux": {"Tag": "1.0", "Digest": MANIFEST, "Size": 527}}


def test_an_engine_that_cannot_ask_registries_gives_the_digest_itself() -> None:
    engine, remarks = Podman(), list[str]()
    image = read("churn:1.0", {"Id": ID})
    name = parse("registry.example.com/churn:1.0")
    repository = OtherRepository("registry.example.com", "churn")
    result = Publication(engine, image, repository, name, remarks.append).publish(lambda _: None)
    assert result.uri == f"registry.example.com/churn@{MANIFEST}"
    assert (result.pushed, result.media_type) == (True, None)
    assert engine.tagged == [("churn:1.0", "registry.example.com/churn", "1.0")]
    assert "cannot ask the registry" in remarks[0]
