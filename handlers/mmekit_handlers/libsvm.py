"""``text/libsvm`` → sparse rows: ``[label] [qid:n] index:value …`` a line.

Labels, query ids and what follows ``#`` are read over: they say nothing about a prediction.
"""

from __future__ import annotations

import re

import numpy as np
import orjson

from mmekit.errors import BadRequest
from mmekit_handlers.sparse import SparseRows
from mmekit_handlers.table import EMPTY_BODY

#: Indices are held as int32 by XGBoost's sparse input.
_MAX_INDEX = 2**31 - 1
#: A line as programs write it: with commas for blanks and colons it is a list of JSON numbers, which is
#: read five times as fast as token by token.
_PLAIN = re.compile(rb"(-?\d[\d.eE+-]* )?\d{1,9}:-?\d[\d.eE+-]*(?: \d{1,9}:-?\d[\d.eE+-]*)*")
_COMMAS = bytes.maketrans(b" :", b",,")


def read_libsvm(body: bytes) -> SparseRows:
    """Read the rows with their indices as they were sent.

    A blank line between rows is a row with nothing given, as in AWS's container, so that answers
    stay in step. Raises ``BadRequest`` with row and item, both counted from 1.
    """
    lines = body.strip().splitlines()
    if not lines:
        raise BadRequest(EMPTY_BODY)
    columns: list[int] = []
    values: list[float] = []
    starts = [0]
    for number, line in enumerate(lines, 1):
        if not _read_plain(line, columns, values):
            _read_line(line, number, columns, values)
        _check_once(columns, starts[-1], number)
        starts.append(len(columns))
    return SparseRows(np.array(values, np.float64), np.array(columns, np.int64), np.array(starts, np.int64))


def rebase(rows: SparseRows, features: int, first_index: int | None) -> SparseRows:
    """Return the rows with indices that count from 0.

    ``first_index`` says what the first feature is called: 0 as in XGBoost's own files, or 1. With
    None it is 0, unless that cannot be: the request has an index equal to ``features``, one past the
    last, and no index 0. The guess never rests on which of the first features a row happens to give,
    so a row is read alike alone and beside others (AWS's 3.2 image shifts whenever 0 is absent).
    """
    if not rows.columns.size:
        return rows
    lowest, highest = int(rows.columns.min()), int(rows.columns.max())
    if first_index == 1 and lowest == 0:
        row = rows.row_of(int(rows.columns.argmin()))
        raise BadRequest(f"row {row} has index 0; MMEKIT_XGBOOST_LIBSVM_BASE says that indices count from 1")
    shift = first_index == 1 or (first_index is None and highest == features and lowest >= 1)
    return SparseRows(rows.values, rows.columns - 1, rows.starts) if shift else rows


def _read_plain(line: bytes, columns: list[int], values: list[float]) -> bool:
    """Read a line as JSON; says no, and reads nothing, when that does not do."""
    match = _PLAIN.fullmatch(line)
    if match is None:
        return False
    try:
        numbers = orjson.loads(b"[%b]" % line.translate(_COMMAS))
    except orjson.JSONDecodeError:  # 007, 1e, 1e999
        return False
    first = 0 if match[1] is None else 1
    columns += numbers[first::2]
    values += numbers[first + 1 :: 2]
    return True


def _read_line(line: bytes, number: int, columns: list[int], values: list[float]) -> None:
    content = line.partition(b"#")[0] if b"#" in line else line
    plain = b"_" not in content  # Python reads 1_000, libsvm does not know it
    for item, token in enumerate(content.split(), 1):
        index, colon, value = token.partition(b":")
        if not colon or index == b"qid":
            _check_word(token, bool(colon), number, item)
            continue
        try:
            column = int(index)
            values.append(float(value))
        except ValueError:
            column = -1
        if not plain or not 0 <= column <= _MAX_INDEX:
            _check_pair(index, value, number, item)
        columns.append(column)


def _check_pair(index: bytes, value: bytes, number: int, item: int) -> None:
    shown = f"row {number}, item {item}: {_shown(index + b':' + value)}"
    if not index.isdigit():
        raise BadRequest(f"{shown} is not index:value, the index being a whole number from 0")
    if len(index) > 10 or int(index) > _MAX_INDEX:
        raise BadRequest(f"{shown} has an index over {_MAX_INDEX}")
    if not _is_number(value):
        raise BadRequest(f"{shown} has a value that is not a number")


def _check_word(token: bytes, is_query: bool, number: int, item: int) -> None:
    """Accept a query id anywhere and a label in first place."""
    if is_query or (item == 1 and _is_number(token)):
        return
    raise BadRequest(
        f"row {number}, item {item}: {_shown(token)} is not index:value. "
        "A body without Content-Type is read as libsvm; send Content-Type: text/csv for CSV"
    )


def _check_once(columns: list[int], start: int, number: int) -> None:
    row = columns[start:]
    if len(set(row)) != len(row):
        twice = next(column for column in row if row.count(column) > 1)
        raise BadRequest(f"row {number} has index {twice} twice")


def _is_number(text: bytes) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return b"_" not in text


def _shown(token: bytes) -> str:
    text = token.decode("utf-8", "replace")
    return repr(text if len(text) <= 60 else text[:57] + "...")
