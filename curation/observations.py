"""Rows of the observations table: what one decode of a source left, or why it left nothing; segments joined to sources."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa

from dailies.curation import schema
from dailies.curation.addresses import address_of, scrub
from dailies.curation.errors import SourceError
from dailies.curation.observe import EvidenceGrid, Observation, Segment, observe
from dailies.curation.observers import Listener, Observer
from dailies.curation.policy import local_path
from dailies.curation.timing import Span
from dailies.curation.types import EvidenceFrame, Probe, Track
from dailies.curation.video import READ_WHOLE, whole_hash


def observe_row(
    source: dict[str, Any],
    observers: Sequence[Observer | Listener],
    evidence: EvidenceGrid,
    segment_seconds: float | None = None,
    heartbeat: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Observe a source and return a row of ``schema.OBSERVATIONS``; one that cannot be used is a row with a failure.

    ``source``: a row of ``UNIT``; with ``segments`` it is that segment of a source whose first segment is a row already.
    """
    began = time.monotonic()
    segment = None
    if source["segments"] is not None:
        segment = Segment(number=source["segment"], count=source["segments"], origin=source["origin"])
    row = empty_row(source)
    try:
        observation = observe(
            address_of(source), observers, evidence, heartbeat, segment=segment, segment_seconds=segment_seconds
        )
        row |= _observed(observation)
        if segment is None and local_path(source["uri"]) is not None and observation.bytes > READ_WHOLE:
            row["sha256"] = whole_hash(address_of(source), heartbeat)
    except SourceError as error:
        row |= failed(error, source)
    return row | {"seconds_taken": time.monotonic() - began}


UNIT = pa.schema(
    [
        *(pa.field(name, pa.string()) for name in ("source_id", "uri", "address", "manifest")),
        *(pa.field(name, pa.int32()) for name in ("segment", "segments")),
        pa.field("origin", pa.int64()),
        pa.field("refused", pa.string()),
    ]
)
"""The unit of work of observing. ``address``: what to read it by, see ``address_of``; ``refused``: why it is not to be opened.

``segments`` and ``origin`` are null where the source was not opened yet."""


def empty_row(source: dict[str, Any]) -> dict[str, Any]:
    """Return a row of ``schema.OBSERVATIONS`` for a unit that was not observed."""
    unit = {"unit": unit_of(source["source_id"], source["segment"]), "segments": source["segments"] or 1}
    stored = {name: value for name, value in source.items() if name not in ("refused", "address")}
    there = {} if source.get("refused") else stat_row(source["uri"])
    return {**schema.empty_row(schema.OBSERVATIONS), **stored, **unit, **there}


def unit_of(source_id: str, segment: int) -> str:
    """Return the key of an observations row."""
    return f"{source_id}/{segment}"


def stat_row(uri: str) -> dict[str, Any]:
    """Return size and modification time of a local file, by which a rerun knows whether to look at it again."""
    path = local_path(uri)
    try:
        stat = os.stat(path) if path else None
    except OSError:
        stat = None  # opening it will say why
    return {"bytes": stat.st_size, "modified": stat.st_mtime_ns} if stat else {}


def failed(error: SourceError, source: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of a source that could not be observed."""
    return schema.failed("observe", error.kind, scrub(str(error), address_of(source)))


def _observed(observation: Observation) -> dict[str, Any]:
    """Return the columns of a source that was observed."""
    return {
        "status": "ok",
        "content_id": observation.content_id,
        "bytes": observation.bytes,
        "probe": probe_row(observation.probe),
        "pts": observation.pts,
        "end": observation.end,
        "seconds": float((observation.end - observation.pts[0]) * observation.probe.time_base)
        if observation.pts
        else 0.0,
        "segments": observation.segments,
        "origin": observation.origin,
        "packets_broken": observation.packets_broken,
        "frames_corrupt": observation.frames_corrupt,
        "tracks": [{"name": t.name, "pts": t.pts, "values": t.values} for t in observation.tracks],
        "evidence": [{"pts": e.pts, "jpeg": e.jpeg} for e in observation.evidence],
        "geometries": [asdict(geometry) for geometry in observation.geometries],
        "rendered": observation.probe.rendered,
    }


def probe_row(probe: Probe) -> dict[str, Any]:
    """Return a probe as ``schema.PROBE`` keeps it."""
    return {
        "container": probe.container,
        "codec": probe.codec,
        "stream": probe.stream,
        "width": probe.width,
        "height": probe.height,
        "rotation": probe.rotation,
        "pixel_format": probe.pixel_format,
        "pixel_aspect": probe.pixel_aspect,
        "interlaced": probe.interlaced,
        "hdr": probe.hdr,
        "time_base_num": probe.time_base.numerator,
        "time_base_den": probe.time_base.denominator,
        "start": probe.start,
        "duration": probe.duration,
        "frames": probe.frames,
        "fps": None if probe.fps is None else float(probe.fps),
        "has_audio": probe.has_audio,
    }


def tracks_of(row: dict[str, Any]) -> dict[str, Track]:
    """Return the tracks of one observations row, by name."""
    return {
        t["name"]: Track(
            name=t["name"],
            pts=np.asarray(t["pts"], dtype=np.int64),
            values=np.asarray([np.nan if v is None else v for v in t["values"]], dtype=np.float32),
        )
        for t in row["tracks"] or ()
    }


def joined_row(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Join the observations rows of a source's segments, in order, into the row that the whole source would be.

    Evidence is left out: it is read from the segments that it lies in.
    """
    first, last = rows[0], rows[-1]
    if len(rows) == 1:
        return dict(first)
    tracks = []
    for name in dict.fromkeys(track["name"] for row in rows for track in row["tracks"]):
        parts = [track for row in rows for track in row["tracks"] if track["name"] == name]
        pts, values = ([value for part in parts for value in part[column]] for column in ("pts", "values"))
        tracks.append({"name": name, "pts": pts, "values": values})
    return {
        **first,
        "segments": 1,
        "pts": [pts for row in rows for pts in row["pts"]],
        "end": last["end"],
        "seconds": sum(row["seconds"] for row in rows),
        "packets_broken": sum(row["packets_broken"] for row in rows),
        "frames_corrupt": sum(row["frames_corrupt"] for row in rows),
        "tracks": tracks,
        "geometries": [geometry for row in rows for geometry in row.get("geometries") or ()],
    }


def time_base_of(probe: Mapping[str, Any]) -> Fraction:
    """Return the seconds per tick of a row's probe."""
    return Fraction(probe["time_base_num"], probe["time_base_den"])


def evidence_within(frames: Sequence[EvidenceFrame], span: Span) -> tuple[EvidenceFrame, ...]:
    """Return the frames that lie in ``span``."""
    return tuple(frame for frame in frames if span.start <= frame.pts < span.end)
