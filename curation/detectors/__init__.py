"""Detectors find cuts by thresholds over tracks, so that a changed threshold needs no decode. One file a detector.

A detector is pure: tracks in, cuts out. A new detector is one file and one line in ``DETECTORS``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

from dailies.curation.detectors.boundary import BoundaryDetector
from dailies.curation.detectors.content import ContentDetector
from dailies.curation.types import Cut, Track


class Detector(Protocol):
    """A frozen spec of thresholds that turns tracks into cuts."""

    identity: ClassVar[str]  # names it in fingerprints for good, wherever its class moves
    meaning: ClassVar[int]  # raised when the code changes what it detects

    @property
    def observers(self) -> tuple[str, ...]:
        """Names of the observers whose tracks it thresholds; the recipe must list them."""

    def cuts(self, tracks: Mapping[str, Track]) -> list[Cut]:
        """Return cuts in order of time, none overlapping another; each lies between two frames that were decoded."""


__all__ = ["DETECTORS", "BoundaryDetector", "ContentDetector", "Detector"]

DETECTORS: dict[str, Any] = {
    "boundary": BoundaryDetector,
    "content": ContentDetector,
}
