"""Observers read per-frame signals while a source streams past. One file a signal.

A new signal is one file and one line in ``OBSERVERS``. An observer is a small frozen spec of numbers, made on the driver;
``start`` gives its pass over one source, which sees frames in order and ends in tracks. Its measures are what a clip's row
keeps of those tracks. One that hears sound and sees no frames is a ``Listener``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, ClassVar, Protocol

import pyarrow as pa

from dailies.curation.observers.artifacts import ArtifactsObserver
from dailies.curation.observers.borders import BordersObserver
from dailies.curation.observers.boundary import BoundaryObserver
from dailies.curation.observers.change import ChangeObserver
from dailies.curation.observers.combing import CombingObserver
from dailies.curation.observers.duplicates import DuplicatesObserver
from dailies.curation.observers.luma import LumaObserver
from dailies.curation.observers.motion import MotionObserver
from dailies.curation.observers.sharpness import SharpnessObserver
from dailies.curation.observers.sound import SoundObserver
from dailies.curation.timing import Span
from dailies.curation.types import Frame, FrameSampling, Probe, SoundBlock, Track


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


class ListenerPass(Protocol):
    """A listener at work on one source, or one segment of it."""

    def hear(self, block: SoundBlock) -> None:
        """Take the next piece of sound, which is read along with the frames."""

    def lose(self, start: Fraction, end: Fraction) -> None:
        """Take note that there is sound from ``start`` to ``end``, seconds, that does not decode."""

    def finish(self) -> Sequence[Track]:
        """Return the tracks, once the source has ended; none of one without sound."""


class Listener(Protocol):
    """A signal of the sound. The rest is as in ``Observer``, beside which it stands in recipes."""

    identity: ClassVar[str]
    meaning: ClassVar[int]
    measures: ClassVar[tuple[pa.Field, ...]]
    needs: ClassVar[None]  # it sees no frames

    @property
    def name(self) -> str: ...

    @property
    def lookback(self) -> float: ...

    def start(self, time_base: Fraction) -> ListenerPass:
        """Begin a pass over one source, of whose pictures no more is known yet than ``time_base``, seconds per tick."""

    def reduce(self, tracks: Mapping[str, Track], span: Span) -> Mapping[str, float | str | None]: ...


def watching(observers: Sequence[Observer | Listener]) -> list[Observer]:
    """Return those that see frames."""
    return [observer for observer in observers if observer.needs is not None]


def listening(observers: Sequence[Observer | Listener]) -> list[Listener]:
    """Return those that hear sound."""
    return [observer for observer in observers if observer.needs is None]


__all__ = [
    "OBSERVERS",
    "ArtifactsObserver",
    "BordersObserver",
    "BoundaryObserver",
    "ChangeObserver",
    "CombingObserver",
    "DuplicatesObserver",
    "Listener",
    "ListenerPass",
    "LumaObserver",
    "MotionObserver",
    "Observer",
    "ObserverPass",
    "SharpnessObserver",
    "SoundObserver",
    "boundary",
    "camera",
    "likeness",
    "listening",
    "motion",
    "tracking",
    "watching",
]

OBSERVERS: dict[str, Any] = {
    "artifacts": ArtifactsObserver,
    "borders": BordersObserver,
    "boundary": BoundaryObserver,
    "change": ChangeObserver,
    "combing": CombingObserver,
    "duplicates": DuplicatesObserver,
    "luma": LumaObserver,
    "motion": MotionObserver,
    "sharpness": SharpnessObserver,
    "sound": SoundObserver,
}
