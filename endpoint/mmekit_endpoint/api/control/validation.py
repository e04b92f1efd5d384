"""Requests against botocore's service model: types first, as AWS's deserializer does, then all constraints.

Nothing here knows an operation. What the model says of members, lengths, ranges, patterns and enums is what
holds; members that the model does not have are refused, so that a typing error is an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from botocore.model import ListShape, MapShape, Shape, StructureShape

from mmekit_endpoint.api.control.patterns import compiled
from mmekit_endpoint.errors import EndpointError, ValidationException

#: JSON values, as `msgspec.json.decode` makes them. Any: their types are what is checked.
Json = Any

#: Characters of a value that an error repeats.
SHOWN_CHARACTERS = 200

#: Errors that are named one by one.
SHOWN_ERRORS = 20

_INTEGERS = {"integer": ("an Integer", 2**31), "long": ("a Long", 2**63)}
_NUMBERS = {"float": "a Float", "double": "a Double", "timestamp": "a Timestamp"}


class SerializationException(EndpointError):
    """Raised when a request's body is not JSON, or has values of other types than the service model says."""

    code = "SerializationException"
    status = 400


def decode(body: bytes) -> dict[str, Json]:
    """Return the object that a request's body is; an empty body is an empty object.

    Raises
    ------
    SerializationException
        When the body is no JSON object.
    """
    try:
        value = msgspec.json.decode(body) if body else {}
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SerializationException(f"The body of the request is not JSON: {error}") from None
    except RecursionError:
        raise SerializationException("The body of the request is nested too deeply") from None
    if not isinstance(value, dict):
        raise SerializationException(f"The body of the request must be a JSON object, not {_kind(value)}")
    return value


def validate(shape: StructureShape, value: dict[str, Json]) -> dict[str, Json]:
    """Return a request's members without those that are null.

    Raises
    ------
    SerializationException
        When a value is of another type than the model says.
    ValidationException
        When values break constraints; it names all of them.
    """
    _check_types(shape, value, "")
    value = _without_nulls(shape, value)
    errors = list(_violations(shape, value, ""))
    if errors:
        shown = [f"{at} failed to satisfy constraint: {text}" for at, text in errors[:SHOWN_ERRORS]]
        if len(errors) > SHOWN_ERRORS:
            shown.append(f"and {len(errors) - SHOWN_ERRORS} more")
        noun = "validation error" if len(errors) == 1 else "validation errors"
        raise ValidationException(f"{len(errors)} {noun} detected: {'; '.join(shown)}")
    return value


# --- types


def _check_types(shape: Shape, value: Json, path: str) -> None:
    if value is None:
        return
    if isinstance(shape, StructureShape):
        _expect(isinstance(value, dict), value, path, "a structure")
        for name, member in shape.members.items():
            _check_types(member, value.get(name), _join(path, _lower_first(name)))
    elif isinstance(shape, ListShape):
        _expect(isinstance(value, list), value, path, "a list")
        for number, element in enumerate(value, 1):
            _check_types(shape.member, element, f"{path}.{number}.member")
    elif isinstance(shape, MapShape):
        _expect(isinstance(value, dict), value, path, "a map")
        for name, element in value.items():
            _check_types(shape.value, element, f"{path}.{_shown(name)}")
    else:
        _check_scalar_type(shape.type_name, value, path)


def _check_scalar_type(kind: str, value: Json, path: str) -> None:
    if kind == "boolean":
        _expect(isinstance(value, bool), value, path, "a Boolean")
    elif kind in _INTEGERS:
        wanted, limit = _INTEGERS[kind]
        number = isinstance(value, int) and not isinstance(value, bool)
        _expect(number and -limit <= value < limit, value, path, wanted)
    elif kind in _NUMBERS:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        # Integers of JSON have any size; those beyond a float's cannot be compared with one.
        _expect(number and -1e300 < value < 1e300, value, path, _NUMBERS[kind])
    else:
        _expect(isinstance(value, str), value, path, "a String")


def _expect(satisfied: bool, value: Json, path: str, wanted: str) -> None:
    if not satisfied:
        raise SerializationException(f"{_kind(value)} at '{path}' can not be converted to {wanted}")


def _kind(value: Json) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "BOOLEAN_VALUE"
        case int() | float():
            return f"NUMBER_VALUE {_shown(value)}"
        case str():
            return "STRING_VALUE"
        case list():
            return "Start of list"
        case _:
            return "Start of structure or map"


def _without_nulls(shape: Shape, value: Json) -> Json:
    """Return a value with members of structures that are null left out, as if they had not been given."""
    if isinstance(shape, StructureShape) and value is not None:
        return {
            name: _without_nulls(shape.members[name], member) if name in shape.members else member
            for name, member in value.items()
            if member is not None
        }
    if isinstance(shape, ListShape) and value is not None:
        return [_without_nulls(shape.member, element) for element in value]
    return value


# --- constraints: pairs of "Value … at …" and what it must satisfy


def _violations(shape: Shape, value: Json, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(shape, StructureShape):
        yield from _structure_violations(shape, value, path)
        return
    texts = list(_own_violations(shape, value))
    if isinstance(shape, MapShape):
        texts += _map_violations(shape, value)
    for text in texts:
        yield f"Value '{_shown(value)}' at '{path}'", text
    if isinstance(shape, ListShape):
        for number, element in enumerate(value, 1):
            at = f"{path}.{number}.member"
            if element is None:
                yield f"Value null at '{at}'", "Member must not be null"
            else:
                yield from _violations(shape.member, element, at)


def _structure_violations(
    shape: StructureShape, value: dict[str, Json], path: str
) -> Iterator[tuple[str, str]]:
    for name in shape.required_members:
        if name not in value:
            yield f"Value null at '{_join(path, _lower_first(name))}'", "Member must not be null"
    for name, member in value.items():
        at = _join(path, _lower_first(_cut(name)))
        if name in shape.members:
            yield from _violations(shape.members[name], member, at)
        else:
            known = ", ".join(shape.members)
            yield f"Value '{_shown(member)}' at '{at}'", f"Member must be one of {shape.name}'s: [{known}]"


def _map_violations(shape: MapShape, value: dict[str, Json]) -> Iterator[str]:
    keys = dict.fromkeys(text for key in value for text in _own_violations(shape.key, key))
    if keys:
        yield f"Map keys must satisfy constraint: [{', '.join(keys)}]"
    values = dict.fromkeys(
        text
        for member in value.values()
        for text in (["Member must not be null"] if member is None else _own_violations(shape.value, member))
    )
    if values:
        yield f"Map value must satisfy constraint: [{', '.join(values)}]"


def _own_violations(shape: Shape, value: Json) -> Iterator[str]:
    metadata = shape.metadata
    sized = isinstance(value, str | list | dict)
    size, noun = (len(value), "have length ") if sized else (value, "have value ")
    if "min" in metadata and size < metadata["min"]:
        yield f"Member must {noun}greater than or equal to {metadata['min']}"
    if "max" in metadata and size > metadata["max"]:
        yield f"Member must {noun}less than or equal to {metadata['max']}"
    if "pattern" in metadata and compiled(metadata["pattern"]).fullmatch(value) is None:
        yield f"Member must satisfy regular expression pattern: {metadata['pattern']}"
    if "enum" in metadata and value not in metadata["enum"]:
        yield f"Member must satisfy enum value set: [{', '.join(metadata['enum'])}]"


# --- texts


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _lower_first(name: str) -> str:
    return name[:1].lower() + name[1:]


def _shown(value: Json, depth: int = 4) -> str:
    """Return a value as errors show it: texts as they are, all else much as Java prints it; long ones cut."""
    match value:
        case bool():
            return str(value).lower()
        case int() if abs(value) >= 1 << 256:
            return "(a number of more than 77 digits)"
        case list() | dict() if not depth:
            return "…"
        case list():
            return _cut("[" + ", ".join(_shown(element, depth - 1) for element in value[:20]) + "]")
        case dict():
            members = [f"{_cut(name)}={_shown(member, depth - 1)}" for name, member in value.items()][:20]
            return _cut("{" + ", ".join(members) + "}")
        case _:
            return _cut(str(value))


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "…"
