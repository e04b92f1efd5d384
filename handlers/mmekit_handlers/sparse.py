"""Rows of which only some columns are given, as libsvm and recordio bodies send them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mmekit.errors import BadRequest
from mmekit_handlers.table import Array


@dataclass(frozen=True, slots=True)
class SparseRows:
    """Row ``i`` has ``values[starts[i]:starts[i + 1]]`` in ``columns[starts[i]:starts[i + 1]]`` (CSR).

    ``values`` is float64, ``columns`` int64 from 0, ``starts`` int64 with one entry more than rows.
    What is not given is missing, as in XGBoost's own sparse data. ``width`` is the number of columns
    that the sender declared; None when the format has no place for it.
    """

    values: Array
    columns: Array
    starts: Array
    width: int | None = None

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __iter__(self) -> Iterator[tuple[Array, Array]]:
        """Yield columns and values of each row."""
        for start, end in zip(self.starts[:-1], self.starts[1:], strict=True):
            yield self.columns[start:end], self.values[start:end]

    def row_of(self, place: int) -> int:
        """Return the row, counted from 1, of a place in ``columns``."""
        return int(self.starts.searchsorted(place, "right"))

    def check_width(self, features: int) -> None:
        """Raise ``BadRequest`` when a column, or the declared width, is beyond the model's features."""
        if self.width is not None and self.width > features:
            raise BadRequest(f"the rows are {self.width} columns wide; the model has {features} features")
        if self.columns.size and self.columns.max() >= features:
            place = int((self.columns >= features).argmax())
            raise BadRequest(
                f"row {self.row_of(place)} has a value at index {self.columns[place]}; "
                f"the model has {features} features, 0 to {features - 1}"
            )
