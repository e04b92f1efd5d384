"""What botocore's service models say of a value: types, required members, lengths, ranges, patterns, enums.

botocore itself checks types and required members only, and AWS tells of the rest after a call; here a value
is told before anything is sent.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from mmekit_toolkit.aws.clients import service_models

#: Where a value stands: names of members and keys, numbers of list entries.
Path = tuple[str | int, ...]

#: Values of an enum that an error names.
_SHOWN_CHOICES = 6

#: Unicode categories that `re` does not know → what comes closest, never narrower.
_CATEGORIES = {r"\p{L}": r"\w", r"\p{N}": r"\d", r"\p{Z}": r"\s"}


@cache
def operation(service: str, name: str) -> Any:  # Any: botocore ships no types
    """Return botocore's model of an operation such as CreateModel."""
    return _service_model(service).operation_model(name)


@cache
def _service_model(service: str) -> Any:
    return service_models().get_service_model(service)


@cache
def member(service: str, operation_name: str, path: str) -> Any:
    """Return the shape of an input's member, such as ``ProductionVariants[].InstanceType``."""
    shape = operation(service, operation_name).input_shape
    for part in path.replace("[]", ".[]").split("."):
        shape = shape.member if part == "[]" else shape.members[part]
    return shape


def partition(region: str) -> str | None:
    """Return a region's partition, ``aws`` or ``aws-cn``; None for what has the form of no region's name."""
    from botocore.exceptions import UnknownRegionError

    try:
        return str(service_models().get_partition_for_region(region))
    except UnknownRegionError:
        return None


def violations(shape: Any, value: Any, path: Path = ()) -> Iterator[tuple[Path, str]]:
    """Yield where a value breaks a shape's constraints, and how; types are botocore's ParamValidator's."""
    if text := violation(shape, value):
        yield path, text
    if shape.type_name == "structure":
        for name, inner in value.items():
            yield from violations(shape.members[name], inner, (*path, name))
    elif shape.type_name == "list":
        for number, inner in enumerate(value):
            yield from violations(shape.member, inner, (*path, number))
    elif shape.type_name == "map":
        for key, inner in value.items():
            if text := violation(shape.key, key):
                yield (*path, key), f"the name: {text}"
            yield from violations(shape.value, inner, (*path, key))


def violation(shape: Any, value: Any) -> str | None:
    """Return how a value itself, not what is inside it, breaks its shape; None where it does not."""
    constraints = shape.metadata
    if "enum" in constraints and value not in constraints["enum"]:
        return _not_a_choice(value, constraints["enum"])
    if shape.type_name == "string":
        return _bad_size(len(value), constraints, "character") or _bad_text(value, constraints)
    if shape.type_name in ("list", "map"):
        return _bad_size(len(value), constraints, "entry")
    if shape.type_name in ("integer", "long", "float", "double"):
        return _out_of_range(value, constraints)
    return None


def _bad_size(size: int, constraints: Mapping[str, Any], unit: str) -> str | None:
    least, most = constraints.get("min", 0), constraints.get("max")
    if size < least:
        return f"expected at least {counted(least, unit)}, found {size}"
    if most is not None and size > most:
        return f"expected at most {counted(most, unit)}, found {size}"
    return None


def _bad_text(value: str, constraints: Mapping[str, Any]) -> str | None:
    pattern = constraints.get("pattern")
    if pattern is None or (compiled := _compiled(pattern)) is None or compiled.fullmatch(value):
        return None
    return f'expected text of the form {pattern}, found "{shortened(value)}"'


def _out_of_range(value: float, constraints: Mapping[str, Any]) -> str | None:
    least, most = constraints.get("min"), constraints.get("max")
    if least is not None and value < least:
        return f"expected at least {least}, found {value}"
    if most is not None and value > most:
        return f"expected at most {most}, found {value}"
    return None


def _not_a_choice(value: Any, choices: list[str]) -> str:
    close = [choice for choice in choices if choice.partition(".")[2] == value]
    close = close or difflib.get_close_matches(str(value), choices, 1)
    if close:
        return f'"{value}" is none that AWS knows; did you mean {close[0]}?'
    shown = ", ".join(choices[:_SHOWN_CHOICES])
    more = f" … ({len(choices)} in all)" if len(choices) > _SHOWN_CHOICES else ""
    return f'expected one of {shown}{more}, found "{shortened(str(value))}"'


@cache
def _compiled(pattern: str) -> re.Pattern[str] | None:
    """Return a service model's pattern as Python's, None for those that `re` cannot have: AWS checks them."""
    for theirs, ours in _CATEGORIES.items():
        pattern = pattern.replace(theirs, ours)
    try:
        return re.compile(pattern)
    except re.error:
        return None


def dotted(path: Path) -> str:
    """Return a path as people write it: ``variants[0].image``."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def counted(number: int, unit: str) -> str:
    """Return ``1 entry``, ``2 entries``."""
    plural = unit[:-1] + "ies" if unit.endswith("y") else unit + "s"
    return f"{number} {unit if number == 1 else plural}"


def shortened(text: str, limit: int = 80) -> str:
    """Return the text, or its beginning and ``…``."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
