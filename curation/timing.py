"""Time is kept as integers: presentation timestamps (pts) over a rational time base.

Seconds as floats and frame numbers over a nominal frame rate are both wrong on real files (variable
frame rate, edit lists, 30000/1001); they are computed for people to read and never computed with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from statistics import median_low


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Span:
    """The half-open interval ``[start, end)`` in units of ``time_base`` seconds.

    Raises ``ValueError`` when empty or when ``time_base`` is not positive.
    """

    start: int
    end: int
    time_base: Fraction

    def __post_init__(self) -> None:
        if self.end <= self.start:
            raise ValueError(f"end={self.end}: must be after start={self.start}; a span is not empty")
        if self.time_base <= 0:
            raise ValueError(f"time_base={self.time_base}: must be positive")

    @property
    def seconds(self) -> Fraction:
        """Length in seconds, exactly."""
        return (self.end - self.start) * self.time_base

    def __contains__(self, pts: object) -> bool:
        return isinstance(pts, int) and self.start <= pts < self.end


def ticks(seconds: float | Fraction, time_base: Fraction) -> int:
    """Convert ``seconds`` to whole units of ``time_base``, to the nearest."""
    return round(Fraction(seconds).limit_denominator(1_000_000) / time_base)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """The ticks ``[end, until)`` in which a source shows nothing: the frame before ends, the next one is at ``until``."""

    end: int
    until: int


LATELY = 15  # gaps between frames by which the usual one is told


def usual_gap(pts: Sequence[int]) -> int:
    """Return the usual gap between the last frames of ``pts`` (sorted, at least one), in ticks: the median, not the last.

    The last frame of a recording may have come long after the others.
    """
    last = [int(later) - int(earlier) for earlier, later in pairwise(pts[-LATELY - 1 :])]
    return median_low(last) if last else 1


def end_of(pts: Sequence[int], duration: int | None = None) -> int:
    """Return the first tick after the last frame of ``pts`` (sorted, at least one).

    A container may state the last frame's duration; where it does not, the usual gap between frames stands in for it.
    """
    return int(pts[-1]) + (int(duration) if duration is not None and duration > 0 else usual_gap(pts))


class Grid:
    """Tells which frames of a stream fall due on a regular grid of ``fps`` frames per second.

    The k-th grid point is ``k / fps`` seconds after ``origin``; a frame is due when it is the first at or after
    a grid point that no earlier frame has met. ``fps=None`` means every frame. Depends on pts alone, so any
    two readers of one file agree, and a segment that starts at any frame agrees with the whole.
    """

    __slots__ = ("_last", "_origin", "_step")

    def __init__(self, fps: float | None, time_base: Fraction, origin: int = 0) -> None:
        self._step = None if fps is None else 1 / (Fraction(fps).limit_denominator(1001) * time_base)
        self._origin = origin
        self._last: int | None = None

    def due(self, pts: int) -> bool:
        """Tell whether the frame at ``pts`` is due. Call once per frame, in presentation order."""
        if self._step is None:
            return True
        point = (pts - self._origin) // self._step
        if self._last is not None and point <= self._last:
            return False
        self._last = point
        return True
