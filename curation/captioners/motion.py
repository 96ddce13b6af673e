"""Motion words: what the camera does, whether something moves before it, and how fast, from the flow's measures alone.

Optical flow says what the caption of one frame can't. The camera's words are its label in ``motion_camera``; something moves
where it leaves flow unexplained (``motion_local``); speed is ``motion``, the mean over the picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, ClassVar, Self

import pyarrow as pa
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from dailies.curation.camera_words import camera_phrase
from dailies.curation.captioners.captions import COLUMNS, Caption, caption_table
from dailies.curation.config import SPEC
from dailies.curation.errors import SourceError
from dailies.curation.observers.camera import STATIC, UNCLEAR, WORDS
from dailies.curation.types import Evidence, Resources

STILL, SOME, SLOW, FAST = "nothing moves", "something moves", "slow motion", "fast motion"
UNSURE = 0.5  # px: flow leaves so much unexplained where only the camera moves
VOCABULARY = (
    *(STILL, SOME, SLOW, FAST, "motion", "the camera shakes"),
    *(f"the camera {name}s {way}" for name, *ways in WORDS for way in ways),
)


@dataclass(frozen=True, kw_only=True, config=SPEC)
class MotionCaptioner:
    """How the camera and the scene move, in words. Units are those of ``motion``: px per half second at a short side of 240 px.

    Args:
        still: speed below which nothing moves.
        slow: speed below which it is slow motion.
        fast: speed from which it is fast motion; between the two no speed is worth a word.
        apart: share of the mean speed that must be local for something to move before a moving camera.
    """

    still: Annotated[float, Field(ge=0)] = 0.15
    slow: float = 1.5
    fast: float = 6.0
    apart: Annotated[float, Field(gt=0, le=1)] = 0.1

    identity: ClassVar[str] = "curation.captioners.motion.Motion"
    meaning: ClassVar[int] = 2
    needs_frames: ClassVar[bool] = False
    columns: ClassVar[tuple[pa.Field, ...]] = COLUMNS
    needs: ClassVar[tuple[str, ...]] = ("motion", "motion_local", "motion_camera")
    requires: ClassVar[tuple[str, ...]] = ()
    models: ClassVar[tuple[str, ...]] = ()
    resources: ClassVar[Resources] = Resources(cpus=1, memory_gb=0.5)

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if not self.still <= self.slow <= self.fast:
            raise ValueError(
                f"still={self.still}, slow={self.slow}, fast={self.fast}: each must be at least the one before"
            )
        return self

    def weights(self) -> None:
        return None

    def sentence(self, motion: float, local: float, camera: str) -> str:
        """Return "the camera pans left and zooms in, something moves, fast motion"; in the unit of the thresholds."""
        if motion < self.still:
            return STILL
        clauses = [] if camera in (STATIC, UNCLEAR) else [f"the camera {camera_phrase(camera)}"]
        clauses += [SOME] if not clauses or local >= max(UNSURE, self.apart * motion) else []
        clauses += [SLOW] if motion < self.slow else [FAST] if motion >= self.fast else []
        return ", ".join(clauses)

    @contextmanager
    def open(self) -> Iterator[Callable[[Sequence[Evidence]], pa.Table]]:
        def caption(evidence: Sequence[Evidence]) -> pa.Table:
            return caption_table([self._clip(clip.columns) for clip in evidence])

        yield caption

    def _clip(self, columns: Any) -> Caption:
        values = [columns[name] for name in self.needs]
        if None in values:
            # Shorter than two samples of the flow: nothing is known, which is not the same as nothing moving.
            raise SourceError("the clip holds too few samples of the flow to say how it moves")
        text = self.sentence(*values)
        return Caption(text=text, tokens=len(text.split()), model="motion")
