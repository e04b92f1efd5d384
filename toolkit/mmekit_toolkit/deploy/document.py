"""A YAML file as plain values, with the line of each: what messages about it need."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from mmekit_toolkit.deploy.shapes import Path, dotted

#: Bytes of a file. The longest that AWS takes, 32 KB of variables for each of ten variants, is below.
_MAX_BYTES = 1024 * 1024
#: Values of a document, aliases followed: a few lines of aliases of aliases make billions.
_MAX_VALUES = 20_000

# Any: what YAML has is checked later, against the schema.
Value = Any


@dataclass
class Document:
    """Values and where they come from: ``endpoint.yaml:12``, or the option ``--image``."""

    name: str
    values: Value = field(default_factory=dict)
    places: dict[Path, str] = field(default_factory=dict)
    #: Errors, in the order of the file.
    errors: list[str] = field(default_factory=list)

    def complain(self, path: Path, text: str) -> None:
        """Add an error about the value at that path, or about one that is missing there."""
        place = self.place(path)
        named = f"{dotted(path)}: " if path and not place.startswith("--") else ""
        end = "" if text.endswith((".", "?")) else "."
        self.errors.append(f"{place}: {named}{text}{end}")

    def place(self, path: Path) -> str:
        """Return where a value is, or the nearest around it."""
        while path not in self.places and path:
            path = path[:-1]
        return self.places.get(path, self.name)

    def set(self, path: Path, value: Value, place: str) -> None:
        """Put a value, as an option does; ``values`` must have what is around it."""
        around = self.values
        for part in path[:-1]:
            around = around[part]
        around[path[-1]] = value
        self.places[path] = place


def parse(name: str, data: bytes) -> Document:
    """Return a file's values. What is wrong with it as YAML is in ``errors``."""
    document = Document(name, None)
    try:
        node = yaml.compose(_decoded(data), yaml.SafeLoader)
        if node is None:
            document.errors.append(f"{name}: the file is empty. `mmekit deploy --schema` prints what it has.")
        else:
            document.values = _Reading(document).value(node, ())
    except _Unreadable as error:
        document.errors.append(f"{name}: {error}")
    except yaml.MarkedYAMLError as error:
        document.errors.append(_syntax_error(name, error))
    except yaml.YAMLError as error:
        document.errors.append(f"{name}: {error}")
    except RecursionError:
        document.errors.append(f"{name}: the file is nested too deeply, or contains itself by an alias.")
    return document


class _Unreadable(Exception):
    """Raised when a file is no text, or too much of it."""


def _decoded(data: bytes) -> str:
    if len(data) > _MAX_BYTES:
        raise _Unreadable(f"expected at most {_MAX_BYTES} bytes, found {len(data)}.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _Unreadable(f"line {line} is not UTF-8 (byte 0x{data[error.start]:02x}).") from error


def _syntax_error(name: str, error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    place = f"{name}:{mark.line + 1}" if mark else name
    problem = error.problem or "no YAML"
    if "'\\t'" in problem:
        return f"{place}: a tab: YAML indents with spaces."
    if isinstance(error, yaml.composer.ComposerError) and "single document" in str(error.context):
        return f"{place}: a second document begins; one file describes one endpoint."
    context = f", {error.context}" if error.context else ""
    return f"{place}: {problem}{context}."


class _Reading:
    """One pass over the nodes of a document."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._constructor = yaml.constructor.SafeConstructor()
        self._count = 0

    def value(self, node: yaml.Node, path: Path) -> Value:
        self._count += 1
        if self._count > _MAX_VALUES:
            raise _Unreadable(f"expected at most {_MAX_VALUES} values, found more; aliases count again.")
        self._document.places.setdefault(path, self._line(node))
        read: Callable[[Any, Path], Value] = {
            yaml.MappingNode: self._mapping,
            yaml.SequenceNode: self._sequence,
        }.get(type(node), self._scalar)
        return read(node, path)

    def _mapping(self, node: yaml.MappingNode, path: Path) -> Mapping[str, Value]:
        self._find_duplicates(node, path)
        self._constructor.flatten_mapping(node)  # merge keys (<<) become what they stand for
        result: dict[str, Value] = {}
        for key_node, value_node in node.value:
            key = self.value(key_node, (*path, "?"))
            if not isinstance(key, str):
                self._document.errors.append(
                    f"{self._line(key_node)}: expected text as a name, found {key!r}: put it in quotes."
                )
                key = str(key)
            self._document.places[(*path, key)] = self._line(key_node)
            result[key] = self.value(value_node, (*path, key))
        return result

    def _sequence(self, node: yaml.SequenceNode, path: Path) -> list[Value]:
        return [self.value(inner, (*path, number)) for number, inner in enumerate(node.value)]

    def _scalar(self, node: yaml.ScalarNode, path: Path) -> Value:
        try:
            return self._constructor.construct_object(node)
        except yaml.constructor.ConstructorError:
            self._document.complain(path, f"the tag {node.tag} is not one of plain YAML.")
        except ValueError as error:
            self._document.complain(path, f"{error}; put it in quotes if it is text.")
        return None

    def _find_duplicates(self, node: yaml.MappingNode, path: Path) -> None:
        first: dict[str, str] = {}
        for key_node, _ in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else ""
            place = self._line(key_node)
            if key in first:
                self._document.errors.append(
                    f"{place}: {dotted((*path, key))} is there twice; the first is at {first[key]}."
                )
            first.setdefault(key, place)

    def _line(self, node: yaml.Node) -> str:
        return f"{self._document.name}:{node.start_mark.line + 1}"
