"""Combing: the share of combed frames in clips woven from two fields, and in progressive ones that look alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from dailies.curation import world
from dailies.curation.observe import observe
from dailies.curation.observers.combing import CombingObserver, combed
from dailies.curation.observers.tracking import FULL_FPS
from dailies.curation.timing import Span
from dailies.curation.world import Background, Camera, Script, Shape, Shot

WIDTH, HEIGHT = SIZE = (480, 288)
FIELDS = 50  # a second
Pictures = Iterator[np.ndarray]


def scene(kind: str, seconds: float = 2, fps: int = FIELDS) -> Pictures:
    """What two fields are woven of: a thing or the whole picture moves by 4 px or more from one field to the next."""
    frames, ground = round(seconds * fps), Background(texture="checked", color="sand", seed=1)
    star = Shape(kind="star", color="red", radius=40, x=40, y=120, velocity=(200, 20))
    shots = {
        "thing": Shot(frames=frames, background=ground, shapes=(star,)),
        "pan": Shot(frames=frames, background=ground, camera=Camera(velocity=(600, 40))),
        "still": Shot(frames=frames, background=ground),
    }
    return world.frames(Script(shots=(shots[kind],), size=SIZE, fps=fps))


def woven(fields: Iterable[np.ndarray]) -> Pictures:
    """Even lines of one picture, odd lines of the next."""
    for first, second in zip(*[iter(fields)] * 2, strict=False):
        frame = first.copy()
        frame[1::2] = second[1::2]
        yield frame


def telecined(film: Iterable[np.ndarray]) -> Pictures:
    """3:2 pulldown: of four pictures five frames, two of which are combed."""
    for one, two, three, four in zip(*[iter(film)] * 4, strict=False):
        yield from (one, two, *woven([two, three]), *woven([three, four]), four)


def found(tmp_path: Path, frames: Pictures, observer: CombingObserver, fps: int = 25, **how: object) -> float:
    """The share of combed frames of the whole file."""
    seen = observe(str(world.encode(frames, tmp_path / "clip.mp4", fps=fps, **how)), [observer], None)
    whole = Span(start=seen.pts[0], end=seen.end, time_base=seen.probe.time_base)
    share = observer.reduce({track.name: track for track in seen.tracks}, whole)["combing_share"]
    assert isinstance(share, float)
    return share


OFTEN = CombingObserver(fps=5)
CODED = {
    "baked in": {"crf": 23},
    "baked in, small": {"crf": 30},
    "interlaced": {"crf": 23, "options": {"flags": "+ilme+ildct", "x264-params": "interlaced=1:tff=1"}},
    "mpeg2": {"codec": "mpeg2video", "bitrate": 3_000_000, "options": {"flags": "+ilme+ildct"}},
}


@pytest.mark.parametrize("kind", ["thing", "pan"])
@pytest.mark.parametrize("coded", CODED)
def test_interlaced_video_of_what_moves_is_combed(tmp_path: Path, coded: str, kind: str) -> None:
    assert found(tmp_path, woven(scene(kind)), OFTEN, **CODED[coded]) > 0.9


@pytest.mark.parametrize("coded", CODED)
@pytest.mark.parametrize("kind", ["thing", "pan"])
def test_progressive_video_is_not_combed_however_it_is_coded(tmp_path: Path, coded: str, kind: str) -> None:
    assert found(tmp_path, scene(kind, fps=25), OFTEN, **CODED[coded]) == 0


def test_interlaced_video_of_what_stands_still_shows_no_combing(tmp_path: Path) -> None:
    assert found(tmp_path, woven(scene("still")), OFTEN) == 0


def test_nor_does_combing_show_once_it_is_scaled(tmp_path: Path) -> None:
    half = (WIDTH // 2, HEIGHT // 2)
    frames = (cv2.resize(frame, half, interpolation=cv2.INTER_AREA) for frame in woven(scene("pan")))
    assert found(tmp_path, frames, OFTEN) == 0


def test_two_of_five_telecined_frames_are_combed(tmp_path: Path) -> None:
    every = found(tmp_path, telecined(scene("pan", 2, fps=24)), CombingObserver(fps=30), fps=30, bframes=0)
    assert every == pytest.approx(0.4, abs=0.03)


def test_the_default_rate_meets_all_frames_of_telecines_pattern(tmp_path: Path) -> None:
    """Ten looks fall on each of the five twice."""
    film = (np.ascontiguousarray(rgb[:128, :256]) for rgb in scene("pan", 10, fps=24))
    observer = CombingObserver()
    assert observer.fps == FULL_FPS
    assert found(tmp_path, telecined(film), observer, fps=30, bframes=0) == pytest.approx(0.4, abs=0.1)


def grid(draw: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.clip(draw(x, y), 0, 255).astype(np.uint8)


def page() -> np.ndarray:
    gray = np.full((HEIGHT, WIDTH), 235, np.uint8)
    for line in range(14, HEIGHT, 14):
        cv2.putText(gray, "THE QUICK fox jumps over ten lazy dogs == 0123456789", (6, line), 0, 0.42, 10, 1)
    return gray


FINE = {
    "lines": grid(lambda x, y: np.where(y % 2, 200, 60)),
    "lines of two": grid(lambda x, y: np.where(y // 2 % 2, 200, 60)),
    "a patch of lines": grid(lambda x, y: np.where((y % 2 == 1) & (x > 100) & (x < 300) & (y > 60), 200, 60)),
    "a chessboard of pixels": grid(lambda x, y: np.where((x + y) % 2, 200, 60)),
    "a chessboard": grid(lambda x, y: np.where((x // 8 + y // 8) % 2, 230, 20)),
    "slanted edges": grid(lambda x, y: np.where((x + 2 * y) // 9 % 2, 230, 20)),
    "text": page(),
    "noise": grid(lambda x, y: np.random.default_rng(1).normal(128, 20, x.shape)),
}


@pytest.mark.parametrize("kind", FINE)
def test_fine_detail_is_not_combing(tmp_path: Path, kind: str) -> None:
    frames = iter([cv2.merge([FINE[kind]] * 3)] * 10)
    assert found(tmp_path, frames, OFTEN, crf=28) == 0


def test_the_share_of_a_picture_that_is_combed_grows_with_what_moves() -> None:
    shares = []
    for kind in ("still", "thing", "pan"):
        frame = next(woven(scene(kind, 0.1)))
        shares.append(combed(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)))
    assert shares[0] == 0
    assert shares[0] < shares[1] < shares[2]


def test_a_picture_too_small_to_tell_is_not_combed() -> None:
    assert combed(np.zeros((12, 640), np.uint8)) == combed(np.zeros((640, 40), np.uint8)) == 0
