"""The artifacts observer measures noise and blocks in whole decoded frames: what scaling down hides."""

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
from dailies.curation.observers.tracking import FULL_FPS, FULL_SIZE, Fps, Recorder, mean_within
from dailies.curation.schema import field
from dailies.curation.timing import Span
from dailies.curation.types import Frame, FrameSampling, Probe, Track

BLOCK = 8  # px: of MPEG-2, MPEG-4 part 2, JPEG, and the transform of H.264; its deblocking filter smooths what it can
PATCH = 16  # px of the squares in which noise is measured, one by one
CLIPPED = (8, 247)  # luma of a patch beyond which its noise is cut off
# Immerkær's mask: the difference of two Laplacians, which no plane and no edge along an axis gets through.
MASK = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)


@dataclass(frozen=True, kw_only=True, config=SPEC)
class ArtifactsObserver:
    """How much noise and how many block edges a clip has.

    Args:
        fps: frames a second that are looked at; None for every frame.
    """

    fps: Fps | None = FULL_FPS

    identity: ClassVar[str] = "curation.observers.artifacts.Artifacts"
    meaning: ClassVar[int] = 1
    measures: ClassVar[tuple[pa.Field, ...]] = (
        field("noise", pa.float64(), "mean standard deviation of luma's noise in full size (Immerkær 1996)", "0-255"),
        field(
            "blockiness",
            pa.float64(),
            "mean step of luma across a grid of 8 px above that beside it, in full size; scaled up by others, it does not show",
            "0-255",
        ),
    )

    @property
    def name(self) -> str:
        return "artifacts"

    @property
    def needs(self) -> FrameSampling:
        return FrameSampling(fps=self.fps, short_side=FULL_SIZE, planes="gray")

    @property
    def lookback(self) -> float:
        return 0.0

    def start(self, probe: Probe) -> _ArtifactsPass:
        return _ArtifactsPass()

    def reduce(self, tracks: Mapping[str, Track], span: Span) -> Mapping[str, float | None]:
        return {
            "noise": mean_within(tracks.get("artifacts"), span),
            "blockiness": mean_within(tracks.get("artifacts_blockiness"), span),
        }


class _ArtifactsPass:
    def __init__(self) -> None:
        self._noise, self._blockiness = Recorder("artifacts"), Recorder("artifacts_blockiness")

    def see(self, frame: Frame) -> None:
        for recorder, value in ((self._noise, noise(frame.pixels)), (self._blockiness, blockiness(frame.pixels))):
            if math.isfinite(value):  # of a black frame there is no noise to measure
                recorder.add(frame.pts, value)

    def finish(self) -> Sequence[Track]:
        return self._noise.track(), self._blockiness.track()


def noise(luma_hw: NDArray[np.uint8]) -> float:
    """Return the standard deviation of the noise; NaN of a picture that is all black or white, or smaller than a patch.

    J. Immerkær, "Fast noise variance estimation", 1996: sqrt(pi / 2) / 6 times the mean of what ``MASK`` leaves, absolute. Here
    each patch has a value and the median counts, so that texture and letters count only where they fill half of the picture.
    """
    left = np.abs(cv2.filter2D(luma_hw, cv2.CV_32F, MASK))
    height, width = (side // PATCH for side in luma_hw.shape)
    if not height or not width:
        return math.nan
    size, used = (width, height), np.s_[: height * PATCH, : width * PATCH]
    mean = cv2.resize(left[used], size, interpolation=cv2.INTER_AREA)
    light = cv2.resize(luma_hw[used].astype(np.float32), size, interpolation=cv2.INTER_AREA)
    mean = mean[(light >= CLIPPED[0]) & (light <= CLIPPED[1])]
    return float(np.median(mean)) * math.sqrt(math.pi / 2) / 6 if mean.size else math.nan


def blockiness(luma_hw: NDArray[np.uint8]) -> float:
    """Return the mean step across the grid of blocks less that beside it, over both directions; 0 where there is no grid.

    The grid is where the steps are highest, as black bars or a crop may have shifted it. Of the lines of a phase the median
    counts: a building's edge lies on few of them.
    """
    steps = []
    picture = luma_hw.astype(np.int16)
    for axis in (0, 1):
        if picture.shape[axis] < 3 * BLOCK:
            continue
        lines = np.abs(np.diff(picture, axis=axis)).mean(axis=1 - axis)
        phases = np.sort([np.median(lines[phase::BLOCK]) for phase in range(BLOCK)])
        steps.append(phases[-1] - np.median(phases[:-1]))
    return float(np.mean(steps)) if steps else math.nan
