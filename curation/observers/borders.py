"""The borders observer measures black bars around the picture (letterbox, pillarbox, both), in px of the upright source.

A bar is black and flat and ends at a straight edge: from one line to the next the picture begins. What is merely dark, such
as a night sky, has no such edge, and a frame that is dark all over tells nothing. Bars come in pairs, above and below or left
and right, about as wide as each other, and stay where they are for the length of a shot: what does not is part of the picture.

A line of a bar may carry text. Lines that are lit here and there belong to the bar, and the crop takes a subtitle or a logo
inside it away, as long as the edge of the picture shows behind it. Bars in other colours, or filled with a blurred copy of
the picture, are not found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic.dataclasses import dataclass

from dailies.curation.config import SPEC
from dailies.curation.observers.tracking import FULL_FPS, FULL_SIZE, Fps, Recorder, within
from dailies.curation.schema import field
from dailies.curation.timing import Span
from dailies.curation.types import Frame, FrameSampling, Probe, Track

SIDES = ("left", "top", "right", "bottom")
BLACK = 40  # full-range luma: the brightest that a bar may be
NEAR = 12  # luma from the bar's own: noise and ringing within a bar stay below it
CLEAN = 0.05  # share of a line's pixels that may be lit for it to be black
EDGE = 0.4  # share of a line's pixels that are lit where the picture begins; text lights less
RISE = 4  # px from the last black line to the picture
TEXT = 12  # a line of text is no higher than the picture over this: below and above it, the bar is black again
QUIET = 0.4  # share of a bar's lines that must be black
SKEW = (8, 0.25)  # px, or share of the wider: by how much the bars of a pair may differ
AGREE = 2  # px
GAPS = 0.15  # share of black lines among what is lit: text on black has more, a picture hardly any
FORGIVEN = 8  # of so many frames one may see a narrower bar than the others


@dataclass(frozen=True, kw_only=True, config=SPEC)
class BordersObserver:
    """Depth of the black bars at each side.

    The four measures are the crop rectangle, within 2 px: what to take off each side, 0 where there is no bar. ``None`` where
    no frame of the clip can tell: they are dark up to that side and the one across from it, or show text on black.

    Args:
        fps: frames a second that are looked at; at the default every clip of a second or more has one.
    """

    fps: Fps = FULL_FPS

    identity: ClassVar[str] = "curation.observers.borders.Borders"
    meaning: ClassVar[int] = 1
    measures: ClassVar[tuple[pa.Field, ...]] = tuple(
        field(f"border_{side}", pa.float64(), f"black bar at the {side}", "px of the upright source") for side in SIDES
    )

    @property
    def name(self) -> str:
        return "borders"

    @property
    def needs(self) -> FrameSampling:
        return FrameSampling(fps=self.fps, short_side=FULL_SIZE, planes="gray")

    @property
    def lookback(self) -> float:
        return 0.0

    def start(self, probe: Probe) -> _BorderPass:
        return _BorderPass()

    def reduce(self, tracks: Mapping[str, Track], span: Span) -> Mapping[str, float | str | None]:
        depths = {side: agreed(tracks.get(f"borders_{side}"), span) for side in SIDES}
        left, right = paired(depths["left"], depths["right"])
        top, bottom = paired(depths["top"], depths["bottom"])
        return {"border_left": left, "border_top": top, "border_right": right, "border_bottom": bottom}


class _BorderPass:
    """Its first track is the luma of the darkest side's outermost line, the others what ``bars`` measures at each side."""

    def __init__(self) -> None:
        self._recorders = [Recorder("borders"), *(Recorder(f"borders_{side}") for side in SIDES)]

    def see(self, frame: Frame) -> None:
        for recorder, value in zip(self._recorders, bars(frame.pixels), strict=True):
            recorder.add(frame.pts, value)

    def finish(self) -> Sequence[Track]:
        return tuple(recorder.track() for recorder in self._recorders)


def bars(gray: NDArray[np.uint8]) -> tuple[float, ...]:
    """Return the luma of a frame's darkest outermost line, and ``depth`` of the bars at left, top, right and bottom."""
    level = float(min(np.median(line) for line in (gray[0], gray[-1], gray[:, 0], gray[:, -1])))
    if level > BLACK:
        return level, 0.0, 0.0, 0.0, 0.0
    _, lit = cv2.threshold(cv2.absdiff(gray, level), NEAR, 1, cv2.THRESH_BINARY)
    # Shares are of what is lit at all: beside pillars, rows are lit over the width of the picture only.
    top, bottom = _extent(_share(lit, 1))
    left, right = _extent(_share(lit, 0))
    columns, rows = _share(lit[top:bottom], 0), _share(lit[:, left:right], 1)
    gaps = max((rows[top:bottom] <= CLEAN).mean(), (columns[left:right] <= CLEAN).mean())
    sides = (columns, rows, columns[::-1], rows[::-1])
    return level, *(depth(side, solid=gaps <= GAPS) for side in sides)


def _share(lit: NDArray[np.uint8], axis: int) -> NDArray[np.float32]:
    """Return the share of pixels lit in each column (axis 0) or row (axis 1)."""
    lit = np.ascontiguousarray(lit)
    return np.asarray(cv2.reduce(lit, axis, cv2.REDUCE_AVG, dtype=cv2.CV_32F), np.float32).ravel()


def _extent(share: NDArray[np.float32]) -> tuple[int, int]:
    """Return the first line that is not black and the first one after the last such; all lines where all are black."""
    bright = np.flatnonzero(share > CLEAN)
    return (int(bright[0]), int(bright[-1]) + 1) if bright.size else (0, len(share))


def depth(share: NDArray[np.float32], *, solid: bool) -> float:
    """Return how many of the first lines are a bar, from the share of pixels lit in each.

    Where no edge tells, it is minus the number of black lines. ``solid``: what is lit in this frame may be a picture; if
    not, it is text, and has no edges that count.
    """
    black = share <= CLEAN
    if not black[0]:
        return 0.0
    untold = -float(len(share) if black.all() else black.argmin())
    text = len(share) // TEXT
    for edge in np.flatnonzero(share[: len(share) // 2] > EDGE) if solid else ():
        if black[max(0, edge - RISE) : edge].any() and not black[edge : edge + text].any():
            return float(edge) if black[:edge].mean() >= QUIET else untold
    return untold


def agreed(track: Track | None, span: Span) -> float | None:
    """Return the narrowest bar that a span's frames show, but for one in ``FORGIVEN``; 0 unless most agree.

    A frame with a deeper bar has a dark part of the picture beside it; one that cannot tell agrees if it is as black. The
    result is below 0 where no frame can tell.
    """
    depths = within(track, span)
    if not depths.size:
        return None
    told = np.sort(depths[depths >= 0])
    if not told.size:
        return float(np.median(depths))
    narrowest = float(told[len(told) // FORGIVEN])
    against = int((np.abs(told - narrowest) > AGREE).sum() + ((depths < 0) & (-depths < narrowest - AGREE)).sum())
    return narrowest if len(told) > 2 * against else 0.0


def paired(near: float | None, far: float | None) -> tuple[float | None, float | None]:
    """Reconcile the depths of two bars across from each other.

    What one side tells holds for both if the other is as black; where one is much the wider, the rest of it is a dark part
    of the picture.
    """
    if near is None or far is None or max(near, far) < 0:
        return None, None
    if min(near, far) < 0:
        told, dark = max(near, far), -min(near, far)
        depth = told if dark >= told - AGREE else 0.0
        return depth, depth
    px, share = SKEW
    if abs(near - far) <= max(px, share * max(near, far)):
        return near, far
    return min(near, far), min(near, far)
