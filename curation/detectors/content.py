"""The content detector puts one threshold on the change between neighbouring frames, as PySceneDetect's does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import PositiveFloat
from pydantic.dataclasses import dataclass

from dailies.curation.config import SPEC
from dailies.curation.types import Cut, Track


@dataclass(frozen=True, kw_only=True, config=SPEC)
class ContentDetector:
    """A cut is where two neighbouring frames differ much, as PySceneDetect has it.

    Args:
        threshold: least content score of a cut, from 0 to 255.
    """

    threshold: PositiveFloat = 27.0

    identity: ClassVar[str] = "curation.cuts.content.Content"
    meaning: ClassVar[int] = 1
    observers: ClassVar[tuple[str, ...]] = ("change",)

    def cuts(self, tracks: Mapping[str, Track]) -> list[Cut]:
        change = tracks["change"]
        return [
            Cut(
                start=int(change.pts[i - 1]),
                end=int(change.pts[i]),
                kind="cut",
                detector="content",
                strength=float(change.values[i]) / self.threshold,
            )
            for i in range(1, len(change.pts))
            if change.values[i] >= self.threshold
        ]
