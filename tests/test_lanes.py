"""The order of samples: buckets, lanes drawn by weight, pictures beside videos, and the parts of several processes."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass

import pytest

pytest.importorskip("torch")

from dailies.training.data.schedule import Lane, Schedule, bucket_of
from dailies.training.data.world import ALONE, World
from dailies.training.recipes.phase import Bucket, Phase

PHASE = Phase(name="video", task="text-to-video", steps=400, batch=6, size=(64, 64), frames=4)


@dataclass
class Named:
    """Items that have nothing but ids."""

    ids: list[str]


def lane(name: str, count: int, weight: float = 1.0) -> Lane:
    items = Named([f"{name}{number}" for number in range(count)])
    return Lane(name=name, items=items, shape=Bucket(size=(64, 64), frames=4), weight=weight)  # type: ignore[arg-type]


def ids(schedule: Schedule, step: int, world: World = ALONE) -> list[str]:
    """Of each kind of sample in turn, pictures first."""
    return [some.lane.items.ids[draw.item] for some in schedule.step(step, world) for draw in some.draws]


# ---- buckets --------------------------------------------------------------------------------------------------------

SHAPES = [
    Bucket(size=(64, 36), frames=8),
    Bucket(size=(128, 72), frames=8),
    Bucket(size=(128, 72), frames=16),
    Bucket(size=(48, 48), frames=8),
    Bucket(size=(36, 64), frames=8),
]


@pytest.mark.parametrize(
    ("size", "length", "bucket"),
    [
        ((1920, 1080), 20, 2),  # of its ratio the one of most frames
        ((1920, 1080), 15, 1),  # and then the largest
        ((100, 56), 20, 0),  # which it must not be enlarged for
        ((32, 18), 20, 2),  # if it is anyhow, most frames first
        ((32, 18), 9, 0),  # and then the smallest
        ((500, 480), 9, 3),
        ((1080, 1920), 99, 4),
        ((1920, 1080), 7, None),  # too short for all
    ],
)
def test_a_clip_goes_to_the_bucket_of_its_shape(size: tuple[int, int], length: int, bucket: int | None) -> None:
    assert bucket_of(size, length, SHAPES) == bucket


# ---- lanes ----------------------------------------------------------------------------------------------------------


def test_steps_are_of_one_lane_and_lanes_come_by_weight() -> None:
    schedule = Schedule(0, PHASE, [lane("a", 9, 3.0), lane("b", 20, 1.0)])
    steps = [ids(schedule, step) for step in range(PHASE.steps)]
    assert all(len({name[0] for name in step}) == 1 for step in steps)
    count = Counter(step[0][0] for step in steps)
    assert count["a"] / PHASE.steps == pytest.approx(0.75, abs=0.06)
    # Each item of a lane comes once in each of its epochs, however the lanes are interleaved.
    for name, items in (("a", 9), ("b", 20)):
        seen = [one for step in steps for one in step if one.startswith(name)]
        epochs = [seen[start : start + items] for start in range(0, len(seen) - items + 1, items)]
        assert len(epochs) > 10
        assert all(len(set(epoch)) == items for epoch in epochs)
        assert epochs[0] != epochs[1]


def test_any_step_can_be_made_first() -> None:
    lanes = [lane("a", 9, 3.0), lane("b", 20, 1.0)]
    one, other = Schedule(0, PHASE, lanes), Schedule(0, PHASE, lanes)
    later = ids(one, 300)
    assert [ids(other, step) for step in range(301)][300] == later
    assert ids(Schedule(1, PHASE, lanes), 300) != later


@pytest.mark.parametrize("share", [0.0, 0.34])
@pytest.mark.parametrize("processes", [2, 3, 4])
def test_processes_share_each_batch_in_its_order(processes: int, share: float) -> None:
    phase = dataclasses.replace(PHASE, image_share=share, batch=8)
    pictures = lane("picture", 5) if share else None
    schedule = Schedule(0, phase, [lane("a", 9, 3.0), lane("b", 20, 1.0)], pictures)
    for step in range(20):
        parts = [schedule.step(step, World(rank=rank, size=processes)) for rank in range(processes)]
        for kind in (True, False):
            drawn = [d for part in parts for some in part if (some.lane is pictures) == kind for d in some.draws]
            alone = [d for some in schedule.step(step) if (some.lane is pictures) == kind for d in some.draws]
            assert drawn == alone
            assert [d.rng.random() for d in drawn] == [d.rng.random() for d in alone]


def test_pictures_stand_beside_videos_in_every_step() -> None:
    phase = dataclasses.replace(PHASE, image_share=0.3, batch=10)
    schedule = Schedule(0, phase, [lane("a", 9)], lane("picture", 7))
    steps = [ids(schedule, step) for step in range(14)]
    assert all(Counter(name[0] for name in step) == {"p": 3, "a": 7} for step in steps)
    seen = [name for step in steps for name in step if name.startswith("p")]
    assert all(len(set(seen[start : start + 7])) == 7 for start in range(0, 42, 7))
    positions = [draw.position for step in range(14) for some in schedule.step(step) for draw in some.draws]
    assert sorted(positions) == list(range(140))
