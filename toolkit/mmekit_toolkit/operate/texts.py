"""Times and tables as people read them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone


def moment(at: datetime) -> str:
    """Return ``2026-11-27 10:15:00Z``."""
    return f"{at.astimezone(timezone.utc):%Y-%m-%d %H:%M:%SZ}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return lines with aligned columns, which stay whole lines for ``grep`` and ``awk``."""
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n"
        for line in lines
    )
