"""The card of an export is its README.md: front matter for Hugging Face ``datasets``, what it holds and its origin."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dailies.curation.clips import SPLITS

WAYS = {
    "encode": "Clips are mp4 files, encoded anew: frame-exact, upright, square pixels, with their source's frame times.",
    "copy": "Clips are copies of their source's packets, from keyframe to keyframe, in mp4, mov or mkv; the container says how "
    "to turn them. Those of damaged sources are encoded (`extraction` says which), as H.264 of 8 bits.",
    "smart": "Clips are frame-exact. What a keyframe allows is copied from the source, in mp4, mov or mkv, and the container "
    "says how to turn it; `frames_encoded` says how much is not. Where nothing can be copied (`extraction` is encode) they are "
    "H.264 of 8 bits.",
    "none": "Clips stay in their sources: `uri`, `source_start` and `source_end` say where.",
}


def render_card(index: pa.Table, facts: Mapping[str, Any]) -> str:
    """Return README.md of an export: front matter for Hugging Face ``datasets``, what it holds and where it came from.

    ``facts``: ``name``, ``recipe`` (name), ``recipe_hash``, ``selection``, ``rules``, ``limits``, ``tables`` (name →
    version), ``extraction``, ``seed``, ``version``.
    """
    ok = index.filter(pc.equal(index["status"], "ok"))
    per_split = {split: ok.filter(pc.equal(ok["split"], split)) for split in SPLITS}
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
            f"{len(ok)} clips of one shot each, from {len(set(ok['source_id'].to_pylist()))} sources.",
            "",
            "| split | clips | minutes | MB |",
            "|---|---:|---:|---:|",
            *lines,
            "",
            *([f"{lost} selected clips could not be extracted; `index.parquet` says why.", ""] if lost else []),
            f"**Audio is dropped.** {WAYS[facts['extraction']['mode']]}",
            *_lost(ok),
            "",
            *_reading(next(iter(per_split), "train"), facts["extraction"]["mode"]),
            *_columns(index),
            *_origin(facts),
        ]
    )


def _lost(rows: pa.Table) -> list[str]:
    lost = sum(rows["lost_seconds"].to_pylist())
    if not lost:
        return []
    whole = lost + sum(rows["seconds"].to_pylist())
    return [
        "",
        f"{lost:.1f} s of {whole:.1f} s ({lost / whole:.1%}) lay before a clip's first keyframe or behind "
        "its last copied frame.",
    ]


def _reading(split: str, mode: str) -> list[str]:
    if mode == "none":
        return [
            "## Reading",
            "",
            "```python",
            "import pyarrow.parquet as pq",
            "from dailies.curation.video import clip_frames",
            'row = pq.read_table("data").slice(0, 1).to_pylist()[0]',
            "frames = clip_frames(row).pixels             # (t, h, w, 3) RGB, read from the source",
            "```",
            "",
        ]
    return [
        "## Reading",
        "",
        "```python",
        "from datasets import load_dataset, Video",
        f'clips = load_dataset("path/to/this/folder", split="{split}")',
        'clips[0]["video"]                            # the bytes of a video file',
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
        metadata = {key.decode(): value.decode() for key, value in (column.metadata or {}).items()}
        rows.append(f"| `{column.name}` | {metadata.get('doc', '')} | {metadata.get('unit', '')} |")
    return ["## Columns of the index", "", "| column | what | unit |", "|---|---|---|", *rows, ""]


def _origin(facts: Mapping[str, Any]) -> list[str]:
    limits = json.dumps(facts["limits"], sort_keys=True)
    return [
        "## Where it came from",
        "",
        f"- recipe `{facts['recipe']}`, hash `{facts['recipe_hash']}`, dailies {facts['version']}",
        f"- selection `{facts['selection']}`: rules `{json.dumps(facts['rules'], sort_keys=True)}`",
        f"- limits that the rules came to: `{limits}`",
        f"- extracted with `{json.dumps(facts['extraction'], sort_keys=True)}`, order seed {facts['seed']}",
        "- tables read: " + ", ".join(f"`{name}` version {number}" for name, number in facts["tables"].items()),
        "",
    ]


def _minutes(rows: pa.Table) -> str:
    return f"{sum(rows['seconds'].to_pylist()) / 60:.1f}"


def _megabytes(rows: pa.Table) -> str:
    return f"{sum(rows['bytes'].to_pylist()) / 1e6:.1f}"
