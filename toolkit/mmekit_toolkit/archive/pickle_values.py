"""What a pickle would make, as far as its opcodes tell: values without the objects.

Text, whole numbers, None, lists, tuples and dicts stand for themselves, the rest for what made them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

#: str, int, bool, None, list, tuple, dict, or one of the classes below.
Value: TypeAlias = Any

#: Values that ``walk`` looks at; a model's estimators come in thousands, its tokens in millions.
_MAX_WALKED = 200_000


@dataclass(frozen=True, slots=True)
class Global:
    """What a pickle asks an import for."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(slots=True, eq=False)
class Thing:
    """An object: what was called for it, with which arguments, and the state that was set afterwards."""

    made_by: Value
    args: Value = ()
    state: Value = None
    #: The array behind joblib's placeholder, where that is one of objects.
    content: Value = None

    @property
    def kind(self) -> str:
        """``module.name`` of the object's class, or of the function that made it; empty when not known."""
        made_by = self.made_by
        # Classes of protocols 0 and 1 come through these (copyreg.py).
        if isinstance(made_by, Global) and made_by.name in ("_reconstructor", "__newobj__", "__newobj_ex__"):
            made_by = self.args[0] if isinstance(self.args, tuple) and self.args else made_by
        return str(made_by) if isinstance(made_by, Global) else ""

    @property
    def attributes(self) -> dict[Value, Value]:
        """The state as names and values."""
        state = self.state[0] if isinstance(self.state, tuple) and self.state else self.state
        return state if isinstance(state, dict) else {}


@dataclass(frozen=True, slots=True, eq=False)
class Blob:
    """Bytes: how many, their beginning and their end."""

    size: int
    head: bytes
    tail: bytes


class Unknown:
    """What is not followed: floats, sets, long texts and numbers."""


UNKNOWN = Unknown()


def walk(root: Value) -> Iterator[Thing | Blob]:
    """Yield the objects and bytes inside a value, each once, in no order that matters."""
    seen: set[int] = set()
    waiting = [root]
    while waiting and len(seen) < _MAX_WALKED:
        current = waiting.pop()
        if not isinstance(current, Thing | Blob | list | tuple | dict) or id(current) in seen:
            continue
        seen.add(id(current))
        if isinstance(current, Thing):
            yield current
            waiting += [current.args, current.state, current.content]
        elif isinstance(current, Blob):
            yield current
        elif isinstance(current, dict):
            waiting += current.values()
        else:
            waiting += current


def texts(value: Value) -> tuple[str, ...] | None:
    """Return the texts of a list, or of a numpy array of them; None for anything else."""
    if isinstance(value, Thing):
        if value.content is not None:
            return texts(value.content)
        # numpy: ndarray.__reduce__ → (_reconstruct, …), (version, shape, dtype, order, list of the objects)
        is_array = value.kind.endswith("multiarray._reconstruct")
        state = value.state
        return texts(state[4]) if is_array and isinstance(state, tuple) and len(state) == 5 else None
    if isinstance(value, list | tuple) and value and all(isinstance(each, str) for each in value):
        return tuple(value)
    return None
