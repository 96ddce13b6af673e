"""Measures of flow maps made of numbers: what ``reduced`` and ``camera`` make of movements known in closed form.

``test_motion`` asks the same of coded video; these hold formula and unit, and say which other one they exclude.
"""

from __future__ import annotations

import cmath
import math

import numpy as np
import pytest

from dailies.curation.observers import camera
from dailies.curation.observers.motion import TRACKS, reduced

HALF = 0.5  # seconds


def flow_map(shift: complex = 0, twist: complex = 0, height: int = 240, width: int = 320) -> np.ndarray:
    """(h, w, 2): ``shift + twist · place`` px about the middle, x to the right and y downwards."""
    x, y = np.arange(width) + 0.5 - width / 2, np.arange(height) + 0.5 - height / 2
    flow = shift + twist * (x + 1j * y[:, None])
    return np.stack([flow.real, flow.imag], axis=-1).astype(np.float32)


def values(flow: np.ndarray, seconds: float = HALF) -> dict[str, float]:
    return dict(zip((name.removeprefix("motion_") for name in TRACKS), reduced(flow, seconds), strict=True))


@pytest.mark.parametrize(("height", "width"), [(120, 160), (160, 120)])
def test_shifts_are_px_of_a_short_side_of_240_per_half_second(height: int, width: int) -> None:
    """The picture moves 6 px left and 2 down in a quarter second, at a short side of 120: the camera turns right and up."""
    measured = values(flow_map(-6 + 2j, height=height, width=width), 0.25)
    assert measured == pytest.approx(
        {"motion": 4 * math.hypot(6, 2), "pan": 24, "tilt": 8, "zoom": 0, "roll": 0, "local": 0}, abs=1e-3
    )


@pytest.mark.parametrize(("height", "width"), [(240, 320), (320, 240)])
def test_zoom_and_roll_are_of_the_picture_about_its_middle(height: int, width: int) -> None:
    """It grows by a fifth and turns anticlockwise by 10 degrees, a negative angle where y points down. Excludes a zoom that
    is the real part of scale and turn (1.18), radians, and rows taken for columns."""
    twist = 1.2 * cmath.exp(-1j * math.radians(10)) - 1
    measured = values(flow_map(twist=twist, height=height, width=width))
    assert [measured[name] for name in ("pan", "tilt", "zoom", "roll", "local")] == pytest.approx(
        [0, 0, 20, 10, 0], abs=1e-2
    )


def test_zoom_compounds_over_time_and_roll_adds_up() -> None:
    """1.44 times as large within a second is 20 % per half second; excludes half of 44 %."""
    measured = values(flow_map(twist=1.44 * cmath.exp(-1j * math.radians(10)) - 1), 1.0)
    assert [measured["zoom"], measured["roll"]] == pytest.approx([20, 5], abs=1e-2)
    assert values(flow_map(twist=0.64 - 1), 1.0)["zoom"] == pytest.approx(-20, abs=1e-2)


def test_motion_is_the_mean_magnitude_of_the_averaged_map() -> None:
    """Halves that move apart move by 5: excludes the magnitude of the mean (3) and the largest (8). What alternates from
    pixel to pixel is noise: excludes magnitudes taken before the map is averaged (1.5)."""
    apart = flow_map(width=240)
    apart[:, :120, 0], apart[:, 120:, 0] = -2, 8
    assert values(apart)["motion"] == pytest.approx(5)
    noise = flow_map(height=480, width=480)
    noise[::2, :, 0], noise[1::2, :, 0] = 3, -3
    assert values(noise)["motion"] == pytest.approx(0, abs=1e-4)


def test_what_reads_low_at_the_edges_is_no_part_of_the_fit() -> None:
    """A pan by 6 whose flow is half a pixel short in the outermost eighth on every side. Excludes a fit to all places."""
    flow = flow_map(-5.5)
    flow[30:-30, 40:-40, 0] = -6
    assert values(flow)["pan"] == pytest.approx(6, abs=0.01)


def test_local_motion_is_the_mean_length_of_what_the_camera_leaves_over() -> None:
    """A quarter of the frame moves by 8 before a still camera: 2. Excludes root mean square (4), largest (8), median (0)."""
    flow = flow_map(width=240)
    flow[60:180, 60:180, 1] = 8
    for seconds in (HALF, 1.0):
        measured = values(flow, seconds)
        assert measured["local"] == pytest.approx(2 * HALF / seconds, rel=0.01)
        assert [measured[name] for name in ("pan", "tilt", "zoom", "roll")] == pytest.approx([0] * 4, abs=0.01)


def test_what_leaves_the_frame_is_no_local_motion() -> None:
    """The picture moves left by 72 of 240 px; where it leaves the frame, flow is a wrong guess."""
    flow = flow_map(-72, width=240)
    flow[:, :75] = 0
    measured = values(flow)
    assert measured["pan"] == pytest.approx(72, rel=0.01)
    assert measured["local"] == pytest.approx(0, abs=0.2)


# ---- words ----------------------------------------------------------------------------------------------------------


def label(**moved: list[float]) -> str | None:
    """Of measures that are zero but for those named; ``motion`` is 10 and ``local`` 0 unless named."""
    count = len(next(iter(moved.values())))
    columns = {name: np.zeros(count) for name in ("motion", "pan", "tilt", "zoom", "roll", "local")}
    columns["motion"] += 10
    return camera.label(*(columns | {name: np.array(each, float) for name, each in moved.items()}).values())


@pytest.mark.parametrize(
    ("moved", "words"),
    [
        # It stands below half a px, at 120 px from the middle: 0.42 % and 0.24 degrees are a little more.
        ({"pan": [0.5]}, "pan right"),
        ({"pan": [-0.5]}, "pan left"),
        ({"pan": [0.49]}, "static"),
        ({"tilt": [0.5]}, "tilt up"),
        ({"tilt": [-0.5]}, "tilt down"),
        ({"zoom": [0.42]}, "zoom in"),
        ({"zoom": [0.41]}, "static"),
        ({"zoom": [-0.42]}, "zoom out"),
        ({"roll": [0.24]}, "roll clockwise"),
        ({"roll": [0.23]}, "static"),
        ({"roll": [-0.24]}, "roll anticlockwise"),
        # A fifth of the strongest goes without saying, not of the sum of all.
        ({"pan": [10], "tilt": [2]}, "pan right, tilt up"),
        ({"pan": [10], "tilt": [1.99]}, "pan right"),
        # A direction is one that half of the way is left of.
        ({"pan": [3, -1]}, "pan right"),
        ({"pan": [-3, 1]}, "pan left"),
        ({"pan": [3, -1.1]}, "pan"),
        # It turns back twice at least, and at every third pair.
        ({"pan": [5, -5]}, "pan"),
        ({"pan": [5, -5, 5]}, "handheld"),
        ({"tilt": [5, 5, -5, 5, 5, 5, 5]}, "handheld"),
        ({"tilt": [5, 5, -5, 5, 5, 5, 5, 5]}, "tilt up"),
        ({"pan": [5, -0.4, 5, -0.4, 5]}, "pan right"),  # turns that are too small to count
        # More than four fifths of the flow, on average, is left over.
        ({"pan": [9], "local": [8]}, "pan right"),
        ({"pan": [9], "local": [8.01]}, "unclear"),
        ({"pan": [9, 9], "local": [9, 0]}, "pan right"),
        ({"pan": [0.1], "local": [10]}, "static"),
    ],
)
def test_camera_words_at_their_thresholds(moved: dict[str, list[float]], words: str) -> None:
    assert label(**moved) == words
