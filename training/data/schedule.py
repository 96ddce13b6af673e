"""The order in which a phase sees its data, planned for all steps at once.

A bucketed subset is what one bucket takes of one share of the mix. Each step's videos are of one subset, drawn by the
subsets' weights, so that they make one tensor; its pictures, where there are any, are of a subset of their own. Which
subset a step has, and how far that subset has come, follow from (seed, phase, step) alone, so that any step can be made
first and on any machine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dailies.training.data.items import Items
from dailies.training.data.sampling import SampleSpec, draw_spec, generator
from dailies.training.data.world import ALONE, World
from dailies.training.recipes.phase import Bucket, Phase

BLOCK = 4096  # steps whose subsets are drawn together


@dataclass(frozen=True, kw_only=True)
class BucketSubset:
    """A subset holds the items that are trained in one shape. ``name``: empty for the only one of a phase. ``weight``:
    its share of the steps. ``fps``: of its clips' grid, 1/s, ``None`` for pictures."""

    name: str
    items: Items
    shape: Bucket
    weight: float = 1.0
    fps: float | None = None


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """A plan names samples of one subset that are computed together."""

    subset: BucketSubset
    specs: tuple[SampleSpec, ...]


class Schedule:
    """A schedule says which samples each step has.

    Args:
        subsets: Those of the videos, or of the pictures in an image phase.
        pictures: What stands beside the videos in a joint phase.
    """

    def __init__(
        self, seed: int, phase: Phase, subsets: Sequence[BucketSubset], pictures: BucketSubset | None = None
    ) -> None:
        self.seed, self.phase, self.subsets, self.pictures = seed, phase, tuple(subsets), pictures
        self._picture_count = phase.pictures if pictures is not None else 0
        chosen = np.zeros(phase.steps, np.int64)
        if len(subsets) > 1:
            ends = np.cumsum([subset.weight for subset in subsets])
            for start in range(0, phase.steps, BLOCK):
                # The purpose's text is part of the random key: another would reorder runs that are begun.
                drawn = generator(seed, f"{phase.name} lanes", start).random(BLOCK)[: phase.steps - start]
                chosen[start : start + BLOCK] = np.searchsorted(ends / ends[-1], drawn, side="right")
        self._subset = np.minimum(chosen, len(subsets) - 1)
        self._before = np.zeros(phase.steps, np.int64)  # steps of the same subset before this one
        for number in range(len(subsets)):
            of_subset = self._subset == number
            self._before[of_subset] = np.arange(int(of_subset.sum()))

    def step(self, step: int, world: World = ALONE) -> list[BatchPlan]:
        """Return the samples of optimizer step ``step`` that are this rank's: the pictures first, then the videos."""
        batch, pictures = self.phase.batch, self._picture_count
        videos = batch - pictures
        subset = self.subsets[int(self._subset[step])]
        plans = []
        if self.pictures is not None:
            plans.append(self._plan(self.pictures, step * batch + videos, step * pictures, world.part(pictures)))
        plans.append(self._plan(subset, step * batch, int(self._before[step]) * videos, world.part(videos)))
        return [plan for plan in plans if plan.specs]

    def _plan(self, subset: BucketSubset, position: int, index: int, part: range) -> BatchPlan:
        """Plan samples ``part`` of those that begin at ``position`` of the phase and ``index`` of the subset."""
        count = len(subset.items.clip_ids)
        specs = (
            draw_spec(self.seed, self.phase.name, position + i, count, subset=subset.name, index=index + i)
            for i in part
        )
        return BatchPlan(subset=subset, specs=tuple(specs))


def bucket_of(size: tuple[int, int], length: int, shapes: Sequence[Bucket]) -> int | None:
    """Return which of ``shapes`` a clip of ``size`` (width, height) px and ``length`` frames is trained in; ``None`` if
    it is too short for all.

    It is the one whose aspect ratio is nearest, to a hundredth; among those one that the clip needs not be enlarged
    for, the one of most frames, and then the largest, or the smallest if it must be enlarged.
    """
    ratio = math.log(size[0] / size[1])

    def order(number: int) -> tuple[float, bool, int, int]:
        (width, height), frames = shapes[number].size, shapes[number].frames
        enlarged = size[0] < width or size[1] < height
        area = width * height
        return round(abs(math.log(width / height) - ratio), 2), enlarged, -frames, area if enlarged else -area

    fitting = [number for number, shape in enumerate(shapes) if shape.frames <= length]
    return min(fitting, key=order) if fitting else None
