"""Clips that an earlier export of the dataset holds as they would be extracted now are found here, and taken from there.

A clip's id stands for content, stream and span, so its bytes follow from that, from the settings of extraction and from what
was observed of its source. An export notes the settings, and the table of observations, in its ``export.json``. What it says
of each clip is compared with today's rows again when the clip is read, since others may have made, or damaged, its files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dailies.curation import export_schema
from dailies.curation.errors import DailiesError, Damaged, DatasetError, machine_raised
from dailies.curation.export.extraction import EXTRACTED, ExtractSettings, audio_row, crop_of
from dailies.curation.export.manifest import MANIFEST, ExportManifest
from dailies.curation.parquet_files import read_group
from dailies.curation.tables import Folder, first_line
from dailies.curation.tables.shards import shards_of
from dailies.curation.types import Crop
from dailies.curation.video.soundtrack import DROPPED

PLACES = pa.schema(
    [
        pa.field("clip_id", pa.string()),
        pa.field("export", pa.string()),
        *(export_schema.export_index([]).field(name) for name in ("shard", "row_group", "row")),
    ]
)
"""Where the bytes of clips lie: the export's name, and a row of one of its shards."""

STORED = [name for name in EXTRACTED.names if name != "failure"]
STORED_SCHEMA = pa.schema([EXTRACTED.field(name) for name in STORED])
NULLABLE = frozenset({"encoder", "video", *export_schema.AUDIO_COLUMNS})  # columns that a clip may lack a value of
AUDIOS: Mapping[str, tuple[str, ...]] = {"drop": ("dropped",), "keep": ("kept", "absent", "unreadable")}
EXTRACTIONS: Mapping[str, tuple[str, ...]] = {
    "encode": ("encode",),
    "copy": ("copy", "encode"),
    "smart": ("copy", "smart", "encode"),
    "none": ("none",),
}
"""Mode that is asked for → what a clip's ``extraction`` may be."""

UNREADABLE = (DatasetError, Damaged, OSError, pa.ArrowException, IndexError, KeyError)


def made_alike(export: Folder, settings: ExtractSettings, observations: str) -> bool:
    """Return whether an export's clips were extracted by these settings, from sources as this table of observations has them.

    Raises ``Damaged`` where its ``export.json`` cannot be read; one without, or of before it had settings, tells nothing.
    """
    if settings.mode == "none" or not export.holds(MANIFEST):
        return False
    manifest = ExportManifest.from_json(export.read(MANIFEST))
    return manifest.extracts == settings.fingerprint and observations in manifest.tables


def find_clips(exports: Iterable[Folder], clip_ids: pa.ChunkedArray) -> tuple[pa.Table, list[str]]:
    """Return rows of ``PLACES`` for those of ``clip_ids`` that the exports hold, and why an export could not be looked at.

    The first export that holds a clip gives it. No media are read.
    """
    located: list[pa.Table] = []
    problems: list[str] = []
    missing = clip_ids.combine_chunks()
    for export in exports:
        if not len(missing):
            break
        try:
            places = _places(export)
        except UNREADABLE as error:
            machine_raised(error)
            problems.append(f"{export.url}: {first_line(error)}; its clips are extracted again")
            continue
        here = places.filter(pc.is_in(places["clip_id"], value_set=missing))
        missing = missing.filter(pc.invert(pc.is_in(missing, value_set=here["clip_id"].combine_chunks())))
        located.append(here)
    return pa.concat_tables([PLACES.empty_table(), *located]), problems


def _places(export: Folder) -> pa.Table:
    """Return where an export's clips lie, once each and without those that failed; none of an export from before there were
    the columns of extraction."""
    with export.parquet("index.parquet", whole=True) as file:
        if not set(file.schema_arrow.names) >= export_schema.EXTRACTION_COLUMNS:
            return PLACES.empty_table()
        index = file.read(columns=["clip_id", "status", "shard", "row_group", "row"])
    index = index.filter(pc.equal(index["status"], "ok"))
    index = index.append_column("export", pa.repeat(export.url.rpartition("/")[2], len(index)))
    index = index.select(PLACES.names).cast(PLACES).drop_null()
    shards_of(export, index["shard"])
    once = index.group_by("clip_id", use_threads=False).aggregate([(name, "first") for name in PLACES.names[1:]])
    return pa.table(
        [once[name] for name in ("clip_id", *(f"{name}_first" for name in PLACES.names[1:]))], schema=PLACES
    )


def take_clips(
    export: Folder, shard: str, places: Mapping[int, Mapping[int, Mapping[str, Any]]], settings: ExtractSettings
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Return rows of ``EXTRACTED`` from a shard, and, by clip, why others cannot be taken from there.

    ``places``: row group → row → the clip that should lie there. Row groups are read one at a time. What cannot be read costs
    the clips that it holds, and so does a row that is not what extracting its clip comes to.
    """
    taken: list[dict[str, Any]] = []
    wrong: dict[str, str] = {}
    try:
        with export.parquet(shard, checked=True) as file:
            there = set(file.schema_arrow.names)
            silent = not there & set(export_schema.AUDIO_COLUMNS)  # made before clips could have sound
            if lacking := set(STORED) - there - set(export_schema.AUDIO_COLUMNS if silent else ()):
                raise Damaged(f"{export.url}/{shard}: lacks the column {min(lacking)}")
            stored = [column for column in STORED_SCHEMA if column.name in there]
            names = [column.name for column in stored]
            for group, clips in places.items():
                rows = read_group(file, group, names).select(names).take(list(clips)).cast(pa.schema(stored))
                for stored_row, clip in zip(rows.to_pylist(), clips.values(), strict=True):
                    row = stored_row | (audio_row(DROPPED) if silent else {})
                    if (problem := misfit(row, clip, settings)) is None:
                        taken.append({"failure": None, **row})
                    else:
                        wrong[clip["clip_id"]] = f"{export.url}/{shard}: {problem}"
    except UNREADABLE as error:
        machine_raised(error)
        text = first_line(error)
        reason = text if isinstance(error, DailiesError) else f"{export.url}/{shard}: cannot be read: {text}"
        done = {row["clip_id"] for row in taken} | wrong.keys()
        left = (clip["clip_id"] for clips in places.values() for clip in clips.values())
        wrong |= dict.fromkeys((clip for clip in left if clip not in done), reason)
    return taken, wrong


def misfit(row: Mapping[str, Any], clip: Mapping[str, Any], settings: ExtractSettings) -> str | None:
    """Return why a stored row of ``EXTRACTED`` is not what extracting ``clip`` comes to; ``None`` where it may be."""
    if row["clip_id"] != clip["clip_id"]:
        return "holds another clip than its index says"
    lacking = [name for name in STORED if row[name] is None and name not in NULLABLE]
    if lacking or (not row["video"]) != (settings.mode == "none"):
        return f"a clip lacks {(lacking or ['video'])[0]}"
    if row["extraction"] not in EXTRACTIONS[settings.mode]:
        return f"a clip is of extraction={row['extraction']}"
    audios = (None,) if settings.mode == "none" else AUDIOS[settings.audio]
    if row["audio"] not in audios or (row["audio"] == "kept") != (row["audio_codec"] is not None):
        return f"a clip is of audio={row['audio']}"
    partly = settings.mode == "copy" and row["extraction"] == "copy"
    start, end = row["source_start"], row["source_end"]
    if not (clip["start"] <= start < end <= clip["end"] if partly else (start, end) == (clip["start"], clip["end"])):
        return "a clip is of another span"
    thinned = settings.encoding.max_fps is not None and row["extraction"] == "encode"
    if not (0 < row["frames"] <= clip["frames"] if partly or thinned else row["frames"] == clip["frames"]):
        return "a clip has another number of frames"
    crop = crop_of(clip) if settings.crop else Crop()
    if any(row[f"crop_{side}"] != getattr(crop, side) for side in ("left", "top", "right", "bottom")):
        return "a clip is cropped elsewhere"
    return None


def explained(why: Mapping[str, str]) -> list[str]:
    """Return a line for each different reason in ``why``, with the number of clips that it costs."""
    return [f"{reason}; clips extracted again: {count}" for reason, count in Counter(why.values()).items()]
