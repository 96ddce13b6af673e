"""Export: selected clips → training shards, an index of them, and a card.

An export is plain Parquet, immutable, made in one go: ``data/SPLIT-00000-of-00004.parquet`` with the clips' bytes
uncompressed in row groups of at most 32 MB, ``index.parquet`` with where each clip lies, ``README.md`` that says where
it all came from. Rows stand in the canonical order hash(seed, clip_id), so a reader that goes front to back sees
a shuffled dataset.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from curation import schema, video
from curation.clips import SPLITS, span_of
from curation.errors import Changed, SourceError
from curation.files import ROW_GROUP_BYTES


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """How clips are cut out: x264's ``crf`` and ``preset``; ``max_short_side`` in px downscales, ``None`` keeps the size."""

    crf: int = 18
    preset: str = "veryfast"
    max_short_side: int | None = None

    meaning: ClassVar[int] = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One file to make: its clips are rows of the joined clips table, in order."""

    name: str
    clips: pa.Table


def plan(clips: pa.Table, *, seed: int, shard_bytes: int) -> list[Shard]:
    """Share ``clips`` out over shards of about ``shard_bytes``, by split, in the canonical order.

    A function of the clips and the arguments alone, so a run that was killed finds the same plan again.
    """
    order = [schema.digest("order", seed, clip) for clip in clips["clip_id"].to_pylist()]
    clips = clips.append_column("_order", pa.array(order, pa.string())).sort_by("_order").drop_columns("_order")
    shards = []
    for split in SPLITS:
        rows = clips.filter(pa.compute.equal(clips["split"], split))
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
    """About 0.15 bit a pixel, what x264 takes for ordinary footage at crf 18."""
    return float(row["width"] * row["height"] * row["frames"] * 0.15 / 8)


# ---- one clip -------------------------------------------------------------------------------------------------------


def cut_clip(clip: Mapping[str, Any], encoding: Encoding, beat: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """The clip's bytes and what they hold. Raises ``SourceError``, ``Changed`` if the source is not what was observed."""
    content, _ = video.content_id(clip["uri"])
    if content != clip["content_id"]:
        raise Changed(f"{clip['uri']} changed since it was observed")
    beat()
    cut = video.cut_out(
        clip["uri"],
        span_of(clip),
        crf=encoding.crf,
        preset=encoding.preset,
        max_short_side=encoding.max_short_side,
        stream=clip["stream"],
        beat=beat,
    )
    if cut.frames != clip["frames"]:
        raise SourceError(f"{cut.frames} frames decoded in the span where {clip['frames']} were observed")
    return {"video": cut.data, "frames": cut.frames, "width": cut.width, "height": cut.height}


# ---- one shard ------------------------------------------------------------------------------------------------------


def write_shard(
    path: str,
    name: str,
    clips: Iterable[Mapping[str, Any]],
    columns: Sequence[pa.Field],
    cut: Callable[[Mapping[str, Any]], Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """Write one shard at the local path or open file ``path``; returns its rows of the index, failed clips among them."""
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
        for group, rows in enumerate(_groups(clips, columns, cut, index)):
            table = pa.Table.from_pylist(rows, schema=shard_schema)
            writer.write_table(table, row_group_size=len(rows))
            for number, row in enumerate(rows):
                index.append(_index_row(row, shard=f"data/{name}", row_group=group, row=number))
    return index


def _groups(
    clips: Iterable[Mapping[str, Any]],
    columns: Sequence[pa.Field],
    cut: Callable[[Mapping[str, Any]], Mapping[str, Any]],
    failed: list[dict[str, Any]],
) -> Iterator[list[dict[str, Any]]]:
    """Rows in groups of at most 32 MB of media; clips that cannot be cut go to ``failed``."""
    rows: list[dict[str, Any]] = []
    held = 0
    for clip in clips:
        row = _row(clip, columns)
        try:
            row |= cut(clip)
        except SourceError as error:
            failure = {"stage": "export", "kind": error.kind, "message": str(error)}
            failed.append(_index_row(row, failure=failure))
            continue
        if rows and held + len(row["video"]) > ROW_GROUP_BYTES:
            yield rows
            rows, held = [], 0
        rows.append(row)
        held += len(row["video"])
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
        "bytes": None if failure else len(clip["video"]),
    }


# ---- the card -------------------------------------------------------------------------------------------------------


def card(index: pa.Table, facts: Mapping[str, Any]) -> str:
    """README.md of an export: front matter for Hugging Face ``datasets``, then what it holds and where it came from.

    ``facts``: ``name``, ``recipe`` (name), ``recipe_hash``, ``selection``, ``rules``, ``limits``, ``tables`` (name → version),
    ``encoding``, ``seed``, ``version``.
    """
    ok = index.filter(pa.compute.equal(index["status"], "ok"))
    per_split = {split: ok.filter(pa.compute.equal(ok["split"], split)) for split in SPLITS}
    per_split = {split: rows for split, rows in per_split.items() if len(rows)}
    files = [f"  - split: {split}\n    path: data/{split}-*.parquet" for split in per_split]
    lines = [f"| {split} | {len(rows)} | {_minutes(rows)} | {_megabytes(rows)} |" for split, rows in per_split.items()]
    lost = len(index) - len(ok)
    front = [
        "---",
        "configs:",
        "- config_name: default",
        "  data_files:",
        *files,
        "tags:",
        "- video",
        "- dailies",
        "---",
    ]
    return "\n".join(
        [
            *front,
            "",
            f"# {facts['name']}",
            "",
            f"{len(ok)} clips of one shot each, cut from {len(set(ok['source_id'].to_pylist()))} sources.",
            "",
            "| split | clips | minutes | MB |",
            "|---|---:|---:|---:|",
            *lines,
            "",
            *([f"{lost} selected clips could not be cut out; `index.parquet` says why.", ""] if lost else []),
            "**Audio is dropped.** Clips are H.264 in mp4, frame-exact, upright, with their source's frame times.",
            "",
            *_reading(next(iter(per_split), "train")),
            *_columns(index),
            *_origin(facts),
        ]
    )


def _reading(split: str) -> list[str]:
    return [
        "## Reading",
        "",
        "```python",
        "from datasets import load_dataset, Video",
        f'clips = load_dataset("path/to/this/folder", split="{split}")',
        'clips[0]["video"]                            # the bytes of an mp4 file',
        'clips = clips.cast_column("video", Video())  # decoded by datasets, if torchcodec is there',
        "",
        "import pyarrow.parquet as pq",
        'index = pq.read_table("index.parquet")       # where each clip lies; no media is read',
        "```",
        "",
    ]


def _columns(index: pa.Table) -> list[str]:
    rows = []
    for column in index.schema:
        said = {key.decode(): value.decode() for key, value in (column.metadata or {}).items()}
        rows.append(f"| `{column.name}` | {said.get('doc', '')} | {said.get('unit', '')} |")
    return ["## Columns of the index", "", "| column | what | unit |", "|---|---|---|", *rows, ""]


def _origin(facts: Mapping[str, Any]) -> list[str]:
    limits = json.dumps(facts["limits"], sort_keys=True)
    return [
        "## Where it came from",
        "",
        f"- recipe `{facts['recipe']}`, hash `{facts['recipe_hash']}`, dailies {facts['version']}",
        f"- selection `{facts['selection']}`: rules `{json.dumps(facts['rules'], sort_keys=True)}`",
        f"- limits that the rules came to: `{limits}`",
        f"- encoding `{json.dumps(facts['encoding'], sort_keys=True)}`, order seed {facts['seed']}",
        "- tables read: " + ", ".join(f"`{name}` version {number}" for name, number in facts["tables"].items()),
        "",
    ]


def _minutes(rows: pa.Table) -> str:
    return f"{sum(rows['seconds'].to_pylist()) / 60:.1f}"


def _megabytes(rows: pa.Table) -> str:
    return f"{sum(rows['bytes'].to_pylist()) / 1e6:.1f}"
