"""The Arrow schema of exports: shards for training, and their index. What an older dailies named otherwise is read too."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import pyarrow as pa

from dailies.curation.schema import FAILURE, field

EXPORT_COLUMNS = [
    field("clip_id", pa.string(), "hash of source, content, stream and span"),
    field("source_id", pa.string(), "hash of the uri"),
    field("content_id", pa.string(), "hash of the source's content"),
    field(
        "uri",
        pa.string(),
        "where the source lay: a URL without password and query; of a local file its name, or its path if extraction is none",
    ),
    field("manifest", pa.string(), "the manifest's other columns, as a JSON object"),
    field("split", pa.string(), "train, validation or test"),
    field("stream", pa.int32(), "index of the video stream in the source"),
    field(
        "extraction",
        pa.string(),
        "how its bytes were made: encode, copy, smart (both), or none: the clip is in its source",
    ),
    field("source_start", pa.int64(), "first frame's pts in the source", "tick"),
    field("source_end", pa.int64(), "first tick after the last frame in the source", "tick"),
    field("time_base_num", pa.int64(), "numerator of one tick of the source in seconds"),
    field("time_base_den", pa.int64(), "denominator of one tick of the source in seconds"),
    field("lost_seconds", pa.float64(), "of the clip, not in the bytes, since copies begin at a keyframe", "s"),
    field("seconds", pa.float64(), "length", "s"),
    field("frames", pa.int64(), "frames in the clip's bytes", "frame"),
    field("frames_encoded", pa.int64(), "of these, those encoded anew; the others are the source's own bits", "frame"),
    field("encoder", pa.string(), "by which encoder, null if none"),
    field("fps", pa.float64(), "frames over seconds", "1/s"),
    field("width", pa.int32(), "of the clip's bytes, upright", "px"),
    field("height", pa.int32(), "of the clip's bytes, upright", "px"),
    *(
        field(f"crop_{side}", pa.int32(), f"taken off the upright source at the {side}", "px of the source")
        for side in ("left", "top", "right", "bottom")
    ),
    field(
        "audio",
        pa.string(),
        "the clip's sound: kept; dropped: not asked for; absent: the source has none; unreadable: none that is decoded; "
        "null where extraction is none, and in exports of before",
    ),
    field("audio_codec", pa.string(), "codec of the clip's sound, null if it has none, as all that follows"),
    field("audio_stream", pa.int32(), "index of the stream of sound in the source"),
    field("audio_rate", pa.int32(), "of the clip's sound", "samples/s"),
    field("audio_channels", pa.int32(), "of the clip's sound; more than two are mixed to two", "channel"),
    field("audio_missing", pa.float64(), "silence in the clip, since the source has no sound there that decodes", "s"),
]
EXTRACTION_COLUMNS = frozenset(
    {
        "extraction",
        "source_start",
        "source_end",
        "lost_seconds",
        "seconds",
        "frames",
        "frames_encoded",
        "encoder",
        "fps",
    }
    | {"width", "height", "crop_left", "crop_top", "crop_right", "crop_bottom"}
)
"""Those of ``EXPORT_COLUMNS`` that are known once a clip is extracted."""

AUDIO_COLUMNS = ("audio", "audio_codec", "audio_stream", "audio_rate", "audio_channels", "audio_missing")
"""The same of a clip's sound; exports of before lack them, and have none."""

RENAMED_COLUMNS = {"cut": "extraction"}
"""Columns of exports made before they were renamed: old name → name."""


def extraction_of(row: Mapping[str, Any]) -> str:
    """Return how an export's row was extracted, whatever its column is called; the oldest exports only encoded."""
    return str(row.get("extraction") or row.get("cut") or "encode")


def note_renamed(export: str, columns: Iterable[str]) -> None:
    """Log one line for people, once a process, where the ``columns`` of ``export`` have names of before."""
    for old in RENAMED_COLUMNS.keys() & set(columns):
        _note_once(f"{export}: made by an older dailies; reading its column {old!r} as {RENAMED_COLUMNS[old]!r}")


@cache
def _note_once(line: str) -> None:
    logging.getLogger("dailies").warning(line)


VIDEO = field(
    "video",
    pa.binary(),
    "the clip, an mp4 file (mov or mkv where its codec asks for it), with sound if audio is kept; null if extraction is none",
)


def export(columns: Iterable[pa.Field]) -> pa.Schema:
    """Return the schema of a training shard: identity, conditioning, score columns, and the clip's bytes last."""
    return pa.schema([*EXPORT_COLUMNS, *columns, VIDEO])


def export_index(columns: Iterable[pa.Field]) -> pa.Schema:
    """Return the schema of an export's index: a row per selected clip, with where its bytes lie or why it has none."""
    return pa.schema(
        [
            *EXPORT_COLUMNS,
            *columns,
            field("status", pa.string(), "ok or failed"),
            field("failure", FAILURE, "why it could not be extracted"),
            field("shard", pa.string(), "file under the export, null if failed"),
            field("row_group", pa.int32(), "row group in the shard"),
            field("row", pa.int32(), "row in the row group"),
            field("bytes", pa.int64(), "size of the clip's bytes", "byte"),
        ]
    )
