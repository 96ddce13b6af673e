"""The geometry of a source's pictures: size, turn, pixel format. It may change on the way, and then its shape may too."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dailies.curation.timing import Span
from dailies.curation.types import Cut

SAME_SHAPE = 0.01  # by which the ratio of two pictures' sides may differ where one is the other at another size
Size = tuple[int, int]  # (width, height) of an upright picture in square pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """What frames look like from the frame at ``pts`` on, up to the next geometry.

    ``width``, ``height``, ``rotation``, ``pixel_format`` and ``pixel_aspect`` are as those of a ``Probe``.
    """

    pts: int
    width: int
    height: int
    rotation: int
    pixel_format: str
    pixel_aspect: float

    @property
    def size(self) -> Size:
        """(width, height) of the upright picture."""
        return self.width, self.height


def geometries_of(row: Mapping[str, Any]) -> list[Geometry]:
    """Return the geometries of an observations row, the first one being its first frame's; none in rows of before."""
    return [Geometry(**geometry) for geometry in row.get("geometries") or ()]


def shape_change(old: Size, new: Size) -> float:
    """Return how far the shapes of two pictures are apart: over 1 it is another shape, below it is another size at most."""
    ratio = old[0] * new[1] / (old[1] * new[0])
    return (max(ratio, 1 / ratio) - 1) / SAME_SHAPE


def turn_change(old: Geometry, new: Geometry) -> float:
    """Return how far the turns of two pictures are apart, in eighths of a turn: frames are turned by whole quarters."""
    turn = abs(old.rotation - new.rotation) % 360
    return min(turn, 360 - turn) / 45


def larger(old: Size, new: Size) -> Size:
    """Return the larger of two pictures' sizes, by area; the first where neither is."""
    return new if new[0] * new[1] > old[0] * old[1] else old


def placed(inner: Size, outer: Size) -> tuple[int, int, int, int]:
    """Return (left, top, width, height) of a picture of size ``inner`` that is brought whole into ``outer``.

    One of the same shape fills it; another is centred between bars, at even pixels.
    """
    if shape_change(inner, outer) <= 1:
        return 0, 0, *outer
    share = min(outer[0] / inner[0], outer[1] / inner[1])
    width, height = (max(2, 2 * int(side * share / 2 + 1e-6)) for side in inner)
    return (outer[0] - width) // 4 * 2, (outer[1] - height) // 4 * 2, width, height


def with_changes(cuts: Sequence[Cut], geometries: Sequence[Geometry], pts: Sequence[int]) -> list[Cut]:
    """Return ``cuts`` and those where shape or turn of the pictures change between two of them, in order of time.

    A change of size or format alone ends no shot: the pictures can be shown at one size. Shapes are compared with that of
    the first picture since the last change, so that no clip drifts from one shape to another.
    """
    changes: list[Cut] = []
    since = geometries[0] if geometries else None
    for geometry in geometries[1:]:
        assert since is not None
        apart = max(shape_change(since.size, geometry.size), turn_change(since, geometry))
        if apart <= 1:
            continue
        since = geometry
        before = pts[bisect_left(pts, geometry.pts) - 1]
        if not any(cut.start < geometry.pts <= cut.end for cut in cuts):
            changes.append(Cut(start=before, end=geometry.pts, kind="geometry", detector="geometry", strength=apart))
    return sorted([*cuts, *changes], key=lambda cut: cut.start)


def largest_within(geometries: Sequence[Geometry], span: Span) -> tuple[Size, Span] | None:
    """Return the largest size of the pictures in ``span``, and the first part of it that has this size throughout.

    ``None`` where no geometry is known.
    """
    best: tuple[Size, Span] | None = None
    ends = [*(geometry.pts for geometry in geometries[1:]), span.end]
    runs: list[tuple[Size, int, int]] = []
    for geometry, end in zip(geometries, ends, strict=True) if geometries else ():
        start, end = max(geometry.pts, span.start), min(end, span.end)
        if start >= end:
            continue
        if runs and runs[-1][0] == geometry.size:
            runs[-1] = (geometry.size, runs[-1][1], end)
        else:
            runs.append((geometry.size, start, end))
    for size, start, end in runs:
        if best is None or larger(best[0], size) != best[0]:
            best = size, Span(start=start, end=end, time_base=span.time_base)
    return best
