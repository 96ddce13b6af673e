"""Clips are spans of one shot each, made from a source's tracks through cuts, or the spans that a manifest names.

Pure functions over one observations row.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any

from dailies.curation import schema
from dailies.curation.config import read_object
from dailies.curation.detectors import Detector
from dailies.curation.errors import SourceError, UsageError
from dailies.curation.geometry import Geometry, geometries_of, largest_within, with_changes
from dailies.curation.observations import time_base_of, tracks_of
from dailies.curation.observe import HOLES
from dailies.curation.observers import Listener, Observer
from dailies.curation.observers.tracking import FULL_SIZE
from dailies.curation.timing import Span, ticks
from dailies.curation.types import Cut, Track

SPLITS = schema.SPLITS
CLIP_STATUSES = ("ok", "too_short", "too_long", "outside", "empty", "failed")
PAST_END = Fraction(1, 10)
"""Seconds that a manifest's span may end after its source: stated lengths are rounded, or the sound's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipRules:
    """Rules by which shots become clips.

    Shots shorter than ``min_seconds`` are kept as rows with status ``too_short``; shots longer than ``max_seconds`` are
    split into equal parts. ``margin_frames`` are dropped on either side of a cut. The shares are of content, by hash, for
    sources whose manifest names no ``split``.
    """

    min_seconds: float
    max_seconds: float
    margin_frames: int = 0
    validation_share: float = 0.05
    test_share: float = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Frames ``[first, last)`` of a source by index, up to the tick ``end``, and the cut at each end: ``None`` where the source
    ends, ``"hole"`` where it lacks a part, ``"length"`` where a long shot was split, ``"span"`` where a manifest says so."""

    first: int
    last: int
    end: int
    before: Cut | str | None
    after: Cut | str | None


def frames_of(cuts: Sequence[Cut], pts: Sequence[int]) -> list[tuple[int, int]]:
    """Return each cut as frame indexes: (first frame not wholly of the old shot, first frame wholly of the new shot).

    For a hard cut both are the new shot's first frame.
    """
    index = {value: number for number, value in enumerate(pts)}
    return [(index[cut.start] + 1, index[cut.end]) for cut in cuts]


def places_of(cuts: Sequence[Cut], pts: Sequence[int]) -> list[tuple[int, int]]:
    """Return each cut as ``[first, last)`` frame indexes; equal for a hard cut, whose new shot begins there.

    Where frames at a hard cut were skipped, the middle one stands for the place between them.
    """
    index = {value: number for number, value in enumerate(pts)}
    places = []
    for cut, (first, last) in zip(cuts, frames_of(cuts, pts), strict=True):
        middle = (first + last) // 2
        places.append((index[cut.core[0]], index[cut.core[1]] + 1) if cut.core else (middle, middle))
    return places


def pieces(
    cuts: Sequence[Cut],
    pts: Sequence[int],
    end: int,
    time_base: Fraction,
    rules: ClipRules,
    holes: Mapping[int, int] | None = None,
) -> Iterator[Piece]:
    """Yield the shots between ``cuts`` and ``holes``, those too long split into equal parts.

    ``pts``: of every frame, in order; ``end``: first tick after the last frame; ``holes``: see ``holes_of``.
    """
    ends = [*pts, end]  # where the frame before each ends
    edges: list[tuple[int, int, Cut | str]] = [
        (old, new, cut) for (old, new), cut in zip(frames_of(cuts, pts), cuts, strict=True)
    ]
    for at, tick in (holes or {}).items():
        ends[at] = tick
        edges = [edge for edge in edges if edge[:2] != (at, at)]  # what comes after a hole looks like a cut
        if not any(old <= at <= new for old, new, _ in edges):
            edges.append((at, at, "hole"))
    edges.sort(key=lambda edge: edge[:2])
    starts: list[tuple[int, Cut | str | None]] = [(0, None), *((new, by) for _, new, by in edges)]
    lasts: list[tuple[int, Cut | str | None]] = [*((old, by) for old, _, by in edges), (len(pts), None)]
    for (first, before), (last, after) in zip(starts, lasts, strict=True):
        first += rules.margin_frames if isinstance(before, Cut) else 0
        last -= rules.margin_frames if isinstance(after, Cut) else 0
        if first < last:
            yield from _split(first, last, before, after, pts, ends, time_base, rules)


def holes_of(tracks: Mapping[str, Track], pts: Sequence[int], time_base: Fraction) -> dict[int, int]:
    """Return where a source lacks a part: index of the first frame behind each hole → tick at which the frame before ends."""
    if HOLES not in tracks:
        return {}
    index = {value: number for number, value in enumerate(pts)}
    places = [index[int(until)] for until in tracks[HOLES].pts]
    shown = [ticks(float(seconds), time_base) for seconds in tracks[HOLES].values]
    return {at: pts[at - 1] + length for at, length in zip(places, shown, strict=True) if at}


def _split(
    begins: int,
    until: int,
    before: Cut | str | None,
    after: Cut | str | None,
    pts: Sequence[int],
    ends: Sequence[int],
    time_base: Fraction,
    rules: ClipRules,
) -> Iterator[Piece]:
    """Split a shot into as few equal parts as keep each within the maximum; a frame that is longer stands alone."""
    longest = Fraction(rules.max_seconds).limit_denominator(1000) / time_base
    paused = [at for at in range(begins, until) if ends[at + 1] - pts[at] > longest]
    stretches = sorted({begins, until, *paused, *(at + 1 for at in paused)})
    marks = [begins]
    for first, last in pairwise(stretches):
        marks += _equal(first, last, pts, ends, longest)
    for first, last in pairwise(marks):
        yield Piece(
            first=first,
            last=last,
            end=ends[last],
            before=before if first == begins else "length",
            after=after if last == until else "length",
        )


def _equal(first: int, last: int, pts: Sequence[int], ends: Sequence[int], longest: Fraction) -> list[int]:
    """Return where the parts of frames ``[first, last)`` end: of equal numbers of frames, or where pauses are among them,
    which would take ever shorter ones, as few as there can be of about equal length."""
    count = last - first
    fewest = max(1, math.ceil((ends[last] - pts[first]) / longest))
    for parts in range(min(count, fewest), min(count, 2 * fewest) + 1):
        marks = [first + count * part // parts for part in range(parts + 1)]
        if max(ends[b] - pts[a] for a, b in pairwise(marks)) <= longest:
            return marks[1:]
    return _fitted(first, last, pts, ends, longest)


def _fitted(first: int, last: int, pts: Sequence[int], ends: Sequence[int], longest: Fraction) -> list[int]:
    """Return where the fewest parts within ``longest`` end whose longest is the shortest."""

    def filled(most: Fraction | int) -> list[int]:
        marks, begin = [], first
        for at in range(first + 1, last):
            if ends[at + 1] - pts[begin] > most:
                marks.append(at)
                begin = at
        return [*marks, last]

    fewest = len(filled(longest))
    low, high = 0, math.floor(longest)
    while high - low > 1:  # more than ``low``, at most ``high``
        middle = (low + high) // 2
        low, high = (low, middle) if len(filled(middle)) <= fewest else (middle, high)
    return filled(high)


# ---- rows -----------------------------------------------------------------------------------------------------------


def clip_rows(
    row: Mapping[str, Any],
    detector: Detector,
    observers: Sequence[Observer | Listener],
    rules: ClipRules,
    *,
    whole: bool = True,
    spans: Sequence[Mapping[str, Any]] = (),
) -> list[dict[str, Any]]:
    """Return the rows of ``schema.clips`` for one observations row with status ok.

    ``whole``: the shots between the detector's cuts; ``spans``: rows of ``schema.SPANS``, which become a clip each wherever
    cuts are, and say in ``cuts_inside`` how many they hold.
    """
    tracks = tracks_of(dict(row))
    base = time_base_of(row["probe"])
    pts, end = row["pts"], row["end"]
    geometries = geometries_of(row)
    cuts = with_changes(detector.cuts(tracks), geometries, pts)
    holes = holes_of(tracks, pts, base)
    shots = pieces(cuts, pts, end, base, rules, holes) if whole else ()
    rows = [_clip_row(row, piece, tracks, observers, rules, base, geometries) | {"cuts_inside": 0} for piece in shots]
    breaks = {*frames_of(cuts, pts), *((at, at) for at in holes)}
    ends = [*pts, end]  # where the frame before each ends
    for at, tick in holes.items():
        ends[at] = tick
    for span in spans:
        frames = _frames_within(span, pts, end, base)
        if isinstance(frames, str):
            rows.append(_unplaced_row(row, span, frames, rules, base))
            continue
        first, last = frames
        piece = Piece(first=first, last=last, end=ends[last], before="span", after="span")
        clip = _clip_row({**row, "manifest": span["manifest"]}, piece, tracks, observers, rules, base, geometries)
        inside = sum(first < after and before < last for before, after in breaks)
        rows.append(clip | _named_span(row, span) | {"cuts_inside": inside})
    return rows


def failed_row(source_id: str, error: SourceError, span_id: str | None = None) -> dict[str, Any]:
    """Return the row that stands for a source, or a manifest's span of it, which could not be cut."""
    clip_id = schema.digest("failed", span_id or source_id)
    failure = schema.failed("cut", error.kind, str(error))
    return {"clip_id": clip_id, "source_id": source_id, "span_id": span_id, **failure}


def _frames_within(span: Mapping[str, Any], pts: Sequence[int], end: int, base: Fraction) -> tuple[int, int] | str:
    """Return the frames that begin in a manifest's span as ``[first, last)``, or the status of a span that has none.

    Its seconds count from the first frame, and to the nearest tick: a time that was rounded still names its frame.
    """
    start, stop = (pts[0] + ticks(span[edge], base) for edge in ("start", "end"))
    if start >= end or (stop - end) * base > PAST_END:
        return "outside"
    first, last = bisect_left(pts, start), bisect_left(pts, stop)
    return (first, last) if first < last else "empty"


def _named_span(row: Mapping[str, Any], span: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns that say which span a clip is."""
    return {
        "clip_id": schema.digest("clip", row["content_id"], span["span_id"]),
        "span_id": span["span_id"],
        "span_start": span["start"],
        "span_end": span["end"],
    }


def _unplaced_row(
    row: Mapping[str, Any], span: Mapping[str, Any], status: str, rules: ClipRules, base: Fraction
) -> dict[str, Any]:
    """Return the row of a manifest's span that has no frames, with its reason as status."""
    probe = row["probe"]
    return {
        **{name: row[name] for name in ("source_id", "content_id", "uri")},
        **_named_span(row, span),
        "manifest": span["manifest"],
        "split": _named_split({**row, "manifest": span["manifest"]}, rules),
        "status": status,
        "stream": probe["stream"],
        "time_base_num": base.numerator,
        "time_base_den": base.denominator,
        "width": probe["width"],
        "height": probe["height"],
    }


def _clip_row(
    row: Mapping[str, Any],
    piece: Piece,
    tracks: Mapping[str, Track],
    observers: Sequence[Observer | Listener],
    rules: ClipRules,
    base: Fraction,
    geometries: Sequence[Geometry],
) -> dict[str, Any]:
    """Return what every clip's row holds."""
    pts, probe = row["pts"], row["probe"]
    span = Span(start=pts[piece.first], end=piece.end, time_base=base)
    (width, height), largest = largest_within(geometries, span) or ((probe["width"], probe["height"]), span)
    frames = piece.last - piece.first
    seconds = float(span.seconds)
    clip = {
        "clip_id": schema.clip_id(row["source_id"], row["content_id"], probe["stream"], span.start, span.end, base),
        **{name: row[name] for name in ("source_id", "content_id", "uri", "manifest")},
        "split": _named_split(row, rules),
        "status": _status(span, rules),
        "stream": probe["stream"],
        "start": span.start,
        "end": span.end,
        "time_base_num": base.numerator,
        "time_base_den": base.denominator,
        "start_seconds": float((span.start - pts[0]) * base),
        "seconds": seconds,
        "first_frame": piece.first,
        "frames": frames,
        "fps": frames / seconds,
        "width": width,
        "height": height,
        **_bound("start", piece.before),
        **_bound("end", piece.after),
    }
    for observer in observers:
        # What is measured in pixels of the full size counts where the pictures have the clip's own.
        in_full = observer.needs is not None and observer.needs.short_side == FULL_SIZE
        clip |= observer.reduce(tracks, largest if in_full else span)
    return clip


def span_of(clip: Mapping[str, Any]) -> Span:
    """Return the span of a clips row."""
    base = Fraction(clip["time_base_num"], clip["time_base_den"])
    return Span(start=clip["start"], end=clip["end"], time_base=base)


def _bound(side: str, by: Cut | str | None) -> dict[str, Any]:
    """Return what bounds a clip on this side, by which detector and how strongly."""
    if isinstance(by, Cut):
        return {f"{side}_kind": by.kind, f"{side}_detector": by.detector, f"{side}_strength": by.strength}
    return {f"{side}_kind": by or "source", f"{side}_detector": None, f"{side}_strength": None}


def _status(span: Span, rules: ClipRules) -> str:
    """Judge a clip by its length; a single frame may last longer than the maximum."""
    if span.seconds < Fraction(rules.min_seconds).limit_denominator(1000):
        return "too_short"
    return "too_long" if span.seconds > Fraction(rules.max_seconds).limit_denominator(1000) else "ok"


def _named_split(row: Mapping[str, Any], rules: ClipRules) -> str:
    """Return the manifest's own ``split``, by any of its names, where it has one, else a function of the content."""
    columns = read_object(row["manifest"] or "{}", "manifest of a source", UsageError)
    return schema.split_in(columns) or split_of(row["content_id"], rules.validation_share, rules.test_share)


def split_of(content_id: str, validation_share: float, test_share: float) -> str:
    """Return train, validation or test by the content alone, so that copies and clips of a source stay together."""
    draw = int(schema.digest("split", content_id), 16) / 16**24
    if draw < test_share:
        return "test"
    return "validation" if draw < test_share + validation_share else "train"
