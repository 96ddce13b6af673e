"""The combing observer finds frames woven from two fields filmed at different times, where what moves has teeth.

Even and odd lines of a combed place differ, by as much over many lines as over few, and in the middle of a picture that is
smooth from each second line to the next. Fine detail, text and noise differ from line to line too, but no less from each
second line to the next. What is left are patterns as fine as the lines themselves; they tell themselves from combing in that
no shift to the side makes the even and the odd lines alike, while of something that moves, both fields show the same.

Interlaced video shows no teeth while nothing moves, few while it moves straight up or by less than a pixel or two a field, and
none that can be told once it was scaled or turned. Slanted stripes as fine as the lines are taken for combing: no single frame
tells them from it.
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

Floats = NDArray[np.float32]

LINES, WIDTH = 16, 2  # px: height and width of the cells that a frame is measured in
TEETH = 4.0  # luma by which the fields differ, at least
FINER = 3.0  # by how much more energy lines must differ from the next than from the second next
ALIKE = 0.3  # of the energy by which fields differ, what may be left once they are shifted
WINDOW = 9  # cells of a row over which energy is averaged
REACH = 24  # cells: the farthest shift, 48 px from one field to the next
COMBED = 0.003  # share of a frame's cells from which on the frame counts


@dataclass(frozen=True, kw_only=True, config=SPEC)
class CombingObserver:
    """The share of frames that show the combs of interlacing.

    The default meets all five frames of telecine's pattern in turn, two of which are combed; a clip's share is within the
    error of so few samples.

    Args:
        fps: frames a second that are looked at.
    """

    fps: Fps = FULL_FPS

    identity: ClassVar[str] = "curation.observers.combing.Combing"
    meaning: ClassVar[int] = 1
    measures: ClassVar[tuple[pa.Field, ...]] = (
        field("combing_share", pa.float64(), "share of the sampled frames that show interlace combing", "0-1"),
    )

    @property
    def name(self) -> str:
        return "combing"

    @property
    def needs(self) -> FrameSampling:
        return FrameSampling(fps=self.fps, short_side=FULL_SIZE, planes="gray")

    @property
    def lookback(self) -> float:
        return 0.0

    def start(self, probe: Probe) -> _CombingPass:
        return _CombingPass()

    def reduce(self, tracks: Mapping[str, Track], span: Span) -> Mapping[str, float | str | None]:
        values = within(tracks.get("combing"), span)
        return {"combing_share": float((values >= COMBED).mean()) if values.size else None}


class _CombingPass:
    """Its track is the share of each frame that is combed."""

    def __init__(self) -> None:
        self._recorder = Recorder("combing")

    def see(self, frame: Frame) -> None:
        self._recorder.add(frame.pts, combed(frame.pixels))

    def finish(self) -> Sequence[Track]:
        return (self._recorder.track(),)


def combed(gray: NDArray[np.uint8]) -> float:
    """Return the share of a full-size frame's cells whose even and odd lines are of two times."""
    rows, columns = gray.shape[0] // LINES, gray.shape[1] // WIDTH
    if not rows or columns <= 2 * REACH:
        return 0.0
    whole = gray[: rows * LINES, : columns * WIDTH]
    # Means of every fourth line over each cell, beginning at the first to the fourth.
    lines = [
        cv2.resize(whole[first::4], (columns, rows), interpolation=cv2.INTER_AREA).astype(np.float32)
        for first in range(4)
    ]
    even, odd = (lines[0] + lines[2]) / 2, (lines[1] + lines[3]) / 2
    fine = _energy(even - odd)
    coarse = _energy(lines[0] - lines[2]) + _energy(lines[1] - lines[3])
    teeth = (fine > TEETH**2) & (fine > FINER * coarse)
    if teeth.mean() < COMBED:
        return float(teeth.mean())
    return float((teeth & (_misfit(even, odd) < ALIKE * fine)).mean())


def _energy(cells: Floats) -> Floats:
    """Return the mean square around each cell, along its row."""
    return np.asarray(cv2.blur(cells * cells, (WINDOW, 1)), np.float32)


def _misfit(even: Floats, odd: Floats) -> Floats:
    """Return the energy by which the fields differ once one is shifted sideways to fit best, for the field that fits worse."""
    best_even, best_odd = np.full_like(even, np.inf), np.full_like(odd, np.inf)
    for shift in range(1, REACH + 1):
        near, far = slice(None, -shift), slice(shift, None)
        for here, there in ((near, far), (far, near)):
            energy = _energy(even[:, here] - odd[:, there])
            np.minimum(best_even[:, here], energy, out=best_even[:, here])
            np.minimum(best_odd[:, there], energy, out=best_odd[:, there])
    return np.maximum(best_even, best_odd)
