"""Tables of an older dailies hold passwords and signatures of URLs: they are found here, and written anew without them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dailies.curation.addresses import public, scrub, scrub_json
from dailies.curation.tables.dataset import DatasetTables

SUSPECT = r"(?i)://|token|passw|pwd|secret|sig|key|auth|cookie|credential|bearer"  # texts without it are not looked at


def _failure(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"message": scrub(row["message"])}


CLEANED: dict[str, Callable[[Any], Any]] = {
    "uri": public,
    "manifest": scrub_json,
    "command": scrub,
    "failure": _failure,
}
"""What makes a column's values fit to be shown."""


def clean_columns(rows: pa.Table) -> pa.Table | None:
    """Return rows of a table or index without secrets in those columns that may hold some; ``None`` where there are none."""
    cleaned = rows
    for name, clean in CLEANED.items():
        if name not in rows.column_names:
            continue
        column = rows[name]
        texts = pc.struct_field(column, "message") if name == "failure" else column
        at = pc.indices_nonzero(pc.fill_null(pc.match_substring_regex(texts, SUSPECT), False)).to_pylist()
        if changed := {row: new for row in at if (new := clean(old := column[row].as_py())) != old}:
            values = column.to_pylist()
            for row, new in changed.items():
                values[row] = new
            position = cleaned.schema.get_field_index(name)
            cleaned = cleaned.set_column(position, cleaned.schema.field(position), pa.array(values, column.type))
    return None if cleaned is rows else cleaned


def clean_tables(dataset: DatasetTables) -> None:
    """Write those parts of the dataset's tables anew that hold passwords or signatures of URLs.

    On a local disk the old parts are deleted; in a store, where others may be reading them, ``DatasetTables.gc`` does.
    """
    for name in dataset.tables():
        table = dataset.table(name)
        columns = [column for column in CLEANED if column in table.schema.names]
        if columns:
            for part in table.rewrite(columns, clean_columns):
                if dataset.is_local:
                    table.folder.delete(part)


def uncleaned(dataset: DatasetTables, table: str) -> Iterator[str]:
    """Yield the columns of a table that hold passwords or signatures of URLs."""
    stored = dataset.table(table)
    for column in CLEANED:
        if column in stored.schema.names and clean_columns(stored.read([column])) is not None:
            yield column
