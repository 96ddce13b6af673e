"""Motion words: how much and which way a clip's picture moves, from the flow track's measures alone.

Optical flow says what the caption of one frame can't. The words are a threshold over ``motion`` (mean speed of the flow)
and over ``motion_x, motion_y`` (mean signed flow): where everything moves alike the vector mean is nearly as long as
the mean of lengths, and the camera is what moved; where one thing moves before a still ground, it is much shorter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from curation.captioners.captions import COLUMNS, caption_table
from curation.errors import SourceError
from curation.types import Evidence, Resources

# To the nearest of eight, clockwise from the right, as y grows downwards.
DIRECTIONS = ("right", "down and right", "down", "down and left", "left", "up and left", "up", "up and right")
STILL, SOME, SLOW, FAST = "nothing moves", "something moves", "slow motion", "fast motion"
VOCABULARY = (STILL, SOME, SLOW, FAST, "motion", *(f"everything moves {direction}" for direction in DIRECTIONS))


@dataclass(frozen=True, kw_only=True)
class Motion:
    """Words for the flow. Units are those of ``motion``: px per half second at a short side of 240 px.

    Below ``still`` nothing moves; below ``slow`` it is slow motion and from ``fast`` on fast motion; between the two
    no speed is worth a word. ``together``: the share of the mean speed that the mean velocity must have for everything
    to move one way. Raises ``ValueError`` when the thresholds are not in order.
    """

    still: float = 0.15
    slow: float = 1.5
    fast: float = 6.0
    together: float = 0.75

    meaning: ClassVar[int] = 1
    columns: ClassVar[tuple[pa.Field, ...]] = COLUMNS
    needs: ClassVar[tuple[str, ...]] = ("motion", "motion_x", "motion_y")
    resources: ClassVar[Resources] = Resources(cpus=1, memory_gb=0.5)

    def __post_init__(self) -> None:
        if not 0 <= self.still <= self.slow <= self.fast:
            raise ValueError(f"0 <= still <= slow <= fast expected, not {self.still}, {self.slow}, {self.fast}")
        if not 0 < self.together <= 1:
            raise ValueError(f"together must be in (0, 1], not {self.together}")

    def weights(self) -> None:
        return None

    def words(self, motion: float, x: float, y: float) -> str:
        """ "everything moves left, fast motion"; ``x`` right and ``y`` down, all in the unit of the thresholds."""
        if motion < self.still:
            return STILL
        clauses = [SOME]
        if math.hypot(x, y) >= self.together * motion:
            clauses = [f"everything moves {DIRECTIONS[round(math.atan2(y, x) / (math.pi / 4)) % 8]}"]
        clauses += [SLOW] if motion < self.slow else [FAST] if motion >= self.fast else []
        return ", ".join(clauses)

    @contextmanager
    def open(self) -> Iterator[Callable[[Sequence[Evidence]], pa.Table]]:
        def caption(evidence: Sequence[Evidence]) -> pa.Table:
            return caption_table([self._clip(clip.columns) for clip in evidence])

        yield caption

    def _clip(self, columns: Any) -> tuple[str, int]:
        values = [columns[name] for name in self.needs]
        if None in values:
            # Shorter than two samples of the flow: nothing is known, which is not the same as nothing moving.
            raise SourceError("the clip holds too few samples of the flow to say how it moves")
        text = self.words(*values)
        return text, len(text.split())
