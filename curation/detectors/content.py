"""One threshold on the change between neighbouring frames: PySceneDetect's content detector, over a track."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from dailies.curation.types import Cut, Track


@dataclass(frozen=True, kw_only=True)
class Content:
    """``threshold``: content score, 0–255, from which on a frame begins a new shot."""

    threshold: float = 27.0

    identity: ClassVar[str] = "curation.cuts.content.Content"
    meaning: ClassVar[int] = 1

    @property
    def tracks(self) -> tuple[str, ...]:
        return ("change",)

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
