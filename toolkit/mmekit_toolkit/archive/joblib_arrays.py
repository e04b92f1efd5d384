"""Arrays that joblib puts between a pickle's opcodes: how many bytes they are (joblib: numpy_pickle.py)."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from mmekit_toolkit.archive.pickle_values import Thing, Value

#: The object after whose state an array follows.
PLACEHOLDER = "joblib.numpy_pickle.NumpyArrayWrapper"

#: numpy's names of types with the bytes of an element (``f8``), for texts the characters.
_DTYPE = re.compile(r"[?bBhHiIlLqQefdgFDGmMSUVOcu](\d*)")


@dataclass(frozen=True)
class Layout:
    """``size_bytes`` counts where there are no objects; ``is_aligned``: a byte with a length comes first."""

    size_bytes: int
    has_objects: bool
    is_aligned: bool


def layout_of(placeholder: Thing) -> Layout | None:
    """Return how the array is laid out, as NumpyArrayWrapper.read_array has it; None for what is none."""
    attributes = placeholder.attributes
    shape, dtype = attributes.get("shape"), attributes.get("dtype")
    width = _item_bytes(dtype)
    if width is None or not isinstance(shape, tuple) or not _is_shape(shape):
        return None
    is_aligned = "numpy_array_alignment_bytes" in attributes
    return Layout(math.prod(shape) * width, _holds_objects(dtype), is_aligned)


def _is_shape(shape: tuple[Value, ...]) -> bool:
    return all(isinstance(length, int) and length >= 0 for length in shape)


def _item_bytes(dtype: Value) -> int | None:
    """Return the bytes of one element; None when that is no type of numpy's."""
    if not isinstance(dtype, Thing) or not isinstance(dtype.args, tuple) or not dtype.args:
        return None
    name = dtype.args[0]
    match = _DTYPE.fullmatch(name) if isinstance(name, str) else None
    if match is None:
        return None
    width = int(match[1][:9]) if match[1] else 1
    return 4 * width if name.startswith("U") else width


def _holds_objects(dtype: Value) -> bool:
    """Say whether a type is, or has a field that is, a reference to an object."""
    waiting, seen = [dtype], set()
    while waiting:
        current = waiting.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        if isinstance(current, Thing):
            args = current.args
            if isinstance(args, tuple) and args and isinstance(args[0], str) and args[0].startswith("O"):
                return True
            waiting.append(current.state)
        elif isinstance(current, tuple | list):
            waiting += current
        elif isinstance(current, dict):
            waiting += current.values()
    return False
