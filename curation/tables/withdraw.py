"""Taking sources out of an export: its shards hold their bytes in plain Parquet, outside any transaction log."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dailies.curation.export_schema import note_renamed
from dailies.curation.tables.shards import shards_of
from dailies.curation.tables.storage import Folder, layout

INDEX = "index.parquet"

Places = dict[tuple[str, int, int], tuple[str, int, int]]
"""Where a clip lies, as (shard, row group, row): before to after."""


def withdraw_from_export(export: Folder, source_ids: Sequence[str]) -> int:
    """Rewrite the shards that hold clips of these sources, then the index; returns the number of its rows that went.

    The new shards stand under new names until the index, which is replaced in one go, names them; then the old ones are
    deleted. A run killed on the way leaves files that the index does not name, which ``DatasetTables.gc`` removes.
    """
    wanted = pa.array(source_ids, pa.string())
    with export.parquet(INDEX, whole=True) as file:
        note_renamed(export.url, file.schema_arrow.names)
        index = file.read(columns=["source_id", "shard"])
    gone = index.filter(pc.is_in(index["source_id"], value_set=wanted))
    if not len(gone):
        return 0
    shards_of(export, index["shard"])
    shards = shards_of(export, gone["shard"])
    places: Places = {}
    for shard in shards:
        places |= _rewrite_shard(export, shard, wanted)
    _rewrite_index(export, wanted, set(shards), places)
    for shard in shards:
        export.delete(shard)
    return len(gone)


def _rewrite_shard(export: Folder, shard: str, source_ids: pa.Array) -> Places:
    """Write another shard without these sources, row group by row group; none if nothing is left."""
    # The split at the front of the name stays, for readers that find splits by it.
    name = f"{re.sub('-w[0-9a-f]{8}$', '', shard.removesuffix('.parquet'))}-w{uuid.uuid4().hex[:8]}.parquet"
    places: Places = {}
    with export.parquet(shard) as old:
        kept: list[tuple[int, pa.Array]] = []
        for group in range(old.num_row_groups):
            ids = old.read_row_group(group, ["source_id"])["source_id"]
            rows = pc.indices_nonzero(pc.invert(pc.is_in(ids, value_set=source_ids)))
            if len(rows):
                for new, row in enumerate(rows.to_pylist()):
                    places[shard, group, row] = (name, len(kept), new)
                kept.append((group, rows))
        if kept:
            with (
                export.new_file(name) as sink,
                pq.ParquetWriter(
                    sink, old.schema_arrow, **layout(old.schema_arrow), write_page_checksum=True
                ) as writer,
            ):
                for group, rows in kept:
                    writer.write_table(old.read_row_group(group).take(rows), row_group_size=len(rows))
    return places


def _rewrite_index(export: Folder, source_ids: pa.Array, shards: set[str], places: Places) -> None:
    with export.parquet(INDEX) as old:
        schema = old.schema_arrow
        with export.new_file(INDEX) as sink, pq.ParquetWriter(sink, schema, **layout(schema)) as writer:
            for batch in _without(old, source_ids):
                moved = [
                    places[shard, group, row] if shard in shards else (shard, group, row)
                    for shard, group, row in zip(
                        *(batch[n].to_pylist() for n in ("shard", "row_group", "row")), strict=True
                    )
                ]
                for position, column in enumerate(("shard", "row_group", "row")):
                    field = schema.field(column)
                    values = pa.array([place[position] for place in moved], field.type)
                    batch = batch.set_column(schema.get_field_index(column), field, values)
                writer.write_table(batch, row_group_size=max(1, len(batch)))


def _without(index: pq.ParquetFile, source_ids: pa.Array) -> Iterator[pa.Table]:
    for batch in index.iter_batches():
        rows = pa.Table.from_batches([batch])
        yield rows.filter(pc.invert(pc.is_in(rows["source_id"], value_set=source_ids)))
