"""Per-frame signals and their measures on tiny frames, against numbers worked out by hand.

Tests of the single signals ask whether they see what they should in coded video; these ask for the exact formula, and name
in their docstrings which other one they exclude.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from dailies.curation.detectors.boundary import BoundaryDetector
from dailies.curation.detectors.content import ContentDetector
from dailies.curation.observers.borders import BordersObserver, agreed, bars, depth, paired
from dailies.curation.observers.boundary import HELD_TRACK, TRACKS, BoundaryObserver
from dailies.curation.observers.change import ChangeObserver
from dailies.curation.observers.combing import COMBED, WINDOW, CombingObserver, combed
from dailies.curation.observers.combing import WIDTH as CELL
from dailies.curation.observers.duplicates import DuplicatesObserver, repeats
from dailies.curation.observers.luma import LumaObserver
from dailies.curation.observers.sharpness import SharpnessObserver
from dailies.curation.observers.tracking import mean_within, within
from dailies.curation.timing import Span
from dailies.curation.types import Frame, Probe, Track

BASE = Fraction(1, 10)
STEP = 10  # ticks between frames: one a second
PROBE = Probe(
    container="mp4", codec="h264", stream=0, width=64, height=36, rotation=0, pixel_format="yuv420p", pixel_aspect=1.0,
    interlaced=False, hdr=False, time_base=BASE, start=0, duration=None, frames=None, fps=None, has_audio=False,
)  # fmt: skip


def tracks_of(observer: Any, pictures: Sequence[np.ndarray]) -> dict[str, Track]:
    live = observer.start(PROBE)
    for number, pixels in enumerate(pictures):
        live.see(Frame(pts=STEP * number, pixels=pixels))
    return {track.name: track for track in live.finish()}


def track(name: str, values: Sequence[float], pts: Sequence[int] | None = None) -> Track:
    ticks = [STEP * number for number in range(len(values))] if pts is None else pts
    return Track(name=name, pts=np.asarray(ticks, np.int64), values=np.asarray(values, np.float32))


def span(start: int, end: int) -> Span:
    return Span(start=start, end=end, time_base=BASE)


def flat(level: int, height: int = 36, width: int = 64) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


# ---- what the observers share ---------------------------------------------------------------------------------------


def test_a_measure_is_the_mean_over_the_frames_within_the_span() -> None:
    """Excludes the median, the frame at the span's end, and no frame at its start."""
    values = track("x", [9, 1, 2, 6, 90])
    assert mean_within(values, span(10, 40)) == 3
    assert mean_within(values, span(10, 40), pairs=True) == 4
    assert mean_within(values, span(10, 41)) == 99 / 4
    assert within(values, span(10, 40)).tolist() == [1, 2, 6]
    assert mean_within(track("x", [math.nan, 1, 2]), span(0, 30)) == 1.5
    assert mean_within(values, span(10, 20), pairs=True) is None


# ---- luma, sharpness ------------------------------------------------------------------------------------------------


def test_luma_is_the_mean_over_all_pixels_and_frames() -> None:
    """A plane of luma x + 8y: its mean is that of its middle, 11.5 + 8 · 7.5, which is no pixel's or row's."""
    y, x = np.mgrid[:16, :24]
    pictures = [(x + 8 * y).astype(np.uint8), np.full((16, 24), 40, np.uint8), np.full((16, 24), 250, np.uint8)]
    tracks = tracks_of(LumaObserver(), pictures)
    assert tracks["luma"].values.tolist() == [71.5, 40, 250]
    assert LumaObserver().reduce(tracks, span(0, 20)) == {"luma": (71.5 + 40) / 2}


def test_sharpness_is_the_variance_of_the_laplacian() -> None:
    """Excludes the standard deviation, the mean square, one direction only, and a Laplacian without its negative half.

    A pixel h above its surroundings: -4h there, h at its four neighbours, mean 0, squares 20h². The parabola x², mirrored
    about its border pixels: 2 everywhere but 6 - 4w at the right, whose mean is not 0.
    """
    dot = np.zeros((16, 16), np.uint8)
    dot[7, 8] = 10
    parabola = np.tile((np.arange(16) ** 2).astype(np.uint8), (16, 1))
    values = np.array([2] * 15 + [6 - 4 * 16], float)
    tracks = tracks_of(SharpnessObserver(), [dot, parabola, parabola.T.copy()])
    variance = (values**2).mean() - values.mean() ** 2
    assert tracks["sharpness"].values == pytest.approx([20 * 10**2 / 256, variance, variance], rel=1e-5)
    measured = SharpnessObserver().reduce(tracks, span(0, 20))["sharpness"]
    assert measured == pytest.approx((7.8125 + variance) / 2, rel=1e-5)


# ---- change, boundary steps, detectors ------------------------------------------------------------------------------


def test_change_is_the_mean_of_three_channels_and_unknown_at_first() -> None:
    """Grey 10 becomes grey 40: value changes by 30, hue and saturation not at all."""
    values = tracks_of(ChangeObserver(), [flat(10), flat(40), flat(40), flat(34)])["change"].values
    assert math.isnan(values[0])
    assert values[1:] == pytest.approx([10, 0, 2])


def test_a_boundary_step_is_the_mean_difference_from_the_frame_before() -> None:
    """Blue of half the pixels changes by 30: 30 / 3 / 2. Excludes the root mean square (12.2) and the largest (30)."""
    half = flat(50)
    half[:, :32, 0] += 30
    values = tracks_of(BoundaryObserver(), [flat(50), half, half, flat(50)])["boundary"].values
    assert math.isnan(values[0])
    assert values[1:].tolist() == [5, 0, 5]


def boundary_tracks(steps: Mapping[int, float], **strengths: Mapping[int, float]) -> dict[str, Track]:
    """Twenty samples 10 ticks apart, and a frame every 2 ticks; zero where nothing is named."""
    frames = range(0, 200, 2)
    tracks = {"boundary": track("boundary", [steps.get(pts, 0.0) for pts in frames], list(frames))}
    for name in TRACKS:
        values = strengths.get(name.removeprefix("boundary_"), {})
        tracks[name] = track(name, [values.get(number, 0.0) for number in range(20)])
    return tracks


@pytest.mark.parametrize("at", [42, 46, 50])
def test_a_hard_cut_lies_at_the_largest_step_since_the_sample_before(at: int) -> None:
    """A strength of just the threshold passes. Steps at or before the sample before, and after this one, don't count."""
    tracks = boundary_tracks({at: 9, 40: 99, 38: 99, 52: 99}, cut={5: 0.5})
    (cut,) = BoundaryDetector(hard=0.5).cuts(tracks)
    assert (cut.start, cut.end, cut.kind, cut.strength) == (at - 2, at, "cut", 1)
    assert BoundaryDetector(hard=0.51).cuts(tracks) == []
    (cut,) = BoundaryDetector(hard=0.25).cuts(tracks)
    assert cut.strength == 2


@pytest.mark.parametrize(("guard", "start", "end"), [(0, 40, 80), (1, 30, 90), (3, 10, 110)])
def test_a_transition_reaches_from_the_sample_before_to_the_one_after_and_the_guard_on_both_sides(
    guard: int, start: int, end: int
) -> None:
    tracks = boundary_tracks({}, blend={4: 0.05, 5: 0.1, 6: 0.95, 7: 0.1}, middle={6: 0.25})
    (cut,) = BoundaryDetector(edge=0.1, gradual=0.9, guard=guard).cuts(tracks)
    assert (cut.start, cut.end, cut.kind, cut.core) == (start, end, "dissolve", (60, 60))
    assert cut.strength == pytest.approx(0.95 / 0.9)


def test_a_run_of_blends_without_a_middle_is_motion() -> None:
    tracks = boundary_tracks({}, blend={5: 0.5, 6: 0.95, 7: 0.5}, middle={6: 0.24, 9: 1.0})
    assert BoundaryDetector().cuts(tracks) == []


@pytest.mark.parametrize(("guard", "spans"), [(0, [(30, 70), (70, 100)]), (1, [(20, 110)])])
def test_transitions_that_overlap_are_one_and_those_that_touch_are_two(
    guard: int, spans: list[tuple[int, int]]
) -> None:
    """What two become has the strength and the core of the stronger, which is the later one."""
    tracks = boundary_tracks({}, blend={4: 0.4, 5: 0.92, 6: 0.4, 8: 0.99, 9: 0.4}, middle={5: 0.25, 8: 0.25})
    cuts = BoundaryDetector(guard=guard).cuts(tracks)
    assert [(cut.start, cut.end) for cut in cuts] == spans
    assert (cuts[-1].strength, cuts[-1].core) == (pytest.approx(0.99 / 0.9), (80, 80))


@pytest.mark.parametrize(("at", "kinds"), [(40, 2), (42, 1), (80, 1), (82, 2)])
def test_a_hard_cut_within_a_transition_is_part_of_it(at: int, kinds: int) -> None:
    """The transition is from the frame at 40 to that at 80; a cut at 80 lies between the frame before and that one."""
    tracks = boundary_tracks({at: 9}, cut={-(-at // 10): 0.9}, blend={5: 0.5, 6: 0.95, 7: 0.5}, middle={6: 0.25})
    cuts = BoundaryDetector(guard=0).cuts(tracks)
    assert len(cuts) == kinds
    assert [(cut.start, cut.end) for cut in cuts if cut.kind == "dissolve"] == [(40, 80)]


@pytest.mark.parametrize(("seen", "held"), [(0.9, 0.6), (0.6, 0.9)])
def test_a_cut_at_a_pause_is_as_strong_as_the_stronger_of_two_looks(seen: float, held: float) -> None:
    tracks = boundary_tracks({46: 9}, cut={5: seen}) | {HELD_TRACK: track(HELD_TRACK, [held], [50])}
    (cut,) = BoundaryDetector(hard=0.5).cuts(tracks)
    assert (cut.start, cut.end, cut.strength) == (44, 46, pytest.approx(1.8))


def test_content_cuts_right_before_a_frame_that_reaches_the_threshold() -> None:
    (one, other) = ContentDetector().cuts({"change": track("change", [math.nan, 5, 27, 26.9, 54])})
    assert (one.start, one.end, one.strength) == (10, 20, 1)
    assert (other.start, other.end, other.strength) == (30, 40, 2)


# ---- combing --------------------------------------------------------------------------------------------------------


def woven(shift: int, light: int = 200, height: int = 64, width: int = 480) -> np.ndarray:
    """A vertical edge whose odd lines are ``shift`` px farther right than its even ones."""
    gray = np.full((height, width), 60, np.uint8)
    gray[::2, 200:] = gray[1::2, 200 + shift :] = light
    return gray


@pytest.mark.parametrize("shift", [4, -8, 20, 48])
def test_the_combed_share_is_that_of_the_cells_with_teeth_and_around_them(shift: int) -> None:
    """Teeth are as wide as the shift; a window of nine cells holds some of them four cells to either side, too. Excludes
    shifts to one side only and half as far."""
    cells = abs(shift) / CELL + WINDOW - 1
    assert combed(woven(shift)) == pytest.approx(cells / (480 / CELL))


def test_teeth_count_from_four_of_luma_on() -> None:
    """Fields 3 apart all over are no teeth, 60 px of 5 are; 3² is more than 4, which a limit that isn't squared takes."""
    assert combed(woven(40, light=63)) == 0
    assert combed(woven(40, light=66)) > 0.05


def test_the_measure_is_the_share_of_frames_not_of_cells() -> None:
    tracks = {"combing": track("combing", [0, COMBED / 2, 2 * COMBED, 0.5, 1, 1])}
    assert CombingObserver().reduce(tracks, span(0, 40)) == {"combing_share": 0.5}
    assert CombingObserver().reduce(tracks, span(20, 60)) == {"combing_share": 1}


# ---- duplicates -----------------------------------------------------------------------------------------------------


def test_a_change_is_the_fourth_root_of_the_mean_fourth_power() -> None:
    """One of 256 pixels by 40: 40 / 4. Excludes the root mean square (2.5) and squares that end at 255."""
    still, dot = np.zeros((2, 16, 16), np.uint8)
    dot[3, 5] = 40
    values = tracks_of(DuplicatesObserver(), [still, dot, dot, still])["duplicates"].values
    assert math.isnan(values[0])
    assert values[1:] == pytest.approx([10, 0, 10])


def test_a_repeat_changes_by_less_than_the_largest_change_within_three_frames_on_either_side() -> None:
    """Excludes the mean of the changes nearby, and neighbours on one side only."""
    changes = np.array([10, 1, 1, 3.9, 1, 1, 1, 1], np.float32)
    known = [False, True, True, True, True, True, True, False]
    assert repeats(changes).tolist() == known
    assert repeats(changes[::-1]).tolist() == known[::-1]
    assert repeats(np.array([0.25, 0.26], np.float32)).tolist() == [True, False]


def test_shares_are_of_the_frames_that_have_one_before_and_freezes_last_until_the_next_picture() -> None:
    """Pictures come at 0, 1 and 5 s. Of four frames that have one before, two repeat it: excludes two of five. The last
    picture stands until the clip's end: excludes the last frame's own time."""
    tracks = {"duplicates": track("duplicates", [math.nan, 8, 0, 8, 0, 8], [0, 10, 20, 50, 60, 100])}
    assert DuplicatesObserver().reduce(tracks, span(0, 100)) == {"duplicate_share": 0.5, "frozen_seconds": 5}
    assert DuplicatesObserver().reduce(tracks, span(0, 75)) == {"duplicate_share": 0.5, "frozen_seconds": 4}
    assert DuplicatesObserver().reduce(tracks, span(20, 75)) == {"duplicate_share": 0.5, "frozen_seconds": 3}


# ---- borders --------------------------------------------------------------------------------------------------------


def boxed(left: int, top: int, right: int, bottom: int, level: int = 0) -> np.ndarray:
    gray = np.full((180, 320), level, np.uint8)
    gray[top : 180 - bottom, left : 320 - right] = 150
    return gray


def test_each_side_has_its_own_bar_to_the_pixel() -> None:
    """Four sides that differ: excludes sides swapped and counted from the wrong end."""
    names = ["borders", "borders_left", "borders_top", "borders_right", "borders_bottom"]
    tracks = tracks_of(BordersObserver(), [boxed(12, 20, 16, 25)] * 3)
    assert list(tracks) == names
    assert [tracks[name].values.tolist() for name in names] == [[0] * 3, [12] * 3, [20] * 3, [16] * 3, [25] * 3]
    wanted = {"border_left": 12, "border_top": 20, "border_right": 16, "border_bottom": 25}
    assert BordersObserver().reduce(tracks, span(0, 30)) == wanted


def test_a_bar_is_as_bright_as_most_of_its_outermost_line_and_no_brighter_than_black() -> None:
    """A logo at the frame's edges lifts the lines' mean, not their median."""
    gray = boxed(12, 20, 16, 25)
    for line in (gray[0], gray[-1], gray[:, 0], gray[:, -1]):
        line[10 : 10 + len(line) // 25] = 255
    assert bars(gray) == (0, 12, 20, 16, 25)
    assert bars(boxed(12, 20, 16, 25, level=40)) == (40, 12, 20, 16, 25)
    assert bars(boxed(12, 20, 16, 25, level=41)) == (41, 0, 0, 0, 0)


def shares(*runs: tuple[int, float]) -> np.ndarray:
    """So many lines of which that share is lit, one run after the other."""
    return np.concatenate([np.full(count, share, np.float32) for count, share in runs])


@pytest.mark.parametrize(
    ("lines", "deep"),
    [
        (shares((30, 0), (170, 1)), 30),
        (shares((30, 0.05), (170, 0.41)), 30),
        (shares((30, 0.06), (170, 1)), 0),
        (shares((30, 0), (170, 0.4)), -30),  # no edge
        (shares((6, 0), (18, 0.3), (6, 0), (170, 1)), 30),  # text lights three fifths of the bar
        (shares((6, 0), (19, 0.3), (5, 0), (170, 1)), -6),  # and more of it
        (shares((26, 0), (4, 0.3), (170, 1)), -26),  # not at once
        (shares((26, 0), (3, 0.3), (171, 1)), 29),
        (shares((99, 0), (101, 1)), 99),
        (shares((100, 0), (100, 1)), -100),  # half the frame
    ],
)
def test_the_depth_of_a_bar(lines: np.ndarray, deep: float) -> None:
    assert depth(lines, solid=True) == deep


@pytest.mark.parametrize(
    ("values", "agrees"),
    [
        ([20] * 7 + [60], 20),  # a dark part of the picture beside the bar
        ([10] + [20] * 7, 20),  # one of eight is forgiven
        ([10] + [20] * 6, 0),  # one of seven is not
        ([20, 20, 20, 40, 40], 20),
        ([20, 20, 40, 40], 0),  # half is not most
        ([20, 20, 22, 22], 20),
        ([20, 20, 23, 23], 0),
        ([20, -18], 20),
        ([20, -17], 0),
        ([-10, -30, -60], -30),
        ([], None),
    ],
)
def test_the_frames_of_a_clip_agree_on_the_narrowest_bar(values: list[float], agrees: float | None) -> None:
    assert agreed(track("borders_top", values), span(0, 1000)) == agrees


@pytest.mark.parametrize(
    ("one", "other", "pair"),
    [
        (20, 28, (20, 28)),  # 8 px apart
        (20, 29, (20, 20)),  # more, and more than a quarter
        (40, 30, (40, 30)),  # a quarter apart
        (40, 29, (29, 29)),
        (None, 20, (None, None)),
        (23, -21, (23, 23)),
        (23, -20, (0, 0)),
        (-1, -60, (None, None)),
    ],
)
def test_bars_come_in_pairs(one: float | None, other: float | None, pair: tuple[float | None, ...]) -> None:
    assert paired(one, other) == pair
    assert paired(other, one) == pair[::-1]
