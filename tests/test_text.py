"""The text scorer's columns, from boxes that are known: the detector is stood in for, its model is another's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import cv2
import numpy as np
import pytest

from dailies.curation.scorers import text
from dailies.curation.scorers.dbnet import Box, union_area
from dailies.curation.scorers.text import TextScorer, first_middle_last
from dailies.curation.timing import Span
from dailies.curation.types import Evidence, EvidenceFrame
from dailies.curation.video import jpeg

HEIGHT, WIDTH = 200, 400
LEVEL = 40  # of luma, by which frames tell the detector which one they are


def rectangle(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)], np.float32)


def evidence(count: int) -> Evidence:
    pictures = [np.full((HEIGHT, WIDTH, 3), LEVEL * number, np.uint8) for number in range(count)]
    return Evidence(
        clip_id="a",
        span=Span(start=0, end=100, time_base=Fraction(1, 10)),
        frames=tuple(EvidenceFrame(pts=number, jpeg=jpeg(each, 95)) for number, each in enumerate(pictures)),
    )


def scored(monkeypatch: pytest.MonkeyPatch, boxes: list[list[np.ndarray] | None]) -> dict[str, Any]:
    """The row of a clip with as many evidence frames as there are lists of boxes."""

    class Detector:
        def boxes(self, rgb: np.ndarray, zoom: float, score: float = 0.6) -> list[Box]:
            return [Box(box, 0.9) for box in boxes[round(float(rgb.mean()) / LEVEL)] or ()]

    def look(detector: Detector, frames: list[np.ndarray], side: int, high: float) -> list[list[Box]]:
        return [detector.boxes(frame, 1.0) for frame in frames]

    monkeypatch.setattr(text, "_load", Detector)
    monkeypatch.setattr(text, "look", look)
    with TextScorer().open() as score:
        (row,) = score([evidence(len(boxes))]).to_pylist()
    return dict(row)


# Shares of the frame: 4 %; 6 %, of two boxes of 4 % that overlap by half; 8 %, right of what is as wide as it is high.
ONE, OTHER, WIDE = rectangle(40, 20, 120, 60), rectangle(80, 20, 160, 60), rectangle(220, 100, 380, 140)
HUGE = rectangle(0, 0, 399, 59)


def test_areas_are_of_the_union_per_position_and_the_largest_of_the_three(monkeypatch: pytest.MonkeyPatch) -> None:
    """Excludes the boxes' sum (8 % on the first), sums and means over the frames, frames in between, and a frame whose
    height is its width. Edges of boxes are inside them, which is worth a pixel a side."""
    row = scored(monkeypatch, [[ONE, OTHER], [HUGE], [WIDE], [HUGE], [ONE]])
    assert [row[f"text_area_{position}"] for position in ("first", "middle", "last")] == pytest.approx(
        [0.06, 0.08, 0.04], rel=0.04
    )
    assert row["text_area"] == row["text_area_middle"]
    assert row["text_boxes"] == 2


def test_boxes_are_the_most_on_one_frame_and_only_lines_of_text(monkeypatch: pytest.MonkeyPatch) -> None:
    square, tall = rectangle(200, 20, 240, 60), rectangle(20, 110, 390, 180)  # 70 of 200 px are more than three tenths
    row = scored(monkeypatch, [[ONE], [square, ONE, WIDE, square, tall], None])
    assert row["text_boxes"] == 2
    assert row["text_area_middle"] == pytest.approx(0.12, rel=0.04)
    assert row["text_area_last"] == 0
    none = scored(monkeypatch, [[square]])
    assert none.pop("text_quads") == []
    assert none.pop("text_static") is None
    assert set(none.values()) == {0}


@pytest.mark.parametrize(
    ("count", "looked"), [(1, (0, 0, 0)), (2, (0, 1, 1)), (3, (0, 1, 2)), (4, (0, 2, 3)), (5, (0, 2, 4))]
)
def test_the_middle_frame_is_the_later_one_of_two(count: int, looked: tuple[int, ...]) -> None:
    assert tuple(frame.pts for frame in first_middle_last(evidence(count).frames)) == looked


def test_the_area_of_a_slanted_box_is_its_own() -> None:
    """Excludes the area of the upright box about it, which is twice as large."""
    diamond = np.array([(100, 20), (180, 100), (100, 180), (20, 100)], np.float32)
    assert union_area([diamond], 200, 200) == pytest.approx(0.32, rel=0.03)
    assert union_area([diamond, rectangle(90, 90, 110, 110)], 200, 200) == union_area([diamond], 200, 200)
    assert union_area([], 200, 200) == 0


@pytest.mark.parametrize(
    ("length", "thickness", "is_line"),
    [(30, 20, True), (29, 20, False), (45, 30, True), (60, 31, False), (2, 0.5, True), (1.4, 0.5, False)],
)
@pytest.mark.parametrize("angle", [0, 45, 90])
def test_a_line_is_half_as_long_again_as_high_and_at_most_three_tenths_of_the_frame(
    length: float, thickness: float, is_line: bool, angle: float
) -> None:
    """Whichever way it runs: excludes the height of the upright box about it, and the frame's width for its height."""
    if angle == 45 and (length, thickness) in ((30, 20), (45, 30)):
        length += 0.01  # the rectangle found again is not exact
        thickness -= 0.01
    box = cv2.boxPoints(((100, 100), (length, thickness), angle))
    assert TextScorer()._is_line(box, 100) is is_line


# ---- titles, with the detector itself -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def look() -> Iterator[Callable[[np.ndarray], float]]:
    pytest.importorskip("rapidocr", reason="needs the text detector")
    with TextScorer().open() as score:

        def text_area(rgb: np.ndarray) -> float:
            frames = (EvidenceFrame(pts=0, jpeg=jpeg(rgb, 80)),)
            clip = Evidence(clip_id="a", span=Span(start=0, end=1, time_base=Fraction(1)), frames=frames)
            return float(score([clip])["text_area"][0].as_py())

        yield text_area


def title(words: str, scale: float, ink: int) -> tuple[np.ndarray, float]:
    """Lines of words in the middle of 640x360, and the share of the frame under their upright boxes."""
    rgb = np.full((360, 640, 3), 255 - ink, np.uint8)
    lines, thick, area = words.split("|"), int(scale * 3), 0
    for number, line in enumerate(lines):
        (width, height), _ = cv2.getTextSize(line, cv2.FONT_HERSHEY_SIMPLEX, scale, thick)
        at = ((640 - width) // 2, int(360 * (number + 1) / (len(lines) + 1) + height / 2))
        cv2.putText(rgb, line, at, cv2.FONT_HERSHEY_SIMPLEX, scale, (ink,) * 3, thick, cv2.LINE_AA)
        area += width * height
    return rgb, area / (640 * 360)


@pytest.mark.parametrize("ink", [0, 255], ids=["black on white", "white on black"])
@pytest.mark.parametrize(
    ("words", "scale"), [("NEWS", 2), ("NEWS", 4), ("NEWS", 8), ("THE|END", 4.5), ("THE|END", 6), ("BIG|TITLE|HERE", 4)]
)
def test_a_title_counts_however_high_it_is(
    look: Callable[[np.ndarray], float], words: str, scale: float, ink: int
) -> None:
    rgb, share = title(words, scale, ink)
    assert look(rgb) == pytest.approx(share, rel=0.5)


DOWN, ACROSS = np.mgrid[:360, :640]


@pytest.mark.parametrize(
    "light",
    [
        *(ACROSS // px % 2 for px in (16, 64, 120)),
        DOWN // 160 % 2,
        (ACROSS + DOWN) // 90 % 2,
        (ACROSS - 320) ** 2 + (DOWN - 180) ** 2 < 140**2,
        (ACROSS - 320) ** 2 + (DOWN - 180) ** 2 >= 175**2,
        (abs(ACROSS - 320) < 150) & (abs(DOWN - 180) < 100),
        (abs(ACROSS - 320) < 100) & (abs(DOWN - 180) < 150),
    ],
    ids=["16 px", "64 px", "120 px", "level", "slanted", "disc", "hole", "wall", "door"],
)
def test_stripes_discs_and_walls_are_no_titles(look: Callable[[np.ndarray], float], light: np.ndarray) -> None:
    assert look(np.repeat((light * 255).astype(np.uint8)[..., None], 3, 2)) == 0
