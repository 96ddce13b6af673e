"""Where sources lie now. Tables keep the ``uri`` that they were written with; the table ``places`` says of those sources that
were moved since where they lie, and its newest rows hold wherever a ``uri`` is read.

So a million sources that are moved cost one small part, and no row of another table is written again.
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from dailies.curation import schema
from dailies.curation.tables.dataset import DatasetTables


def has_places(table: str) -> bool:
    """Return whether a table of this name has a ``uri`` that says where a source lies, and not where it lay."""
    return table.startswith(("observations@", "clips/"))


def with_places(dataset: DatasetTables, rows: pa.Table) -> pa.Table:
    """Return rows of a table, with ``source_id`` and ``uri``, whose ``uri`` says where each source lies now."""
    moved = moved_sources(dataset)
    if not len(moved):
        return rows
    at = pc.index_in(rows["source_id"], value_set=moved["source_id"].combine_chunks())
    column = rows.schema.get_field_index("uri")
    uris = pc.coalesce(pc.take(moved["uri"], at), rows["uri"])
    return rows.set_column(column, rows.schema.field(column), uris)


def moved_sources(dataset: DatasetTables) -> pa.Table:
    """Return ``source_id`` and ``uri`` of each source that was moved."""
    table = dataset.table("places")
    if not table.exists():
        return schema.PLACES.empty_table().select(["source_id", "uri"])
    rows = table.read().sort_by("number").group_by("source_id", use_threads=False).aggregate([("uri", "last")])
    return rows.rename_columns(["source_id", "uri"])


def move_sources(dataset: DatasetTables, uris: Mapping[str, str]) -> None:
    """Note, in one commit, that these sources, by id, lie at these places now.

    Where more rows would be outdated than hold, they are left out of the table in the same commit.
    """
    if not uris:
        return
    table = dataset.table("places", schema.PLACES)
    stored = sum(rows for _, rows in table.files().values())
    moved = moved_sources(dataset)
    lie = dict(zip(moved["source_id"].to_pylist(), moved["uri"].to_pylist(), strict=True)) | dict(uris)
    number = 1 + (-1 if (before := table.version()) is None else before)
    outdated = stored + len(uris) - len(lie)
    compact = outdated > len(lie)
    rows = lie if compact else uris
    columns = [pa.array(list(rows), pa.string()), pa.array(list(rows.values()), pa.string())]
    fresh = pa.table([*columns, pa.array([number] * len(rows), pa.int64())], names=schema.PLACES.names)
    if compact:
        table.replace(fresh)
    else:
        table.append(fresh)
