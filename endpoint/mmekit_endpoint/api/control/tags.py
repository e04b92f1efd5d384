"""AddTags, ListTags, DeleteTags, and the tags that Create operations bring."""

from __future__ import annotations

from typing import Any

from mmekit_endpoint.api.control.context import Context
from mmekit_endpoint.api.control.listing import Listing
from mmekit_endpoint.errors import ValidationException

#: Tags of one resource (AWS).
LIMIT = 50

_LISTING: Listing[tuple[str, str]] = Listing(
    name=lambda tag: tag[0], created=lambda tag: 0.0, sort_by="Name", sort_order="Ascending"
)


def add_tags(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Add tags to a resource, or give those it has another value; answer all it has."""
    arn = _known(context, request["ResourceArn"])
    if not context.definitions.add_tags(arn, tags_of(request), limit=LIMIT):
        raise ValidationException(f'A resource has at most {LIMIT} tags; "{arn}" would have more.')
    return {"Tags": _as_list(context.definitions.tags(arn))}


def list_tags(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """List a resource's tags."""
    tags = context.definitions.tags(_known(context, request["ResourceArn"]))
    page, token = _LISTING.page(list(tags.items()), {"MaxResults": LIMIT, **request})
    return {"Tags": _as_list(dict(page))} | ({"NextToken": token} if token else {})


def delete_tags(context: Context, request: dict[str, Any]) -> dict[str, Any]:
    """Remove tags of a resource; those it does not have are none."""
    context.definitions.remove_tags(_known(context, request["ResourceArn"]), tuple(request["TagKeys"]))
    return {}


def tags_of(request: dict[str, Any]) -> dict[str, str]:
    """Return a request's Tags.

    Raises
    ------
    ValidationException
        When a key is there twice, or is one of AWS's own.
    """
    tags: dict[str, str] = {}
    for tag in request.get("Tags", []):
        key = tag["Key"]
        if key in tags:
            raise ValidationException(f'The tag key "{key}" is given twice.')
        if key.lower().startswith("aws:"):
            raise ValidationException(f'The tag key "{key}" begins with "aws:", which only AWS may use.')
        tags[key] = tag["Value"]
    return tags


def _known(context: Context, arn: str) -> str:
    lower = arn.lower()
    if not context.definitions.has_arn(lower):
        raise ValidationException(
            f'Could not find "{arn}". Models, endpoint configurations and endpoints have tags here.'
        )
    return lower


def _as_list(tags: dict[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]
