"""Leaving frames out that no other refers to: what is said of a source stays what reading all of it says."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import pytest

from dailies.curation import video
from dailies.curation.observe import observe
from dailies.curation.observers.luma import LumaObserver
from dailies.curation.types import FrameSampling
from tests.rendered_video import GOP, KINDS, number, render

ON_FRAMES = {"pts": [*range(36)], "time_base": Fraction(1, 25)}
MORE = {
    "mpeg2": (
        "ts",
        {"codec": "mpeg2video", "options": {"g": "12", "bf": "2"}, "pts": [*range(36)], "time_base": Fraction(1, 25)},
    ),
    "hevc": ("mp4", {"codec": "libx265", "options": {"x265-params": "keyint=12:bframes=4:log-level=none"}}),
    "two-frames": ("mp4", {"count": 2}),
}


def skipped(path: Path) -> tuple[list[int], list[int], bool]:
    """pts said, pts seen, and whether that was enough."""
    with video.open_source(str(path), skip_nonref=True) as source:
        seen = [picture.pts for picture in source.frames()]
        source.check()
        return source.decoder.shown(seen), seen, source.decoder.trusted(seen)


@pytest.mark.parametrize("kind", [*KINDS, *MORE])
def test_times_are_those_of_a_full_decode(kind: str, tmp_path: Path) -> None:
    suffix, options = (KINDS | MORE)[kind]
    path = tmp_path / f"a.{suffix}"
    render(path, **options)
    with video.open_source(str(path)) as source:
        every = [picture.pts for picture in source.frames()]
    said, seen, trusted = skipped(path)
    assert set(seen) <= set(every)
    assert not trusted or said == every
    assert list(observe(str(path), [LumaObserver()], None).pts) == every


def test_frames_are_left_out_where_that_saves_work_and_are_the_right_ones_where_not(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    render(path, options={"x264-params": f"{GOP}:bframes=5:b-pyramid=normal"})
    with video.open_source(str(path)) as source:
        every = [picture.pts for picture in source.frames()]
    with video.open_source(str(path), skip_nonref=True) as source:
        gray = FrameSampling(fps=None, short_side=108, planes="gray")
        numbers = [(every.index(picture.pts), number(picture.planes(gray))) for picture in source.frames()]
    assert len(numbers) < 30
    assert all(said == shown for said, shown in numbers)


def test_where_too_little_would_be_seen_every_frame_is(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    pts = [25 * i for i in range(60)]
    render(path, pts=pts, options={"x264-params": "keyint=60:bframes=16:b-pyramid=none:b-adapt=0"})
    _, seen, trusted = skipped(path)
    assert len(seen) < 20
    assert not trusted
    observed = observe(str(path), [LumaObserver()], None)
    assert [round(at * float(observed.probe.time_base) * 24) for at in observed.tracks[0].pts] == list(range(60))


def test_what_the_demuxer_calls_damaged_is_read_whole(tmp_path: Path) -> None:
    """A transport packet with its error bit set, within a frame that would have been left out."""
    path = tmp_path / "a.ts"
    render(path, options={"x264-params": f"{GOP}:bframes=2"})
    assert skipped(path)[2]
    with av.open(str(path)) as container:
        spare = min((packet for packet in container.demux(video=0) if packet.size), key=lambda packet: packet.size)
        place = spare.pos
    data = bytearray(path.read_bytes())
    assert data[place] == 0x47
    data[place + 1] |= 0x80
    path.write_bytes(data)
    assert not skipped(path)[2]
