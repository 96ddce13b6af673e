"""The change observer gives PySceneDetect's content score as a track instead of a decision.

The score is the mean absolute difference in hue, saturation and value between a sampled frame and the one before it
on the same grid, in 0–255 (``ContentDetector``, weights 1, 1, 1). SVD runs a cascade of detectors at different
frame rates to catch fades (arXiv 2311.15127, App. C); here each rate is one of these observers, and all rates are fed from
the one decode.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import pyarrow as pa
from pydantic.dataclasses import dataclass

from dailies.curation.config import SPEC
from dailies.curation.observers.tracking import Fps, Recorder, ShortSide
from dailies.curation.timing import Span
from dailies.curation.types import Frame, FrameSampling, Probe, Track


@dataclass(frozen=True, kw_only=True, config=SPEC)
class ChangeObserver:
    """Change from frame to frame, for the detector ``content``.

    Args:
        fps: comparisons a second; None for every frame.
        short_side: px of the shorter side that frames are scaled to.
    """

    fps: Fps | None = None
    short_side: ShortSide = 144

    identity: ClassVar[str] = "curation.observers.change.Change"
    meaning: ClassVar[int] = 2
    measures: ClassVar[tuple[pa.Field, ...]] = ()

    @property
    def name(self) -> str:
        return track_name(self.fps)

    @property
    def needs(self) -> FrameSampling:
        return FrameSampling(fps=self.fps, short_side=self.short_side, planes="bgr", every=self.fps is None)

    @property
    def lookback(self) -> float:
        return 0.5 if self.fps is None else 2 / self.fps

    def start(self, probe: Probe) -> _ChangePass:
        return _ChangePass(self.name)

    def reduce(self, tracks: Mapping[str, Track], span: Span) -> Mapping[str, float | None]:
        return {}


def track_name(fps: float | None) -> str:
    """Return the name of the change observer's track at this rate: ``change``, ``change_2fps``."""
    return "change" if fps is None else f"change_{fps:g}fps"


class _ChangePass:
    def __init__(self, name: str) -> None:
        self._recorder = Recorder(name)
        self._started = False

    @cached_property
    def _detector(self) -> Any:
        from scenedetect.detectors import ContentDetector

        class ContentScore(ContentDetector):  # type: ignore[misc]
            """ContentDetector with its frame score in the open."""

            def score(self, bgr: Any) -> float:
                return float(self._calculate_frame_score(None, bgr))

        return ContentScore()

    def see(self, frame: Frame) -> None:
        score = self._detector.score(frame.pixels)
        self._recorder.add(frame.pts, score if self._started else math.nan)
        self._started = True

    def finish(self) -> Sequence[Track]:
        return (self._recorder.track(),)
