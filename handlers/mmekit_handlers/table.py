"""The rows of a request, and what text and JSON readers share."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy.typing as npt

from mmekit.errors import BadRequest, UnsupportedMediaType

#: Whether columns may hold text: none, any, or those of these names.
Text: TypeAlias = bool | Collection[str]

#: Any dtype: what a body holds is known only when it has been read.
Array: TypeAlias = npt.NDArray[Any]

EMPTY_BODY = "the body is empty; expected at least one row"


@dataclass(frozen=True, slots=True)
class Table:
    """Rows as they were sent.

    ``values`` is ``(rows, columns)`` float64, or another numeric dtype that came as npy. Where text is
    allowed and there is some, it is an object array of str and numbers. NaN is what is missing.
    ``columns`` are the names that came with the rows; None when none came.
    """

    values: Array
    columns: tuple[str, ...] | None = None


def decode_text(body: bytes, charset: str | None) -> str:
    """Decode a text body, UTF-8 unless ``charset`` says otherwise; a byte order mark is dropped."""
    try:
        return body.decode(charset or "utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise BadRequest(
            f"the body is not {charset or 'UTF-8'}: byte {error.start} is 0x{body[error.start]:02x}"
        ) from None
    except (LookupError, ValueError):
        raise UnsupportedMediaType(f"charset {charset!r} is not one that can be decoded") from None


def ragged(row: int, found: int, expected: int) -> BadRequest:
    """Return the error for a row that is not as long as the first; ``row`` counts from 1."""
    return BadRequest(f"row {row} has {found} columns, row 1 has {expected}")


def not_a_number(row: int, column: int, value: object, name: str | None = None) -> BadRequest:
    """Return the error for one value; row and column count from 1, a header row is not counted."""
    shown = repr(value)
    if len(shown) > 60:
        shown = shown[:57] + "..."
    where = f"row {row}, column {column}" + (f" ({name})" if name is not None else "")
    return BadRequest(f"{where}: {shown} is not a number (both count from 1, a header row is not counted)")


def check_names(columns: Sequence[str]) -> tuple[str, ...]:
    """Return the names of a header; raises ``BadRequest`` when one comes twice."""
    seen: set[str] = set()
    for name in columns:
        if name in seen:
            raise BadRequest(f"the header names column {name!r} twice")
        seen.add(name)
    return tuple(columns)
