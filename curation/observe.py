"""Observe one source: plan the sampling, decode once, fan out to the observers, keep tracks and evidence."""

from __future__ import annotations

import os
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from dailies.curation import schema, video
from dailies.curation.errors import SourceError
from dailies.curation.observers import Live, Observer
from dailies.curation.observers.tracking import check_grid
from dailies.curation.timing import Grid, Span, end_of, ticks
from dailies.curation.types import EvidenceFrame, Failure, Frame, Probe, Track
from dailies.curation.video.bytes_io import local_path


@dataclass(frozen=True, kw_only=True)
class EvidenceGrid:
    """JPEGs to keep: ``fps`` a second, ``short_side`` pixels, JPEG ``quality`` 1–100."""

    fps: float = 1.0
    short_side: int = 384
    quality: int = 80

    identity: ClassVar[str] = "curation.observe.EvidenceGrid"
    meaning: ClassVar[int] = 2

    def __post_init__(self) -> None:
        check_grid(self.fps, self.short_side)
        if not 1 <= self.quality <= 100:
            raise ValueError(f"quality must be between 1 and 100, not {self.quality}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Part ``number`` of the ``count`` equal ones that a long source is split into; ``origin``: pts of its first frame."""

    number: int
    count: int
    origin: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What is kept of one source, or of one segment of it.

    ``pts``: of every frame, in presentation order; ``end``: first tick after the last, which is the next segment's first;
    ``segments``: how many the source is split into; ``origin``: pts of the source's first frame.
    """

    content_id: str
    bytes: int
    probe: Probe
    pts: Sequence[int]
    end: int
    tracks: Sequence[Track]
    evidence: Sequence[EvidenceFrame]
    packets_broken: int
    frames_corrupt: int
    segments: int
    origin: int


def observe(
    uri: str,
    observers: Sequence[Observer],
    evidence: EvidenceGrid | None,
    beat: Callable[[], None] = lambda: None,
    *,
    segment: Segment | None = None,
    segment_seconds: float | None = None,
) -> Observation:
    """Decode ``uri`` once and let every observer see the frames due on its grid.

    Frames that no other frame refers to are left out where the codec has such: their times are known all the same, and half
    the work or more is saved. A source in which a fault shows, or of which too little would be seen, is read again with
    every frame. Faults within the frames left out do not show.

    ``segment_seconds``: of a source half as long again or longer, observe only the first of equal segments of about that
    length; the others are for calls with ``segment``. What segments tell, joined, is what the whole tells; only where a
    source has faults may the numbers around them differ a little.

    ``beat`` is called for every frame, so that a watcher can tell slow from stuck. Raises ``SourceError`` when the source
    cannot be used.
    """
    content, size = video.content_id(uri)
    beat()
    watch = partial(_watch, uri, observers, evidence, beat, segment, segment_seconds)
    seen = None
    if not any(observer.needs.every for observer in observers):
        with suppress(SourceError):  # whatever it is, reading every frame says it better
            seen = watch(skim=True)
    seen = seen or watch(skim=False)
    assert seen is not None  # only a skimmed source is ever not trusted
    return replace(seen, content_id=content, bytes=size)


def _watch(
    uri: str,
    observers: Sequence[Observer],
    evidence: EvidenceGrid | None,
    beat: Callable[[], None],
    segment: Segment | None,
    segment_seconds: float | None,
    *,
    skim: bool,
) -> Observation | None:
    """One pass. Skimming, ``None`` where it cannot be relied on; a fault shows fully only to who decodes every frame."""
    with _opened(uri, observers, segment, skim=skim) as source:
        probe, lookback = source.probe, _lookback(observers, source.time_base)
        if segment is None:
            count = _segments(probe, segment_seconds)
            segment = Segment(number=0, count=count, origin=source.first_pts)
        low, high = _bounds(segment, probe)
        fan, ended = _Fan(probe, observers, evidence, segment.origin), True
        for picture in source.pictures():
            beat()
            if skim and source.decoder.faulty:
                return None
            if high is not None and picture.pts >= high + lookback:
                ended = False
                break
            if low is None or picture.pts >= low - lookback:
                fan.see(picture)
        _check(source, segment, ended=ended)
        if not source.decoder.trusted(fan.pts):
            return None
        return _kept(source, fan, segment, low, high)


def _lookback(observers: Sequence[Observer], time_base: Fraction) -> int:
    """Ticks to read on either side of a segment so that its values are those of the whole."""
    return ticks(max([1.0, *(observer.lookback for observer in observers)]), time_base)


def _opened(uri: str, observers: Sequence[Observer], segment: Segment | None, *, skim: bool) -> video.Source:
    """The source, standing early enough before the segment."""
    source = video.open_source(uri, skim=skim)
    if segment is None or segment.number == 0:
        return source
    with source:
        low, _ = _bounds(segment, source.probe)
        assert low is not None
        start = max(segment.origin, low - _lookback(observers, source.time_base))
        span = Span(start=start, end=low + 1, time_base=source.time_base)
        canvas = source.canvas
    return video.open_before(uri, span, skim=skim, canvas=canvas)


SEGMENTED_FPS = 12  # a slower source is small, and what its observers need around a segment would be long


def _segments(probe: Probe, segment_seconds: float | None) -> int:
    """How many segments a source is worth."""
    if segment_seconds is None or not probe.duration or not probe.fps or probe.fps < SEGMENTED_FPS:
        return 1
    if probe.container == "flv":
        return 1  # it is read from its start, wherever one wants to be
    seconds = float(probe.duration * probe.time_base)
    return round(seconds / segment_seconds) if seconds >= 1.5 * segment_seconds else 1


def _bounds(segment: Segment, probe: Probe) -> tuple[int | None, int | None]:
    """First tick of the segment and first tick of the next; ``None`` at the source's own ends."""
    duration = probe.duration or 0
    low = segment.origin + duration * segment.number // segment.count
    high = segment.origin + duration * (segment.number + 1) // segment.count
    return (low if segment.number else None), (high if segment.number + 1 < segment.count else None)


def _check(source: video.Source, segment: Segment, *, ended: bool) -> None:
    """Raise what is wrong with a source, or with a segment: what was not read is not its matter."""
    if segment.count == 1:
        source.check()
        return
    source.decoder.check_packets()
    if ended:
        source.decoder.check_end(f"segment {segment.number} of {segment.count}: ")


def _kept(source: video.Source, fan: _Fan, segment: Segment, low: int | None, high: int | None) -> Observation:
    """What the segment owns of what was seen."""
    every = source.decoder.shown(fan.pts)
    first = 0 if low is None else bisect_left(every, low)
    last = len(every) if high is None else bisect_left(every, high)
    if last < len(every):
        end = every[last]
    elif first < last:
        end = end_of(every, source.last_duration if every[-1] == fan.pts[-1] else None)
    else:
        end = source.decoder.end  # a stream that ends before its container does may leave nothing for the last segment
    faults = Counter(
        name
        for name, pts in source.decoder.faults_at
        if pts is None or ((low is None or pts >= low) and (high is None or pts < high))
    )
    return Observation(
        content_id="",
        bytes=0,
        probe=source.probe,
        pts=every[first:last],
        end=end,
        tracks=[_within(track, low, high) for track in fan.finish()],
        evidence=[e for e in fan.evidence if (low is None or e.pts >= low) and (high is None or e.pts < high)],
        packets_broken=faults["packets_broken"],
        frames_corrupt=faults["frames_corrupt"],
        segments=segment.count,
        origin=segment.origin,
    )


def _within(track: Track, low: int | None, high: int | None) -> Track:
    first = 0 if low is None else int(np.searchsorted(track.pts, low))
    last = len(track.pts) if high is None else int(np.searchsorted(track.pts, high))
    return Track(name=track.name, pts=track.pts[first:last], values=track.values[first:last])


class _Fan:
    """Hands each picture to whom it is due. A grid starts at the source's first frame, so it depends on pts alone."""

    def __init__(self, probe: Probe, observers: Sequence[Observer], evidence: EvidenceGrid | None, origin: int) -> None:
        self.pts: list[int] = []
        self.evidence: list[EvidenceFrame] = []
        self._observers = observers
        self._lives: list[Live] = [observer.start(probe) for observer in observers]
        self._spec = evidence
        self._grids = [Grid(observer.needs.fps, probe.time_base, origin) for observer in observers]
        self._evidence_grid = Grid(evidence.fps, probe.time_base, origin) if evidence else None

    def see(self, picture: video.Picture) -> None:
        self.pts.append(picture.pts)
        for observer, live, grid in zip(self._observers, self._lives, self._grids, strict=True):
            if grid.due(picture.pts):
                live.see(Frame(pts=picture.pts, pixels=picture.planes(observer.needs)))
        if self._spec and self._evidence_grid and self._evidence_grid.due(picture.pts):
            rgb = picture.rgb(self._spec.short_side)
            self.evidence.append(EvidenceFrame(pts=picture.pts, jpeg=video.jpeg(rgb, self._spec.quality)))

    def finish(self) -> list[Track]:
        return [track for live in self._lives for track in live.finish()]


# ---- as a row -------------------------------------------------------------------------------------------------------


def observe_row(
    source: dict[str, Any],
    observers: Sequence[Observer],
    evidence: EvidenceGrid,
    segment_seconds: float | None = None,
    beat: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """``observe`` as a row of ``schema.OBSERVATIONS``; a source that cannot be used is a row with a failure.

    ``source``: a row of ``UNIT``; with ``segments`` it is that segment of a source whose first segment is a row already.
    """
    began = time.monotonic()
    segment = None
    if source["segments"] is not None:
        segment = Segment(number=source["segment"], count=source["segments"], origin=source["origin"])
    row = empty_row(source)
    try:
        seen = observe(source["uri"], observers, evidence, beat, segment=segment, segment_seconds=segment_seconds)
        row |= _observed(seen)
    except SourceError as error:
        row |= failed(error)
    return row | {"seconds_taken": time.monotonic() - began}


UNIT = pa.schema(
    [
        *(pa.field(name, pa.string()) for name in ("source_id", "uri", "manifest")),
        *(pa.field(name, pa.int32()) for name in ("segment", "segments")),
        pa.field("origin", pa.int64()),
    ]
)
"""What is observed in one go. ``segments`` and ``origin`` are null where the source has not been looked at yet."""


def empty_row(source: dict[str, Any]) -> dict[str, Any]:
    """A row of ``schema.OBSERVATIONS`` for a unit of which nothing is known but what the unit says."""
    unit = {"unit": unit_of(source["source_id"], source["segment"]), "segments": source["segments"] or 1}
    return {**schema.empty_row(schema.OBSERVATIONS), **source, **unit, **stat_row(source["uri"])}


def unit_of(source_id: str, segment: int) -> str:
    """The key of an observations row."""
    return f"{source_id}/{segment}"


def stat_row(uri: str) -> dict[str, Any]:
    """Size and modification time of a local file, by which a rerun knows whether to look at it again."""
    path = local_path(uri)
    try:
        stat = os.stat(path) if path else None
    except OSError:
        stat = None  # opening it will say why
    return {"bytes": stat.st_size, "modified": stat.st_mtime_ns} if stat else {}


def failed(error: SourceError) -> dict[str, Any]:
    """The columns of a source that could not be observed."""
    failure = Failure(stage="observe", kind=error.kind, message=str(error))
    return {
        "status": "failed",
        "failure": {"stage": failure.stage, "kind": failure.kind, "message": failure.message},
    }


def _observed(seen: Observation) -> dict[str, Any]:
    return {
        "status": "ok",
        "content_id": seen.content_id,
        "bytes": seen.bytes,
        "probe": probe_row(seen.probe),
        "pts": seen.pts,
        "end": seen.end,
        "seconds": float((seen.end - seen.pts[0]) * seen.probe.time_base) if seen.pts else 0.0,
        "segments": seen.segments,
        "origin": seen.origin,
        "packets_broken": seen.packets_broken,
        "frames_corrupt": seen.frames_corrupt,
        "tracks": [{"name": t.name, "pts": t.pts, "values": t.values} for t in seen.tracks],
        "evidence": [{"pts": e.pts, "jpeg": e.jpeg} for e in seen.evidence],
    }


def probe_row(probe: Probe) -> dict[str, Any]:
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
    """The tracks of one observations row, by name."""
    return {
        t["name"]: Track(
            name=t["name"],
            pts=np.asarray(t["pts"], dtype=np.int64),
            values=np.asarray([np.nan if v is None else v for v in t["values"]], dtype=np.float32),
        )
        for t in row["tracks"] or ()
    }


def joined_row(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The observations rows of all segments of one source, in order, as the one row that the whole would be.

    Evidence is left out: who needs it reads the segments that it lies in.
    """
    first, last = rows[0], rows[-1]
    if len(rows) == 1:
        return dict(first)
    tracks = []
    for number, track in enumerate(first["tracks"]):
        parts = [row["tracks"][number] for row in rows]
        pts, values = ([value for part in parts for value in part[column]] for column in ("pts", "values"))
        tracks.append({"name": track["name"], "pts": pts, "values": values})
    return {
        **first,
        "segments": 1,
        "pts": [pts for row in rows for pts in row["pts"]],
        "end": last["end"],
        "seconds": sum(row["seconds"] for row in rows),
        "packets_broken": sum(row["packets_broken"] for row in rows),
        "frames_corrupt": sum(row["frames_corrupt"] for row in rows),
        "tracks": tracks,
    }


def time_base_of(probe: dict[str, Any]) -> Fraction:
    return Fraction(probe["time_base_num"], probe["time_base_den"])


def evidence_within(frames: Sequence[EvidenceFrame], span: Span) -> tuple[EvidenceFrame, ...]:
    return tuple(frame for frame in frames if span.start <= frame.pts < span.end)
