"""The sabotages by name. A class says with a decorator which clause it breaks, or that it is allowed."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from .container import Container

C = TypeVar("C", bound=type[Container])


@dataclass(frozen=True)
class Sabotage:
    """One way to differ from ``Container``; its name is the class's, written with hyphens."""

    name: str
    cls: type[Container]
    #: The one clause it breaks; None for what the contract allows.
    clause: str | None
    #: It shows only in a container: memory limits, signals to process 1, read-only mounts.
    image_only: bool = False


SABOTAGES: dict[str, Sabotage] = {}


def breaks(clause: str, image_only: bool = False) -> Callable[[C], C]:
    """Note a class that breaks this clause and no other."""
    return lambda cls: _note(cls, clause, image_only)


def allowed(cls: C) -> C:
    """Note a class that is unusual, and breaks nothing."""
    return _note(cls, None, False)


def _note(cls: C, clause: str | None, image_only: bool) -> C:
    name = re.sub(r"(?<=\w)(?=[A-Z])|(?<=[a-z])(?=[0-9])", "-", cls.__name__).lower()
    SABOTAGES[name] = Sabotage(name, cls, clause, image_only)
    return cls
