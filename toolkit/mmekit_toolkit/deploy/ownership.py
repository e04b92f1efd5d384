"""What makes a resource ours: two tags. Nothing without them is changed or deleted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mmekit import __version__

#: The endpoint that a resource belongs to.
ENDPOINT_TAG = "mmekit:endpoint"
#: The version of mmekit that made it.
VERSION_TAG = "mmekit:version"


def tags(endpoint: str, more: Mapping[str, str]) -> list[dict[str, str]]:
    """Return the tags of a resource of this endpoint, as SageMaker's ``Tags`` has them; ours last."""
    all_of_them = {**more, ENDPOINT_TAG: endpoint, VERSION_TAG: __version__}
    return [{"Key": key, "Value": value} for key, value in all_of_them.items()]


def is_ours(tags: Iterable[Mapping[str, str]], endpoint: str) -> bool:
    """Say whether a resource with these tags belongs to the endpoint."""
    return any(tag.get("Key") == ENDPOINT_TAG and tag.get("Value") == endpoint for tag in tags)
