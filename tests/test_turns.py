"""Streams that say of their own pictures how to turn them, and say it anew on the way: every clip is upright."""

from __future__ import annotations

from fractions import Fraction
from itertools import groupby
from pathlib import Path
from typing import Any

import av
import pytest

from dailies.curation import video
from dailies.curation.clips import clip_rows
from dailies.curation.detectors import BoundaryDetector
from dailies.curation.observers import BoundaryObserver
from dailies.curation.timing import Span
from dailies.curation.video import nal
from tests.rendered_video import GOP, remuxed, render, turning
from tests.test_geometry import COUNT, LARGE, RULES, TICK, check_modes, joined, observe_file, upright_disc

X265 = "keyint=9:min-keyint=9:scenecut=0:bframes=2:log-level=none"
CODERS: dict[str, dict[str, Any]] = {
    "h264": {"codec": "libx264", "options": {"x264-params": f"{GOP}:bframes=2"}},
    "hevc": {"codec": "libx265", "options": {"x265-params": X265}},
}
TURNS = (90, 0, 180, 0)  # of the groups of nine pictures, again and again; 0 is not said


def stating(path: Path, codec: str) -> Path:
    """A transport stream of 40 frames whose keyframes state ``TURNS``."""
    groups = iter(range(99))

    def change(_number: int, packet: Any) -> Any:
        turn = TURNS[next(groups) % 4] if packet.is_keyframe else 0
        return turning(packet, codec, turn) if turn else packet

    render(path.with_name("plain.ts"), pts=list(range(40)), time_base=Fraction(1, 25), **CODERS[codec])
    return remuxed(path.with_name("plain.ts"), path, change)


def turns(path: Path) -> list[tuple[int, int]]:
    """(degrees, frames) of each stretch of a source that is turned alike."""
    with video.open_source(str(path)) as source:
        seen = [90 * picture.canvas.upright.turns for picture in source.frames()]
    return [(turn, len(list(alike))) for turn, alike in groupby(seen)]


@pytest.mark.parametrize("codec", CODERS)
def test_another_turn_ends_the_shot_and_every_clip_is_upright(codec: str, tmp_path: Path) -> None:
    """Excludes the first frame's turn for all, a turn that outlives the part that states it, and a clip of which a part was
    encoded without it."""
    parts = [{"size": LARGE, "turn": turn, "picture": upright_disc(turn), **CODERS[codec]} for turn in (0, 90, 180, 0)]
    path = joined(tmp_path / "x.ts", *parts)
    row = observe_file(path, [BoundaryObserver()])
    assert [geometry["rotation"] for geometry in row["geometries"]] == [0, 90, 180, 0]
    clips = clip_rows(row, BoundaryDetector(), [BoundaryObserver()], RULES)
    assert [(c["first_frame"], c["frames"], c["width"], c["height"]) for c in clips] == [
        (0, 36, *LARGE), (36, 36, *LARGE[::-1]), (72, 36, *LARGE), (108, 36, *LARGE)
    ]  # fmt: skip
    assert {c["end_kind"] for c in clips[:-1]} == {"geometry"}
    for clip in clips[:3]:
        check_modes(path, clip, marked=True)
    late = {**clips[1], "start": clips[1]["start"] + 4 * TICK, "frames": COUNT - 4}
    assert check_modes(path, late, marked=True)["copy"] == 0


@pytest.mark.parametrize("codec", CODERS)
def test_a_turn_holds_from_keyframe_to_keyframe_wherever_the_stream_is_entered(codec: str, tmp_path: Path) -> None:
    """Excludes libav's word for each frame: HEVC's decoder keeps a turn for ever, and has that of a keyframe at pictures
    shown before it; H.264's has it at keyframes alone."""
    path = stating(tmp_path / "x.ts", codec)
    assert turns(path) == [(90, 9), (0, 9), (180, 9), (0, 9), (90, 4)]
    mkv = remuxed(path, tmp_path / "x.mkv")
    assert turns(mkv) == turns(path)
    with video.open_source(str(path)) as source:
        pts, base = [picture.pts for picture in source.frames()], source.time_base
    for first, turn in ((2, 90), (11, 0), (22, 180), (30, 0), (37, 90)):
        span = Span(start=pts[first], end=pts[first + 2], time_base=base)
        assert [90 * picture.canvas.upright.turns for picture in video.span_frames(str(path), span)] == [turn, turn]


def test_a_raw_stream_without_times_states_its_turns_too(tmp_path: Path) -> None:
    path = remuxed(stating(tmp_path / "x.ts", "h264"), tmp_path / "x.h264")
    assert turns(path) == [(90, 9), (0, 9), (180, 9), (0, 9), (90, 4)]


@pytest.mark.parametrize("name", ["x.mp4", "x.mkv"])
def test_a_containers_turn_holds_whatever_the_stream_states(name: str, tmp_path: Path) -> None:
    render(tmp_path / "turned.mp4", rotation=180, **CODERS["h264"])

    def change(number: int, packet: Any) -> Any:
        with_codes = av.Packet(nal.join(nal.split(bytes(packet), 4), 0))
        with_codes.pts, with_codes.dts, with_codes.time_base = packet.pts, packet.dts, packet.time_base
        with_codes.is_keyframe = packet.is_keyframe
        turned = turning(with_codes, "h264", 90)
        packed = av.Packet(nal.join(nal.split(bytes(turned), 0), 4))
        packed.pts, packed.dts, packed.time_base = packet.pts, packet.dts, packet.time_base
        packed.is_keyframe = packet.is_keyframe
        return packed if number in (0, 18) else packet

    path = remuxed(tmp_path / "turned.mp4", tmp_path / name, change)
    assert turns(path) == [(180, 36)]


def test_what_a_packet_says_of_its_turn() -> None:
    """Among other messages, behind a longer type and size, taken back, and cut short."""
    other, long = bytes([5, 2, 1, 2]), bytes([255, 1, 255, 0]) + bytes(range(1, 256))
    quarter, none, taken_back = (bytes([47, 3, first, 0, 9]) for first in (8, 0, 136))
    mirrored = bytes([47, 3, 64, 0, 9])

    def says(*messages: bytes) -> bool:
        return nal.states_turn("h264", nal.join([b"\x06" + b"".join(messages) + b"\x80", b"\x65abc"], 4), 4)

    assert says(quarter)
    assert says(mirrored)
    assert says(other, long, quarter)
    assert not says(none)
    assert not says(taken_back)
    assert not says(other, long)
    assert not says(quarter[:3])
    assert not says(bytes([255] * 9))
    assert not nal.states_turn("h264", b"\x00\x00\x00\x09\x06", 4)
