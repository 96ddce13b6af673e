"""The units of each stage that are still to do, as Arrow tables, and the bundles that the engine shares out."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dailies.curation.observations import UNIT, unit_of
from dailies.curation.policy import local_path
from dailies.curation.tables import Table


def first_units(table: Table, rows: Sequence[dict[str, Any]]) -> pa.Table:
    """Return units of the sources that were not observed yet: the whole source, or the first segment of a long one."""
    done = set(table.read(["source_id"], equals={"segment": 0})["source_id"].to_pylist())
    fresh = {"segment": 0, "segments": None, "origin": None}
    return pa.Table.from_pylist([row | fresh for row in rows if row["source_id"] not in done], schema=UNIT)


def further_units(table: Table, rows: Sequence[dict[str, Any]]) -> pa.Table:
    """Return units of the segments still to observe, of those ``rows`` whose first segment says how many there are."""
    sources = {row["source_id"]: row for row in rows}
    long = table.read(
        ["source_id", "segments", "origin"], filter=(pc.field("segment") == 0) & (pc.field("segments") > 1)
    )
    done = table.keys("unit")
    units = [
        sources[first["source_id"]] | first | {"segment": number}
        for first in long.to_pylist()
        if first["source_id"] in sources
        for number in range(1, first["segments"])
        if unit_of(first["source_id"], number) not in done
    ]
    return pa.Table.from_pylist(units, schema=UNIT)


def file_sizes(addresses: Mapping[str, str]) -> dict[str, float]:
    """Return the bytes of what lies at each of ``addresses``, by its key: decoding takes time by them.

    What is no file of this machine counts as the mean of the others, for nothing is known of it yet.
    """
    sizes = {}
    for key, address in addresses.items():
        with suppress(OSError, ValueError):  # a file that is not there is told when it is opened
            if (path := local_path(address)) is not None:
                sizes[key] = float(os.path.getsize(path))
    mean = sum(sizes.values()) / len(sizes) if sum(sizes.values()) else 1.0
    return {key: sizes.get(key, mean) for key in addresses}


def observed_sources(table: Table) -> pa.Table:
    """Return the sources that were observed to their end: ``source_id`` and ``files``, ordered by file."""
    rows = table.located(["source_id", "segments"], equals={"status": "ok"})
    rows = rows.group_by("source_id").aggregate([("segments", "min"), ([], "count_all"), ("file", "distinct")])
    rows = rows.filter(pc.equal(rows["segments_min"], rows["count_all"]))
    return rows.select(["source_id", "file_distinct"]).rename_columns(["source_id", "files"])


def with_files(clips: pa.Table, table: Table) -> pa.Table:
    """Return ``clips`` with a column ``files``, which hold the evidence of each, ordered by file.

    The evidence of a clip from a source in segments lies in the file of each segment that the clip overlaps.
    """
    rows = table.located(["source_id", "segment", "segments", "end"], equals={"status": "ok"})
    split = pc.greater(rows["segments"], 1)
    unsplit = rows.filter(pc.invert(split)).select(["source_id", "file"])
    short = clips.join(unsplit, "source_id", join_type="inner")
    short = short.set_column(short.schema.get_field_index("file"), "files", _as_lists(short["file"]))
    ends: dict[str, list[tuple[int, int, str]]] = {}
    for row in rows.filter(split).to_pylist():
        ends.setdefault(row["source_id"], []).append((row["segment"], row["end"], row["file"]))
    long = clips.filter(pc.is_in(clips["source_id"], value_set=pa.array(list(ends), pa.string())))
    files = []
    for source, start, end in zip(*(long[name].to_pylist() for name in ("source_id", "start", "end")), strict=True):
        segments = sorted(ends[source])
        begins = [-math.inf, *(last for _, last, _ in segments)]
        files.append(
            [file for begin, (_, last, file) in zip(begins, segments, strict=False) if begin < end and start < last]
        )
    long = long.append_column("files", pa.array(files, pa.list_(pa.string())))
    units = pa.concat_tables([short, long.select(short.column_names)])
    units = units.append_column("file", pc.list_element(units["files"], 0))
    units = units.sort_by([("file", "ascending"), ("source_id", "ascending"), ("start", "ascending")])
    return units.drop_columns("file")


def with_parts(clips: pa.Table, table: Table, column: str) -> pa.Table:
    """Return ``clips`` with the part of ``table`` that holds each one's row in ``column``; null where it has none."""
    rows = table.located(["clip_id"], equals={"status": "ok"})
    clips = clips.join(rows.rename_columns(["clip_id", column]), "clip_id")
    return clips.sort_by([(column, "ascending"), ("source_id", "ascending"), ("start", "ascending")])


def _as_lists(values: pa.ChunkedArray) -> pa.Array:
    """Return each value as a list with one element."""
    flat = values.combine_chunks()
    return pa.ListArray.from_arrays(pa.array(range(len(flat) + 1), pa.int32()), flat)


def bundles(units: pa.Table, most: int, size: int | None = None) -> Iterator[pa.Table]:
    """Yield ``units`` in bundles of at most ``most``, small enough for all workers to get some and a kill to lose little.

    ``size``: units of a bundle, where the work itself says how many it does at a time.
    """
    size = size or max(1, min(most, len(units) // 64))
    for start in range(0, len(units), size):
        yield units.slice(start, size).combine_chunks()


def without(units: pa.Table, key: str, done: Iterable[str]) -> pa.Table:
    """Return ``units`` whose column ``key`` is not in ``done``."""
    return units.filter(pc.invert(pc.is_in(units[key], value_set=pa.array(list(done), pa.string()))))
