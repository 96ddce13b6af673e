"""Observe one source: plan the sampling, decode once, fan out to the observers, keep tracks and evidence."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar

from curation import schema, video
from curation.errors import SourceError
from curation.observers import Live, Observer
from curation.observers.tracking import check_grid
from curation.timing import Grid, Span, end_of
from curation.types import EvidenceFrame, Failure, Frame, Probe, Track
from curation.uri import local_path


@dataclass(frozen=True, kw_only=True)
class EvidenceGrid:
    """JPEGs to keep: ``fps`` a second, ``short_side`` pixels, JPEG ``quality`` 1–100."""

    fps: float = 1.0
    short_side: int = 384
    quality: int = 80

    meaning: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_grid(self.fps, self.short_side)
        if not 1 <= self.quality <= 100:
            raise ValueError(f"quality must be between 1 and 100, not {self.quality}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What is kept of one source. ``pts``: of every frame, in presentation order; ``end``: first tick after the last."""

    content_id: str
    bytes: int
    probe: Probe
    pts: Sequence[int]
    end: int
    tracks: Sequence[Track]
    evidence: Sequence[EvidenceFrame]
    packets_broken: int
    frames_corrupt: int


def observe(
    uri: str,
    observers: Sequence[Observer],
    evidence: EvidenceGrid | None,
    beat: Callable[[], None] = lambda: None,
) -> Observation:
    """Decode ``uri`` once and let every observer see the frames due on its grid.

    ``beat`` is called for every frame, so that a watcher can tell slow from stuck. Raises ``SourceError`` when the source
    cannot be used.
    """
    content, size = video.content_id(uri)
    beat()
    with video.open_source(uri) as source:
        fan = _Fan(source.probe, observers, evidence)
        for picture in source.pictures():
            beat()
            fan.see(picture)
        source.check()
        tracks = fan.finish()
        return Observation(
            content_id=content,
            bytes=size,
            probe=source.probe,
            pts=fan.pts,
            end=end_of(fan.pts, source.last_duration),
            tracks=tracks,
            evidence=fan.evidence,
            packets_broken=source.packets_broken,
            frames_corrupt=source.frames_corrupt,
        )


class _Fan:
    """Hands each picture to whom it is due. A grid starts at the first frame, so it depends on pts alone."""

    def __init__(self, probe: Probe, observers: Sequence[Observer], evidence: EvidenceGrid | None) -> None:
        self.pts: list[int] = []
        self.evidence: list[EvidenceFrame] = []
        self._probe = probe
        self._observers = observers
        self._lives: list[Live] = [observer.start(probe) for observer in observers]
        self._spec = evidence
        self._grids: list[Grid] = []
        self._evidence_grid: Grid | None = None

    def see(self, picture: video.Picture) -> None:
        if not self.pts:
            self._begin(picture.pts)
        self.pts.append(picture.pts)
        for observer, live, grid in zip(self._observers, self._lives, self._grids, strict=True):
            if grid.due(picture.pts):
                live.see(Frame(pts=picture.pts, pixels=picture.planes(observer.needs)))
        if self._spec and self._evidence_grid and self._evidence_grid.due(picture.pts):
            rgb = picture.rgb(self._spec.short_side)
            self.evidence.append(EvidenceFrame(pts=picture.pts, jpeg=video.jpeg(rgb, self._spec.quality)))

    def _begin(self, origin: int) -> None:
        base = self._probe.time_base
        self._grids = [Grid(observer.needs.fps, base, origin) for observer in self._observers]
        self._evidence_grid = Grid(self._spec.fps, base, origin) if self._spec else None

    def finish(self) -> list[Track]:
        return [track for live in self._lives for track in live.finish()]


# ---- as a row -------------------------------------------------------------------------------------------------------


def observe_row(
    source: dict[str, Any],
    observers: Sequence[Observer],
    evidence: EvidenceGrid,
    beat: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """``observe`` as a row of ``schema.OBSERVATIONS``; a source that cannot be used is a row with a failure."""
    began = time.monotonic()
    row = {**schema.empty_row(schema.OBSERVATIONS), **source, **stat_row(source["uri"]), "segment": 0}
    try:
        row |= _observed(observe(source["uri"], observers, evidence, beat))
    except SourceError as error:
        row |= failed(error)
    return row | {"seconds_taken": time.monotonic() - began}


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
        "seconds": float((seen.end - seen.pts[0]) * seen.probe.time_base),
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
    import numpy as np

    return {
        t["name"]: Track(
            name=t["name"],
            pts=np.asarray(t["pts"], dtype=np.int64),
            values=np.asarray([np.nan if v is None else v for v in t["values"]], dtype=np.float32),
        )
        for t in row["tracks"] or ()
    }


def time_base_of(probe: dict[str, Any]) -> Fraction:
    return Fraction(probe["time_base_num"], probe["time_base_den"])


def evidence_within(frames: Sequence[EvidenceFrame], span: Span) -> tuple[EvidenceFrame, ...]:
    return tuple(frame for frame in frames if span.start <= frame.pts < span.end)
