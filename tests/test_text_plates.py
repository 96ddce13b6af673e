"""Plates under lines of text, and strokes that tell letters from shapes: from boxes that are known, without the detector."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from dailies.curation import world
from dailies.curation.scorers.dbnet import Box, union_area
from dailies.curation.scorers.plates import plate_about
from dailies.curation.scorers.strokes import strokes
from dailies.curation.scorers.text import TextScorer
from dailies.curation.scorers.titles import titles
from dailies.curation.video import jpeg, unjpeg
from dailies.curation.world.script import Background, Overlay, Script, Shape, Shot

PLATE = (200.0, 120.0, 440.0, 180.0)


def corners(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)], np.float32)


def on_a_plate(angle: float = 0, scale: float = 1, through: float = 0.15) -> tuple[np.ndarray, np.ndarray]:
    """A frame with a line on a dark plate that lets ``through`` some of a checked ground, and the matrix that turned it."""
    down, across = np.mgrid[:360, :640]
    rgb = np.where(((down // 40 + across // 40) % 2)[..., None] == 1, (150, 120, 90), (110, 90, 70)).astype(np.float32)
    left, top, right, bottom = map(int, PLATE)
    rgb[top:bottom, left:right] *= through
    rgb = cv2.putText(rgb.astype(np.uint8), "Late news", (218, 163), cv2.FONT_HERSHEY_SIMPLEX, 1.3, (250, 250, 250), 3)
    turn = cv2.getRotationMatrix2D((320, 150), angle, 1) * scale
    size = (round(640 * scale), round(360 * scale))
    return unjpeg(jpeg(cv2.warpAffine(rgb, turn, size, flags=cv2.INTER_AREA), 80)), turn


@pytest.mark.parametrize("by", [-3, 5, 12], ids=["too large", "as the detector's", "about the letters"])
@pytest.mark.parametrize(("angle", "scale"), [(0, 1), (0, 0.5), (12, 1), (90, 1)])
def test_a_plate_is_found_from_boxes_within_and_about_it(angle: float, scale: float, by: float) -> None:
    """To a px and a half on a side; excludes the box as it is, one grown by a fixed share, and the upright box of one that is
    turned."""
    rgb, turn = on_a_plate(angle, scale)
    left, top, right, bottom = PLATE
    box = corners(left + by, top + by, right - by, bottom - by) @ turn[:, :2].T + turn[:, 2]
    true = corners(*PLATE) @ turn[:, :2].T + turn[:, 2]
    plate = plate_about(rgb, box.astype(np.float32))
    assert plate is not None
    assert all(np.abs(true - corner).max(1).min() < 1.5 for corner in plate), (true, plate)


def test_walls_bars_and_the_picture_itself_are_no_plates() -> None:
    box = corners(207, 127, 433, 173).astype(np.float32)
    rgb, _ = on_a_plate()
    assert plate_about(rgb, box) is not None
    bar = rgb.copy()
    bar[120:180, :200], bar[120:180, 440:] = bar[125, 205], bar[125, 205]
    wall = np.full_like(rgb, 20)
    wall[120:180, 200:440] = rgb[120:180, 200:440]
    picture, _ = on_a_plate(through=1)
    for frame in (bar, wall, picture):
        assert plate_about(frame, box) is None


def test_a_line_on_a_plate_counts_with_its_plate() -> None:
    """Through the scorer: excludes plates that are found and left out."""
    rgb, _ = on_a_plate()

    class Detector:
        def boxes(self, rgb: np.ndarray, zoom: float, score: float = 0.6) -> list[Box]:
            return [Box(corners(207, 127, 433, 173), 0.9)]

    (boxes,) = [TextScorer()._texts(Detector(), rgb, Detector().boxes(rgb, 1.0))]
    assert union_area(boxes, 360, 640) == pytest.approx(240 * 60 / (640 * 360), rel=0.03)


# ---- letters and shapes ---------------------------------------------------------------------------------------------


def frame(*shapes: Shape, overlays: tuple[Overlay, ...] = ()) -> np.ndarray:
    shot = Shot(
        frames=4, background=Background(texture="checked", color="grey", seed=3), shapes=shapes, overlays=overlays
    )
    return unjpeg(jpeg(np.asarray(next(iter(world.frames(Script(shots=(shot,), size=(640, 360)))))), 80))


RING = Shape(kind="ring", color="red", radius=90, x=200, y=180)
CROSS = Shape(kind="cross", color="blue", radius=90, x=430, y=180)


@pytest.mark.parametrize("text", ["NEWS", "UP", "20:15", "Day 12"])
def test_letters_have_more_strokes_than_shapes(text: str) -> None:
    box = corners(80, 60, 560, 300).astype(np.float32)
    size = 200 if len(text) < 5 else 130
    assert strokes(frame(overlays=(Overlay(text=text, x=100, y=70, size=size),)), box) >= 4
    assert strokes(frame(RING, CROSS), box) <= 3
    assert strokes(frame(RING), box) == 2


class Sure:
    """A detector that takes all that it sees for a title."""

    def boxes(self, rgb: np.ndarray, zoom: float, score: float = 0.6) -> list[Box]:
        height, width = rgb.shape[:2]
        return [Box(corners(0.35 * width, 0.35 * height, 0.65 * width, 0.65 * height), 0.9)]


def test_a_ring_beside_a_cross_is_no_title_whatever_the_detector_says() -> None:
    high = [Box(corners(80, 60, 560, 300).astype(np.float32), 0.9)]
    title = frame(overlays=(Overlay(text="NEWS", x=100, y=70, size=200),))
    assert titles(Sure(), title, high, 640) == high
    assert titles(Sure(), frame(RING, CROSS), high, 640) == []
    assert titles(Sure(), title, [Box(corners(0, 0, 640, 350), 0.9)], 640) == []  # nearly all of the frame


def test_half_a_ring_at_the_edge_is_no_line_and_a_ticker_there_is() -> None:
    half = frame(Shape(kind="ring", color="white", radius=60, x=640, y=180))
    box = Box(corners(570, 110, 640, 250).astype(np.float32), 0.9)
    assert TextScorer()._texts(Sure(), half, [box]) == []
    ticker = frame(overlays=(Overlay(text="Breaking news", x=100, y=310, size=40),))
    line = Box(corners(95, 308, 400, 360).astype(np.float32), 0.9)
    assert len(TextScorer()._texts(Sure(), ticker, [line])) == 1
