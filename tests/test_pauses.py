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
from dailies.curation.observe import HOLES, Segment, observe
from dailies.curation.observers.boundary import BoundaryObserver
from dailies.curation.timing import Span
from tests.rendered_video import render

MS = Fraction(1, 1000)
X264 = {"x264-params": "keyint=25:min-keyint=25:scenecut=0:bframes=3:b-adapt=0"}
INTRA = {"x264-params": "keyint=1:bframes=0"}
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


@pytest.mark.parametrize("codec", ["libvpx", "ffv1", "libvpx-vp9", "libx264"])
@pytest.mark.parametrize("mode", ["copy", "smart", "encode"])
def test_the_clip_of_any_codec_lasts_as_long_as_its_row_and_is_read_so(mode: Any, codec: str, tmp_path: Path) -> None:
    """Of frames that end with one held for long, with a short one, or with one that B-frames come before."""
    options = {"ffv1": {"g": "1"}, "libx264": X264}.get(codec, VP9)
    path = tmp_path / ("a.webm" if "vpx" in codec else "a.mkv")
    rendered(path, [*EVEN, 7000, 7012, 7100], codec=codec, options=options)
    for end, frames in ((7000, 75), (7012, 76), (7100, 77)):
        clip = video.extract_clip(str(path), Span(start=0, end=end, time_base=MS), mode)
        assert clip.data is not None
        assert clip.frames <= frames if mode == "copy" else clip.frames == frames
        made = tmp_path / "made"
        made.write_bytes(clip.data)
        row = row_of(made)
        assert row["status"] == "ok", row["failure"]
        assert (len(row["pts"]), row["seconds"]) == (clip.frames, pytest.approx(float(clip.span.seconds), abs=0.003))
        with av.open(io.BytesIO(clip.data)) as container:
            assert container.duration / 1e6 == pytest.approx(float(clip.span.seconds), abs=0.003)


def held_until_seven(path: Path) -> Path:
    span = Span(start=0, end=7000, time_base=MS)
    rng = np.random.default_rng(0)
    noise = {"picture": lambda _i, width, height: rng.integers(0, 255, (height, width, 3), np.uint8)}
    source = rendered(path.with_name("source.webm"), EVEN, codec="libvpx", **noise)
    clip = video.extract_clip(str(source), span, "copy")
    assert clip.data is not None
    path.write_bytes(clip.data)
    return path


@pytest.mark.parametrize("left", [0.999, 0.7])
@pytest.mark.parametrize("filled", [False, True])
def test_a_file_whose_end_is_lost_is_not_one_that_holds_its_last_frame(
    left: float, filled: bool, tmp_path: Path
) -> None:
    """Also where the place of what is lost was reserved, as downloads do."""
    path = held_until_seven(tmp_path / "a.mkv")
    data = path.read_bytes()
    assert row_of(path)["seconds"] == pytest.approx(7, abs=0.003)
    kept = round(left * len(data)) if left < 0.9 else data.rindex(bytes.fromhex("1c53bb6b"))  # before its index
    path.write_bytes(data[:kept] + bytes(len(data) - kept if filled else 0))
    assert row_of(path)["failure"]["kind"] == "truncated"


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


@pytest.mark.parametrize(("lost", "is_hole"), [(11, False), (12, False), (13, True), (14, True)])
def test_half_a_second_of_stated_time_is_the_least_hole(lost: int, is_hole: bool, tmp_path: Path) -> None:
    """Fragments of one frame each, at 25 a second."""
    path = rendered(tmp_path / "a.mp4", EVEN, movflags="frag_every_frame+empty_moov+default_base_moof", options=INTRA)
    without_fragments(path, *range(30, 30 + lost))
    clips = clips_of(row_of(path))
    assert [clip["frames"] for clip in clips] == ([30, 45 - lost] if is_hole else [75 - lost])


SOUND = {"mp4": "aac", "mkv": "libopus", "webm": "libopus", "flv": "aac", "ts": "aac"}


def sounding(path: Path, still: tuple[float, float], *silences: tuple[float, float], sounds: int = 1) -> Path:
    """Ten seconds without frames in ``still``, and with one silence in each stream of sound: seconds without packets."""
    webm, codec = path.suffix == ".webm", SOUND[path.suffix[1:]]
    with av.open(path, "w") as container:
        picture = container.add_stream("libvpx-vp9" if webm else "libx264", rate=25, width=64, height=48)
        picture.options = VP9 if webm else X264
        picture.pix_fmt, picture.codec_context.time_base = "yuv420p", Fraction(1, 25)
        streams = [container.add_stream(codec, rate=48000, layout="mono") for _ in range(sounds)]
        size = 960 if codec == "libopus" else 1024
        events: list[tuple[Fraction, Any, int]] = [(Fraction(i, 25), picture, i) for i in range(250)]
        events = [event for event in events if not still[0] <= event[0] < still[1]]
        for number, stream in enumerate(streams):
            begins, ends = silences[number] if number < len(silences) else (0, 0)
            starts = range(0, 480000 - size, size)
            events += [(Fraction(at, 48000), stream, at) for at in starts if not begins <= at / 48000 < ends]
        for _, stream, at in sorted(events, key=lambda event: event[0]):
            if stream is picture:
                frame: Any = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 90, np.uint8)).reformat(format="yuv420p")
                frame.time_base = Fraction(1, 25)
            else:
                kind = stream.codec_context.format.name
                samples = np.zeros((1, size), np.float32 if kind.startswith("flt") else np.int16)
                frame = av.AudioFrame.from_ndarray(samples, format=kind, layout="mono")
                frame.sample_rate, frame.time_base = 48000, Fraction(1, 48000)
            frame.pts = at
            container.mux(stream.encode(frame))
        for stream in (picture, *streams):
            container.mux(stream.encode(None))
    return path


def frames_and_ends(path: Path) -> list[tuple[int, str]]:
    return [(clip["frames"], clip["end_kind"]) for clip in clips_of(row_of(path))]


WHOLE = [(150, "source")]
HOLED = [(75, "hole"), (75, "source")]


@pytest.mark.parametrize("suffix", SOUND)
def test_where_sound_stops_with_the_picture_a_part_is_missing(suffix: str, tmp_path: Path) -> None:
    """And where it runs on, a frame is held. Nothing else tells the two apart in these containers."""
    path = tmp_path / f"a.{suffix}"
    assert frames_and_ends(sounding(path, (3, 7), (3, 7))) == HOLED
    assert [clip["seconds"] for clip in clips_of(row_of(path))] == pytest.approx([3, 3], abs=0.005)
    assert frames_and_ends(sounding(path, (3, 7), (3.5, 6.5))) == HOLED  # loosely interleaved
    assert frames_and_ends(sounding(path, (3, 7))) == WHOLE
    assert frames_and_ends(sounding(path, (3, 7), sounds=0)) == WHOLE


@pytest.mark.parametrize(
    "silence", [(4.5, 6.9), (3, 5.5), (1, 7), (3, 9), (0, 7), (3, 10)], ids=lambda silence: f"{silence[0]}-{silence[1]}"
)
def test_a_microphone_that_is_off_makes_no_hole(silence: tuple[float, float], tmp_path: Path) -> None:
    assert frames_and_ends(sounding(tmp_path / "a.mkv", (3, 7), silence)) == WHOLE


def test_a_part_is_missing_where_all_sounds_stop(tmp_path: Path) -> None:
    assert frames_and_ends(sounding(tmp_path / "a.mkv", (3, 7), (3, 7), (3, 7), sounds=2)) == HOLED
    assert frames_and_ends(sounding(tmp_path / "a.mkv", (3, 7), (3, 7), sounds=2)) == WHOLE


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize(("lost", "is_hole"), [(12, False), (13, True)])
def test_half_a_second_without_picture_and_sound_is_the_least_hole(
    lost: int, is_hole: bool, suffix: str, tmp_path: Path
) -> None:
    """12 frames of 25 a second are 0.48 s, 13 are 0.52 s; the sound lacks more."""
    path = sounding(tmp_path / f"a.{suffix}", (3, 3 + lost / 25), (2.9, 3.7))
    assert (len(clips_of(row_of(path))) == 2) is is_hole
    path = sounding(tmp_path / f"a.{suffix}", (3, 3.8), (3.2, 3.2 + lost / 25))
    assert (len(clips_of(row_of(path))) == 2) is is_hole  # the other way round


@pytest.mark.parametrize("movflags", [None, "frag_keyframe+empty_moov"])
def test_a_still_in_an_mp4_of_vp9_is_no_hole(movflags: str | None, tmp_path: Path) -> None:
    """Of this codec libav tells a duration of its own instead of mp4's."""
    path = rendered(tmp_path / "a.mp4", TWICE, codec="libvpx-vp9", options=VP9, movflags=movflags)
    assert frames_and_ends(path) == [(151, "source")]


@pytest.mark.parametrize("segment_seconds", [None, 3])
def test_a_hole_longer_than_a_segment_looks_back_is_seen(segment_seconds: float | None, tmp_path: Path) -> None:
    """Segments of two seconds look back for one, and the hole reaches over the first frame of two."""
    path = sounding(tmp_path / "a.mkv", (2, 7.6), (2, 7.6))
    first = observe(str(path), [], None, segment_seconds=segment_seconds)
    parts = [first]
    for number in range(1, first.segments):
        segment = Segment(number=number, count=first.segments, origin=first.origin)
        parts.append(observe(str(path), [], None, segment=segment))
    assert (len(parts) > 1) is (segment_seconds is not None)
    (hole,) = [track for part in parts for track in part.tracks if track.name == HOLES]
    assert (hole.pts.tolist(), hole.values.tolist()) == ([7600], pytest.approx([0.04]))


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


@pytest.mark.parametrize("fps", [1, 2])
def test_slides_of_a_frame_each_share_no_clip(fps: int, tmp_path: Path) -> None:
    path = world.encode([shot[0] for shot in shots(7, 32)], tmp_path / "a.mp4", fps=fps)
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
