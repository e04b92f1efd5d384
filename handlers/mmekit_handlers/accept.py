"""Media types in headers: ``Content-Type`` with parameters and ``Accept`` with lists and q-values.

Pure functions of header values, RFC 9110 sections 8.3 and 12.5.1; no numpy.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from mmekit.errors import NotAcceptable

#: Short and unregistered names that clients of AWS's containers send, and what they mean.
ALIASES = {
    "csv": "text/csv",
    "application/csv": "text/csv",
    "json": "application/json",
    "text/json": "application/json",
    "jsonlines": "application/jsonlines",
    "application/jsonl": "application/jsonlines",
    "application/json-lines": "application/jsonlines",
    "application/x-jsonlines": "application/jsonlines",
    "application/x-ndjson": "application/jsonlines",
    "npy": "application/x-npy",
    "application/npy": "application/x-npy",
    "npz": "application/x-npz",
    "application/npz": "application/x-npz",
}

# RFC 9110 5.6.6: a value is a token or a quoted string; a comma inside quotes separates nothing.
_PARAMETER = re.compile(r'\s*([^=;\s"]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^;]*)')
_LIST_ITEM = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*"?)+')


@dataclass(frozen=True, slots=True)
class MediaType:
    """``name`` in lower case with aliases resolved; parameter names in lower case, values as sent."""

    name: str
    parameters: Mapping[str, str]


@lru_cache(maxsize=256)
def parse(header: str) -> MediaType:
    """Parse one media type or range; never raises: what is not one simply matches nothing."""
    name, _, rest = header.partition(";")
    name = name.strip().lower()
    parameters = {key.lower(): _unquote(value.strip()) for key, value in _PARAMETER.findall(rest)}
    return MediaType(ALIASES.get(name, name), parameters)


@lru_cache(maxsize=512)
def choose(accept: str | None, offered: tuple[str, ...], default: str, preferred: str | None = None) -> str:
    """Return the offered type that ``accept`` wants most; raises ``NotAcceptable`` when none is wanted.

    No header, an empty one and ``*/*`` mean ``preferred`` (the setting
    SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT, itself an Accept value), else ``default``. Among equal
    q-values the one named first wins, as in AWS's containers.
    """
    if preferred:
        default = _preferred(preferred, offered, default) if _is_any(accept) else default
    if _is_any(accept):
        return default
    ranges = parse_accept(accept or "")
    best: tuple[float, int, int] | None = None
    chosen = ""
    for place, name in enumerate(_default_first(offered, default)):
        quality, position = _quality(name, ranges)
        rank = (-quality, position, place)
        if quality > 0 and (best is None or rank < best):
            best, chosen = rank, name
    if not chosen:
        raise NotAcceptable(f"Accept is {accept!r}; this model can answer with {', '.join(offered)}")
    return chosen


@lru_cache(maxsize=256)
def most_wanted(accept: str | None, default: str) -> str:
    """Return the one type that a user's own ``output_fn`` is given: parameters kept, q dropped.

    A wildcard, or no header, gives ``default``.
    """
    wanted = [item for item in parse_accept(accept or "") if item[1] > 0]
    if not wanted:
        return default
    name = max(wanted, key=lambda item: item[1])[2]
    return default if "*" in name.partition(";")[0] else name


@lru_cache(maxsize=256)
def parse_accept(header: str) -> tuple[tuple[MediaType, float, str], ...]:
    """Return ``(range, q, text without q)`` for each item in order; a q that is no number counts as 1."""
    items = []
    for text in _LIST_ITEM.findall(header):
        media = parse(text)
        if media.name:
            items.append((media, _q(media.parameters.get("q")), _without(text, "q")))
    return tuple(items)


def plain_content_type(header: str) -> str:
    """Return a Content-Type for user code, which compares with ``==``: lower case, no ``charset``.

    Other parameters stay: a multipart body cannot be read without its boundary.
    """
    name, semicolon, rest = _without(header, "charset").partition(";")
    return name.strip().lower() + semicolon + rest


def _preferred(preferred: str, offered: tuple[str, ...], default: str) -> str:
    try:
        return choose(preferred, offered, default)
    except NotAcceptable:
        raise NotAcceptable(
            f"SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT is {preferred!r}; "
            f"this model can answer with {', '.join(offered)}: send one of them as Accept"
        ) from None


def _is_any(accept: str | None) -> bool:
    return accept is None or accept.strip() in ("", "*/*")


def _default_first(offered: tuple[str, ...], default: str) -> list[str]:
    return [default, *(name for name in offered if name != default)]


def _quality(name: str, ranges: tuple[tuple[MediaType, float, str], ...]) -> tuple[float, int]:
    """Return q and position of the most specific range that matches (RFC 9110 12.5.1)."""
    family = name.partition("/")[0] + "/*"
    best = (-1, 0.0, 0)
    for position, (media, q, _) in enumerate(ranges):
        specific = {name: 2, family: 1, "*/*": 0}.get(media.name, -1)
        if specific > best[0]:
            best = (specific, q, position)
    return best[1], best[2]


def _q(value: str | None) -> float:
    if value is None or not re.fullmatch(r"[01](\.\d*)?", value):
        return 1.0
    return min(1.0, float(value))


def _without(text: str, parameter: str) -> str:
    name, *rest = text.split(";")
    kept = [part for part in rest if part.partition("=")[0].strip().lower() != parameter]
    return ";".join([name, *kept]).strip()


def _unquote(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] == '"':
        return re.sub(r"\\(.)", r"\1", value[1:-1])
    return value
