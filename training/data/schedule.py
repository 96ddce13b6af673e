"""In which order a phase sees its data: lanes of items of one shape, planned for all steps at once.

A lane is a bucket of one share of the mix. Each step's videos are of one lane, drawn by the lanes' weights, so that
they make one tensor; its pictures, where there are any, are of a lane of their own. Which lane a step has, and how far
that lane has come, follow from (seed, phase, step) alone, so that any step can be made first and on any machine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dailies.training.data.items import Items
from dailies.training.data.sampling import Draw, draw, generator
from dailies.training.data.world import ALONE, World
from dailies.training.recipes.phase import Bucket, Phase

BLOCK = 4096  # steps whose lanes are drawn together


@dataclass(frozen=True, kw_only=True)
class Lane:
    """Items that are trained in one shape. ``name``: empty for the only one of a phase. ``weight``: of its steps."""

    name: str
    items: Items
    shape: Bucket
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Some:
    """Samples of one lane, to be computed together."""

    lane: Lane
    draws: tuple[Draw, ...]


class Schedule:
    """Which samples each step has. ``lanes``: of the videos, or of the pictures in an image phase; ``pictures``: what
    stands beside the videos in a joint phase."""

    def __init__(self, seed: int, phase: Phase, lanes: Sequence[Lane], pictures: Lane | None = None) -> None:
        self.seed, self.phase, self.lanes, self.pictures = seed, phase, tuple(lanes), pictures
        self._beside = phase.pictures if pictures is not None else 0
        chosen = np.zeros(phase.steps, np.int64)
        if len(lanes) > 1:
            ends = np.cumsum([lane.weight for lane in lanes])
            for start in range(0, phase.steps, BLOCK):
                drawn = generator(seed, f"{phase.name} lanes", start).random(BLOCK)[: phase.steps - start]
                chosen[start : start + BLOCK] = np.searchsorted(ends / ends[-1], drawn, side="right")
        self._lane = np.minimum(chosen, len(lanes) - 1)
        self._before = np.zeros(phase.steps, np.int64)  # steps of the same lane before this one
        for number in range(len(lanes)):
            mine = self._lane == number
            self._before[mine] = np.arange(int(mine.sum()))

    def step(self, step: int, world: World = ALONE) -> list[Some]:
        """The samples of optimizer step ``step`` that are this rank's: the pictures first, then the videos."""
        batch, beside = self.phase.batch, self._beside
        videos = batch - beside
        lane = self.lanes[int(self._lane[step])]
        some = []
        if self.pictures is not None:
            begin = step * batch + videos
            some.append(self._some(self.pictures, begin, step * beside, world.part(beside)))
        some.append(self._some(lane, step * batch, int(self._before[step]) * videos, world.part(videos)))
        return [one for one in some if one.draws]

    def _some(self, lane: Lane, position: int, place: int, part: range) -> Some:
        draws = (
            draw(
                self.seed,
                self.phase.name,
                position + i,
                len(lane.items.ids),
                lane=lane.name,
                place=place + i,
            )
            for i in part
        )
        return Some(lane=lane, draws=tuple(draws))


def bucket_of(size: tuple[int, int], length: int, shapes: Sequence[Bucket]) -> int | None:
    """Which of ``shapes`` a clip of ``size`` (width, height) px and ``length`` frames is trained in; ``None`` if it is
    too short for all.

    The one whose sides' ratio is nearest, to a hundredth; among those one that the clip needs not be enlarged for, the
    one of most frames, and then the largest, or the smallest if it must be enlarged.
    """
    ratio = math.log(size[0] / size[1])

    def order(number: int) -> tuple[float, bool, int, int]:
        (width, height), frames = shapes[number].size, shapes[number].frames
        enlarged = size[0] < width or size[1] < height
        area = width * height
        return round(abs(math.log(width / height) - ratio), 2), enlarged, -frames, area if enlarged else -area

    fitting = [number for number, shape in enumerate(shapes) if shape.frames <= length]
    return min(fitting, key=order) if fitting else None
