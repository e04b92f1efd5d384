r"""Patterns of AWS's service models as Python's: `re` has no Unicode categories such as ``\p{L}``."""

from __future__ import annotations

import re
import sys
import unicodedata
from functools import cache

_CATEGORY = re.compile(r"\\p\{(\w+)\}")


@cache
def compiled(pattern: str) -> re.Pattern[str]:
    """Return a service model's pattern, to be matched in full. Those with categories take 0.1 s once."""
    return re.compile(_CATEGORY.sub(lambda match: _ranges(match[1]), pattern))


@cache
def _ranges(category: str) -> str:
    r"""Return the ranges of a category: ``\p{L}`` and ``\p{Lu}`` are Unicode's, ``\p{Alnum}`` is POSIX's."""
    if category == "Alnum":
        return "a-zA-Z0-9"
    ranges: list[list[int]] = []
    for code in range(sys.maxunicode + 1):
        if unicodedata.category(chr(code)).startswith(category):
            if ranges and ranges[-1][1] == code - 1:
                ranges[-1][1] = code
            else:
                ranges.append([code, code])
    return "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in ranges)
