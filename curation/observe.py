"""A source is observed in one decode: plan the sampling, fan out to the observers, keep tracks and evidence."""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass as spec

from dailies.curation import video
from dailies.curation.config import SPEC
from dailies.curation.errors import SourceError
from dailies.curation.geometry import Geometry, shape_change
from dailies.curation.observers import Listener, ListenerPass, Observer, listening, watching
from dailies.curation.observers.tracking import FULL_SIZE, Fps, ShortSide
from dailies.curation.timing import LATELY, Grid, Pause, Span, ticks
from dailies.curation.types import EvidenceFrame, Frame, Probe, SoundBlock, Track


@spec(frozen=True, kw_only=True, config=SPEC)
class EvidenceGrid:
    """Evidence is kept as JPEGs, which scorers and captioners look at.

    Args:
        fps: pictures kept a second.
        short_side: px of their shorter side; smaller sources stay as they are.
        quality: of the JPEGs.
    """

    fps: Fps = 1.0
    short_side: ShortSide = 384
    quality: Annotated[int, Field(ge=1, le=100)] = 80

    identity: ClassVar[str] = "curation.observe.EvidenceGrid"
    meaning: ClassVar[int] = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Part ``number`` of the ``count`` equal parts of a long source, whose first frame has the pts ``origin``."""

    number: int
    count: int
    origin: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """Everything kept of one source, or of one segment of it.

    ``pts``: of every frame, in presentation order; ``end``: first tick after the last, which is the next segment's first;
    ``segments``: how many the source is split into; ``origin``: pts of the source's first frame; ``geometries``: of the
    first frame, and of each at which it changes.
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
    geometries: Sequence[Geometry]


def observe(
    uri: str,
    observers: Sequence[Observer | Listener],
    evidence: EvidenceGrid | None,
    heartbeat: Callable[[], None] = lambda: None,
    *,
    segment: Segment | None = None,
    segment_seconds: float | None = None,
) -> Observation:
    """Decode ``uri`` once and let every observer see the frames due on its grid.

    Frames that no other frame refers to are skipped where the codec has such: their times are known all the same, and half
    the work or more is saved. A source in which a fault shows, or of which too little would be seen, is read again with
    every frame. Faults within skipped frames do not show.

    Args:
        observers: signals to read.
        evidence: JPEGs to keep, if any.
        heartbeat: is called for every frame, so that a watcher can tell slow from stuck.
        segment: which segment of a source to observe, once its first one is.
        segment_seconds: of a source 1.5 times as long or longer, observe only the first of equal segments of about that
            length. Segments, joined, tell what the whole tells; only around faults may numbers differ a little.

    Raises ``SourceError`` when the source cannot be used.
    """
    content, size = video.content_id(uri)
    heartbeat()
    decode = partial(_decode, uri, observers, evidence, heartbeat, segment, segment_seconds)
    observation = None
    if not any(observer.needs.every for observer in watching(observers)):
        with suppress(SourceError):  # whatever it is, reading every frame says it better
            observation = decode(skip_nonref=True)
    observation = observation or decode(skip_nonref=False)
    assert observation is not None  # only where frames were skipped is a source ever not trusted
    return replace(observation, content_id=content, bytes=size)


def _decode(
    uri: str,
    observers: Sequence[Observer | Listener],
    evidence: EvidenceGrid | None,
    heartbeat: Callable[[], None],
    segment: Segment | None,
    segment_seconds: float | None,
    *,
    skip_nonref: bool,
) -> Observation | None:
    """Make one pass; ``None`` where one that skips frames cannot be trusted: only a full decode shows every fault."""
    ears = _Ears(listening(observers), heartbeat)
    with _open(uri, observers, ears, segment, skip_nonref=skip_nonref) as source:
        probe, lookback = source.probe, _lookback(observers, source.time_base)
        if segment is None:
            count = _segments(probe, segment_seconds)
            segment = Segment(number=0, count=count, origin=source.first_pts)
        low, high = _bounds(segment, probe)
        fan, ended = _FanOut(probe, observers, ears, evidence, segment.origin), True
        earlier: deque[int] = deque(maxlen=LATELY + 1)  # frames before those that are seen: a hole may lie between
        for picture in source.frames():
            heartbeat()
            if skip_nonref and source.decoder.faulty:
                return None
            if high is not None and picture.pts >= high + lookback:
                if not _lags(source, picture.pts - lookback, high):
                    ended = False
                    break
            elif low is None or picture.pts >= low - lookback:
                fan.see(picture)
            else:
                earlier.append(picture.pts)
        _check(source, segment, ended=ended)
        if not source.decoder.trusted(fan.pts):
            return None
        if listening(observers) and _misses(source, low, high, lookback, ended=ended):
            _hear_apart(uri, source, low, high, lookback, ears)
        return _observation(source, fan, segment, low, high, earlier)


LAG = 5  # seconds behind the pictures up to which sound is waited for at a segment's end
BEHIND = 1  # seconds behind that end up to which it is heard


def _lags(source: video.Source, pts: int, high: int) -> bool:
    """Tell whether sound up to ``high`` may still come, in a file that keeps it behind the pictures."""
    base, until = source.time_base, source.decoder.hears_until
    return until is not None and until < high * base + BEHIND and pts < high + ticks(LAG, base)


def _misses(source: video.Source, low: int | None, high: int | None, lookback: int, *, ended: bool) -> bool:
    """Tell whether a segment has, or may have, sound that lies elsewhere in the file than its pictures."""
    if (low is None and high is None) or not source.probe.has_audio or "mp4" in source.probe.container:
        return False
    base, decoder = source.time_base, source.decoder
    begins, ends = decoder.hears_since, decoder.hears_until
    if low is not None and (begins is None or begins > (low - lookback) * base + BEHIND):
        return True
    return high is not None and not ended and (ends is None or ends < high * base + BEHIND)


def _hear_apart(uri: str, source: video.Source, low: int | None, high: int | None, lookback: int, ears: _Ears) -> None:
    """Read the sound of a segment by its own times, in a pass without pictures, in place of what was heard along with them."""
    start, base = source.probe.start or 0, source.time_base
    first = start if low is None else low - lookback
    last = source.decoder.end if high is None else high + lookback
    span = Span(start=first, end=max(first + 1, last), time_base=base)
    video.hear_span(uri, source.probe.stream, span, ears, ears.heartbeat)


def _lookback(observers: Sequence[Observer | Listener], time_base: Fraction) -> int:
    """Return the ticks to read on either side of a segment so that its values are those of the whole."""
    return ticks(max([1.0, *(observer.lookback for observer in observers)]), time_base)


def _open(
    uri: str, observers: Sequence[Observer | Listener], ears: _Ears, segment: Segment | None, *, skip_nonref: bool
) -> video.Source:
    """Open the source early enough before the segment."""
    listener = ears if listening(observers) else None
    if segment is None or segment.number == 0:
        return video.open_source(uri, skip_nonref=skip_nonref, listener=listener)
    with video.open_source(uri, skip_nonref=skip_nonref) as source:
        low, _ = _bounds(segment, source.probe)
        assert low is not None
        start = max(segment.origin, low - _lookback(observers, source.time_base))
        span = Span(start=start, end=low + 1, time_base=source.time_base)
        canvas = source.canvas
    return video.open_before(uri, span, skip_nonref=skip_nonref, canvas=canvas, listener=listener)


SEGMENTED_FPS = 12  # a slower source is small, and what its observers need around a segment would be long


def _segments(probe: Probe, segment_seconds: float | None) -> int:
    """Return how many segments to split a source into."""
    if segment_seconds is None or not probe.duration or not probe.fps or probe.fps < SEGMENTED_FPS:
        return 1
    if probe.container == "flv":
        return 1  # it can only be read from its start
    seconds = float(probe.duration * probe.time_base)
    return round(seconds / segment_seconds) if seconds >= 1.5 * segment_seconds else 1


def _bounds(segment: Segment, probe: Probe) -> tuple[int | None, int | None]:
    """Return the first tick of the segment and of the next; ``None`` at the source's own ends."""
    duration = probe.duration or 0
    low = segment.origin + duration * segment.number // segment.count
    high = segment.origin + duration * (segment.number + 1) // segment.count
    return (low if segment.number else None), (high if segment.number + 1 < segment.count else None)


def _check(source: video.Source, segment: Segment, *, ended: bool) -> None:
    """Raise what is wrong with a source, or with the part of it that a segment reads."""
    if segment.count == 1:
        source.check()
        return
    source.decoder.check_packets()
    if ended:
        source.decoder.check_end(f"segment {segment.number} of {segment.count}: ")


def _observation(
    source: video.Source,
    fan: _FanOut,
    segment: Segment,
    low: int | None,
    high: int | None,
    earlier: Sequence[int],
) -> Observation:
    """Return the part of what was decoded that belongs to the segment. ``earlier``: frames decoded before those seen."""
    times = source.decoder.shown(fan.pts)
    first = 0 if low is None else bisect_left(times, low)
    last = len(times) if high is None else bisect_left(times, high)
    if last < len(times):
        end = times[last]
    elif first < last:
        end = source.decoder.end_after(times)
    else:
        end = source.decoder.end  # a stream that ends before its container does may leave nothing for the last segment
    faults = Counter(
        name
        for name, pts in source.decoder.faults_at
        if pts is None or ((low is None or pts >= low) and (high is None or pts < high))
    )
    known = source.decoder.shown([*earlier, *fan.pts])
    holes = hole_track(source.decoder.times.holes(known), known, source.time_base)
    tracks = [_within(track, low, high) for track in (*fan.finish(), holes)]
    return Observation(
        content_id="",
        bytes=0,
        probe=source.probe,
        pts=times[first:last],
        end=end,
        tracks=[track for track in tracks if track.name != HOLES or len(track.pts)],
        evidence=[
            frame for frame in fan.evidence if (low is None or frame.pts >= low) and (high is None or frame.pts < high)
        ],
        packets_broken=faults["packets_broken"],
        frames_corrupt=faults["frames_corrupt"],
        segments=segment.count,
        origin=segment.origin,
        geometries=_geometries_within(fan.geometries, times[first:last]),
    )


HOLES = "hole"


def hole_track(pauses: Sequence[Pause], pts: Sequence[int], time_base: Fraction) -> Track:
    """Return the track that says where frames are missing: at the first frame behind, how long the one before is shown (s)."""
    shown = [(pause.end - pts[bisect_left(pts, pause.until) - 1]) * time_base for pause in pauses]
    return Track(
        name=HOLES,
        pts=np.asarray([pause.until for pause in pauses], np.int64),
        values=np.asarray([float(seconds) for seconds in shown], np.float32),
    )


def _geometries_within(geometries: Sequence[Geometry], pts: Sequence[int]) -> list[Geometry]:
    """Return the geometries of the frames at ``pts``, the first one from their first frame on."""
    if not pts:
        return []
    before = [geometry for geometry in geometries if geometry.pts <= pts[0]]
    begins = [replace(before[-1], pts=pts[0])] if before else []
    return [*begins, *(geometry for geometry in geometries if pts[0] < geometry.pts <= pts[-1])]


def _within(track: Track, low: int | None, high: int | None) -> Track:
    first = 0 if low is None else int(np.searchsorted(track.pts, low))
    last = len(track.pts) if high is None else int(np.searchsorted(track.pts, high))
    return Track(name=track.name, pts=track.pts[first:last], values=track.values[first:last])


class _FanOut:
    """Hands each frame to the observers for which it is due; grids start at the source's first frame.

    Observers see pictures of one size. Where pictures of another shape follow, they begin anew; where only the size changes,
    they see the old size, but for those who look at pictures in full size, which begin anew as well.
    """

    def __init__(
        self,
        probe: Probe,
        observers: Sequence[Observer | Listener],
        ears: _Ears,
        evidence: EvidenceGrid | None,
        origin: int,
    ) -> None:
        self.pts: list[int] = []
        self.evidence: list[EvidenceFrame] = []
        self.geometries: list[Geometry] = []
        self._probe = probe
        self._observers = [_Observing(observer, probe, origin) for observer in watching(observers)]
        self._ears = ears
        self._spec = evidence
        self._evidence_grid = Grid(evidence.fps, probe.time_base, origin) if evidence else None
        self._canvas: video.Canvas | None = None

    def see(self, picture: video.DecodedFrame) -> None:
        self.pts.append(picture.pts)
        if picture.canvas is not self._canvas:
            self._canvas = picture.canvas
            self.geometries.append(_geometry(picture))
        for observing in self._observers:
            observing.see(picture)
        if self._spec and self._evidence_grid and self._evidence_grid.due(picture.pts):
            rgb = picture.rgb(self._spec.short_side)
            self.evidence.append(EvidenceFrame(pts=picture.pts, jpeg=video.jpeg(rgb, self._spec.quality)))

    def finish(self) -> list[Track]:
        of_pictures = [track for observing in self._observers for track in observing.finish()]
        return [*of_pictures, *self._ears.finish()]


class _Ears:
    """Hands each piece of sound to the observers that listen, with a heartbeat: much of it may come before any picture."""

    def __init__(self, observers: Sequence[Listener], heartbeat: Callable[[], None]) -> None:
        self._observers, self.heartbeat = observers, heartbeat
        self._passes: list[ListenerPass] = []

    def begin(self, time_base: Fraction) -> None:
        self._passes = [observer.start(time_base) for observer in self._observers]

    def hear(self, block: SoundBlock) -> None:
        self.heartbeat()
        for going in self._passes:
            going.hear(block)

    def lose(self, start: Fraction, end: Fraction) -> None:
        self.heartbeat()
        for going in self._passes:
            going.lose(start, end)

    def finish(self) -> list[Track]:
        return [track for going in self._passes for track in going.finish()]


def _geometry(picture: video.DecodedFrame) -> Geometry:
    canvas = picture.canvas
    width, height = canvas.size
    return Geometry(
        pts=picture.pts,
        width=width,
        height=height,
        rotation=90 * canvas.upright.turns,
        pixel_format=picture.frame.format.name,
        pixel_aspect=float(canvas.aspect),
    )


class _Observing:
    """One observer at work on one source, in as many passes as its pictures have shapes or, in full size, sizes."""

    def __init__(self, observer: Observer, probe: Probe, origin: int) -> None:
        self._observer, self._probe = observer, probe
        self._grid = Grid(observer.needs.fps, probe.time_base, origin)
        self._pass = observer.start(probe)
        self._canvas: video.Canvas | None = None  # of the pass's first picture
        self._done: list[Sequence[Track]] = []

    def see(self, picture: video.DecodedFrame) -> None:
        if picture.canvas is not self._canvas:
            self._turn_to(picture.canvas)
        if self._grid.due(picture.pts):
            assert self._canvas is not None
            pixels = picture.planes(self._observer.needs, self._canvas.size)
            self._pass.see(Frame(pts=picture.pts, pixels=pixels))

    def _turn_to(self, canvas: video.Canvas) -> None:
        """Begin anew where the observer cannot go on with pictures of this canvas."""
        old = self._canvas
        if old is not None and canvas.size == old.size:
            return
        if old is not None:
            if self._observer.needs.short_side < FULL_SIZE and shape_change(old.size, canvas.size) <= 1:
                return
            self._done.append(self._pass.finish())
            width, height = canvas.size
            self._pass = self._observer.start(replace(self._probe, width=width, height=height))
        self._canvas = canvas

    def finish(self) -> list[Track]:
        by_name: dict[str, list[Track]] = {}  # some passes have a track that others lack
        for track in itertools.chain(*self._done, self._pass.finish()):
            by_name.setdefault(track.name, []).append(track)
        return [
            Track(
                name=name,
                pts=np.concatenate([track.pts for track in tracks]),
                values=np.concatenate([track.values for track in tracks]),
            )
            for name, tracks in by_name.items()
        ]
