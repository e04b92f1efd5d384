"""``text/csv`` ⇄ rows: one JSON parse for what is purely numbers, an exact reader for the rest.

Header rule. With the media type's parameter ``header=present`` or ``header=absent`` (RFC 4180) the
first row is, or is not, a header. Without it the first row is a header when none of its fields is a
number and either half of them or more are names that the model knows, or the second row has a number.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Sequence
from functools import lru_cache
from math import nan

import numpy as np
import orjson

from mmekit.errors import BadRequest
from mmekit_handlers.table import EMPTY_BODY, Array, Table, Text, check_names, not_a_number, ragged

#: All that rows of plain numbers consist of; JSON reads nothing but numbers from these bytes.
_NUMERIC = b"0123456789.,+-eE \t\r\n"

#: Longer first lines are left to the exact reader, so that the cache stays small.
_HEADER_BYTES = 8192

_BOOLEANS = {"true": 1.0, "false": 0.0}


def read_csv(
    body: bytes,
    names: Sequence[str] | None = None,
    text: Text = False,
    header: bool | None = None,
    delimiter: str = ",",
) -> Table:
    """Read rows of UTF-8 text; an empty field is NaN.

    ``names`` are those that the model knows: they help to tell a header, and name the columns when
    there is none. ``text``: columns may hold text, all of them (a column without any is read as
    numbers) or only those named (which stay text whatever they hold). ``header`` says what is known
    about the first row. Raises ``BadRequest`` with row and column of what cannot be read.
    """
    if not isinstance(text, bool) and text:
        return _read_exactly(body, names, text, header, delimiter)
    if header is not True and delimiter == "," and not body.translate(None, _NUMERIC):
        values = _numbers(body)
        if values is not None:
            return Table(values)
    if header is not False and delimiter == ",":
        table = _names_then_numbers(body, header)
        if table is not None:
            return table
    return _read_exactly(body, names, text, header, delimiter)


def write_csv(values: Array) -> bytes:
    r"""Write one line a row, ``\n`` after each; a 1-D array is one value a line. NaN is ``nan``."""
    if values.ndim == 0:
        values = values.reshape(1)
    kind = values.dtype.kind
    if kind in "iu" or (kind == "f" and values.dtype.itemsize <= 8 and np.isfinite(values).all()):
        return _write_numbers(values)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    # As text first, so that a float32 is written with its own digits and not those of a float64.
    rows = (values.astype(np.str_) if kind == "f" else values).tolist()
    writer.writerows([row] if values.ndim == 1 else row for row in rows)
    return out.getvalue().encode()


def _write_numbers(values: Array) -> bytes:
    if values.size == 0:
        return b""
    rows = values.reshape(-1, 1) if values.ndim == 1 else values
    dumped = orjson.dumps(np.ascontiguousarray(rows), option=orjson.OPT_SERIALIZE_NUMPY)
    return dumped[2:-2].replace(b"],[", b"\n") + b"\n"


def _numbers(body: bytes) -> Array | None:
    """Return the rows of a body of numeric bytes; None when it takes the exact reader."""
    lines = body.strip()
    if not lines:
        raise BadRequest(EMPTY_BODY)
    if b"\r" in lines:
        lines = lines.replace(b"\r\n", b"\n")
        if b"\r" in lines:  # JSON would take it for a space
            return None
    rows = b"[[" + (lines.replace(b"\n", b"],[") if b"\n" in lines else lines) + b"]]"
    try:
        return np.array(orjson.loads(rows), np.float64)
    except ValueError:  # also orjson.JSONDecodeError: an empty field, "+1", ".5"; numpy: ragged rows
        return _numbers_with_gaps(rows)


def _numbers_with_gaps(rows: bytes) -> Array | None:
    """Try again with null, which numpy makes NaN, where a field is empty."""
    filled = rows.replace(b",,", b",null,").replace(b",,", b",null,")
    filled = filled.replace(b"[,", b"[null,").replace(b",]", b",null]")
    if len(filled) == len(rows):
        return None
    try:
        return np.array(orjson.loads(filled), np.float64)
    except ValueError:
        return None


def _names_then_numbers(body: bytes, header: bool | None) -> Table | None:
    """Read the usual file with a header without the exact reader; None when it is not one."""
    first, _, rest = body.lstrip().partition(b"\n")
    if not rest or len(first) > _HEADER_BYTES or rest.isspace() or rest.translate(None, _NUMERIC):
        return None
    columns, could_be_names = _fields(first)
    if not columns or not (could_be_names or header):
        return None
    values = _numbers(rest)
    if values is None or values.shape[1] != len(columns):
        return None
    return Table(values, check_names(columns))


@lru_cache(maxsize=64)
def _fields(line: bytes) -> tuple[tuple[str, ...], bool]:
    """Return a header's fields, and whether they could be names; a client sends the same one each time."""
    try:
        fields = next(csv.reader([line.decode()], strict=True, skipinitialspace=True))
    except (csv.Error, StopIteration, UnicodeDecodeError):
        return (), False
    names = [field.strip() for field in fields]
    return tuple(names), _could_be_names(names)


def _read_exactly(
    body: bytes, names: Sequence[str] | None, text: Text, header: bool | None, delimiter: str
) -> Table:
    rows = _split(body, delimiter)
    if not rows:
        raise BadRequest(EMPTY_BODY)
    columns: tuple[str, ...] | None = None
    if header or (header is None and _is_header(rows, names)):
        columns = check_names(rows.pop(0))
        if not rows:
            raise BadRequest(f"the body has a header ({', '.join(columns[:5])}) and no rows")
        if len(rows[0]) != len(columns):
            raise BadRequest(f"row 1 has {len(rows[0])} columns, the header names {len(columns)}")
    width = len(rows[0])
    for number, row in enumerate(rows, 1):
        if len(row) != width:
            raise ragged(number, len(row), width)
    if text is True:
        return Table(_mixed(rows), columns)
    if text:
        return Table(_typed(rows, columns or names or (), text), columns)
    return Table(_floats(rows, columns), columns)


def _split(body: bytes, delimiter: str) -> list[list[str]]:
    try:
        content = body.decode()
    except UnicodeDecodeError as error:
        raise BadRequest(f"the body is not UTF-8: byte {error.start} is 0x{body[error.start]:02x}") from None
    reader = csv.reader(
        io.StringIO(content, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True
    )
    rows = []
    try:
        for row in reader:
            fields = [field.strip() for field in row]
            if fields and (len(fields) > 1 or fields[0]):  # a blank line is no row
                rows.append(fields)
    except csv.Error as error:
        raise BadRequest(f"line {reader.line_num} is not CSV: {error}") from None
    return rows


def _number(field: str) -> float | None:
    if not field:
        return nan
    try:
        # Python reads 1_000 too, which nobody means in CSV.
        return float(field) if "_" not in field else None
    except ValueError:
        # As pandas writes a column of booleans.
        return _BOOLEANS.get(field.lower())


def _could_be_names(fields: list[str]) -> bool:
    return any(fields) and all(not field or _number(field) is None for field in fields)


def _is_header(rows: list[list[str]], names: Sequence[str] | None) -> bool:
    first = rows[0]
    if not _could_be_names(first):
        return False
    if names is not None and 2 * len(set(first) & set(names)) >= len(first):
        return True
    return len(rows) > 1 and any(field and _number(field) is not None for field in rows[1])


def _floats(rows: list[list[str]], columns: tuple[str, ...] | None) -> Array:
    values = np.empty((len(rows), len(rows[0])), np.float64)
    for i, row in enumerate(rows):
        numbers = [_number(field) for field in row]
        if None in numbers:
            j = numbers.index(None)
            raise not_a_number(i + 1, j + 1, row[j], columns[j] if columns else None)
        values[i] = numbers
    return values


def _typed(rows: list[list[str]], names: Sequence[str], text: Collection[str]) -> Array:
    """Return an object array in which the columns named in ``text`` are str and the others floats.

    Rows of another width than the names are all text: the model will say what is wrong with them.
    """
    width = len(rows[0])
    is_text = [len(names) != width or names[j] in text for j in range(width)]
    values = np.empty((len(rows), len(is_text)), object)
    for i, row in enumerate(rows):
        for j, field in enumerate(row):
            value = (field or nan) if is_text[j] else _number(field)
            if value is None:
                raise not_a_number(i + 1, j + 1, field, names[j])
            values[i, j] = value
    return values


def _mixed(rows: list[list[str]]) -> Array:
    """Return float64 when all columns are numbers, else an object array of floats and str."""
    columns: list[list[float] | list[str | float]] = []
    for fields in zip(*rows, strict=True):
        numbers = [number for field in fields if (number := _number(field)) is not None]
        columns.append(numbers if len(numbers) == len(fields) else [field or nan for field in fields])
    is_text = any(isinstance(value, str) for column in columns for value in column)
    values = np.empty((len(rows), len(columns)), object if is_text else np.float64)
    for j, column in enumerate(columns):
        values[:, j] = column
    return values
