"""Export: selected clips → training shards, an index of them, and a card.

An export is plain Parquet, immutable, made in one go: ``data/SPLIT-00000-of-00004.parquet`` with the clips' bytes
uncompressed in row groups of at most 32 MB, ``index.parquet`` with where each clip lies, ``README.md`` that says where
it all came from (``dailies.curation.export.card``). Rows stand in the canonical order hash(seed, clip_id), so a reader that
goes front to back sees a shuffled dataset.

Clips of one source lie all over the shards, and a source is opened once. So clips are extracted source by source first,
each batch into a file of its own with a row group per clip, and the shards are put together from these.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dailies.curation import schema, video
from dailies.curation.clips import SPLITS, span_of
from dailies.curation.errors import Changed, SourceError
from dailies.curation.tables.storage import ROW_GROUP_BYTES
from dailies.curation.types import Crop
from dailies.curation.video.encode import Encoding, ExtractedClip
from dailies.curation.video.extract import Extractor, Mode


@dataclass(frozen=True, kw_only=True)
class ExtractSettings:
    """How clips are extracted from their sources.

    ``mode``: one of ``dailies.curation.video.extract``; ``encoding``: of what is encoded; ``crop``: whether measured black
    borders are taken off.
    """

    mode: Mode = "encode"
    encoding: Encoding = field(default_factory=Encoding)
    crop: bool = False

    @property
    def meaning(self) -> list[Any]:
        """The settings that an export's bytes depend on, for its fingerprint."""
        return [self.mode, asdict(self.encoding), self.encoding.meaning, self.crop]


# ---- the plan -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One file to write: ``clips`` are rows of the joined clips table, in order."""

    name: str
    clips: pa.Table


def plan(clips: pa.Table, *, seed: int, shard_bytes: int) -> list[Shard]:
    """Distribute ``clips`` over shards of about ``shard_bytes``, by split, in the canonical order.

    The plan depends on the clips and the arguments alone, so a run that was killed makes the same plan again.
    """
    order = [schema.digest("order", seed, clip) for clip in clips["clip_id"].to_pylist()]
    clips = clips.append_column("_order", pa.array(order, pa.string())).sort_by("_order").drop_columns("_order")
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


ROW_GROUP_CLIPS = 4096  # at most in one row group, which matters where clips hold no bytes of their own
BATCH = 64  # clips, at most, unless one source has more
LONG = 256  # clips of one source after which it is opened again, so that a stop loses no more, and others can help


def by_source(clips: pa.Table) -> list[Shard]:
    """Group ``clips`` into batches to extract in one go, each into a file of its own, named after its clips.

    A batch holds whole sources, each in the order of time; only very long sources are split. Batches depend on the clips
    alone and are small enough to keep many workers busy.
    """
    most = max(1, min(BATCH, len(clips) // 64))
    clips = clips.sort_by([("uri", "ascending"), ("stream", "ascending"), ("start", "ascending")])
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


# ---- one clip -------------------------------------------------------------------------------------------------------

EXTRACTED = pa.schema(
    [
        pa.field("clip_id", pa.string()),
        pa.field("failure", schema.FAILURE),
        *(column for column in schema.EXPORT_COLUMNS if column.name in schema.EXTRACTION_COLUMNS),
        schema.VIDEO,
    ]
)
"""One clip as it was extracted, or why it could not be."""


class _ClipExtractor:
    """Extracts clips, in a child process; the source last opened stays open, since its next clip comes next."""

    def __init__(self) -> None:
        self._extractor: Extractor | None = None
        self._source: tuple[str, str, int] | None = None  # uri, content id and stream that the extractor is open on

    def __call__(
        self, clip: Mapping[str, Any], settings: ExtractSettings, heartbeat: Callable[[], None] = lambda: None
    ) -> dict[str, Any]:
        """Return the columns ``schema.EXTRACTION_COLUMNS`` and the bytes of one clip.

        A source in which faults showed is encoded, whatever the mode but ``none``: copies would take the faults along.
        Raises ``SourceError``; ``Changed`` if the source is not what was observed.
        """
        extractor = self._opened(clip, heartbeat)
        mode: Mode = "encode" if clip.get("faulty") and settings.mode != "none" else settings.mode
        crop = crop_of(clip) if settings.crop else None
        extracted = extractor.extract(
            span_of(clip), mode, encoding=settings.encoding, crop=crop, expect=clip["frames"], heartbeat=heartbeat
        )
        return extraction_row(clip, extracted, mode, crop or Crop()) | {"video": extracted.data}

    def _opened(self, clip: Mapping[str, Any], heartbeat: Callable[[], None]) -> Extractor:
        source = (clip["uri"], clip["content_id"], clip["stream"])
        if self._extractor is None or self._source != source:
            if self._extractor is not None:
                self._extractor.close()
                self._extractor = None
            content, _ = video.content_id(clip["uri"])
            if content != clip["content_id"]:
                raise Changed(f"{clip['uri']} changed since it was observed")
            heartbeat()
            self._extractor, self._source = Extractor(clip["uri"], stream=clip["stream"]), source
        return self._extractor


extract_clip = _ClipExtractor()


def crop_of(clip: Mapping[str, Any]) -> Crop:
    """Return the measured black borders as what to take off; nothing at a side where they could not be told."""
    return Crop(**{side: math.ceil(clip.get(f"border_{side}") or 0) for side in ("left", "top", "right", "bottom")})


def extraction_row(clip: Mapping[str, Any], extracted: ExtractedClip, mode: Mode, crop: Crop) -> dict[str, Any]:
    """Return ``schema.EXTRACTION_COLUMNS`` of one clip; ``mode`` is what was asked for."""
    if extracted.encoded == extracted.frames:
        mode = "encode"
    elif mode == "smart" and not extracted.encoded:
        mode = "copy"
    return {
        "extraction": mode,
        "source_start": extracted.span.start,
        "source_end": extracted.span.end,
        "lost_seconds": float(span_of(clip).seconds - extracted.span.seconds),
        "seconds": float(extracted.span.seconds),
        "frames": extracted.frames,
        "frames_encoded": extracted.encoded,
        "encoder": extracted.encoder,
        "fps": extracted.fps,
        "width": extracted.width,
        "height": extracted.height,
        "crop_left": crop.left,
        "crop_top": crop.top,
        "crop_right": crop.right,
        "crop_bottom": crop.bottom,
    }


def write_extracted(
    path: Any, clips: Iterable[Mapping[str, Any]], extract: Callable[[Mapping[str, Any]], Mapping[str, Any]]
) -> int:
    """Extract ``clips`` into the local path or open file ``path``, a row group each, in order; return how many failed."""
    failed = 0
    with pq.ParquetWriter(path, EXTRACTED, compression="none", write_statistics=False) as writer:
        for clip in clips:
            row: dict[str, Any] = dict.fromkeys(EXTRACTED.names) | {"clip_id": clip["clip_id"]}
            try:
                row |= extract(clip)
            except SourceError as error:
                row["failure"] = _failure(error)
                failed += 1
            writer.write_table(pa.Table.from_pylist([row], schema=EXTRACTED))
    return failed


def _failure(error: SourceError) -> dict[str, str]:
    return {"stage": "export", "kind": error.kind, "message": str(error)}


def read_extracted(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of ``EXTRACTED`` as ``write_shard`` needs it. Raises the failure that the row records."""
    failure = row["failure"]
    if failure is not None:
        error = SourceError(failure["message"])
        error.kind = failure["kind"]
        raise error
    return {name: row[name] for name in EXTRACTED.names if name not in ("clip_id", "failure")}


# ---- one shard ------------------------------------------------------------------------------------------------------


def write_shard(
    path: str,
    name: str,
    clips: Iterable[Mapping[str, Any]],
    columns: Sequence[pa.Field],
    extract: Callable[[Mapping[str, Any]], Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """Write one shard at the local path or open file ``path``; return its rows of the index, failed clips among them."""
    shard_schema = schema.export(columns)
    media = [column.name for column in shard_schema if column.type == pa.binary()]
    plain = [column.name for column in shard_schema if column.name not in media]
    index: list[dict[str, Any]] = []
    with pq.ParquetWriter(
        path,
        shard_schema,
        compression={**dict.fromkeys(plain, "zstd"), **dict.fromkeys(media, "none")},
        use_dictionary=[c for c in plain if shard_schema.field(c).type == pa.string()],
        write_statistics=plain,
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
            failed.append(_index_row(row, failure=_failure(error)))
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
    same = {name: clip[name] for name in schema.export(columns).names if name in clip}
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
