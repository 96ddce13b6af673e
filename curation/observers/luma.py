"""The luma observer measures how bright each frame is, which tells flashes from cuts and dark clips from others."""

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
class LumaObserver:
    """How bright a clip is.

    Args:
        fps: frames a second that are looked at; None for every frame.
        short_side: px of the shorter side that frames are scaled to.
    """

    fps: Fps | None = None
    short_side: ShortSide = 144

    identity: ClassVar[str] = "curation.observers.luma.Luma"
    meaning: ClassVar[int] = 2
    measures: ClassVar[tuple[pa.Field, ...]] = (
        field("luma", pa.float64(), "mean full-range luma over the clip", "0-255"),
    )

    @property
    def name(self) -> str:
        return "luma" if self.fps is None else f"luma_{self.fps:g}fps"

    @property
    def needs(self) -> FrameSampling:
        return FrameSampling(fps=self.fps, short_side=self.short_side, planes="gray")

    @property
    def lookback(self) -> float:
        return 0.0

    def start(self, probe: Probe) -> _LumaPass:
        return _LumaPass(self.name)

    def reduce(self, tracks: Mapping[str, Track], span: Span) -> Mapping[str, float | None]:
        return {"luma": mean_within(tracks.get(self.name), span)}


class _LumaPass:
    def __init__(self, name: str) -> None:
        self._recorder = Recorder(name)

    def see(self, frame: Frame) -> None:
        self._recorder.add(frame.pts, cv2.mean(frame.pixels)[0])

    def finish(self) -> Sequence[Track]:
        return (self._recorder.track(),)
