"""Every table has its Arrow schema here: the contract between the rooms. Exports have theirs in ``export_schema``.

Every field says in its metadata what it is (``doc``) and, for a number, its ``unit``. Columns are added, never retyped.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import version
from typing import Any

import pyarrow as pa

from dailies.curation.addresses import scrub


def field(name: str, type: pa.DataType, doc: str, unit: str | None = None) -> pa.Field:
    """Return a nullable field that documents itself."""
    metadata = {"doc": doc} | ({"unit": unit} if unit else {})
    return pa.field(name, type, metadata=metadata)


def is_listed(kind: pa.DataType) -> bool:
    """Return whether values of a column are lists, such as embeddings."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


# ---- identity -------------------------------------------------------------------------------------------------------


def digest(*parts: object) -> str:
    """Return 24 hex digits (96 bits) over ``parts`` in order, for ids and fingerprints; stable between runs and machines."""
    hasher = hashlib.blake2b(digest_size=12)
    for part in parts:
        text = str(part).encode(errors="surrogateescape")  # file names need not be UTF-8
        hasher.update(len(text).to_bytes(8, "little") + text)
    return hasher.hexdigest()


def fingerprint(meaning: object) -> str:
    """Return 8 hex digits over what gives a table's values their meaning, any JSON-able value; stands after ``@``."""
    return digest(json.dumps(meaning, sort_keys=True, separators=(",", ":")))[:8]


def source_id(uri: str) -> str:
    """Return the id of a source."""
    return digest("source", uri)


CONTENT_KEY = ("content_id", "stream", "start", "end", "time_base_num", "time_base_den")
"""What tells clips apart wherever their sources lie."""


def clip_id(source: str, content: str, stream: int, start: int, end: int, time_base: object) -> str:
    """Return the id of a clip: of its span in a stream of this content."""
    return digest("clip", source, content, stream, start, end, time_base)


def span_id(source: str, start: float | None, end: float | None) -> str:
    """Return the id of a manifest's span of a source, in seconds; without an end, of the whole source."""
    return digest("span", source, start, end)


SPLITS = ("train", "validation", "test")
SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""What manifests call the splits, in lower case."""


def split_named(word: object) -> str | None:
    """Return the split that a manifest's word stands for, in any case; None for any other."""
    return SPLIT_WORDS.get(str(word).strip().lower())


def split_in(columns: Mapping[str, Any]) -> str | None:
    """Return the split that a manifest's own columns name, by any of its names; None where they name none."""
    return next((split_named(value) for name, value in columns.items() if name.lower() == "split"), None)


# ---- tables ---------------------------------------------------------------------------------------------------------

FAILURE = pa.struct(
    [
        field("stage", pa.string(), "stage that failed"),
        field("kind", pa.string(), "stable word, see dailies.curation.errors"),
        field("message", pa.string(), "one line for people"),
    ]
)

FAILED_VERSION = field("failed_version", pa.string(), "version of dailies with which it failed, null if it did not")

LATER = frozenset(
    {
        "clips.failure",
        "clips.failed_version",
        "observations.failed_version",
        "observations.geometries",
        "observations.rendered",
        "observations.sha256",
        "runs.number",
        "runs.stage_seconds",
        "withdrawn.sha256",
    }
    | {f"clips.{name}" for name in ("span_id", "span_start", "span_end", "cuts_inside")}
    | {f"{kind}.failed_version" for kind in ("scores", "captions")}
    | {f"captions.{name}" for name in ("fields", "flags", "model", "revision", "prompt_hash", "prompt_tokens")}
)
"""Columns, as ``TABLE.COLUMN``, that tables lack which an older dailies made; the next run that writes adds them."""


STATE: tuple[pa.Field, ...] = (
    pa.field("status", pa.string()),
    pa.field("why", pa.struct([("kind", pa.string()), ("message", pa.string())])),
)
"""Two more columns of what captioners, and scorers that ask a model, return: a row's own ``status`` and ``failure`` are made
of them."""


def failed(stage: str, kind: str, message: str) -> dict[str, Any]:
    """Return the columns of a row that stands for what could not be done."""
    failure = {"stage": stage, "kind": kind, "message": scrub(message)}
    return {"status": "failed", "failure": failure, "failed_version": _version()}


@cache
def _version() -> str:
    return version("dailies")


PROBE = pa.struct(
    [
        field("container", pa.string(), "demuxer's name"),
        field("codec", pa.string(), "decoder's name"),
        field("stream", pa.int32(), "index of the video stream in the container"),
        field("width", pa.int32(), "of the upright picture, in square pixels", "px"),
        field("height", pa.int32(), "of the upright picture, in square pixels", "px"),
        field("rotation", pa.int32(), "counter-clockwise turn that makes frames upright", "degree"),
        field("pixel_format", pa.string(), "as decoded"),
        field("pixel_aspect", pa.float64(), "width over height of a pixel as decoded; 1 is square"),
        field("interlaced", pa.bool_(), "whether the first frame is two fields woven into one picture"),
        field("hdr", pa.bool_(), "whether it is PQ or HLG; pictures of it are tone-mapped"),
        field("time_base_num", pa.int64(), "numerator of one tick in seconds"),
        field("time_base_den", pa.int64(), "denominator of one tick in seconds"),
        field("start", pa.int64(), "first pts by the header", "tick"),
        field("duration", pa.int64(), "by the header, null if unstated", "tick"),
        field("frames", pa.int64(), "by the header, null if unstated", "frame"),
        field("fps", pa.float64(), "average by the header", "1/s"),
        field("has_audio", pa.bool_(), "whether there is an audio stream"),
    ]
)

TRACK = pa.struct(
    [
        field("name", pa.string(), "observer's track"),
        field("pts", pa.list_(pa.int64()), "of the sampled frames", "tick"),
        field("values", pa.list_(pa.float32()), "NaN where there is no earlier frame"),
    ]
)

EVIDENCE = pa.struct(
    [
        field("pts", pa.int64(), "of the frame", "tick"),
        field("jpeg", pa.binary(), "the upright frame"),
    ]
)

GEOMETRY = pa.struct(
    [
        field("pts", pa.int64(), "of the first frame that has it", "tick"),
        field("width", pa.int32(), "of the upright picture, in square pixels", "px"),
        field("height", pa.int32(), "of the upright picture, in square pixels", "px"),
        field("rotation", pa.int32(), "counter-clockwise turn that makes frames upright", "degree"),
        field("pixel_format", pa.string(), "as decoded"),
        field("pixel_aspect", pa.float64(), "width over height of a pixel as decoded; 1 is square"),
    ]
)

SOURCE_COLUMNS = [
    field("source_id", pa.string(), "hash of the uri"),
    field("uri", pa.string(), "where the source lies; of a URL, neither password nor query"),
]

OBSERVATIONS = pa.schema(
    [
        *SOURCE_COLUMNS,
        field("segment", pa.int32(), "which segment of the source, from 0; long sources are split"),
        field("segments", pa.int32(), "how many segments the source is split into"),
        field("origin", pa.int64(), "pts of the source's first frame", "tick"),
        field("unit", pa.string(), "source_id/segment: the key"),
        field(
            "content_id",
            pa.string(),
            "hash of size and sampled bytes, which copies share; where another source has the same, a hash of all bytes "
            "stands behind it",
        ),
        field("bytes", pa.int64(), "size of the source", "byte"),
        field("modified", pa.int64(), "modification time where the store has one", "ns"),
        field("manifest", pa.string(), "the manifest's other columns at that time, as a JSON object"),
        field("status", pa.string(), "ok or failed"),
        field("failure", FAILURE, "why it failed"),
        FAILED_VERSION,
        field("probe", PROBE, "what the container says"),
        field("pts", pa.list_(pa.int64()), "of every frame, in presentation order", "tick"),
        field("end", pa.int64(), "first tick after the last frame", "tick"),
        field("seconds", pa.float64(), "length", "s"),
        field("packets_broken", pa.int64(), "packets that did not decode", "packet"),
        field("frames_corrupt", pa.int64(), "frames the decoder marked as damaged", "frame"),
        field("tracks", pa.list_(TRACK), "what the observers saw"),
        field("evidence", pa.list_(EVIDENCE), "JPEGs on a fixed grid"),
        field("seconds_taken", pa.float64(), "wall time of observing", "s"),
        field("geometries", pa.list_(GEOMETRY), "of the first frame, and wherever it changes; null in rows of before"),
        field("rendered", pa.bool_(), "whether the file says that it is of the rendered world; null in rows of before"),
        field(
            "sha256",
            pa.string(),
            "of all bytes, in the first segment's row; null up to 1 MiB, which content_id is over, and behind URLs until "
            "another source has the same content_id",
        ),
    ]
)

SPANS = pa.schema(
    [
        field("span_id", pa.string(), "hash of source and span"),
        field("source_id", pa.string(), "hash of the uri"),
        field("start", pa.float64(), "from the source's first frame on; null: the source is also cut as a whole", "s"),
        field("end", pa.float64(), "the first second after it, null as start is", "s"),
        field("manifest", pa.string(), "the row's other columns, as a JSON object"),
    ]
)
"""Spans that manifests name, and wholes whose row was corrected. A source that has no row here is cut as a whole."""

CLIP_COLUMNS = [
    field("clip_id", pa.string(), "hash of source, content, stream and span"),
    field("source_id", pa.string(), "hash of the uri"),
    field("content_id", pa.string(), "hash of the source's content"),
    field("uri", pa.string(), "where the source lies; of a URL, neither password nor query"),
    field("manifest", pa.string(), "the manifest's other columns, as a JSON object"),
    field("split", pa.string(), "train, validation or test as cut: a function of the content"),
    field(
        "status",
        pa.string(),
        "ok; too_short: under the minimum length; too_long: one frame, or a manifest's span, over the maximum; "
        "outside: a manifest's span that reaches past the source; empty: one in which no frame begins; failed: a source, "
        "or a span, that could not be cut, in one row",
    ),
    field("stream", pa.int32(), "index of the video stream in the container"),
    field("start", pa.int64(), "first frame's pts", "tick"),
    field("end", pa.int64(), "first tick after the last frame", "tick"),
    field("time_base_num", pa.int64(), "numerator of one tick in seconds"),
    field("time_base_den", pa.int64(), "denominator of one tick in seconds"),
    field("start_seconds", pa.float64(), "start, for people", "s"),
    field("seconds", pa.float64(), "length", "s"),
    field("first_frame", pa.int64(), "index of the first frame in the source, from 0", "frame"),
    field("frames", pa.int64(), "number of frames", "frame"),
    field("fps", pa.float64(), "frames over seconds", "1/s"),
    field("width", pa.int32(), "of the upright picture; the largest where the size changes", "px"),
    field("height", pa.int32(), "of the upright picture; the largest where the size changes", "px"),
    field(
        "start_kind",
        pa.string(),
        "what bounds its start: source, hole, length, cut, dissolve, fade, geometry; span: a manifest",
    ),
    field("start_detector", pa.string(), "which detector, null if none"),
    field("start_strength", pa.float32(), "over the detector's threshold", "ratio"),
    field(
        "end_kind",
        pa.string(),
        "what bounds its end: source, hole, length, cut, dissolve, fade, geometry; span: a manifest",
    ),
    field("end_detector", pa.string(), "which detector, null if none"),
    field("end_strength", pa.float32(), "over the detector's threshold", "ratio"),
    field("failure", FAILURE, "why its source could not be cut"),
    FAILED_VERSION,
    field("span_id", pa.string(), "the manifest's span that it is, null for a shot"),
    field("span_start", pa.float64(), "start of that span as the manifest states it", "s"),
    field("span_end", pa.float64(), "end of that span as the manifest states it", "s"),
    field("cuts_inside", pa.int32(), "cuts that the detector finds inside; none in a shot", "cut"),
]


def clips(measures: Iterable[pa.Field]) -> pa.Schema:
    """Return the schema of clips with the columns that the recipe's observers reduce their tracks to."""
    return pa.schema([*CLIP_COLUMNS, *measures])


def scores(columns: Iterable[pa.Field]) -> pa.Schema:
    """Return the schema of a scorer's table: its columns, or a failure."""
    return pa.schema(
        [
            field("clip_id", pa.string(), "the clip scored"),
            field("source_id", pa.string(), "its source"),
            field("status", pa.string(), "ok or failed; of a caption also truncated, blocked or empty"),
            field("failure", FAILURE, "why it failed, or has no text"),
            FAILED_VERSION,
            *columns,
        ]
    )


SELECTIONS = pa.schema(
    [
        field("clip_id", pa.string(), "the clip judged"),
        field("source_id", pa.string(), "its source"),
        field("split", pa.string(), "train, validation or test"),
        field("keep", pa.bool_(), "the verdict"),
        field("reason", pa.string(), "the first rule it fell by, null if kept"),
        field("reasons", pa.list_(pa.string()), "all rules it fell by"),
    ]
)

DUPLICATE_COLUMNS = [
    field("duplicate_group", pa.string(), "the smallest clip_id among its copies, itself one; null if it has no copy"),
    field(
        "duplicate_kind",
        pa.string(),
        "the strongest by which it is a copy: exact (the same bytes), perceptual (looks the same), semantic; null if none, and "
        "until the next dedup where a clip of its group was withdrawn",
    ),
    field(
        "duplicate_distance",
        pa.float64(),
        "to the nearest such copy: exact 0; perceptual root mean square of normalised luma; semantic 1 - cosine; null as "
        "duplicate_kind is",
        "0 is the same",
    ),
    field("duplicate_size", pa.int32(), "clips in its group, itself one", "clip"),
]
ALIKE_COLUMNS = [
    field(
        "captions_alike_group",
        pa.string(),
        "the smallest clip_id among the clips with nearly the same caption, itself one; null if it has none such",
    ),
    field(
        "captions_alike", pa.int32(), "clips with nearly the same caption, itself one; null without a caption", "clip"
    ),
]
"""What a dedup step that looks at captions says besides; they part no splits and drop nothing."""
DUPLICATES = pa.schema(
    [
        field("clip_id", pa.string(), "the clip"),
        field("source_id", pa.string(), "its source"),
        *DUPLICATE_COLUMNS,
        field(
            "duplicate_split",
            pa.string(),
            "train, validation or test: all clips of a group, and their sources, share one",
        ),
    ]
)
"""Which clips are copies of each other; replaced as a whole, since groups change when clips join."""

RUNS = pa.schema(
    [
        field("run_id", pa.string(), "one start of the command"),
        field("started", pa.timestamp("us", tz="UTC"), "when"),
        field("command", pa.string(), "as typed"),
        field("version", pa.string(), "of this program"),
        field("recipe", pa.string(), "the whole recipe as JSON, overrides applied"),
        field("recipe_hash", pa.string(), "fingerprint of the recipe"),
        field("tables", pa.string(), "step name to table, and to the export made or found again, as a JSON object"),
        field(
            "number", pa.int64(), "grows from run to run, whatever the clock says; null in runs from before it was kept"
        ),
        field(
            "stage_seconds",
            pa.string(),
            "wall time of each step in s, by its name in tables, as a JSON object; null where a run did not end, and in others "
            "than of curate",
        ),
    ]
)

WITHDRAWN = pa.schema(
    [
        *SOURCE_COLUMNS,
        field(
            "content_id", pa.string(), "hash of size and sampled bytes: copies stay out too; null if it was not read"
        ),
        field("bytes", pa.int64(), "size of the source", "byte"),
        field("withdrawn", pa.timestamp("us", tz="UTC"), "when"),
        field("sha256", pa.string(), "of all bytes, null where it was not read"),
    ]
)
"""Sources that were taken down: they stay out until they are readmitted."""

PLACES = pa.schema(
    [
        *SOURCE_COLUMNS,
        field("number", pa.int64(), "grows from move to move, whatever the clock says: the highest holds"),
    ]
)
"""Where sources lie that were moved since they were observed; the ``uri`` of other tables is that of then."""


def empty_row(schema: pa.Schema) -> dict[str, Any]:
    """Return a row of nulls to fill in."""
    return dict.fromkeys(schema.names)
