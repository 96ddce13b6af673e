"""Observers share this: the types of their grids, collecting a number a frame, and averaging a track over a span."""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from dailies.curation.timing import Span
from dailies.curation.types import Track

FULL_SIZE = 16384  # px: a short side that no source exceeds, for who looks at sources in full size
# Of frames in full size a little more than one a second, so that each clip of a second has one, and 28 frames apart at
# 30 fps: that meets all of the five frames after which telecine repeats its pattern in turn.
FULL_FPS = 15 / 14


Fps = Annotated[float, Field(gt=0, le=1000)]  # frames per second
ShortSide = Annotated[int, Field(ge=16, le=FULL_SIZE)]  # px of the shorter side of the frames looked at


class Recorder:
    """Collects one track."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._pts: list[int] = []
        self._values: list[float] = []

    def add(self, pts: int, value: float) -> None:
        self._pts.append(pts)
        self._values.append(value)

    def track(self) -> Track:
        return Track(
            name=self.name,
            pts=np.asarray(self._pts, dtype=np.int64),
            values=np.asarray(self._values, dtype=np.float32),
        )


def within(track: Track | None, span: Span) -> NDArray[np.float32]:
    """Return the values whose frames lie in ``span``; none without a track."""
    if track is None:
        return np.empty(0, np.float32)
    first, last = np.searchsorted(track.pts, (span.start, span.end))
    return track.values[first:last]


def mean_within(track: Track | None, span: Span, *, pairs: bool = False) -> float | None:
    """Average the values that belong to ``span``; ``None`` if there are none.

    ``pairs``: each value compares its frame with the sample before it, so both must lie inside the span.
    """
    if track is None:
        return None
    first = int(np.searchsorted(track.pts, span.start, side="left")) + (1 if pairs else 0)
    last = int(np.searchsorted(track.pts, span.end, side="left"))
    values = track.values[first:last]
    values = values[np.isfinite(values)]
    if values.size == 0:
        return None
    mean = float(values.mean(dtype=np.float64))
    return mean if math.isfinite(mean) else None
