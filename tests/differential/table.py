"""The deliberate differences that exchanges show, by name: the rows of docs/mms-differences.md that have one.

A name stands in backticks at the start of a row's first column: "| `date-header`: … | … | … | … |".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "mms-differences.md"

_NAMED = re.compile(r"\| `([a-z0-9-]+)`: ")


@dataclass(frozen=True)
class Difference:
    mms: str
    ours: str
    why: str


def _read() -> dict[str, Difference]:
    found: dict[str, Difference] = {}
    for line in DOCUMENT.read_text().splitlines():
        if match := _NAMED.match(line):
            cells = [cell.strip() for cell in line.strip("| ").split(" | ")]
            assert len(cells) == 4, f"expected four columns: {line}"
            assert match[1] not in found, f"two rows have the name {match[1]}"
            found[match[1]] = Difference(*cells[1:])
    return found


DIFFERENCES = _read()
