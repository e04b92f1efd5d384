"""The schema of the file that describes an endpoint: JSON Schema for editors, tables for people."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from inspect import cleandoc
from typing import Any

import msgspec
from msgspec import inspect

from mmekit_toolkit.deploy import shapes
from mmekit_toolkit.deploy.conversion import meaning, parts_of
from mmekit_toolkit.deploy.description import AWS, Description

#: A shape's constraint → JSON Schema's keyword, by type. Patterns stay out: AWS's are no JavaScript.
_KEYWORDS = {
    "string": {"min": "minLength", "max": "maxLength", "enum": "enum"},
    "list": {"min": "minItems", "max": "maxItems"},
    "map": {"max": "maxProperties"},
    "integer": {"min": "minimum", "max": "maximum"},
    "float": {"min": "minimum", "max": "maximum"},
}
_HEADING = """\
# The file that describes an endpoint

Made from the types in `deploy/description.py` by `mmekit deploy --schema --markdown`; do not edit.

Editors check and complete the file with the JSON schema: `mmekit deploy --schema > endpoint.schema.json`, and
as its first line `# yaml-language-server: $schema=endpoint.schema.json`."""
_TYPES: dict[type[inspect.Type], str] = {
    inspect.StrType: "text",
    inspect.IntType: "integer",
    inspect.FloatType: "number",
    inspect.BoolType: "true or false",
}


def as_json_schema() -> str:
    """Return the JSON Schema, with what botocore's models say of each member."""
    schema = msgspec.json.schema(Description)
    for struct in _structs():
        properties = schema["$defs"][struct.cls.__name__]["properties"]
        for field in struct.fields:
            _, extra = parts_of(field.type)
            if AWS in extra:
                _constrain(properties[field.encode_name], shapes.member(*extra[AWS].split(".", 2)))
    return json.dumps(
        {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}, indent=2, ensure_ascii=False
    )


def as_markdown() -> str:
    """Return docs/endpoint-yaml.md: a table for each part of the file."""
    return "\n\n".join([_HEADING, *("\n".join(_table(struct)) for struct in _structs())])


def _structs() -> Iterator[inspect.StructType]:
    """Yield the parts of the file: the whole first, then each where it is first used."""
    found = [inspect.type_info(Description)]
    for struct in found:
        assert isinstance(struct, inspect.StructType)
        yield struct
        for field in struct.fields:
            inner, _ = parts_of(field.type)
            if isinstance(inner, inspect.ListType):
                inner, _ = parts_of(inner.item_type)
            if isinstance(inner, inspect.StructType) and inner not in found:
                found.append(inner)


def _constrain(schema: dict[str, Any], shape: Any) -> None:
    target = next((part for part in schema.get("anyOf", []) if part.get("type") != "null"), schema)
    for constraint, keyword in _KEYWORDS.get(shape.type_name, {}).items():
        if constraint in shape.metadata and "$ref" not in target:
            target.setdefault(keyword, shape.metadata[constraint])


def _table(struct: inspect.StructType) -> Iterator[str]:
    title = "The file" if struct.cls is Description else f"`{_name_of(struct)}`"
    yield f"## {title}\n"
    yield f"{_paragraphs(struct.cls)}\n"
    yield "| name | value | default | meaning |\n| --- | --- | --- | --- |"
    for field in struct.fields:
        inner, extra = parts_of(field.type)
        words = _type_words(inner, extra)
        yield f"| `{field.encode_name}` | {words} | {_default(field)} | {meaning(field.type)} |"


def _paragraphs(part: type) -> str:
    return cleandoc(part.__doc__ or "").replace("``", "`")


def _name_of(struct: inspect.StructType) -> str:
    """Return the field that has such a part."""
    for outer in _structs():
        for field in outer.fields:
            inner, _ = parts_of(field.type)
            if inner == struct:
                return field.encode_name
            if isinstance(inner, inspect.ListType) and parts_of(inner.item_type)[0] == struct:
                return f"{field.encode_name}[]"
    raise AssertionError(f"no field has a {struct.cls.__name__}")


def _type_words(kind: inspect.Type, extra: Mapping[str, Any]) -> str:
    if isinstance(kind, inspect.LiteralType):
        return ", ".join(map(str, kind.values))
    if isinstance(kind, inspect.ListType):
        inner, more = parts_of(kind.item_type)
        return f"list: {_type_words(inner, more)}"
    if isinstance(kind, inspect.DictType):
        return "names and text"
    if isinstance(kind, inspect.StructType):
        return "see below"
    return _TYPES[type(kind)] + _range(kind, extra)


def _range(kind: inspect.Type, extra: Mapping[str, Any]) -> str:
    if not isinstance(kind, inspect.IntType | inspect.FloatType):
        return ""
    limits = shapes.member(*extra[AWS].split(".", 2)).metadata if AWS in extra else {}
    least = limits.get("min", kind.ge)
    most = limits.get("max", kind.le)
    if kind.gt is not None:
        return f", above {kind.gt}" + (f", to {most}" if most is not None else "")
    if least is None:
        return ""
    return f", {least} to {most}" if most is not None else f", at least {least}"


def _default(field: inspect.Field) -> str:
    if field.required:
        return "required"
    if field.default_factory is not msgspec.NODEFAULT:
        value = field.default_factory()
    else:
        value = field.default
    if value is None or isinstance(value, msgspec.Struct) or value in ([], {}):
        return ""
    if isinstance(value, list):
        return ", ".join(f"`{entry}`" for entry in value)
    return f"`{json.dumps(value)}`" if isinstance(value, bool) else f"`{value}`"
