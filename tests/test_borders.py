"""Borders: the crop rectangle of rendered clips whose bars are known, and of dark ones that have none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from dailies.curation import world
from dailies.curation.observe import observe
from dailies.curation.observers.borders import BordersObserver, depth, paired
from dailies.curation.timing import Span
from dailies.curation.world import Background, Camera, Script, Shot

SIZE = (320, 180)
SECONDS, FPS = 4, 12
Pictures = Iterator[np.ndarray]
Rectangle = tuple[float, float, float, float]  # left, top, right, bottom


def picture(size: tuple[int, int] = SIZE, texture: str = "checked", color: str = "sand") -> Pictures:
    shot = Shot(
        frames=SECONDS * FPS,
        background=Background(texture=texture, color=color, seed=2),
        camera=Camera(velocity=(30, 10)),
    )
    return world.frames(Script(shots=(shot,), size=size, fps=FPS))


def barred(pictures: Pictures, bars: Rectangle, level: int = 0, noise: float = 0) -> Pictures:
    left, top, right, bottom = (int(bar) for bar in bars)
    grain = np.random.default_rng(1)
    for rgb in pictures:
        height, width = rgb.shape[:2]
        out = np.full((top + height + bottom, left + width + right, 3), level, np.uint8)
        out[top : top + height, left : left + width] = rgb
        yield np.clip(out + grain.normal(0, noise, (*out.shape[:2], 1)), 0, 255).astype(np.uint8) if noise else out


def boxed(bars: Rectangle, size: tuple[int, int] = SIZE, **how: float) -> Pictures:
    """A picture with ``bars``, ``size`` altogether."""
    left, top, right, bottom = bars
    return barred(picture((int(size[0] - left - right), int(size[1] - top - bottom))), bars, **how)


def drawn(draw: Callable[[np.ndarray, np.ndarray, float], np.ndarray], size: tuple[int, int] = SIZE) -> Pictures:
    """``draw(x, y, share of the time)`` with a little grain; x and y in px."""
    y, x = np.mgrid[: size[1], : size[0]].astype(np.float32)
    grain = np.random.default_rng(1)
    for number in range(SECONDS * FPS):
        gray = draw(x, y, number / (SECONDS * FPS)) + grain.normal(0, 1.5, x.shape)
        yield cv2.merge([np.clip(gray, 0, 255).astype(np.uint8)] * 3)


def found(tmp_path: Path, pictures: Pictures, name: str = "clip.mp4", **how: object) -> list[float | None]:
    """The crop rectangle of the whole file."""
    seen = observe(str(world.encode(pictures, tmp_path / name, fps=FPS, **how)), [BordersObserver()], None)
    whole = Span(start=seen.pts[0], end=seen.end, time_base=seen.probe.time_base)
    return list(BordersObserver().reduce({track.name: track for track in seen.tracks}, whole).values())


LETTERBOX, PILLARBOX, NONE = (0, 23, 0, 23), (40, 0, 40, 0), (0, 0, 0, 0)


@pytest.mark.parametrize("crf", [20, 28, 35])
@pytest.mark.parametrize("bars", [LETTERBOX, PILLARBOX, (40, 27, 40, 27), (0, 21, 0, 27), (107, 0, 107, 0), NONE])
def test_bars_are_found_to_two_pixels_whatever_the_compression(tmp_path: Path, bars: Rectangle, crf: int) -> None:
    assert found(tmp_path, boxed(bars), crf=crf) == pytest.approx(list(bars), abs=2)


@pytest.mark.parametrize(
    "how",
    [
        {"codec": "libx265", "pix_fmt": "yuv420p10le", "crf": 24},
        {"codec": "mpeg2video", "bitrate": 600_000},
        {"pix_fmt": "yuvj420p"},
    ],
    ids=["10 bit", "mpeg2", "full range"],
)
def test_bars_are_found_whatever_the_format(tmp_path: Path, how: dict[str, object]) -> None:
    assert found(tmp_path, boxed(LETTERBOX), **how) == pytest.approx(list(LETTERBOX), abs=2)


def test_bars_are_those_of_the_upright_picture_at_any_size(tmp_path: Path) -> None:
    odd = boxed((9, 15, 12, 16), (321, 181))
    assert found(tmp_path, odd, pix_fmt="yuv444p") == pytest.approx([9, 15, 12, 16], abs=2)
    turned = boxed(LETTERBOX, (180, 320))
    assert found(tmp_path, turned, "turned.mp4", rotation=90) == pytest.approx(list(LETTERBOX), abs=2)


@pytest.mark.parametrize(("level", "noise"), [(8, 0), (30, 0), (16, 4)])
def test_a_bar_need_not_be_quite_black(tmp_path: Path, level: int, noise: float) -> None:
    assert found(tmp_path, boxed(LETTERBOX, level=level, noise=noise)) == pytest.approx(list(LETTERBOX), abs=2)


def labelled(pictures: Pictures, words: str, height: int, since: float = 0) -> Pictures:
    """White ``words`` in the last ``height`` lines, from a share of the time on."""
    for number, rgb in enumerate(pictures):
        if number >= since * SECONDS * FPS:
            at = (rgb.shape[1] // 8, rgb.shape[0] - height // 3)
            cv2.putText(rgb, words, at, cv2.FONT_HERSHEY_SIMPLEX, height / 70, (235, 235, 235), 2)
        yield rgb


@pytest.mark.parametrize("since", [0, 0.5])
@pytest.mark.parametrize("words", ["where have we been, and why did we go?", "TV"])
def test_text_inside_a_bar_belongs_to_the_bar(tmp_path: Path, words: str, since: float) -> None:
    pictures = labelled(boxed((0, 60, 0, 60), (640, 420)), words, 60, since)
    assert found(tmp_path, pictures) == pytest.approx([0, 60, 0, 60], abs=2)


def light(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return 120 + 60 * np.sin(x / 17 + y / 11)


def night(x: np.ndarray, y: np.ndarray, t: float) -> np.ndarray:
    """A black sky with stars, and lights that come up to the bottom edge."""
    stars = 240 * (np.random.default_rng(1).random(x.shape) < 0.001)
    height = y.shape[0]
    return stars + 140 * np.clip((y / height - 0.75) * 4, 0, 1) * (np.sin(x / 9 + t) > 0.3)


def fade(x: np.ndarray, y: np.ndarray, t: float) -> np.ndarray:
    return light(x, y) * np.clip(2 * t - 1, 0, 1)


def wall(x: np.ndarray, y: np.ndarray, t: float) -> np.ndarray:
    return np.where(x < 80, 2, light(x, y))


def closing_walls(x: np.ndarray, y: np.ndarray, t: float) -> np.ndarray:
    """The camera passes between two black walls."""
    return np.where((x < 60 + 40 * t) | (x > 260 + 40 * t), 2, light(x, y))


def black_floor(x: np.ndarray, y: np.ndarray, t: float) -> np.ndarray:
    return light(x, y) * np.clip(0.9 - 1.2 * y / y.shape[0], 0, 1)


@pytest.mark.parametrize("scene", [night, fade, wall, closing_walls, black_floor])
def test_dark_scenes_are_not_cropped(tmp_path: Path, scene: Callable[..., np.ndarray]) -> None:
    assert found(tmp_path, drawn(scene)) == [0, 0, 0, 0]


@pytest.mark.parametrize("scene", [fade, wall, closing_walls, black_floor])
def test_bars_of_dark_scenes_are_found_all_the_same(tmp_path: Path, scene: Callable[..., np.ndarray]) -> None:
    inside = drawn(scene, (SIZE[0], SIZE[1] - 46))
    assert found(tmp_path, barred(inside, LETTERBOX)) == pytest.approx(list(LETTERBOX), abs=2)


def test_one_dark_frame_or_one_bright_one_does_not_move_the_rectangle(tmp_path: Path) -> None:
    """Twelve seconds, so that of twelve looks one falls on a frame of its own kind."""
    frames = [rgb for _ in range(3) for rgb in boxed(LETTERBOX)]
    for at, level in ((40, 0), (100, 250)):
        frames[at : at + FPS] = [np.full_like(frames[0], level)] * FPS
    assert found(tmp_path, iter(frames)) == pytest.approx(list(LETTERBOX), abs=2)


def test_where_nothing_can_be_told_nothing_is_said(tmp_path: Path) -> None:
    assert found(tmp_path, drawn(lambda x, y, t: 0 * x)) == [None] * 4


def test_credits_on_black_are_not_cropped(tmp_path: Path) -> None:
    def rolling() -> Pictures:
        for number in range(SECONDS * FPS):
            rgb = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
            for line in range(12):
                at = (90, 20 + 36 * line - 2 * number)
                cv2.putText(rgb, "DIRECTED BY NN", at, cv2.FONT_HERSHEY_SIMPLEX, 0.6, (230, 230, 230), 1)
            yield rgb

    assert not any(found(tmp_path, rolling()))


def test_words_standing_on_black_are_not_cropped(tmp_path: Path) -> None:
    rgb = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    for line in range(50, 140, 24):
        cv2.putText(rgb, "HEEL FEEL PEEL", (60, line), cv2.FONT_HERSHEY_SIMPLEX, 0.8, (230, 230, 230), 2)
    assert not any(found(tmp_path, iter([rgb] * SECONDS * FPS)))


def test_scattered_lights_are_no_bar_though_the_picture_gets_bright_at_once() -> None:
    """Shares of lit pixels a line: black at the edge, lights, black again, and day."""
    share = np.full(200, 1, np.float32)
    share[:60] = 0.2
    share[[0, *range(56, 60)]] = 0
    assert depth(share, solid=True) < 0
    share[:60] = 0
    assert depth(share, solid=True) == 60


def test_a_side_that_cannot_tell_goes_with_the_one_across_if_it_is_as_black() -> None:
    assert paired(23, -60) == (23, 23)
    assert paired(-10, 23) == (0, 0)
    assert paired(0, -60) == (0, 0)
    assert paired(-10, -60) == (None, None)


def test_each_shot_has_a_rectangle_of_its_own(tmp_path: Path) -> None:
    shots = [LETTERBOX, NONE, PILLARBOX]
    path = world.encode((rgb for bars in shots for rgb in boxed(bars)), tmp_path / "shots.mp4", fps=FPS)
    seen = observe(str(path), [BordersObserver()], None)
    tracks = {track.name: track for track in seen.tracks}
    marks = [*seen.pts[:: SECONDS * FPS], seen.end]
    for bars, start, end in zip(shots, marks[:-1], marks[1:], strict=True):
        span = Span(start=start, end=end, time_base=seen.probe.time_base)
        assert list(BordersObserver().reduce(tracks, span).values()) == pytest.approx(list(bars), abs=2)


def test_the_right_border_is_taken_off_the_width() -> None:
    """Bars of two widths within what a pair may differ by: excludes a width that forgets the right one, or doubles the left."""
    from dailies.curation.observers.borders import paired

    assert paired(20.0, 27.0) == (20.0, 27.0)
