"""Small datasets with rows of every table, and the child processes that the crash tests kill."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dailies.curation import export_schema, schema
from dailies.curation.tables import Committer, DatasetTables, Folder, Table
from dailies.curation.tables.parts import part_name
from dailies.curation.tables.storage import layout, write_parquet

OBSERVATIONS = "observations@0b5e0b5e"
CLIPS = "clips/shots@c11bc11b"
SCORES = "scores/motion@5c0e5c0e"
CAPTIONS = "captions/coca@cab7cab7"
SELECTION = "selections/main"
EXPORT = "main@e4b0e4b0"
MOTION = schema.field("motion", pa.float32(), "how much moves", "px")
CLIPS_EACH = 2
TICKS = 100


def observation(name: str, jpeg: bytes = b"jpeg", **other: Any) -> dict[str, Any]:
    """A source of ``TICKS`` ticks, seen whole."""
    return {
        **schema.empty_row(schema.OBSERVATIONS),
        "source_id": name,
        "uri": f"/videos/{name}.mp4",
        "segment": 0,
        "content_id": f"content-{name}",
        "status": "ok",
        "probe": {"codec": "h264", "width": 64, "height": 48},
        "pts": list(range(0, TICKS, 10)),
        "end": TICKS,
        "tracks": [{"name": "motion", "pts": [0, 10], "values": [float("nan"), 0.5]}],
        "evidence": [{"pts": 0, "jpeg": jpeg}, {"pts": 50, "jpeg": jpeg}],
        **other,
    }


def clips_of(source: str) -> list[dict[str, Any]]:
    length = TICKS // CLIPS_EACH
    return [
        {
            "clip_id": f"{source}-{number}",
            "source_id": source,
            "split": "train",
            "status": "ok",
            "start": number * length,
            "end": (number + 1) * length,
        }
        for number in range(CLIPS_EACH)
    ]


def fill(dataset: DatasetTables, sources: Sequence[str]) -> None:
    """One part a source in every table, a selection and an export of all clips, and a run that names the tables."""
    observations = dataset.table(OBSERVATIONS, schema.OBSERVATIONS)
    clips = dataset.table(CLIPS, schema.clips([MOTION]))
    scores = dataset.table(SCORES, schema.scores([MOTION]))
    captions = dataset.table(CAPTIONS, schema.scores([schema.field("text", pa.string(), "what is seen")]))
    with Committer(observations) as first, Committer(clips, key="source_id") as second:
        for source in sources:
            first.add(observations.write_part([observation(source)]))
            second.add(clips.write_part(clips_of(source), keys=[source]))
    rows = [row for source in sources for row in clips_of(source)]
    ids = [{key: row[key] for key in ("clip_id", "source_id", "status")} for row in rows]
    scores.append([{**row, "motion": 1.5} for row in ids])
    captions.append([{**row, "text": "a square"} for row in ids])
    verdicts = [{"clip_id": row["clip_id"], "source_id": row["source_id"], "keep": True, "reasons": []} for row in rows]
    dataset.table(SELECTION, schema.SELECTIONS).replace(
        pa.Table.from_pylist(verdicts, schema=schema.SELECTIONS), properties={"rules": {"motion": {"min": 1}}}
    )
    tables = {"observe": OBSERVATIONS, "cut": CLIPS, "motion": SCORES, "coca": CAPTIONS, "main": SELECTION}
    run = {"run_id": "r1", "started": datetime.now(UTC), "tables": json.dumps(tables)}
    dataset.table("runs", schema.RUNS).append([run])
    export(dataset.folder / "exports" / EXPORT, rows)


def export(folder: Folder, clips: Sequence[dict[str, Any]], shards: int = 2, group: int = 3) -> None:
    """All clips in two shards, in row groups of three, and one clip more that could not be cut."""
    shape = export_schema.export([MOTION])
    index: list[dict[str, Any]] = []
    for number in range(shards):
        name = f"data/train-{number:05d}-of-{shards:05d}.parquet"
        mine = clips[number::shards]
        with folder.new_file(name) as sink, pq.ParquetWriter(sink, shape, **layout(shape)) as writer:
            for start in range(0, len(mine), group):
                chosen = mine[start : start + group]
                rows = [
                    {"clip_id": clip["clip_id"], "source_id": clip["source_id"], "split": "train", "frames": 5}
                    for clip in chosen
                ]
                videos = [clip.get("video", f"video of {clip['clip_id']}".encode()) for clip in chosen]
                media = [{**row, "video": video} for row, video in zip(rows, videos, strict=True)]
                writer.write_table(pa.Table.from_pylist(media, schema=shape))
                index += [
                    {**row, "status": "ok", "shard": name, "row_group": start // group, "row": at}
                    for at, row in enumerate(rows)
                ]
    failed = {"clip_id": "lost", "source_id": clips[0]["source_id"], "status": "failed"}
    with folder.new_file("index.parquet") as sink:
        pq.write_table(pa.Table.from_pylist([*index, failed], schema=export_schema.export_index([MOTION])), sink)


# ---- what the crash tests start, and kill ---------------------------------------------------------------------------


def python(*arguments: str | Path, **more: Any) -> subprocess.Popen[str]:
    """Start Python in a process that imports what this one does."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen([sys.executable, *arguments], env=env, stdout=subprocess.PIPE, text=True, **more)


def say(word: str) -> None:
    print(word, flush=True)


def write_forever(url: str) -> None:
    """Observe three sources a part, a commit for every other part, from where the table stands on."""
    dataset = DatasetTables.open(url)
    with dataset.writer():
        table: Table = dataset.table(OBSERVATIONS, schema.OBSERVATIONS)
        with Committer(table, interval=0.002) as committer:
            for bundle in range(100_000):
                keys = [f"{bundle}-{number}" for number in range(3)]
                if keys[0] in committer:
                    continue
                committer.add(table.write_part([observation(key, os.urandom(20_000)) for key in keys]))
                say(keys[0])


def replace_forever(url: str) -> None:
    """Put one generation of verdicts in place of another."""
    table = DatasetTables.open(url).table(SELECTION, schema.SELECTIONS)
    for generation in range(table.properties().get("generation", -1) + 1, 100_000):
        half = pa.table({"clip_id": [f"{n}" for n in range(500)], "reason": [str(generation)] * 500})
        table.replace([half, half], properties={"generation": generation})
        say(str(generation))


def write_half_a_part(url: str) -> None:
    """Write the first of two row groups, and no more."""
    table = DatasetTables.open(url).table(OBSERVATIONS, schema.OBSERVATIONS)
    rows = pa.Table.from_pylist([observation("a", bytes(1_000_000))], schema=schema.OBSERVATIONS)

    def half() -> Iterator[pa.Table]:
        yield rows
        say("half")
        time.sleep(60)

    write_parquet(table.folder, part_name(), half(), schema.OBSERVATIONS)


def hold(url: str) -> None:
    """Hold the lock, with a forked child that lives on."""
    with DatasetTables.open(url).writer():
        child = os.fork()
        if not child:
            time.sleep(60)
            os._exit(0)
        say(str(child))
        time.sleep(60)


if __name__ == "__main__":
    {"write": write_forever, "replace": replace_forever, "half": write_half_a_part, "hold": hold}[sys.argv[1]](
        sys.argv[2]
    )
