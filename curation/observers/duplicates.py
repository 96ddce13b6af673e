"""The duplicates observer finds frames that repeat the one before: 24 pictures a second in a video of 60, or a freeze.

Lossy codecs do not repeat a frame exactly: they touch it up, and redo it at each keyframe. So how much a frame changes is
compared with how much the frames around it change; only what changes by next to nothing is a repeat whatever is around it.
Change is measured by the fourth power of differences, so that a small thing that moves through a still picture counts for
more than a faint change all over, which may be the codec's.

It is the file's pictures that count: a rendered shot in which nothing moves is all repeats, a filmed one is not as long as
its grain is in the file. Encoders that work hard to be fast or small may turn a repeat into a step of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic.dataclasses import dataclass

from dailies.curation.config import SPEC
from dailies.curation.observers.tracking import Recorder, ShortSide
from dailies.curation.schema import field
from dailies.curation.timing import Span
from dailies.curation.types import Frame, FrameSampling, Probe, Track

SAME = 0.25  # luma: a smaller change is none; half a pixel of pan a frame changes twice as much
SHARE = 0.4  # of the largest change nearby: a smaller one is none
NEARBY = 3  # frames on either side


@dataclass(frozen=True, kw_only=True, config=SPEC)
class DuplicatesObserver:
    """Frames that repeat the one before, and pictures that stand still.

    Every frame must be decoded for this, those too that no other refers to and that are skipped otherwise, which makes the
    decode of most sources about twice as expensive.

    Args:
        short_side: px of the shorter side that frames are scaled to.
    """

    short_side: ShortSide = 144

    identity: ClassVar[str] = "curation.observers.duplicates.Duplicates"
    meaning: ClassVar[int] = 1
    measures: ClassVar[tuple[pa.Field, ...]] = (
        field("duplicate_share", pa.float64(), "share of frames that repeat the one before", "0-1"),
        field("frozen_seconds", pa.float64(), "longest time that one picture stands", "s"),
    )

    @property
    def name(self) -> str:
        return "duplicates"

    @property
    def needs(self) -> FrameSampling:
        return FrameSampling(fps=None, short_side=self.short_side, planes="gray", every=True)

    @property
    def lookback(self) -> float:
        return 0.5

    def start(self, probe: Probe) -> _DuplicatePass:
        return _DuplicatePass()

    def reduce(self, tracks: Mapping[str, Track], span: Span) -> Mapping[str, float | str | None]:
        track = tracks.get("duplicates")
        first, last = (0, 0) if track is None else np.searchsorted(track.pts, (span.start, span.end))
        if track is None or last - first < 2:
            return {"duplicate_share": None, "frozen_seconds": None}
        new = np.concatenate([[True], ~repeats(track.values[first + 1 : last])])
        shown = np.append(track.pts[first:last][new], span.end)
        return {
            "duplicate_share": float(1 - new[1:].mean()),
            "frozen_seconds": float(np.diff(shown).max() * span.time_base),
        }


class _DuplicatePass:
    """Its track is by how much each frame differs from the one before it."""

    def __init__(self) -> None:
        self._recorder = Recorder("duplicates")
        self._last: NDArray[np.uint8] | None = None

    def see(self, frame: Frame) -> None:
        self._recorder.add(frame.pts, math.nan if self._last is None else change(self._last, frame.pixels))
        self._last = frame.pixels

    def finish(self) -> Sequence[Track]:
        return (self._recorder.track(),)


def change(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> float:
    """Return the fourth root of the mean fourth power of the differences in luma, 0–255."""
    apart = cv2.absdiff(before, after)
    squared = cv2.multiply(apart, apart, dtype=cv2.CV_32F)
    return float((cv2.norm(squared, cv2.NORM_L2SQR) / apart.size) ** 0.25)


def repeats(changes: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Tell which frames of a shot repeat the one before, from how much each changes."""
    padded = np.pad(changes, NEARBY)
    nearby = np.lib.stride_tricks.sliding_window_view(padded, 2 * NEARBY + 1).max(axis=1)
    return np.asarray(changes <= np.maximum(SAME, SHARE * nearby), np.bool_)
