"""Observers read per-frame signals while a source streams past. One file a signal.

A new signal is one file and one line in ``OBSERVERS``. An observer is a small frozen spec of numbers, made on the driver;
``start`` gives its pass over one source, which sees frames in order and ends in tracks. Its measures are what a clip's row
keeps of those tracks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

import pyarrow as pa

from dailies.curation.observers.borders import BordersObserver
from dailies.curation.observers.boundary import BoundaryObserver
from dailies.curation.observers.change import ChangeObserver
from dailies.curation.observers.combing import CombingObserver
from dailies.curation.observers.duplicates import DuplicatesObserver
from dailies.curation.observers.luma import LumaObserver
from dailies.curation.observers.motion import MotionObserver
from dailies.curation.observers.sharpness import SharpnessObserver
from dailies.curation.timing import Span
from dailies.curation.types import Frame, FrameSampling, Probe, Track


class ObserverPass(Protocol):
    """An observer at work on one source, or one segment of it."""

    def see(self, frame: Frame) -> None:
        """Take the next frame that is due on the observer's grid."""

    def finish(self) -> Sequence[Track]:
        """Return the tracks, once the source has ended."""


class Observer(Protocol):
    """A per-frame signal, read on the CPU; the strengths that detectors threshold are such signals too."""

    identity: ClassVar[str]  # names it in fingerprints for good, wherever its class moves
    meaning: ClassVar[int]  # raised when the code changes what the numbers mean
    measures: ClassVar[tuple[pa.Field, ...]]  # columns of a clip, with units

    @property
    def name(self) -> str: ...

    @property
    def needs(self) -> FrameSampling: ...

    @property
    def lookback(self) -> float:
        """Seconds to read before a segment's start so that its first values equal those of the whole source."""

    def start(self, probe: Probe) -> ObserverPass:
        """Begin a pass over one source."""

    def reduce(self, tracks: Mapping[str, Track], span: Span) -> Mapping[str, float | str | None]:
        """Return the measures over one clip; ``None`` where the clip holds too few samples."""


__all__ = [
    "OBSERVERS",
    "BordersObserver",
    "BoundaryObserver",
    "ChangeObserver",
    "CombingObserver",
    "DuplicatesObserver",
    "LumaObserver",
    "MotionObserver",
    "Observer",
    "ObserverPass",
    "SharpnessObserver",
    "boundary",
    "camera",
    "likeness",
    "motion",
    "tracking",
]

OBSERVERS: dict[str, Any] = {
    "borders": BordersObserver,
    "boundary": BoundaryObserver,
    "change": ChangeObserver,
    "combing": CombingObserver,
    "duplicates": DuplicatesObserver,
    "luma": LumaObserver,
    "motion": MotionObserver,
    "sharpness": SharpnessObserver,
}
