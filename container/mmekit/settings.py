"""How a setting is declared and where its value comes from.

A setting is a field of a dataclass made with ``setting(...)``. Its value is the first of: the
command line's option, an environment variable, a key of MMS's configuration (``properties``), the
default.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Protocol

from mmekit.errors import ConfigError
from mmekit.parsers import UNSET, Parser

#: ``Setting.mms_default`` of a setting that has one default.
SAME = object()


@dataclass(frozen=True)
class Setting:
    """How one field of Config is set: names in order of precedence, each with a parser."""

    #: Environment variables; the first one's parser reads the option too.
    env: tuple[tuple[str, Parser], ...]
    unit: str
    meaning: str
    #: Keys of MMS's config.properties.
    keys: tuple[tuple[str, Parser], ...] = ()
    #: MMS's default, where it is another.
    mms_default: Any = SAME
    #: What a handler reads itself is only checked and documented here.
    read_by: str = "server"
    #: How the default is described where it depends on the machine.
    default_text: str | None = None
    #: The option's name, where it is not the field's.
    option_name: str | None = None
    #: A password: never shown.
    secret: bool = False

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.env]

    def option(self, field_name: str) -> str:
        """Return the option that sets the field."""
        return "--" + (self.option_name or field_name.replace("_", "-"))


def setting(
    default: Any,
    env: dict[str, Parser],
    unit: str,
    meaning: str,
    key: dict[str, Parser] | None = None,
    **extra: Any,
) -> Any:
    """Declare a field of a dataclass as a setting; arguments as the fields of Setting."""
    declared = Setting(tuple(env.items()), unit, meaning, tuple((key or {}).items()), **extra)
    return dataclasses.field(default=default, metadata={"setting": declared})


def settings_of(declaring: type) -> dict[str, Setting]:
    """Return the settings of a dataclass by field name, in the order of declaration."""
    found = {}
    for field in dataclasses.fields(declaring):
        if "setting" in field.metadata:
            found[field.name] = field.metadata["setting"]
    return found


class Origin(IntEnum):
    """Where a value came from; the lower wins."""

    OPTION = 0
    VARIABLE = 1
    MMS_VARIABLE = 2
    FILE = 3
    DEFAULT = 4


@dataclass(frozen=True)
class Source:
    """Origin of one value and the name to give in messages: an option, a variable, a key with its file."""

    origin: Origin
    name: str = "default"


class Keys(Protocol):
    """MMS's configuration as settings read it (``properties.Properties``)."""

    def find(self, key: str) -> tuple[str, Source] | None:
        """Return the text of a key and where it stands; None when it is not set or empty."""

    def warnings(self, known: Collection[str]) -> list[str]:
        """Return what to tell about keys without effect; ``known`` are the keys of settings."""


def read(
    field_name: str,
    declared: Setting,
    overrides: Mapping[str, str],
    environ: Mapping[str, str],
    properties: Keys | None,
) -> tuple[Any, Source]:
    """Return the value of one setting, or UNSET, and where it came from.

    An empty variable or key counts as not set, as docker's ``-e NAME=`` makes it. Raises
    ConfigError that names option, variable or key, its value and what was expected.
    """
    text = overrides.get(field_name)
    if text is not None:
        source = Source(Origin.OPTION, declared.option(field_name))
        return _parse(source.name, text, declared.env[0][1]), source
    for name, parser in declared.env:
        if environ.get(name, "") != "":
            value = _parse(name, environ[name], parser)
            if value is not UNSET:
                return value, Source(Origin.VARIABLE, name)
    for key, parser in declared.keys:
        found = properties.find(key) if properties else None
        if found:
            text, source = found
            value = _parse(source.name, text, parser)
            if value is not UNSET:
                return value, source
    return UNSET, Source(Origin.DEFAULT)


def _parse(name: str, text: str, parser: Parser) -> Any:
    try:
        return parser(text)
    except ValueError as error:
        raise ConfigError(f"{name}={text!r} cannot be used: expected {error}.") from None
