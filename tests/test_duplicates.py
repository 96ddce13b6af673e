"""Duplicates: the share of repeated frames in rendered clips that repeat a known share of theirs, and in others that don't."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from dailies.curation import world
from dailies.curation.observe import observe
from dailies.curation.observers.duplicates import DuplicatesObserver
from dailies.curation.timing import Span
from dailies.curation.world import Background, Camera, Script, Shape, Shot

SIZE = (480, 270)
FPS, COUNT = 24, 72


@cache
def pictures(kind: str) -> Sequence[np.ndarray]:
    """Three seconds of film at 24 frames a second."""
    ground = Background(texture="cloudy", color="sand", seed=1)
    shots = {
        "pan": Shot(frames=COUNT, background=ground, camera=Camera(velocity=(160, 0))),
        "slow pan": Shot(frames=COUNT, background=ground, camera=Camera(velocity=(0.5 * FPS, 0))),
        "still": Shot(frames=COUNT, background=ground),
        "ball": Shot(  # 10 px across, 2 px a frame, in front of a scene that stands still
            frames=COUNT,
            background=ground,
            shapes=(Shape(kind="circle", color="purple", radius=5, x=60, y=90, velocity=(2 * FPS, 0)),),
        ),
    }
    return list(world.frames(Script(shots=(shots[kind],), size=SIZE, fps=FPS)))


def grained(frames: Sequence[np.ndarray], deviation: float) -> list[np.ndarray]:
    grain = np.random.default_rng(3)
    return [np.clip(rgb + grain.normal(0, deviation, (*rgb.shape[:2], 1)), 0, 255).astype(np.uint8) for rgb in frames]


def pulled(frames: Sequence[np.ndarray], fps: int) -> list[np.ndarray]:
    """Shown at ``fps`` by repeating frames."""
    return [frames[number * FPS // fps] for number in range(len(frames) * fps // FPS)]


def found(
    tmp_path: Path, frames: Sequence[np.ndarray], *, fps: int, crf: int = 23, **how: object
) -> tuple[float, float]:
    """(share of duplicates, seconds frozen) of the whole file."""
    path = world.encode(iter(frames), tmp_path / "clip.mp4", fps=fps, crf=crf, **{"preset": "medium", **how})
    seen = observe(str(path), [DuplicatesObserver()], None)
    whole = Span(start=seen.pts[0], end=seen.end, time_base=seen.probe.time_base)
    measured = DuplicatesObserver().reduce({track.name: track for track in seen.tracks}, whole)
    return float(measured["duplicate_share"] or 0), float(measured["frozen_seconds"] or 0)


@pytest.mark.parametrize("crf", [23, 30])
@pytest.mark.parametrize("kind", ["pan", "ball"])
@pytest.mark.parametrize(("fps", "share"), [(24, 0), (30, 0.2), (60, 0.6)])
def test_repeated_frames_are_counted_after_compression(
    tmp_path: Path, kind: str, fps: int, share: float, crf: int
) -> None:
    found_share, frozen = found(tmp_path, pulled(pictures(kind), fps), fps=fps, crf=crf)
    assert found_share == pytest.approx(share, abs=0.03)
    assert frozen == pytest.approx({24: 1 / 24, 30: 2 / 30, 60: 3 / 60}[fps], abs=0.02)


def test_repeated_frames_are_counted_under_grain_and_by_other_codecs(tmp_path: Path) -> None:
    frames = pulled(grained(pictures("pan"), 3), 60)
    assert found(tmp_path, frames, fps=60)[0] == pytest.approx(0.6, abs=0.03)
    mpeg2 = found(tmp_path, frames, fps=60, codec="mpeg2video", bitrate=6_000_000)
    assert mpeg2[0] == pytest.approx(0.6, abs=0.03)


@pytest.mark.parametrize("crf", [23, 30])
def test_frozen_video_is_all_duplicates(tmp_path: Path, crf: int) -> None:
    """A keyframe may end a freeze."""
    share, seconds = found(tmp_path, [pictures("pan")[30]] * 90, fps=30, crf=crf, gop=45)
    assert share > 0.9
    assert seconds > 1.3


def test_a_freeze_within_a_shot_lasts_as_long_as_it_lasts(tmp_path: Path) -> None:
    pan = pictures("pan")
    frames = [*pan[:24], *[pan[24]] * 36, *pan[25:49]]
    share, seconds = found(tmp_path, frames, fps=FPS)
    assert seconds == pytest.approx(36 / FPS, abs=3 / FPS)
    assert share == pytest.approx(35 / (len(frames) - 1), abs=0.04)


@pytest.mark.parametrize("crf", [20, 28])
@pytest.mark.parametrize("kind", ["slow pan", "ball"])
def test_what_moves_slowly_or_is_small_repeats_nothing(tmp_path: Path, kind: str, crf: int) -> None:
    share, seconds = found(tmp_path, pictures(kind), fps=FPS, crf=crf)
    assert share < 0.03
    assert seconds < 0.2


def test_slow_motion_repeats_nothing(tmp_path: Path) -> None:
    """A pan slowed down eight times by blending, as editors do."""
    pan = pictures("pan")[:10]
    slowed = [
        cv2.addWeighted(before, 1 - step / 8, after, step / 8, 0)
        for before, after in pairwise(pan)
        for step in range(8)
    ]
    assert found(tmp_path, slowed, fps=FPS, crf=20)[0] < 0.03


def test_a_still_scene_with_grain_is_not_frozen_and_one_without_is(tmp_path: Path) -> None:
    assert found(tmp_path, grained(pictures("still"), 4), fps=FPS)[0] < 0.03
    assert found(tmp_path, pictures("still"), fps=FPS)[0] > 0.9


def test_frames_of_other_shots_do_not_count(tmp_path: Path) -> None:
    """The span of one shot begins with a new picture, however alike or unlike the one before the cut."""
    frozen, pan = [pictures("pan")[0]] * 24, pictures("pan")[1:25]
    path = world.encode(iter([*frozen, *pan]), tmp_path / "clip.mp4", fps=FPS, crf=20)
    seen = observe(str(path), [DuplicatesObserver()], None)
    tracks = {track.name: track for track in seen.tracks}
    shares = [
        DuplicatesObserver().reduce(tracks, Span(start=start, end=end, time_base=seen.probe.time_base))[
            "duplicate_share"
        ]
        for start, end in ((seen.pts[0], seen.pts[24]), (seen.pts[24], seen.end), (seen.pts[24], seen.pts[25]))
    ]
    assert shares == [pytest.approx(1, abs=0.1), pytest.approx(0, abs=0.1), None]
