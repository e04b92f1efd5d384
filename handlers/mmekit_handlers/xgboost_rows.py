"""From what was read to what a booster takes: columns in the model's order, widths and values checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse
import xgboost as xgb

from mmekit.errors import BadRequest, UnsupportedMediaType
from mmekit_handlers.accept import MediaType
from mmekit_handlers.libsvm import rebase
from mmekit_handlers.sparse import SparseRows
from mmekit_handlers.table import Array, Table
from mmekit_handlers.xgboost_ensemble import Ensemble

#: Above this a value is infinite to XGBoost, which computes in float32.
_LARGEST = float(np.finfo(np.float32).max)


def in_order(table: Table, ensemble: Ensemble, media: MediaType) -> Array:
    """Return the values, checked for width and put in the model's order where columns have names."""
    values = table.values
    if not len(values):
        raise BadRequest("the body has no rows; expected at least one row")
    if values.dtype != np.float64 and values.dtype != np.float32:
        values = values.astype(np.float64)
    if table.columns is not None and ensemble.names is not None:
        order = _places(table.columns, ensemble.names)
        return values if order is None else np.ascontiguousarray(values[:, order])
    if values.shape[1] != ensemble.features:
        raise BadRequest(_width_text(values.shape[1], ensemble, media))
    return values


def _places(columns: Sequence[str], names: Sequence[str]) -> list[int] | None:
    """Return where each of the model's features is among the columns; None when they are in order."""
    if tuple(columns) == tuple(names):
        return None
    missing = [name for name in names if name not in set(columns)]
    unexpected = [column for column in columns if column not in set(names)]
    if missing or unexpected:
        said = [f"missing: {some(missing)}"] if missing else []
        said += [f"unexpected: {some(unexpected)}"] if unexpected else []
        raise BadRequest(
            f"the names of the columns are not those of the model's {len(names)} features; {'; '.join(said)}"
        )
    place = {column: index for index, column in enumerate(columns)}
    return [place[name] for name in names]


def _width_text(width: int, ensemble: Ensemble, media: MediaType) -> str:
    text = f"the rows have {width} columns; the model has {ensemble.features} features"
    if ensemble.names is not None:
        text += f" ({some(ensemble.names)})"
    if media.name == "text/csv" and width == ensemble.features + 1:
        text += "; send no label, or say that the first column is one: Content-Type: text/csv; label_size=1"
    return text


def some(names: Sequence[str], most: int = 20) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def check_finite(values: Array) -> None:
    """Raise ``BadRequest`` for what XGBoost refuses in a DMatrix and takes for a number in place."""
    infinite = np.abs(values) > _LARGEST  # NaN is not above anything
    if infinite.any():
        where = np.argwhere(infinite)[0]
        place = f"row {where[0] + 1}, column {where[1] + 1}: " if values.ndim == 2 else ""
        value = float(values[tuple(where)])
        raise BadRequest(
            f"{place}{value!r} is infinite or too large for float32; send an empty field or null for missing"
        )


def with_delimiter(text: bytes) -> tuple[bytes, str]:
    """Return the text and what parts its fields: the first of comma, tab, semicolon, bar in line 1.

    Lines of numbers parted by blanks come back with commas.
    """
    first = text.lstrip(b"\r\n").partition(b"\n")[0]
    if b"," in first:
        return text, ","
    for delimiter in (b"\t", b";", b"|"):
        if delimiter in first:
            simple = b'"' not in text and b"," not in text
            return (text.replace(delimiter, b","), ",") if simple else (text, delimiter.decode())
    if first.strip() and not first.strip(b" \r").translate(None, b"0123456789.+-eE naNifIF"):
        return b"\n".join(b",".join(line.split()) for line in text.splitlines()), ","
    return text, ","


def label_size(media: MediaType) -> int:
    """Return how many label columns the Content-Type says there are (XGB: data_utils.py takes 1 only)."""
    size = media.parameters.get("label_size", "0")
    if size not in ("0", "1"):
        raise UnsupportedMediaType(
            f"Content-Type has label_size={size}; expected 0, or 1 when the first column is a label"
        )
    return int(size)


def as_csr(rows: SparseRows, features: int) -> Any:
    """Return the rows as a matrix of ``features`` columns."""
    # int32 is what scipy would turn the indices into, after looking at each.
    columns, starts = rows.columns.astype(np.int32), rows.starts.astype(np.int32)
    return scipy.sparse.csr_matrix((rows.values, columns, starts), shape=(len(rows), features))


def as_dmatrix(rows: Table | SparseRows, first_index: int | None) -> xgb.DMatrix:
    if isinstance(rows, Table):
        names = list(rows.columns) if rows.columns else None
        return xgb.DMatrix(rows.values, feature_names=names, nthread=1)
    highest = int(rows.columns.max()) if rows.columns.size else 0
    rows = rebase(rows, highest + 2, first_index)
    return xgb.DMatrix(as_csr(rows, max(highest + 1, rows.width or 0)), nthread=1)
