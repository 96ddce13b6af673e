"""Videos read from rendered files whose every frame says which one it is, and on real odd ones where they are at hand."""

from __future__ import annotations

import io
import math
import os
import subprocess
import sys
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from dailies.curation import video
from dailies.curation.errors import Changed, TooFewFrames, Unreadable
from dailies.curation.timing import Span
from dailies.curation.types import FrameSampling
from tests.rendered_video import KINDS, number, numbered, render

ODD = Path(__file__).parents[2] / "shared/data/odd"
needs_odd = pytest.mark.skipif(not ODD.is_dir(), reason=f"no shared data at {ODD}")

GRAY = FrameSampling(fps=None, short_side=90, planes="gray")


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, list[int]]]:
    folder = tmp_path_factory.mktemp("kinds")
    made = {}
    for name, (suffix, settings) in KINDS.items():
        path = folder / f"{name}.{suffix}"
        settings = dict(settings)
        if name == "mpeg4-avi":
            settings["pts"] = list(range(36))
        made[name] = (str(path), render(path, **settings))
    return made


@pytest.fixture(scope="module")
def plain(kinds: dict[str, tuple[str, list[int]]]) -> str:
    return kinds["b-frames"][0]


def streamed(uri: str) -> tuple[list[int], list[np.ndarray], video.Source]:
    source = video.open_source(uri)
    seen = [(picture.pts, picture.rgb()) for picture in video.stream(source)]
    return [pts for pts, _ in seen], [rgb for _, rgb in seen], source


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return 10 * math.log10(255**2 / max(1e-9, float(np.mean((a.astype(float) - b.astype(float)) ** 2))))


# ---- identity -------------------------------------------------------------------------------------------------------


def test_content_id_sees_size_and_both_ends_and_not_the_place(tmp_path: Path) -> None:
    import fsspec

    data = np.random.default_rng(0).integers(0, 256, 3_000_000, np.uint8).tobytes()
    ids = set()
    for change in (data, data[:-1], b"x" + data[1:], data[:-1] + b"x", b""):
        path = tmp_path / "file"
        path.write_bytes(change)
        fsspec.filesystem("memory").pipe("/c/file", change)
        local, size = video.content_id(str(path))
        assert size == len(change)
        assert video.content_id("memory://c/file") == (local, size) == video.content_id(f"file://{path}")
        ids.add(local)
    assert len(ids) == 5


@pytest.mark.parametrize("uri", ["/no/such/file.mp4", "memory://no/such.mp4", "nosuchprotocol://a/b.mp4"])
def test_what_cannot_be_read_is_unreadable(uri: str) -> None:
    with pytest.raises(Unreadable):
        video.content_id(uri)
    with pytest.raises(Unreadable):
        video.probe(uri)


def test_importing_the_module_does_not_import_av() -> None:
    code = "import sys, dailies.curation.video; sys.exit('av' in sys.modules or 'cv2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1]).returncode == 0


# ---- streaming ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_frame_comes_once_in_order_at_its_time(kind: str, kinds: dict[str, tuple[str, list[int]]]) -> None:
    uri, written = kinds[kind]
    source = video.open_source(uri)
    seen = [(picture.pts, number(picture.planes(GRAY))) for picture in video.stream(source)]
    assert [index for _, index in seen] == list(range(len(written)))
    assert all(type(pts) is int for pts, _ in seen)
    ticks = KINDS[kind][1].get("time_base", Fraction(1, 600))
    if KINDS[kind][0] in ("mp4", "mov") and kind != "fragmented":  # others begin elsewhere, or round
        assert [pts * source.time_base for pts, _ in seen] == [at * ticks for at in written]
    gaps = [float((b - a) * source.time_base) for (a, _), (b, _) in pairwise(seen)]
    wanted = [float((b - a) * ticks) for a, b in pairwise(written)]
    assert gaps == pytest.approx(wanted, abs=0.0011)


def test_probe_says_what_was_rendered(kinds: dict[str, tuple[str, list[int]]]) -> None:
    probe = video.probe(kinds["open-gop-mkv"][0])
    assert (probe.width, probe.height, probe.codec, probe.pixel_format) == (192, 108, "h264", "yuv420p")
    assert probe.container.startswith("matroska")
    assert probe.has_audio
    assert probe.frames is None
    assert probe.duration is not None
    assert probe.duration * probe.time_base == pytest.approx(1.44, abs=0.1)
    probe = video.probe(kinds["b-frames"][0])
    assert (probe.frames, probe.has_audio, probe.fps, probe.rotation) == (36, False, Fraction(25), 0)
    assert video.probe(kinds["odd-size"][0]).width == 321


@pytest.mark.parametrize(
    ("rotation", "flip"), [(0, True), (90, False), (180, False), (-90, False), (90, True), (180, True)]
)
def test_frames_are_upright(rotation: int, flip: bool, tmp_path: Path) -> None:
    path = tmp_path / "turned.mov"
    render(path, size=(192, 120), rotation=rotation, flip=flip, count=2, options={"crf": "8"})
    truth = numbered(0, 120, 192) if rotation % 180 else numbered(0, 192, 120)
    probe = video.probe(str(path))
    assert (probe.height, probe.width) == truth.shape[:2]
    assert probe.rotation == rotation % 360
    with video.open_source(str(path)) as source:
        picture = next(source.frames())
        assert psnr(picture.rgb(), truth) > 25
        assert picture.rgb().flags.c_contiguous
        bgr = picture.planes(FrameSampling(fps=None, short_side=60, planes="bgr"))
        assert bgr.shape == ((96, 60, 3) if rotation % 180 else (60, 96, 3))
        assert psnr(bgr[..., ::-1], truth.reshape(truth.shape[0] // 2, 2, -1, 2, 3).mean((1, 3))) > 25
    cut = video.extract_clip(str(path), Span(start=0, end=10**6, time_base=probe.time_base))
    assert (cut.width, cut.height) == (probe.width, probe.height)
    assert psnr(video.decode_bytes(cut.data).pixels[0], truth) > 25


def test_planes_are_shared_read_only_and_never_scaled_up(plain: str) -> None:
    with video.open_source(plain) as source:
        picture = next(source.frames())
        small = picture.planes(GRAY)
        assert small.shape == (90, 160)
        assert picture.planes(GRAY) is small
        assert not small.flags.writeable
        assert small.flags.c_contiguous
        assert picture.planes(FrameSampling(fps=5, short_side=4000, planes="bgr")).shape == (108, 192, 3)
        assert picture.rgb(54).shape == (54, 96, 3)


@pytest.mark.parametrize(("lines", "matrix"), [(240, 6), (720, 1)])
def test_an_unnamed_matrix_is_told_by_the_size(lines: int, matrix: int, tmp_path: Path) -> None:
    named, unnamed = tmp_path / "named.mkv", tmp_path / "unnamed.avi"
    render(named, tags=(1, matrix), count=2, size=(320, lines), options={"crf": "6"})
    avi = {"codec": "mpeg4", "options": {"qmin": "1", "qmax": "2"}, "pts": [0, 1], "time_base": Fraction(1, 25)}
    render(unnamed, tags=(1, matrix), size=(320, lines), **avi)
    with video.open_source(str(named)) as a, video.open_source(str(unnamed)) as b:
        one, two = next(a.frames()), next(b.frames())
        assert (one.frame.colorspace, two.frame.colorspace) == (matrix, 2)
        assert psnr(one.rgb(), two.rgb()) > 32
    cut = video.extract_clip(str(unnamed), Span(start=0, end=10**6, time_base=video.probe(str(unnamed)).time_base))
    with av.open(io.BytesIO(cut.data)) as container:
        frame = next(container.decode(video=0))
        assert (frame.colorspace, frame.color_range) == (matrix, 1)
    assert psnr(video.decode_bytes(cut.data).pixels[0], one.rgb()) > 32


def test_leaving_early_closes_the_file(plain: str) -> None:
    span = Span(start=0, end=10**6, time_base=video.probe(plain).time_base)
    for threads in (1, 2):
        before = os.listdir("/proc/self/fd")
        pictures = video.stream(video.open_source(plain, threads=threads))
        next(pictures)
        assert len(os.listdir("/proc/self/fd")) > len(before)
        pictures.close()
        pictures = video.span_frames(plain, span)
        next(pictures)
        pictures.close()
        assert os.listdir("/proc/self/fd") == before


def test_the_last_frames_duration_is_given_only_where_the_container_states_it(
    kinds: dict[str, tuple[str, list[int]]],
) -> None:
    for kind, ticks in [("b-frames", 24 * 32), ("transport", None)]:
        pts, _, source = streamed(kinds[kind][0])
        assert source.decoder.times.stated_after(pts) == ticks


def test_threads_change_nothing(plain: str) -> None:
    one, two = (list(video.stream(video.open_source(plain, threads=threads))) for threads in (1, 2))
    assert [p.pts for p in one] == [p.pts for p in two]
    assert all(np.array_equal(a.rgb(), b.rgb()) for a, b in zip(one, two, strict=True))


def test_remote_files_stream_like_local_ones(plain: str) -> None:
    import fsspec

    fsspec.filesystem("memory").pipe("/v/plain.mp4", Path(plain).read_bytes())
    pts, frames, _ = streamed(plain)
    there, same, _ = streamed("memory://v/plain.mp4")
    assert pts == there
    assert all(map(np.array_equal, frames, same))


def test_a_store_that_fails_in_between_is_unreadable_not_truncated(
    plain: str, capfd: pytest.CaptureFixture[str]
) -> None:
    class Failing(io.BytesIO):
        reads = 0

        def read(self, size: int | None = -1) -> bytes:
            self.reads += 1
            if self.reads > 2:
                raise ConnectionError("the store went away")
            return super().read(min(size or 0, 4096))

    source = video.Source("memory", file=Failing(Path(plain).read_bytes()))
    with pytest.raises(Unreadable, match="the store went away"):
        list(video.stream(source))
    assert capfd.readouterr().err == ""


# ---- spans ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_span_reads_as_it_streams(kind: str, kinds: dict[str, tuple[str, list[int]]]) -> None:
    uri, _ = kinds[kind]
    pts, frames, source = streamed(uri)
    last = len(pts) - 1
    for first, end in [(0, 3), (1, 2), (7, 12), (9, 10), (16, 20), (17, 19), (18, 21), (last - 1, last), (last, None)]:
        stop = pts[last] + 100_000 if end is None else pts[end]
        found = video.read_span(uri, Span(start=pts[first], end=stop, time_base=source.time_base))
        assert found.pts.tolist() == pts[first:end]
        assert np.array_equal(found.pixels, np.stack(frames[first:end]))
        assert not found.pixels.flags.writeable


def test_a_span_beyond_the_end_or_over_other_ticks_is_an_error(plain: str) -> None:
    base = video.probe(plain).time_base
    with pytest.raises(TooFewFrames):
        video.read_span(plain, Span(start=10**6, end=10**6 + 1, time_base=base))
    with pytest.raises(TooFewFrames):
        video.extract_clip(plain, Span(start=10**6, end=10**6 + 1, time_base=base))
    with pytest.raises(Changed):
        video.read_span(plain, Span(start=0, end=9, time_base=base * 3))


@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_holds_exactly_the_spans_frames(kind: str, kinds: dict[str, tuple[str, list[int]]]) -> None:
    uri, _ = kinds[kind]
    pts, frames, source = streamed(uri)
    first, end = 7, 19
    beats: list[int] = []
    span = Span(start=pts[first], end=pts[end], time_base=source.time_base)
    cut = video.extract_clip(uri, span, encoding=video.Encoding(crf=12), heartbeat=lambda: beats.append(1))
    clip = video.decode_bytes(cut.data)
    assert len(clip.pts) == cut.frames == video.count_frames(cut.data) == len(beats) == end - first
    times = [(at - pts[first]) * source.time_base for at in pts[first:end]]
    assert [int(at) * clip.time_base for at in clip.pts] == times
    assert cut.fps == pytest.approx(cut.frames / float(span.seconds))
    height, width = frames[0].shape[0] // 2 * 2, frames[0].shape[1] // 2 * 2
    assert (cut.height, cut.width) == clip.pixels.shape[1:3] == (height, width)
    if kind not in ("intra-refresh",):  # the refreshing column of the source itself is coarse
        for ours, theirs in zip(clip.pixels, frames[first:end], strict=True):
            assert psnr(ours, theirs[:height, :width]) > 33


def test_a_cut_is_a_plain_mp4(kinds: dict[str, tuple[str, list[int]]]) -> None:
    uri = kinds["open-gop-mkv"][0]
    span = Span(start=video.probe(uri).start or 0, end=1000, time_base=video.probe(uri).time_base)
    cut = video.extract_clip(uri, span)
    assert len(cut.data) == pytest.approx(len(video.extract_clip(uri, span).data), rel=0.01)
    assert cut.data.index(b"moov") < cut.data.index(b"mdat")
    with av.open(io.BytesIO(cut.data)) as container:
        (stream,) = container.streams
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.codec_context.color_range == 1
        assert stream.duration is not None
        assert stream.duration * stream.time_base == span.seconds
        packets = [packet for packet in container.demux(stream) if packet.size]
        assert packets[0].is_keyframe


def test_a_cut_scales_down_and_converts_full_range(tmp_path: Path) -> None:
    path = tmp_path / "full.mkv"
    render(path, tags=(2, 6), count=5, size=(320, 180), pix_fmt="yuvj420p", options={"crf": "8"})
    span = Span(start=0, end=200, time_base=video.probe(str(path)).time_base)
    cut = video.extract_clip(str(path), span, encoding=video.Encoding(max_short_side=91, crf=10))
    assert (cut.width, cut.height) == (160, 90)
    clip = video.decode_bytes(cut.data)
    truth = numbered(3, 320, 180).reshape(90, 2, 160, 2, 3).mean((1, 3))
    assert psnr(clip.pixels[3], truth) > 26
    assert video.extract_clip(str(path), span, encoding=video.Encoding(max_short_side=1000)).height == 180


@pytest.mark.parametrize(("rotation", "size"), [(None, (256, 108)), (90, (108, 256))])
def test_a_cut_has_square_pixels(rotation: int | None, size: tuple[int, int], tmp_path: Path) -> None:
    path = tmp_path / "wide.mp4"
    render(path, count=3, rotation=rotation, aspect=Fraction(4, 3))
    cut = video.extract_clip(str(path), Span(start=0, end=10**6, time_base=video.probe(str(path)).time_base))
    assert (cut.width, cut.height) == size
    with av.open(io.BytesIO(cut.data)) as container:
        (stream,) = container.streams
        assert (stream.width, stream.height) == size
        assert stream.sample_aspect_ratio in (None, 1)


def test_jpeg_goes_there_and_back() -> None:
    rgb = numbered(5)
    data = video.jpeg(rgb, 95)
    assert psnr(video.unjpeg(data), rgb) > 25
    assert len(video.jpeg(rgb, 30)) < len(data)
    for junk in (b"", b"junk"):
        with pytest.raises(Unreadable):
            video.unjpeg(junk)


# ---- real files -----------------------------------------------------------------------------------------------------


@needs_odd
def test_real_rotations() -> None:
    for name, rotation, size in [("90", 270, (320, 568)), ("270", 90, (320, 568)), ("180", 180, (568, 320))]:
        probe = video.probe(str(ODD / f"rotated-{name}.mov"))
        assert (probe.rotation, (probe.width, probe.height)) == (rotation, size)
        with video.open_source(str(ODD / f"rotated-{name}.mov")) as source:
            raw = next(source.frames())
            unturned = raw.frame.to_ndarray(format="gray")
            upright = raw.planes(FrameSampling(fps=None, short_side=320, planes="gray"))
            assert np.abs(np.rot90(unturned, rotation // 90).astype(int) - upright).mean() < 4


@needs_odd
def test_real_broken_packets_are_counted_and_no_reason_to_fail() -> None:
    source = video.open_source(str(ODD / "broken-packets.mp4"))
    assert len(list(video.stream(source))) == 49
    assert source.decoder.packets_broken == 1


@needs_odd
@pytest.mark.parametrize("name", ["four-frames.mov", "two-fps.mp4", "vp9.webm", "portrait.mp4"])
def test_real_odd_files_read_by_span_as_they_stream(name: str) -> None:
    uri = str(ODD / name)
    pictures = video.stream(video.open_source(uri))
    seen = [(picture.pts, picture.rgb(64)) for picture in pictures]
    base = video.probe(uri).time_base
    for first in (0, len(seen) // 3, len(seen) // 2, len(seen) - 2):
        found = video.read_span(uri, Span(start=seen[first][0], end=seen[first + 1][0], time_base=base), short_side=64)
        assert found.pts.tolist() == [seen[first][0]]
        assert np.array_equal(found.pixels[0], seen[first][1])
