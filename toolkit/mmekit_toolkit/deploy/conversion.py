"""Plain values against the schema's types: all that is wrong, each with its place, in words."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import inspect

from mmekit_toolkit.deploy import shapes
from mmekit_toolkit.deploy.description import AWS, EXPECTED, WHY, Description
from mmekit_toolkit.deploy.document import Document
from mmekit_toolkit.deploy.shapes import Path, counted, shortened


def convert(document: Document) -> Description | None:
    """Return the description that a document has, or None and the document's ``errors``."""
    if not document.errors:
        _Conversion(document).check(inspect.type_info(Description), document.values, (), {})
    return None if document.errors else msgspec.convert(document.values, Description)


def parts_of(kind: inspect.Type) -> tuple[inspect.Type, Mapping[str, Any]]:
    """Return a type without what was written around it, and that: constraints, the member it becomes."""
    extra: dict[str, Any] = {}
    while isinstance(kind, inspect.Metadata | inspect.UnionType):
        if isinstance(kind, inspect.Metadata):
            extra = {**(kind.extra or {}), **extra}
            kind = kind.type
        else:
            (kind,) = [inner for inner in kind.types if not isinstance(inner, inspect.NoneType)]
    return kind, extra


def is_optional(kind: inspect.Type) -> bool:
    """Say whether null is a value of the type."""
    while isinstance(kind, inspect.Metadata):
        kind = kind.type
    return isinstance(kind, inspect.UnionType) and kind.includes_none


class _Conversion:
    """Walks values and types together."""

    def __init__(self, document: Document) -> None:
        self._document = document
        #: msgspec's type of a type → what checks it.
        self._checks: dict[type[inspect.Type], Callable[[Any, Any, Path, Mapping[str, Any]], bool]] = {
            inspect.StructType: self._struct,
            inspect.ListType: self._list,
            inspect.DictType: self._dict,
            inspect.LiteralType: self._literal,
            inspect.StrType: self._text,
            inspect.IntType: self._number,
            inspect.FloatType: self._number,
            inspect.BoolType: self._bool,
        }

    def check(self, kind: inspect.Type, value: Any, path: Path, outer: Mapping[str, Any]) -> None:
        """Complain of all that is wrong with a value; ``outer`` is what stands around its type."""
        if value is None and is_optional(kind):
            return
        inner, extra = parts_of(kind)
        extra = {**outer, **extra}
        right = self._checks[type(inner)](inner, value, path, extra)
        if right and AWS in extra:
            self._of_aws(extra[AWS], value, path)

    def _of_aws(self, member: str, value: Any, path: Path) -> None:
        shape = shapes.member(*member.split(".", 2))
        if shape.type_name == "list" and value and isinstance(value[0], Mapping):
            found = [(path, text)] if (text := shapes.violation(shape, value)) else []
        else:
            found = list(shapes.violations(shape, value, path))
        for at, text in found:
            self._document.complain(at, text)

    def _struct(self, kind: inspect.StructType, value: Any, path: Path, _: Mapping[str, Any]) -> bool:
        if not self._expect(isinstance(value, Mapping), value, path, "names with values below it"):
            return False
        fields = {field.name: field for field in kind.fields}
        for name in value:
            if name not in fields:
                self._document.complain((*path, name), _unknown(name, list(fields)))
        for name, field in fields.items():
            if name in value:
                self.check(field.type, value[name], (*path, name), {})
            elif field.required:
                self._document.complain((*path, name), f"is missing. {meaning(field.type)}")
        return True

    def _list(self, kind: inspect.ListType, value: Any, path: Path, _: Mapping[str, Any]) -> bool:
        if not self._expect(isinstance(value, list), value, path, "a list"):
            return False
        before = len(self._document.errors)
        for number, item in enumerate(value):
            self.check(kind.item_type, item, (*path, number), {})
        if kind.min_length and len(value) < kind.min_length:
            self._document.complain(path, f"expected at least {counted(kind.min_length, 'entry')}.")
        return len(self._document.errors) == before

    def _dict(self, kind: inspect.DictType, value: Any, path: Path, _: Mapping[str, Any]) -> bool:
        if not self._expect(isinstance(value, Mapping), value, path, "names with values below it"):
            return False
        before = len(self._document.errors)
        for name, item in value.items():
            self.check(kind.value_type, item, (*path, name), {})
        return len(self._document.errors) == before

    def _literal(self, kind: inspect.LiteralType, value: Any, path: Path, _: Mapping[str, Any]) -> bool:
        choices = ", ".join(map(str, kind.values))
        return self._expect(value in kind.values, value, path, f"one of {choices}")

    def _text(self, kind: inspect.StrType, value: Any, path: Path, extra: Mapping[str, Any]) -> bool:
        if not isinstance(value, str):
            hint = f': put it in quotes, "{_as_yaml(value)}"' if isinstance(value, bool | int | float) else ""
            self._document.complain(path, f"expected text, found {described(value)}{hint}.")
            return False
        if kind.min_length and len(value) < kind.min_length:
            self._document.complain(path, "expected text, found none.")
            return False
        if kind.max_length is not None and len(value) > kind.max_length:
            why = f": {extra[WHY]}" if WHY in extra else ""
            limit = counted(kind.max_length, "character")
            self._document.complain(path, f"expected at most {limit}, found {len(value)}{why}.")
            return False
        if kind.pattern is not None and not re.search(kind.pattern, value):
            return self._expect(False, value, path, extra.get(EXPECTED, f"text of the form {kind.pattern}"))
        return True

    def _number(
        self, kind: inspect.IntType | inspect.FloatType, value: Any, path: Path, _: Mapping[str, Any]
    ) -> bool:
        whole = isinstance(kind, inspect.IntType)
        right = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
        finite = right and abs(value) < 1e15  # neither nan nor inf, which YAML has
        if not self._expect(finite, value, path, "an integer" if whole else "a number"):
            return False
        for text, broken in (
            (f"at least {kind.ge}", kind.ge is not None and value < kind.ge),
            (f"more than {kind.gt}", kind.gt is not None and value <= kind.gt),
            (f"at most {kind.le}", kind.le is not None and value > kind.le),
        ):
            if broken:
                return self._expect(False, value, path, text)
        return True

    def _bool(self, _kind: inspect.BoolType, value: Any, path: Path, _: Mapping[str, Any]) -> bool:
        return self._expect(isinstance(value, bool), value, path, "true or false")

    def _expect(self, satisfied: bool, value: Any, path: Path, wanted: str) -> bool:
        if not satisfied:
            self._document.complain(path, f"expected {wanted}, found {described(value)}.")
        return satisfied


def meaning(kind: inspect.Type) -> str:
    """Return a field's description."""
    found = ""
    while isinstance(kind, inspect.Metadata):
        found = (kind.extra_json_schema or {}).get("description", found)
        kind = kind.type
    return found


def described(value: Any) -> str:
    """Return a value as a message shows it."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{shortened(value)}"'
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, Mapping):
        return "names with values below it"
    if isinstance(value, Sequence):
        return "a list"
    return f"{value} (a {type(value).__name__})"


def _as_yaml(value: float) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _unknown(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name.replace("-", "_").lower(), known, 1, cutoff=0.6)
    advice = f"did you mean {close[0]}?" if close else f"Known are {', '.join(known)}."
    return f"no such name; {advice}" if close else f"no such name. {advice}"
