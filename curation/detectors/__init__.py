"""Cut detectors: thresholds over tracks, so that a changed threshold needs no decode. One file a detector, one table.

A detector is pure: tracks in, cuts out. A new one is one file and one line in ``DETECTORS``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

from dailies.curation.detectors.boundary import Boundary
from dailies.curation.detectors.content import Content
from dailies.curation.types import Cut, Track


class Detector(Protocol):
    identity: ClassVar[str]  # names it in fingerprints for good, wherever its class moves
    meaning: ClassVar[int]  # raised when the code changes what it detects

    @property
    def tracks(self) -> tuple[str, ...]:
        """Names of the tracks it thresholds; the recipe's observers must provide them."""

    def cuts(self, tracks: Mapping[str, Track]) -> list[Cut]:
        """Cuts in order of time, none overlapping another. A cut lies between two frames that were seen."""


DETECTORS: dict[str, Any] = {
    "boundary": Boundary,
    "content": Content,
}
