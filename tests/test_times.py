"""Timestamps as people's files have them: every frame at its own time, or a failed row that says what is wrong with them."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from dailies.curation import video
from dailies.curation.timing import Span
from tests.observed import GRAY, check_frames, observed, times
from tests.rendered_video import number, remuxed, render

COUNT = 24
EVEN = [Fraction(index, 25) for index in range(COUNT)]
UNEVEN = [
    0,
    10,
    50,
    51,
    52,
    200,
    201,
    400,
    401,
    403,
    406,
    500,
    600,
    601,
    602,
    700,
    701,
    800,
    900,
    1000,
    1001,
    1010,
    1200,
    2000,
]
X264: dict[str, Any] = {"options": {"x264-params": "keyint=6:min-keyint=6:scenecut=0:bframes=2:b-adapt=0"}}
OPEN: dict[str, Any] = {"options": {"x264-params": "keyint=6:min-keyint=6:scenecut=0:bframes=2:b-adapt=0:open-gop=1"}}
X265: dict[str, Any] = {"codec": "libx265", "options": {"x265-params": "log-level=none:keyint=6:bframes=2"}}
VP9: dict[str, Any] = {"codec": "libvpx-vp9", "options": {"g": "6", "deadline": "realtime", "cpu-used": "8"}}
MPEG2: dict[str, Any] = {"codec": "mpeg2video", "options": {"qmax": "2", "g": "6", "bf": "2"}}
MPEG4: dict[str, Any] = {"codec": "mpeg4", "options": {"qmax": "2", "g": "6", "bf": "2"}}
AS_WRITTEN = {"avoid_negative_ts": "disabled", "mpegts_copyts": "1"}  # else muxers begin at zero or later


@pytest.fixture(scope="module")
def even(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("even") / "even.mp4"
    render(path, count=COUNT, **X264)
    return path


def shifted(seconds: Fraction | int, since: int = 0) -> Callable[[int, Any], Any]:
    """A change of packets: those from the ``since``-th on come later."""

    def change(index: int, packet: Any) -> Any:
        if index >= since:
            packet.pts += round(seconds / packet.time_base)
            packet.dts += round(seconds / packet.time_base)
        return packet

    return change


def check_spans(path: Path, row: dict[str, Any], numbers: list[int] | None = None) -> None:
    """Frames that are sought are those that streaming gives."""
    base = Fraction(row["probe"]["time_base_num"], row["probe"]["time_base_den"])
    for index in (0, 1, 4, 7, 12, 13, len(row["pts"]) - 1):
        span = Span(start=row["pts"][index], end=row["pts"][index] + 1, time_base=base)
        (picture,) = video.span_frames(str(path), span)
        assert number(picture.planes(GRAY)) == (index if numbers is None else numbers[index])


# ---- rates that vary, and times that are missing --------------------------------------------------------------------

RENDERED = {
    "uneven.mp4": (X264, UNEVEN),
    "uneven.mov": (X265, UNEVEN),
    "uneven.mkv": (X264, UNEVEN),
    "uneven.ts": (X264, UNEVEN),
    "uneven.flv": (X264, UNEVEN),
    "uneven.webm": (VP9, UNEVEN),
    "untimed.h264": (X264, None),
    "untimed.hevc": (X265, None),
    "untimed.m2v": (MPEG2, None),
    "no-pts-h264.avi": (X264, None),
    "no-pts-mpeg4.avi": (MPEG4, None),
}


@pytest.mark.parametrize("name", RENDERED)
def test_frames_have_the_times_that_the_file_gives_or_lets_tell(name: str, tmp_path: Path) -> None:
    path, (settings, pts) = tmp_path / name, RENDERED[name]
    base = Fraction(1, 25) if pts is None else Fraction(1, 100)
    if path.suffix == ".flv":
        pts, base = [10 * at for at in UNEVEN], Fraction(1, 1000)
    render(path, **{**settings, "pts": pts or list(range(COUNT)), "time_base": base})
    row = observed(path)
    check_frames(path, row, [at * base for at in pts or range(COUNT)])
    check_spans(path, row)


# ---- times moved ----------------------------------------------------------------------------------------------------

WRAP = Fraction(2**33, 90_000)  # where a transport stream's clock starts again
MOVED: dict[
    str, tuple[str, Callable[[int, Any], Any], int]
] = {  # suffix, what is done to the packets, the first second
    "late.mp4": ("mp4", shifted(5), 5),
    "late.mkv": ("mkv", shifted(5), 5),
    "late.ts": ("ts", shifted(5), 5),
    "late.flv": ("flv", shifted(5), 5),
    "negative.ts": ("ts", shifted(-1), -1),
    "wrapping.ts": ("ts", shifted(WRAP - 1), -1),
}


@pytest.mark.parametrize("name", MOVED)
def test_a_start_that_is_late_negative_or_wraps_is_kept(name: str, even: Path, tmp_path: Path) -> None:
    suffix, change, start = MOVED[name]
    path = remuxed(even, tmp_path / f"a.{suffix}", change, **AS_WRITTEN)
    row = observed(path)
    check_frames(path, row, [start + at for at in EVEN])
    check_spans(path, row)
    assert abs(times(row)[0] - start) < Fraction(1, 1000)


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "ts", "flv"])
def test_a_gap_of_a_thousand_seconds_is_one_frame_long(suffix: str, even: Path, tmp_path: Path) -> None:
    path = remuxed(even, tmp_path / f"a.{suffix}", shifted(1000, since=12))
    row = observed(path)
    check_frames(path, row, [at + (1000 if at >= EVEN[12] else 0) for at in EVEN])
    check_spans(path, row)


def test_a_clock_that_wraps_within_a_gap_goes_on_rising(even: Path, tmp_path: Path) -> None:
    def change(index: int, packet: Any) -> Any:
        return shifted(WRAP - 100 + (200 if index >= 12 else 0))(index, packet)

    path = remuxed(even, tmp_path / "a.ts", change, **AS_WRITTEN)
    row = observed(path)
    check_frames(path, row, [at + (200 if at >= EVEN[12] else 0) for at in EVEN])
    check_spans(path, row)


@pytest.mark.parametrize("settings", [X264, OPEN, X265], ids=["closed", "open", "hevc"])
def test_an_edit_list_may_start_at_any_frame(settings: dict[str, Any], tmp_path: Path) -> None:
    whole = tmp_path / "whole.mp4"
    render(whole, count=COUNT, **settings)
    for first in range(13):
        path = remuxed(whole, tmp_path / "a.mp4", shifted(-EVEN[first]))
        row, kept = observed(path), list(range(first, COUNT))
        check_frames(path, row, EVEN[: len(kept)], kept)
        if first in (5, 10):
            check_spans(path, row, kept)
        assert row["origin"] == row["pts"][0]


# ---- times that contradict each other -------------------------------------------------------------------------------


def test_of_frames_with_the_same_time_the_first_stays(even: Path, tmp_path: Path) -> None:
    def change(_index: int, packet: Any) -> Any:
        tenth = packet.pts * packet.time_base == EVEN[9]
        packet.pts -= round(Fraction(1, 25) / packet.time_base) if tenth else 0
        return packet

    path = remuxed(even, tmp_path / "a.mkv", change)
    row = observed(path)
    stays = [index for index in range(COUNT) if index != 9]
    check_frames(path, row, [EVEN[index] for index in stays], stays)
    check_spans(path, row, stays)


def twice(even: Path, path: Path) -> None:
    """A transport stream, and the same once more."""
    once = remuxed(even, path.with_name("once.ts")).read_bytes()
    path.write_bytes(once + once)


def tail(even: Path, path: Path) -> None:
    """A transport stream, and its first six frames once more."""
    once = remuxed(even, path.with_name("once.ts"))
    again = remuxed(even, path.with_name("again.ts"), lambda index, packet: packet if index < 6 else None)
    path.write_bytes(once.read_bytes() + again.read_bytes())


def program(_even: Path, path: Path) -> None:
    """A program stream, and the same once more."""
    render(path, pts=list(range(COUNT)), time_base=Fraction(1, 25), **MPEG2)
    path.write_bytes(path.read_bytes() * 2)


CONTRADICTING = {"twice.ts": twice, "tail.ts": tail, "twice.mpg": program}


@pytest.mark.parametrize("name", CONTRADICTING)
def test_a_time_that_comes_twice_is_a_failed_row(name: str, even: Path, tmp_path: Path) -> None:
    path = tmp_path / name
    CONTRADICTING[name](even, path)
    row = observed(path)
    assert (row["status"], row["failure"]["kind"]) == ("failed", "broken")
    assert row["failure"]["message"].startswith("time jumps back from ")
    assert not row["pts"]


def test_frames_without_a_time_among_others_with_one_are_a_failed_row(even: Path, tmp_path: Path) -> None:
    """Negative times in Matroska, whose clusters cannot hold them."""
    path = remuxed(even, tmp_path / "a.mkv", shifted(-Fraction(2, 5)), **AS_WRITTEN)
    row = observed(path)
    assert (row["status"], row["failure"]["kind"]) == ("failed", "broken")
    assert row["failure"]["message"] == "10 of 24 frames have no time"
