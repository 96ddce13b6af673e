"""The plan of an export says which files are written and which clips they hold: batches to extract, and shards.

Shards hold clips in the canonical order hash(seed, content, stream, span), in which the clips of one source lie all over
and which is the same wherever the sources lie. A source is to be opened once, so clips are extracted source by source
first, a batch of sources in one go.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dailies.curation import schema
from dailies.curation.clips import SPLITS


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One file to write: ``clips`` are rows of the joined clips table, in order."""

    name: str
    clips: pa.Table


def plan_shards(clips: pa.Table, *, seed: int, shard_bytes: int) -> list[Shard]:
    """Distribute ``clips`` over shards of about ``shard_bytes``, by split, in the canonical order.

    The plan depends on the clips and the arguments alone, so a run that was killed makes the same plan again.
    """
    spans = clips.select(schema.CONTENT_KEY).to_pylist()
    order = [schema.digest("order", seed, *span.values()) for span in spans]
    clips = clips.append_column("_order", pa.array(order, pa.string()))
    # Copies of one content under several names are told apart by their ids alone.
    clips = clips.sort_by([("_order", "ascending"), ("clip_id", "ascending")]).drop_columns("_order")
    shards = []
    for split in SPLITS:
        rows = clips.filter(pc.equal(clips["split"], split))
        if not len(rows):
            continue
        estimate = sum(map(_expected_bytes, rows.select(["width", "height", "frames"]).to_pylist()))
        count = max(1, math.ceil(estimate / shard_bytes))
        marks = [len(rows) * number // count for number in range(count + 1)]
        for number in range(count):
            name = f"{split}-{number:05d}-of-{count:05d}.parquet"
            shards.append(Shard(name=name, clips=rows.slice(marks[number], marks[number + 1] - marks[number])))
    return shards


def _expected_bytes(row: Mapping[str, Any]) -> float:
    """Estimate a clip's size: about 0.15 bit a pixel, what x264 takes for ordinary footage at crf 18."""
    return float(row["width"] * row["height"] * row["frames"] * 0.15 / 8)


BATCH = 64  # clips, at most, unless one source has more
LONG = 256  # clips of one source after which it is opened again, so that a stop loses no more, and others can help


def by_source(clips: pa.Table) -> list[Shard]:
    """Group ``clips`` into batches to extract in one go, each into a file of its own, named after its clips.

    A batch holds whole sources, each in the order of time; only very long sources are split. Batches depend on the clips
    alone and are small enough to keep many workers busy.
    """
    most = max(1, min(BATCH, len(clips) // 64))
    clips = clips.sort_by([(name, "ascending") for name in ("uri", "source_id", "stream", "start")])
    sources = clips["source_id"].to_pylist()
    begins = [n for n in range(len(sources)) if n == 0 or sources[n] != sources[n - 1]]
    ends = sorted({m for n, end in pairwise([*begins, len(sources)]) for m in (*range(n + LONG, end, LONG), end)})
    batches, start, last = [], 0, 0
    for end in ends:
        if last > start and end - start > most:
            batches.append((start, last))
            start = last
        last = end
    batches += [(start, last)] if last > start else []
    parts = [clips.slice(start, end - start) for start, end in batches]
    return [Shard(name=f"{schema.digest(*part['clip_id'].to_pylist())}.parquet", clips=part) for part in parts]
