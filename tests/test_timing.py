"""Time as integers: spans, grids, ends."""

from __future__ import annotations

from fractions import Fraction

import pytest

from dailies.curation.timing import Grid, Span, end_of, ticks

NTSC = Fraction(1, 30000)


def test_a_span_is_half_open_and_exact() -> None:
    span = Span(start=1001, end=31031, time_base=NTSC)
    assert span.seconds == Fraction(30030, 30000)
    assert 1001 in span
    assert 31031 not in span


@pytest.mark.parametrize(("start", "end", "base"), [(5, 5, NTSC), (6, 5, NTSC), (0, 5, Fraction(0))])
def test_an_empty_span_is_refused(start: int, end: int, base: Fraction) -> None:
    with pytest.raises(ValueError, match=r"a span is not empty|time_base=.*: must be positive"):
        Span(start=start, end=end, time_base=base)


def test_ticks_of_seconds() -> None:
    assert ticks(0.5, Fraction(1, 12800)) == 6400
    assert ticks(Fraction(1, 3), Fraction(1, 100)) == 33
    assert ticks(Fraction(2, 3), Fraction(1, 100)) == 67  # the nearest, not the one before
    assert ticks(0.1, Fraction(1, 90_000)) == 9000


@pytest.mark.parametrize(
    ("pts", "duration", "end"), [([0, 512, 1024], None, 1536), ([0, 512, 1024], 256, 1280), ([7], None, 8), ([7], 0, 8)]
)
def test_the_end_is_the_first_tick_after_the_last_frame(pts: list[int], duration: int | None, end: int) -> None:
    assert end_of(pts, duration) == end


@pytest.mark.parametrize(
    ("gaps", "usual"),
    [
        ([10, 10, 10, 970], 10),
        ([10, 20, 20, 10], 10),
        ([100] * 40 + [10] * 8 + [100] * 7, 10),
        ([10] * 40 + [90] * 8, 90),
    ],
)
def test_the_usual_gap_is_the_median_of_the_last_fifteen(gaps: list[int], usual: int) -> None:
    """Excludes the last gap, the largest, the mean, and the median of all."""
    pts = [sum(gaps[:number]) for number in range(len(gaps) + 1)]
    assert end_of(pts) == pts[-1] + usual


def due(fps: float | None, pts: list[int], base: Fraction, origin: int = 0) -> list[int]:
    grid = Grid(fps, base, origin)
    return [p for p in pts if grid.due(p)]


def test_a_grid_takes_the_first_frame_at_or_after_each_point() -> None:
    base = Fraction(1, 100)
    pts = list(range(0, 200, 4))  # 25 frames per second
    assert due(2, pts, base) == [0, 52, 100, 152]
    assert due(None, pts, base) == pts


def test_a_grid_does_not_catch_up_after_a_gap() -> None:
    assert due(2, [0, 10, 240, 244, 260], Fraction(1, 100)) == [0, 240, 260]


def test_a_grid_depends_on_pts_alone() -> None:
    """Whoever begins later takes the same frames from the grid's next point on. Excludes a grid that moves by the frames
    that it takes, and one that begins at what it sees first."""
    base, pts = Fraction(1, 30000), [7 + 1001 * n for n in range(600)]
    points = range(pts[0], pts[-1] + 1, 15000)
    whole = [next(p for p in pts if p >= point) for point in points]
    assert due(2, pts, base, origin=pts[0]) == whole
    for begin in (240, 241, 250):
        later = [p for p in due(2, pts[begin:], base, origin=pts[0]) if p > pts[begin]]
        assert later == [p for p in whole if p > pts[begin]]
