"""Lists: filters, order and pages, the same for all List operations.

A page's token holds the place of its last entry in the order, not a number of entries, so that what is added
or removed between two calls neither repeats nor hides another entry.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

from mmekit_endpoint.errors import ValidationException

Entry = TypeVar("Entry")

#: Entries of a page where a request has no MaxResults (AWS: 10, at most 100).
DEFAULT_PAGE = 10

#: Members that say which page is meant; all others must stay the same from page to page.
_PAGING = {"NextToken", "MaxResults"}


class _Place(msgspec.Struct, frozen=True, array_like=True):
    """What a token says: the digest of its query, and the sort key of the last entry that was given."""

    query: str
    key: float | str
    name: str


@dataclass(frozen=True)
class Listing(Generic[Entry]):
    """How entries of one kind are filtered and sorted: what each member of a request looks at."""

    name: Callable[[Entry], str]
    created: Callable[[Entry], float]
    modified: Callable[[Entry], float] | None = None
    status: Callable[[Entry], str] | None = None
    sort_by: str = "CreationTime"
    sort_order: str = "Descending"

    def page(self, entries: Sequence[Entry], query: Mapping[str, Any]) -> tuple[list[Entry], str | None]:
        """Return a request's page, and the token of the next one, if any.

        Raises
        ------
        ValidationException
            When the token is none of ours, or of another query.
        """
        digest = _digest(query)
        place = _place(query.get("NextToken"), digest)
        descending = query.get("SortOrder", self.sort_order) == "Descending"
        sort_by = query.get("SortBy", self.sort_by)
        key = self._key(sort_by)
        chosen = sorted((e for e in entries if self._matches(e, query)), key=key, reverse=descending)
        if place is not None:
            if isinstance(place.key, str) == (sort_by == "CreationTime"):
                raise _bad_token()
            last = (place.key, place.name)
            chosen = [e for e in chosen if (key(e) < last if descending else key(e) > last)]
        size = query.get("MaxResults", DEFAULT_PAGE)
        page = chosen[:size]
        if len(chosen) <= size:
            return page, None
        return page, _token(_Place(digest, *key(page[-1])))

    def _matches(self, entry: Entry, query: Mapping[str, Any]) -> bool:
        contained = query.get("NameContains", "").lower() in self.name(entry).lower()
        right_status = self.status is None or query.get("StatusEquals") in (None, self.status(entry))
        return (
            contained
            and right_status
            and _within(self.created(entry), query, "CreationTime")
            and (self.modified is None or _within(self.modified(entry), query, "LastModifiedTime"))
        )

    def _key(self, sort_by: str) -> Callable[[Entry], tuple[float | str, str]]:
        of: Callable[[Entry], float | str] = self.created
        if sort_by == "Name":
            of = self.name
        elif sort_by == "Status" and self.status is not None:
            of = self.status
        return lambda entry: (of(entry), self.name(entry))


def _within(time: float, query: Mapping[str, Any], member: str) -> bool:
    after, before = query.get(f"{member}After"), query.get(f"{member}Before")
    return (after is None or time > after) and (before is None or time < before)


def _digest(query: Mapping[str, Any]) -> str:
    filters = sorted((name, value) for name, value in query.items() if name not in _PAGING)
    return hashlib.sha256(msgspec.json.encode(filters)).hexdigest()[:16]


def _token(place: _Place) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).decode()


def _place(token: str | None, digest: str) -> _Place | None:
    if token is None:
        return None
    try:
        place = msgspec.json.decode(base64.urlsafe_b64decode(token.encode()), type=_Place)
    except (ValueError, msgspec.DecodeError):
        raise _bad_token() from None
    if place.query != digest:
        raise _bad_token()
    return place


def _bad_token() -> ValidationException:
    return ValidationException(
        "The NextToken of this request is none that this operation gave with the same filters and order; "
        "ask for the first page again, without a NextToken."
    )
