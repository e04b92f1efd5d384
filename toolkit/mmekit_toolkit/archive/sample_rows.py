"""How wide the rows of a sample request are, where its content type tells."""

from __future__ import annotations

import ast
import csv
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mmekit.archive.sample import Sample
from mmekit_toolkit import content_types
from mmekit_toolkit.errors import ToolkitError

#: Rows that are looked at.
_MAX_ROWS = 1000


def content_type_of(file: Path) -> str:
    """Return the content type that a file's name tells. Raises ToolkitError when it tells none."""
    if known := content_types.of_file(file):
        return known
    raise ToolkitError(
        f"the name {file.name} does not tell how the sample is to be sent: give --content-type. Known by "
        f"themselves are {', '.join(content_types.KNOWN)}."
    )


def widths(sample: Sample) -> set[int]:
    """Return the numbers of columns that the sample's rows have; empty when that cannot be told."""
    media = sample.content_type.partition(";")[0].strip().lower()
    readers = {
        "text/csv": _of_csv,
        "application/json": _of_json,
        "application/jsonlines": _of_json_lines,
        "application/x-npy": _of_npy,
    }
    reader = readers.get(media)
    if reader is None:
        return set()
    try:
        return {width for width, _ in zip(reader(sample.body), range(_MAX_ROWS), strict=False)}
    except (ValueError, RecursionError, csv.Error, SyntaxError, TypeError, MemoryError):
        return set()


def _of_csv(body: bytes) -> Iterator[int]:
    text = body.decode("utf-8-sig")
    if "," not in text and any(other in text.strip() for other in ";\t| "):
        return iter(())  # the XGBoost handler finds out what is between columns
    rows = csv.reader(io.StringIO(text, newline=""))
    return (len(row) for row in rows if row)


def _of_json(body: bytes) -> Iterator[int]:
    return _of_value(json.loads(body))


def _of_json_lines(body: bytes) -> Iterator[int]:
    for line in body.splitlines():
        if line.strip():
            yield from _of_value(json.loads(line))


def _of_value(value: Any) -> Iterator[int]:  # Any: a document of people's own
    """Rows, one flat row, or a list of either under ``instances`` or ``inputs``; records have names."""
    if isinstance(value, dict):
        for key in ("instances", "inputs", "features"):
            if key in value:
                yield from _of_value(value[key])
        return
    if not isinstance(value, list):
        return
    if value and all(isinstance(each, int | float | str | None) for each in value):
        yield len(value)
        return
    rows: Iterable[Any] = value
    for row in rows:
        if isinstance(row, list):
            if any(isinstance(each, list) for each in row):
                return  # more than two dimensions
            yield len(row)
        elif isinstance(row, dict):
            yield from _of_value(row)


def _of_npy(body: bytes) -> Iterator[int]:
    if body[:6] != b"\x93NUMPY":
        return
    start = 10 if body[6] == 1 else 12
    size = int.from_bytes(body[8:start], "little")
    header = ast.literal_eval(body[start : start + min(size, 65536)].decode("latin-1").strip())
    shape = header["shape"]
    if len(shape) in (1, 2):
        yield int(shape[-1])
