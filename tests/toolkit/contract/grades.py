"""The table of docs/contract.md."""

from __future__ import annotations

import re
from pathlib import Path

DOCUMENT = Path(__file__).parent.parent.parent.parent / "docs" / "contract.md"

_ROW = re.compile(
    r"^\| `(?P<name>[\w-]+)` \| (?P<title>.+?) \| \[(?P<source>.+?)\]"
    r" \| (?P<ours>\w+) \| (?P<mms>\w+).*\|$"
)


def rows() -> list[re.Match[str]]:
    """Return the rows in order, each with name, title, source, ours and mms."""
    return [found for line in DOCUMENT.read_text().splitlines() if (found := _ROW.match(line))]


def grades() -> dict[str, tuple[str, str]]:
    """Return clause → the verdicts on our image and on Multi Model Server's."""
    return {row["name"]: (row["ours"], row["mms"]) for row in rows()}
