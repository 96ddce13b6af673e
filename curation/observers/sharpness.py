"""The sharpness observer measures the variance of the Laplacian, at a fixed size so that it compares between sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import cv2
import pyarrow as pa
from pydantic.dataclasses import dataclass

from dailies.curation.config import SPEC
from dailies.curation.observers.tracking import Fps, Recorder, ShortSide, mean_within
from dailies.curation.schema import field
from dailies.curation.timing import Span
from dailies.curation.types import Frame, FrameSampling, Probe, Track


@dataclass(frozen=True, kw_only=True, config=SPEC)
class SharpnessObserver:
    """How sharp a clip is.

    Args:
        fps: frames a second that are looked at; None for every frame.
        short_side: px of the shorter side that frames are scaled to.
    """

    fps: Fps | None = 2.0
    short_side: ShortSide = 240

    identity: ClassVar[str] = "curation.observers.sharpness.Sharpness"
    meaning: ClassVar[int] = 2
    measures: ClassVar[tuple[pa.Field, ...]] = (
        field("sharpness", pa.float64(), "mean variance of the Laplacian of luma at the analysis size", "luma²"),
    )

    @property
    def name(self) -> str:
        return "sharpness"

    @property
    def needs(self) -> FrameSampling:
        return FrameSampling(fps=self.fps, short_side=self.short_side, planes="gray")

    @property
    def lookback(self) -> float:
        return 0.0

    def start(self, probe: Probe) -> _SharpnessPass:
        return _SharpnessPass()

    def reduce(self, tracks: Mapping[str, Track], span: Span) -> Mapping[str, float | None]:
        return {"sharpness": mean_within(tracks.get("sharpness"), span)}


class _SharpnessPass:
    def __init__(self) -> None:
        self._recorder = Recorder("sharpness")

    def see(self, frame: Frame) -> None:
        _, deviation = cv2.meanStdDev(cv2.Laplacian(frame.pixels, cv2.CV_32F))
        self._recorder.add(frame.pts, float(deviation[0, 0]) ** 2)

    def finish(self) -> Sequence[Track]:
        return (self._recorder.track(),)
