"""Clips are spans of one shot each, made from a source's tracks through cuts: pure functions over one observations row."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any

from dailies.curation import schema
from dailies.curation.detectors import Detector
from dailies.curation.geometry import Geometry, geometries_of, largest_within, with_changes
from dailies.curation.observations import time_base_of, tracks_of
from dailies.curation.observers import Observer
from dailies.curation.observers.tracking import FULL_SIZE
from dailies.curation.timing import Span
from dailies.curation.types import Cut, Track

SPLITS = ("train", "validation", "test")
CLIP_STATUSES = ("ok", "too_short", "too_long")


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
    """Frames ``[first, last)`` of a source by index, and the cut at each end: ``None`` where the source ends,
    ``"length"`` where a long shot was split."""

    first: int
    last: int
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


def pieces(cuts: Sequence[Cut], pts: Sequence[int], end: int, time_base: Fraction, rules: ClipRules) -> Iterator[Piece]:
    """Yield the shots between ``cuts``, those too long split into equal parts.

    ``pts``: of every frame, in order; ``end``: first tick after the last frame.
    """
    edges = frames_of(cuts, pts)
    starts = [(0, None), *((new, cut) for (_, new), cut in zip(edges, cuts, strict=True))]
    ends = [*((old, cut) for (old, _), cut in zip(edges, cuts, strict=True)), (len(pts), None)]
    for (first, before), (last, after) in zip(starts, ends, strict=True):
        first += rules.margin_frames if before else 0
        last -= rules.margin_frames if after else 0
        if first < last:
            yield from _split(Piece(first=first, last=last, before=before, after=after), pts, end, time_base, rules)


def _split(shot: Piece, pts: Sequence[int], end: int, time_base: Fraction, rules: ClipRules) -> Iterator[Piece]:
    """Split a shot into as few equal parts as keep each within the maximum; a frame that is longer stands alone."""
    longest = Fraction(rules.max_seconds).limit_denominator(1000) / time_base
    paused = [at for at in range(shot.first, shot.last) if _end_pts(at + 1, pts, end) - pts[at] > longest]
    stretches = sorted({shot.first, shot.last, *paused, *(at + 1 for at in paused)})
    marks = [shot.first]
    for first, last in pairwise(stretches):
        marks += _equal(first, last, pts, end, longest)
    for first, last in pairwise(marks):
        yield Piece(
            first=first,
            last=last,
            before=shot.before if first == shot.first else "length",
            after=shot.after if last == shot.last else "length",
        )


def _equal(first: int, last: int, pts: Sequence[int], end: int, longest: Fraction) -> list[int]:
    """Return where the equal parts of frames ``[first, last)`` end."""
    count = last - first
    parts = min(count, max(1, math.ceil((_end_pts(last, pts, end) - pts[first]) / longest)))
    while True:
        marks = [first + count * part // parts for part in range(parts + 1)]
        if parts >= count or max(_end_pts(b, pts, end) - pts[a] for a, b in pairwise(marks)) <= longest:
            return marks[1:]
        parts += 1


def _end_pts(last: int, pts: Sequence[int], end: int) -> int:
    return pts[last] if last < len(pts) else end


# ---- rows -----------------------------------------------------------------------------------------------------------


def clip_rows(
    row: Mapping[str, Any], detector: Detector, observers: Sequence[Observer], rules: ClipRules
) -> list[dict[str, Any]]:
    """Return the rows of ``schema.clips`` for one observations row with status ok."""
    tracks = tracks_of(dict(row))
    base = time_base_of(row["probe"])
    geometries = geometries_of(row)
    cuts = with_changes(detector.cuts(tracks), geometries, row["pts"])
    return [
        _clip_row(row, piece, tracks, observers, rules, base, geometries)
        for piece in pieces(cuts, row["pts"], row["end"], base, rules)
    ]


def _clip_row(
    row: Mapping[str, Any],
    piece: Piece,
    tracks: Mapping[str, Track],
    observers: Sequence[Observer],
    rules: ClipRules,
    base: Fraction,
    geometries: Sequence[Geometry],
) -> dict[str, Any]:
    pts, probe = row["pts"], row["probe"]
    span = Span(start=pts[piece.first], end=_end_pts(piece.last, pts, row["end"]), time_base=base)
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
        clip |= observer.reduce(tracks, largest if observer.needs.short_side == FULL_SIZE else span)
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
    """Return the manifest's own ``split`` where it has one, else a function of the content."""
    split = json.loads(row["manifest"]).get("split") if row["manifest"] else None
    return split if split in SPLITS else split_of(row["content_id"], rules.validation_share, rules.test_share)


def split_of(content_id: str, validation_share: float, test_share: float) -> str:
    """Return train, validation or test by the content alone, so that copies and clips of a source stay together."""
    draw = int(schema.digest("split", content_id), 16) / 16**24
    if draw < test_share:
        return "test"
    return "validation" if draw < test_share + validation_share else "train"
