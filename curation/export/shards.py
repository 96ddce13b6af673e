"""Shards hold the clips of an export: plain Parquet, immutable, each written in one go.

``data/SPLIT-00000-of-00004.parquet`` holds the clips' bytes uncompressed in row groups of at most 32 MB; ``index.parquet``
says where each clip lies, ``README.md`` where it all came from (``dailies.curation.export.card``). Rows stand in the canonical
order hash(seed, content, stream, span), so a reader that goes front to back sees a shuffled dataset.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dailies.curation import export_schema
from dailies.curation.errors import SourceError
from dailies.curation.export.extraction import failure_of
from dailies.curation.tables.storage import ROW_GROUP_BYTES

ROW_GROUP_CLIPS = 4096  # at most in one row group, which matters where clips hold no bytes of their own


def write_shard(
    path: str,
    name: str,
    clips: Iterable[Mapping[str, Any]],
    columns: Sequence[pa.Field],
    extract: Callable[[Mapping[str, Any]], Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """Write one shard at the local path or open file ``path``; return its rows of the index, failed clips among them."""
    shard_schema = export_schema.export(columns)
    media = [column.name for column in shard_schema if column.type == pa.binary()]
    plain = [column.name for column in shard_schema if column.name not in media]
    index: list[dict[str, Any]] = []
    with pq.ParquetWriter(
        path,
        shard_schema,
        compression={**dict.fromkeys(plain, "zstd"), **dict.fromkeys(media, "none")},
        use_dictionary=[c for c in plain if shard_schema.field(c).type == pa.string()],
        write_statistics=plain,
        write_page_checksum=True,  # for a later export, which may take clips from here
    ) as writer:
        for group, rows in enumerate(_groups(clips, columns, extract, index)):
            table = pa.Table.from_pylist(rows, schema=shard_schema)
            writer.write_table(table, row_group_size=len(rows))
            for number, row in enumerate(rows):
                index.append(_index_row(row, shard=f"data/{name}", row_group=group, row=number))
    return index


def _groups(
    clips: Iterable[Mapping[str, Any]],
    columns: Sequence[pa.Field],
    extract: Callable[[Mapping[str, Any]], Mapping[str, Any]],
    failed: list[dict[str, Any]],
) -> Iterator[list[dict[str, Any]]]:
    """Yield rows in groups of at most 32 MB of media or ``ROW_GROUP_CLIPS`` rows; failed clips go to ``failed``."""
    rows: list[dict[str, Any]] = []
    total = 0
    for clip in clips:
        row = _row(clip, columns)
        try:
            row |= extract(clip)
        except SourceError as error:
            failed.append(_index_row(row, failure=failure_of(error)))
            continue
        size = len(row["video"] or b"")
        if rows and (total + size > ROW_GROUP_BYTES or len(rows) == ROW_GROUP_CLIPS):
            yield rows
            rows, total = [], 0
        rows.append(row)
        total += size
    if rows:
        yield rows


def _row(clip: Mapping[str, Any], columns: Sequence[pa.Field]) -> dict[str, Any]:
    same = {name: clip[name] for name in export_schema.export(columns).names if name in clip}
    return same | {"source_start": clip["start"], "source_end": clip["end"]}


def _index_row(
    clip: Mapping[str, Any],
    *,
    shard: str | None = None,
    row_group: int | None = None,
    row: int | None = None,
    failure: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    kept = {key: value for key, value in clip.items() if key != "video"}
    return {
        **kept,
        "status": "failed" if failure else "ok",
        "failure": failure,
        "shard": shard,
        "row_group": row_group,
        "row": row,
        "bytes": None if failure else len(clip["video"] or b""),
    }
