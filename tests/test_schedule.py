"""The order of samples: buckets, subsets drawn by weight, pictures beside videos, and the parts of several processes."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass

import pytest

pytest.importorskip("torch")

from dailies.training.data.schedule import BucketSubset, Schedule, World, bucket_of
from dailies.training.recipes.phase import Bucket, Phase

PHASE = Phase(name="video", task="text-to-video", steps=400, batch=6, size=(64, 64), frames=4)


@dataclass
class Named:
    """Items that have nothing but ids."""

    clip_ids: list[str]


def subset(name: str, count: int, weight: float = 1.0) -> BucketSubset:
    items = Named([f"{name}{number}" for number in range(count)])
    shape = Bucket(size=(64, 64), frames=4)
    return BucketSubset(name=name, items=items, shape=shape, weight=weight)  # type: ignore[arg-type]


def clip_ids(schedule: Schedule, step: int, ranks: World = World()) -> list[str]:  # noqa: B008
    """Of each kind of sample in turn, pictures first."""
    return [plan.subset.items.clip_ids[spec.item] for plan in schedule.step(step, ranks) for spec in plan.specs]


# ---- buckets --------------------------------------------------------------------------------------------------------

SHAPES = [
    Bucket(size=(128, 72), frames=8),
    Bucket(size=(256, 144), frames=8),
    Bucket(size=(256, 144), frames=16),
    Bucket(size=(96, 96), frames=8),
    Bucket(size=(72, 128), frames=8),
]


@pytest.mark.parametrize(
    ("size", "length", "bucket"),
    [
        ((1920, 1080), 20, 2),  # of its ratio the one of most frames
        ((1920, 1080), 15, 1),  # and then the largest
        ((200, 112), 20, 0),  # which it must not be enlarged for
        ((64, 36), 20, 2),  # if it is anyhow, most frames first
        ((64, 36), 9, 0),  # and then the smallest
        ((500, 480), 9, 3),
        ((1080, 1920), 99, 4),
        ((1920, 1080), 7, None),  # too short for all
    ],
)
def test_a_clip_goes_to_the_bucket_of_its_shape(size: tuple[int, int], length: int, bucket: int | None) -> None:
    assert bucket_of(size, length, SHAPES) == bucket


# ---- subsets --------------------------------------------------------------------------------------------------------


def test_steps_are_of_one_subset_and_subsets_come_by_weight() -> None:
    schedule = Schedule(0, PHASE, [subset("a", 9, 3.0), subset("b", 20, 1.0)])
    steps = [clip_ids(schedule, step) for step in range(PHASE.steps)]
    assert all(len({name[0] for name in step}) == 1 for step in steps)
    count = Counter(step[0][0] for step in steps)
    assert count["a"] / PHASE.steps == pytest.approx(0.75, abs=0.06)
    # Each item of a subset comes once in each of its epochs, however the subsets are interleaved.
    for name, items in (("a", 9), ("b", 20)):
        ids = [clip_id for step in steps for clip_id in step if clip_id.startswith(name)]
        epochs = [ids[start : start + items] for start in range(0, len(ids) - items + 1, items)]
        assert len(epochs) > 10
        assert all(len(set(epoch)) == items for epoch in epochs)
        assert epochs[0] != epochs[1]


def test_any_step_can_be_made_first() -> None:
    subsets = [subset("a", 9, 3.0), subset("b", 20, 1.0)]
    one, other = Schedule(0, PHASE, subsets), Schedule(0, PHASE, subsets)
    later = clip_ids(one, 300)
    assert [clip_ids(other, step) for step in range(301)][300] == later
    assert clip_ids(Schedule(1, PHASE, subsets), 300) != later


@pytest.mark.parametrize("share", [0.0, 0.34])
@pytest.mark.parametrize("processes", [2, 3, 4])
def test_processes_share_each_batch_in_its_order(processes: int, share: float) -> None:
    phase = dataclasses.replace(PHASE, image_share=share, batch=8)
    pictures = subset("picture", 5) if share else None
    schedule = Schedule(0, phase, [subset("a", 9, 3.0), subset("b", 20, 1.0)], pictures)
    for step in range(20):
        parts = [schedule.step(step, World(rank=rank, size=processes)) for rank in range(processes)]
        for kind in (True, False):
            shared = [s for part in parts for plan in part if (plan.subset is pictures) == kind for s in plan.specs]
            alone = [s for plan in schedule.step(step) if (plan.subset is pictures) == kind for s in plan.specs]
            assert shared == alone
            assert [spec.rng.random() for spec in shared] == [spec.rng.random() for spec in alone]


def test_pictures_stand_beside_videos_in_every_step() -> None:
    phase = dataclasses.replace(PHASE, image_share=0.3, batch=10)
    schedule = Schedule(0, phase, [subset("a", 9)], subset("picture", 7))
    steps = [clip_ids(schedule, step) for step in range(14)]
    assert all(Counter(name[0] for name in step) == {"p": 3, "a": 7} for step in steps)
    names = [name for step in steps for name in step if name.startswith("p")]
    assert all(len(set(names[start : start + 7])) == 7 for start in range(0, 42, 7))
    positions = [spec.position for step in range(14) for plan in schedule.step(step) for spec in plan.specs]
    assert sorted(positions) == list(range(140))
