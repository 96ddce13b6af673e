"""Values of JSON, such as one key of many objects, become a column of one type, whatever types they have themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

MIXED = (ValueError, TypeError, OverflowError)
"""What Arrow and Python raise of texts that are no numbers, lists of mixed values and large integers."""


class JsonColumn:
    """The type that fits all values of a column, which may be seen in batches, so that they need not lie in memory at once.

    Values of one type keep it, whole numbers beside floats are floats, and values of several types become text. Manifests
    in CSV were stored as text once: beside numbers, text that is a number is one, and empty text is null.
    """

    def __init__(self) -> None:
        self._known: set[type] = set()
        self._stored: pa.DataType | None = pa.null()  # None: no type of Arrow's holds them as they are
        self._numbers = True  # whether each value is a number, a text of one, or empty

    def see(self, values: Sequence[Any]) -> None:
        self._known |= {type(value) for value in values if value is not None}
        if self._stored is not None:
            self._stored = _common(self._stored, values)
        if self._numbers:
            try:
                _numbers(values)
            except MIXED:
                self._numbers = False

    @property
    def type(self) -> pa.DataType:
        """The type of a column of all values seen, of nulls alone if there are no others."""
        if self._stored is not None and (self._known <= {int, float} or len(self._known) == 1):
            return self._stored
        beside = str in self._known and self._known <= {int, float, str}
        return pa.float64() if beside and self._numbers else pa.string()

    def column(self, values: Sequence[Any]) -> pa.Array:
        """Return some of the values seen as a column of ``type``."""
        kind = self.type
        if kind == self._stored:
            return pa.array(values, kind)
        if kind == pa.float64():
            return _numbers(values)
        return pa.array([None if value is None else str(value) for value in values], pa.string())


def typed_column(values: Sequence[Any]) -> pa.ChunkedArray:
    """Return all values of a column, typed by what they have in common."""
    column = JsonColumn()
    column.see(values)
    return pa.chunked_array([column.column(values)])


def _common(kind: pa.DataType, values: Sequence[Any]) -> pa.DataType | None:
    """Return the type that holds values of ``kind`` and these; None where none does."""
    try:
        both = [pa.schema([("value", each)]) for each in (kind, pa.array(values).type)]
        return pa.unify_schemas(both, promote_options="permissive").field("value").type
    except (*MIXED, pa.ArrowException):
        return None


def _numbers(values: Sequence[Any]) -> pa.Array:
    return pa.array([None if value in (None, "") else float(value) for value in values], pa.float64())
