"""Groups of copies after some of their clips were deleted: what the table says of those left stays true."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from dailies.curation.tables.table import Table

GROUP, SIZE = "duplicate_group", "duplicate_size"


def regroup(table: Table) -> None:
    """Bring a table of ``schema.DUPLICATES`` up to date with the rows that it has, in one commit.

    A group is called by the smallest clip left in it, and a clip left alone is in none. By what and how near a clip is a
    copy is not known where one of its group is gone, since that may be the one: a dedup step says it again. A group is
    smaller than its rows say until this is done, so that a second call finishes what a killed one left.
    """
    rows = table.read(["clip_id", GROUP, SIZE])
    groups = rows.filter(pc.is_valid(rows[GROUP])).group_by(GROUP)
    groups = groups.aggregate([("clip_id", "count"), ("clip_id", "min"), (SIZE, "max")])
    smaller = groups.filter(pc.less(groups["clip_id_count"], groups[f"{SIZE}_max"])).combine_chunks()
    if not len(smaller):
        return

    def change(part: pa.Table) -> pa.Table | None:
        at = pc.index_in(part[GROUP], value_set=smaller[GROUP])
        if at.null_count == len(part):
            return None
        lost = pc.is_valid(at)
        size = smaller["clip_id_count"].take(at).cast(pa.int32())
        name = smaller["clip_id_min"].take(at)
        left = {
            GROUP: pc.if_else(pc.greater(size, 1), name, pa.scalar(None, pa.string())),
            SIZE: size,
            "duplicate_kind": pa.nulls(len(part), pa.string()),
            "duplicate_distance": pa.nulls(len(part), pa.float64()),
        }
        for column, values in left.items():
            if column in part.column_names:
                place = part.schema.get_field_index(column)
                part = part.set_column(place, part.schema.field(place), pc.if_else(lost, values, part[column]))
        return part

    table.rewrite([GROUP], change)
