"""Sources whose frames are uneven: where they end, what is missing in them, and clips that last as long as their rows."""

from __future__ import annotations

import io
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from dailies.curation import video, world
from dailies.curation.clips import ClipRules, clip_rows
from dailies.curation.cuts import find_cuts
from dailies.curation.detectors.boundary import BoundaryDetector
from dailies.curation.observations import observe_row
from dailies.curation.observers.boundary import BoundaryObserver
from dailies.curation.timing import Span
from tests.rendered_video import render

MS = Fraction(1, 1000)
X264 = {"x264-params": "keyint=25:min-keyint=25:scenecut=0:bframes=3:b-adapt=0"}
VP9 = {"deadline": "realtime", "cpu-used": "8"}
EVEN = [40 * i for i in range(75)]
PAUSED = [*EVEN, 7000]  # one frame, four seconds later
TWICE = [*EVEN, *(13000 + at for at in EVEN), 36000]


def row_of(path: Path) -> dict[str, Any]:
    unit = {"source_id": "s", "uri": str(path), "manifest": None, "segment": 0, "segments": None, "origin": None}
    return observe_row(unit, [BoundaryObserver()], None)  # type: ignore[arg-type]


def clips_of(row: dict[str, Any], longest: float = 100) -> list[dict[str, Any]]:
    assert row["status"] == "ok", row["failure"]
    rules = ClipRules(min_seconds=0.5, max_seconds=longest)
    return clip_rows(row, BoundaryDetector(), [BoundaryObserver()], rules)


def rendered(path: Path, pts: list[int], **more: Any) -> Path:
    webm = path.suffix == ".webm"
    coded: dict[str, Any] = {"codec": "libvpx-vp9", "options": VP9} if webm else {"options": X264}
    still = {"picture": lambda _index, width, height: np.full((height, width, 3), 90, np.uint8)}
    render(path, pts=pts, time_base=MS, size=(64, 48), **(coded | still | more))
    return path


# ---- the end --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "webm", "ts", "mov"])
@pytest.mark.parametrize(("pts", "seconds"), [(PAUSED, 7.04), (TWICE, 36.04), ([*EVEN, 5000, 5040], 5.08)])
def test_a_pause_before_the_last_frame_does_not_make_it_last_as_long(
    suffix: str, pts: list[int], seconds: float, tmp_path: Path
) -> None:
    row = row_of(rendered(tmp_path / f"a.{suffix}", pts))
    assert len(row["pts"]) == len(pts)
    assert row["seconds"] == pytest.approx(seconds, abs=0.002)
    assert [clip["frames"] for clip in clips_of(row)] == [len(pts)]  # shown for long, and not missing


def test_a_matroska_file_ends_where_its_header_says(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(rendered(tmp_path / "b.mkv", EVEN)) as coded, av.open(path, "w") as container:
        stream = container.add_stream_from_template(coded.streams.video[0])
        for packet in coded.demux(video=0):
            if packet.size:
                packet.duration = 120 if packet.pts == EVEN[-1] else 40
                packet.stream = stream
                container.mux(packet)
    assert row_of(path)["seconds"] == pytest.approx(3.08, abs=0.001)


@pytest.mark.parametrize("mode", ["encode", "smart", "none"])
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_clip_lasts_as_long_as_its_row(mode: Any, suffix: str, tmp_path: Path) -> None:
    """Mp4 makes up lengths from decode times, which B-frames put before a pause."""
    for pts in (PAUSED, TWICE, [0, *(9000 + at for at in EVEN)], [*EVEN, 9000, 9040, 9080]):
        path = rendered(tmp_path / f"a.{suffix}", pts)
        (row,) = clips_of(row_of(path))
        span = Span(start=row["start"], end=row["end"], time_base=Fraction(row["time_base_num"], row["time_base_den"]))
        for codec in ("h264", "hevc") if mode == "encode" else ("h264",):
            clip = video.extract_clip(str(path), span, mode, encoding=video.Encoding(codec=codec))  # type: ignore[arg-type]
            assert (clip.frames, float(clip.span.seconds)) == (row["frames"], row["seconds"])
            if clip.data is None:
                continue
            with av.open(io.BytesIO(clip.data)) as container:
                stream = container.streams.video[0]
                frames = list(container.decode(stream))
                assert len(frames) == row["frames"]
                last = frames[-1]
                assert float((last.pts + last.duration) * stream.time_base) == pytest.approx(row["seconds"], abs=0.004)
                assert float(stream.duration * stream.time_base) == pytest.approx(row["seconds"], abs=0.004)
                assert container.duration / 1e6 == pytest.approx(row["seconds"], abs=0.004)


# ---- what is missing ------------------------------------------------------------------------------------------------


def without_fragments(path: Path, *gone: int) -> None:
    """Leave out the fragments (moof and mdat) of these numbers, as a live recording does."""
    data, at, kept, number = path.read_bytes(), 0, b"", -1
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        number += kind == b"moof"
        if kind not in (b"moof", b"mdat") or number not in gone:
            kept += data[at : at + length] if kind != b"mfra" else b""
        at += length
    path.write_bytes(kept)


def test_a_fragment_that_is_missing_ends_a_clip(tmp_path: Path) -> None:
    path = rendered(
        tmp_path / "a.mp4", [40 * i for i in range(150)], movflags="frag_keyframe+empty_moov+default_base_moof"
    )
    without_fragments(path, 2, 4)
    clips = clips_of(row_of(path))
    assert [(clip["first_frame"], clip["frames"], clip["seconds"]) for clip in clips] == [
        (0, 50, 2.0), (50, 25, 1.0), (75, 25, 1.0)
    ]  # fmt: skip
    assert [(clip["start_kind"], clip["end_kind"]) for clip in clips] == [
        ("source", "hole"), ("hole", "hole"), ("hole", "source")
    ]  # fmt: skip


def test_packets_missing_from_a_transport_stream_end_a_clip(tmp_path: Path) -> None:
    path = rendered(tmp_path / "a.ts", [40 * i for i in range(100)])
    with av.open(str(path)) as container:
        keys = [packet.pos for packet in container.demux(video=0) if packet.size and packet.is_keyframe]
    data = path.read_bytes()
    path.write_bytes(data[: keys[1]] + data[keys[3] :])
    clips = clips_of(row_of(path))
    assert (clips[0]["end_kind"], clips[1]["start_kind"]) == ("hole", "hole")
    assert clips[0]["seconds"] == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "webm", "ts"])
def test_a_few_dropped_frames_are_no_hole(suffix: str, tmp_path: Path) -> None:
    pts = [at for index, at in enumerate(EVEN) if index % 11 not in (3, 4, 5)]
    fragmented = {"movflags": "frag_keyframe+empty_moov"} if suffix == "mp4" else {}
    (clip,) = clips_of(row_of(rendered(tmp_path / f"a.{suffix}", pts, **fragmented)))
    assert clip["frames"] == len(pts)


def test_parts_that_overlap_by_two_frames_are_one_source(tmp_path: Path) -> None:
    """Two recordings of 75 frames, of which the second begins with the last two of the first."""
    path, parts = tmp_path / "a.ts", b""
    for number in range(2):
        pts = [number * 73 * 40 + at for at in EVEN]
        parts += rendered(tmp_path / f"{number}.ts", pts, options={"x264-params": "bframes=0"}).read_bytes()
    path.write_bytes(parts)
    row = row_of(path)
    assert row["status"] == "ok", row["failure"]
    assert [pts - row["pts"][0] for pts in row["pts"]] == [3600 * i for i in range(148)]


@pytest.mark.parametrize("start", [0, 1_000_000])
@pytest.mark.parametrize("suffix", ["mkv", "webm"])
def test_half_a_file_is_truncated_wherever_time_begins(start: int, suffix: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = {"picture": lambda _i, width, height: rng.integers(0, 255, (height, width, 3), np.uint8)}
    path = rendered(tmp_path / f"a.{suffix}", [start + at for at in EVEN], **noise)
    assert row_of(path)["seconds"] == pytest.approx(3, abs=0.005)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert row_of(path)["failure"]["kind"] == "truncated"


# ---- cuts -----------------------------------------------------------------------------------------------------------


def shots(count: int, seed: int) -> list[list[np.ndarray]]:
    return [
        list(world.frames(world.write_script((seed, shot), shots=1, shot_frames=(48, 49)))) for shot in range(count)
    ]


@pytest.mark.parametrize(("fps", "length"), [(1, 4), (Fraction(1, 2), 3), (2, 8)])
def test_slow_sources_are_cut(fps: Fraction | int, length: int, tmp_path: Path) -> None:
    pictures = [picture for shot in shots(4, 31) for picture in shot[:: 24 // length // 2][:length]]
    path = world.encode(pictures, tmp_path / "a.mp4", fps=fps)
    cuts = [first for _, (first, _) in find_cuts(str(path), [BoundaryObserver()], BoundaryDetector())]
    assert cuts == [length, 2 * length, 3 * length]


def test_slides_of_a_frame_each_share_no_clip(tmp_path: Path) -> None:
    path = world.encode([shot[0] for shot in shots(7, 32)], tmp_path / "a.mp4", fps=1)
    assert [clip["frames"] for clip in clips_of(row_of(path))] == [1] * 7


GOPS = {
    "fixed": ("libx264", {"x264-params": "scenecut=0:keyint=48:bframes=5:b-adapt=0"}),
    "open": ("libx264", {"x264-params": "open-gop=1:keyint=24:bframes=3:scenecut=0:b-pyramid=none"}),
    "hevc": ("libx265", {"x265-params": "log-level=none:bframes=8:b-adapt=0:scenecut=0"}),
}


@pytest.mark.parametrize("kind", GOPS)
def test_a_cut_is_exact_where_frames_are_skipped(kind: str, tmp_path: Path) -> None:
    codec, options = GOPS[kind]
    script = world.write_script((701,), transitions=["cut"] * 5, shot_frames=(30, 50))
    pictures = list(world.frames(script))
    height, width = pictures[0].shape[:2]
    path = tmp_path / "a.mp4"
    picture = {"picture": lambda index, _width, _height: pictures[index]}
    pts = list(range(len(pictures)))
    more: dict[str, Any] = {"codec": codec, "options": options, "size": (width, height), **picture}
    render(path, pts=pts, time_base=Fraction(1, 24), **more)
    cuts = [first for _, (first, _) in find_cuts(str(path), [BoundaryObserver()], BoundaryDetector())]
    assert cuts == [new for new, _ in script.spans[1:]]
