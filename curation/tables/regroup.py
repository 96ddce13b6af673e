"""Groups of copies after some of their clips were deleted: what the table says of those left stays true."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from dailies.curation.tables.table import Table

GROUPS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("duplicate_group", "duplicate_size", ("duplicate_kind", "duplicate_distance")),
    ("captions_alike_group", "captions_alike", ()),
)
"""A column of groups, that of their sizes, and those of what is not known any more where a group has lost a clip."""


def regroup(table: Table) -> None:
    """Bring a table of groups up to date with the rows that it has, in one commit for each kind of group.

    A group is called by the smallest clip left in it, and a clip left alone is in none. By what and how near a clip is a
    copy is not known where one of its group is gone, since that may be the one: a dedup step says it again. A group is
    smaller than its rows say until this is done, so that a second call finishes what a killed one left.
    """
    for group, size, unknown in GROUPS:
        if group in table.schema.names:
            _regroup(table, group, size, unknown)


def _regroup(table: Table, group: str, size: str, unknown: tuple[str, ...]) -> None:
    rows = table.read(["clip_id", group, size])
    groups = rows.filter(pc.is_valid(rows[group])).group_by(group)
    groups = groups.aggregate([("clip_id", "count"), ("clip_id", "min"), (size, "max")])
    smaller = groups.filter(pc.less(groups["clip_id_count"], groups[f"{size}_max"])).combine_chunks()
    if not len(smaller):
        return

    def change(part: pa.Table) -> pa.Table | None:
        at = pc.index_in(part[group], value_set=smaller[group])
        if at.null_count == len(part):
            return None
        lost = pc.is_valid(at)
        count = smaller["clip_id_count"].take(at).cast(pa.int32())
        name = smaller["clip_id_min"].take(at)
        left = {
            group: pc.if_else(pc.greater(count, 1), name, pa.scalar(None, pa.string())),
            size: count,
            **{column: pa.nulls(len(part), table.schema.field(column).type) for column in unknown},
        }
        for column, values in left.items():
            if column in part.column_names:
                place = part.schema.get_field_index(column)
                part = part.set_column(place, part.schema.field(place), pc.if_else(lost, values, part[column]))
        return part

    table.rewrite([group], change)
