"""Spans cut out of rendered files whose every frame says which one it is, in each mode and from every kind of stream."""

from __future__ import annotations

import io
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from curation import cutout, video
from curation.cutout import Cutting
from curation.encode import CODECS
from curation.errors import NotCopied, TooFewFrames
from curation.remux import decode_times
from curation.timing import Span
from curation.types import Crop
from tests.rendered_video import GOP, KINDS, UNEVEN, numbered, render

EVEN = {"time_base": Fraction(1, 25), "pts": list(range(36))}  # for codecs that know few time bases
X265 = "keyint=9:min-keyint=9:log-level=none"
# Kind → container, how to render it, and what a smart cut from the middle of one group of pictures to that of another may do:
# join encoded frames to copied ones, copy all of them, or encode all since the codec allows no joint.
SOURCES: dict[str, tuple[str, dict[str, Any], str]] = {
    **{
        name: (*KINDS[name], "joins")
        for name in ("b-frames", "uneven", "late-start", "transport", "fragmented", "odd-size", "vp9", "portrait")
    },
    **{name: (*KINDS[name], "encodes") for name in ("open-gop", "intra-refresh", "raw-h264")},
    "uneven-b": ("mp4", {"pts": UNEVEN, "options": {"x264-params": f"{GOP}:bframes=3"}}, "joins"),
    "h264-422-10": ("mp4", {"form": "yuv422p10le", "options": {"x264-params": GOP}}, "joins"),
    "flv": ("flv", {"options": {"x264-params": f"{GOP}:bframes=2"}}, "joins"),
    "wide-pixels": ("mp4", {"aspect": Fraction(4, 3), "options": {"x264-params": GOP}}, "joins"),
    "hevc": ("mp4", {"codec": "libx265", "options": {"x265-params": f"{X265}:open-gop=0"}}, "joins"),
    "hevc-open": ("mkv", {"codec": "libx265", "options": {"x265-params": f"{X265}:bframes=3"}}, "joins"),
    "hevc-10-ts": ("ts", {"codec": "libx265", "form": "yuv420p10le", "options": {"x265-params": X265}}, "joins"),
    "av1": ("mp4", {"codec": "libsvtav1", "options": {"preset": "12", "g": "9", "crf": "20"}}, "joins"),
    "mpeg2": ("ts", {"codec": "mpeg2video", "options": {"g": "9", "bf": "2", "b": "2M"}, **EVEN}, "encodes"),
    "mpeg4-avi": ("avi", {"codec": "mpeg4", "options": {"g": "9", "bf": "2"}, **EVEN}, "encodes"),
    "mjpeg": ("avi", {"codec": "mjpeg", "form": "yuvj420p", **EVEN}, "copies"),
    "h264-avi": ("avi", {"options": {"x264-params": f"{GOP}:bframes=2"}, **EVEN}, "encodes"),
    "prores": ("mov", {"codec": "prores_ks", "form": "yuv422p10le", **EVEN}, "copies"),
}
UNCOPIED = {
    "intra-refresh": "decodes by itself",
    "raw-h264": "do not say when they are shown",
    "h264-avi": "the times of its packets",
}
FIRST, END = 4, 22  # keyframes stand at 0, 9, 18, 27


class Seen:
    """A rendered source and what streaming it gives."""

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        render(path, **settings)
        self.uri = str(path)
        source = video.open_source(self.uri)
        frames = [(picture.pts, picture.rgb()) for picture in video.stream(source)]
        self.pts, self.pixels = [pts for pts, _ in frames], [rgb for _, rgb in frames]
        self.base = source.time_base

    def span(self, first: int, end: int) -> Span:
        return Span(start=self.pts[first], end=self.pts[end], time_base=self.base)

    def holds(self, cut: video.Cutout, *, apart: float = 4.0) -> tuple[int, int]:
        """(first, one past last) of the source's frames that the cut decodes to, at their times; asserts that it is so."""
        assert cut.data is not None
        clip = video.decode_bytes(cut.data)
        first = self.pts.index(cut.span.start)
        end = first + cut.frames
        assert len(clip.pts) == cut.frames
        assert (cut.width, cut.height) == clip.pixels.shape[2:0:-1]
        times = [float((at - self.pts[first]) * self.base) for at in self.pts[first:end]]
        assert [float(int(at) * clip.time_base) for at in clip.pts] == pytest.approx(times, abs=0.001)
        for ours, theirs in zip(clip.pixels, self.pixels[first:end], strict=True):
            assert np.abs(ours.astype(int) - theirs[: cut.height, : cut.width]).mean() <= apart
        return first, end


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Seen]:
    folder = tmp_path_factory.mktemp("sources")
    return {name: Seen(folder / f"{name}.{suffix}", dict(given)) for name, (suffix, given, _) in SOURCES.items()}


# ---- every kind of stream -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SOURCES)
def test_a_copy_is_the_sources_own_pictures_from_the_next_keyframe_on(kind: str, seen: dict[str, Seen]) -> None:
    source = seen[kind]
    if kind in UNCOPIED:
        with pytest.raises(NotCopied, match=UNCOPIED[kind]):
            video.cut_out(source.uri, source.span(FIRST, END), "copy")
        return
    cut = video.cut_out(source.uri, source.span(FIRST, END), "copy")
    first, end = source.holds(cut, apart=0)
    assert first == (FIRST if SOURCES[kind][2] == "copies" else 9)
    assert 17 <= end <= END  # a few frames before the end refer to one behind it
    assert (cut.encoded, cut.encoder) == (0, None)
    assert cut.span.end == source.pts[end]


@pytest.mark.parametrize("kind", SOURCES)
def test_a_smart_cut_is_exact_and_copies_what_it_can(kind: str, seen: dict[str, Seen]) -> None:
    source = seen[kind]
    cut = video.cut_out(source.uri, source.span(FIRST, END), "smart", encoding=video.Encoding(crf=12))
    assert source.holds(cut) == (FIRST, END)
    copied = cut.frames - cut.encoded
    assert {"joins": 8 <= copied < cut.frames, "copies": copied == cut.frames, "encodes": copied == 0}[SOURCES[kind][2]]
    if copied:
        assert cut.data is not None
        clip = video.decode_bytes(cut.data)
        same = [np.array_equal(a, b) for a, b in zip(clip.pixels, source.pixels[FIRST:END], strict=True)]
        assert sum(same) >= copied


@pytest.mark.parametrize("kind", SOURCES)
def test_none_counts_the_frames_and_leaves_them_where_they_are(kind: str, seen: dict[str, Seen]) -> None:
    cut = video.cut_out(seen[kind].uri, seen[kind].span(FIRST, END), "none")
    assert (cut.data, cut.frames) == (None, END - FIRST)
    assert (cut.height, cut.width) == seen[kind].pixels[0].shape[:2]


@pytest.mark.parametrize("mode", ["copy", "smart"])
def test_a_span_that_begins_at_a_keyframe_and_ends_before_one_is_copied_whole(mode: Any, seen: dict[str, Seen]) -> None:
    for kind in ("b-frames", "hevc", "av1", "transport"):
        cut = video.cut_out(seen[kind].uri, seen[kind].span(9, 18), mode)
        assert seen[kind].holds(cut, apart=0) == (9, 18)
        assert cut.encoded == 0


def test_without_a_keyframe_there_is_nothing_to_copy(seen: dict[str, Seen]) -> None:
    source = seen["b-frames"]
    with pytest.raises(NotCopied, match="no keyframe inside the span"):
        video.cut_out(source.uri, source.span(1, 9), "copy")
    smart = video.cut_out(source.uri, source.span(1, 9), "smart", encoding=video.Encoding(crf=12))
    assert source.holds(smart) == (1, 9)
    assert smart.encoded == 8


def test_copies_turn_as_their_source_does(seen: dict[str, Seen]) -> None:
    cut = video.cut_out(seen["portrait"].uri, seen["portrait"].span(9, 18), "copy")
    assert cut.data is not None
    assert video.probe(seen["portrait"].uri).rotation == 270
    with video.Source("memory", file=io.BytesIO(cut.data)) as made:
        assert made.probe.rotation == 270


@pytest.mark.parametrize("mode", ["encode", "copy", "smart", "none"])
def test_a_span_past_the_end_is_an_error(mode: Any, seen: dict[str, Seen]) -> None:
    base = seen["b-frames"].base
    with pytest.raises((TooFewFrames, NotCopied)):
        video.cut_out(seen["b-frames"].uri, Span(start=10**7, end=10**7 + 1, time_base=base), mode)


def test_decode_times_rise_and_never_come_after_the_picture() -> None:
    for pts in ([0, 1, 2], [0, 40, 20, 10, 30], [0, 160, 80, 40, 20, 60, 120, 100, 140], [7, 100, 9, 8]):
        times = decode_times(pts)
        assert times == sorted(set(times))
        assert all(dts <= at for dts, at in zip(times, pts, strict=True))
    with pytest.raises(NotCopied, match="same time"):
        decode_times([0, 1, 1])


# ---- encoding -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", CODECS)
def test_each_codec_encodes_exactly_and_the_same_again(codec: str, seen: dict[str, Seen]) -> None:
    source = seen["uneven-b"]
    encoding = video.Encoding(codec=codec, crf=14)
    cut = video.cut_out(source.uri, source.span(FIRST, END), encoding=encoding)
    assert source.holds(cut) == (FIRST, END)
    assert cut.encoder == CODECS[codec].software
    again = video.cut_out(source.uri, source.span(FIRST, END), encoding=encoding)
    worse = video.cut_out(source.uri, source.span(FIRST, END), encoding=replace(encoding, crf=45))
    assert cut.data is not None
    assert again.data is not None
    assert worse.data is not None
    assert len(again.data) == pytest.approx(len(cut.data), rel=0.01)  # x264 with AVX-512 is off by a few bytes at times
    assert len(worse.data) < len(cut.data)
    with av.open(io.BytesIO(cut.data)) as container:
        (stream,) = container.streams
        assert stream.codec_context.codec.canonical_name == codec


def test_a_hardware_encoder_is_taken_where_there_is_one(seen: dict[str, Seen]) -> None:
    source = seen["b-frames"]
    cut = video.cut_out(source.uri, source.span(0, 9), encoding=video.Encoding(crf=18, encoder="auto"))
    assert cut.encoder in (CODECS["h264"].software, *CODECS["h264"].hardware)
    source.holds(cut)


def test_a_limit_of_frames_per_second_leaves_frames_out_and_keeps_times(seen: dict[str, Seen]) -> None:
    source = seen["b-frames"]
    cut = video.cut_out(source.uri, source.span(1, 26), encoding=video.Encoding(max_fps=5, crf=12))
    assert cut.data is not None
    clip = video.decode_bytes(cut.data)
    assert [round(float(int(at) * clip.time_base), 3) for at in clip.pts] == [0, 0.2, 0.4, 0.6, 0.8]
    assert cut.fps == pytest.approx(5)
    for ours, theirs in zip(clip.pixels, source.pixels[1:26:5], strict=True):
        assert np.abs(ours.astype(int) - theirs).mean() < 4


@pytest.mark.parametrize("turn", [None, 90])
@pytest.mark.parametrize("size", [None, 48])
def test_a_crop_is_taken_off_the_upright_picture(turn: int | None, size: int | None, tmp_path: Path) -> None:
    path = tmp_path / "cropped.mov"
    render(path, count=4, rotation=turn, options={"crf": "8"})
    crop = Crop(left=12, top=6, right=20, bottom=4)
    span = Span(start=0, end=10**6, time_base=video.probe(str(path)).time_base)
    cut = video.cut_out(str(path), span, encoding=video.Encoding(crf=10, max_short_side=size), crop=crop)
    upright = (108, 192) if turn else (192, 108)
    truth = numbered(2, *upright)[6 : upright[1] - 4, 12 : upright[0] - 20]
    assert cut.data is not None
    got = video.decode_bytes(cut.data).pixels[2]
    if size is None:
        assert got.shape == truth.shape
        assert np.abs(got.astype(int) - truth).mean() < 4
        assert np.abs(video.read_span(str(path), span, crop=crop).pixels[2].astype(int) - truth).mean() < 4
    else:
        assert min(got.shape[:2]) == size
        assert got.shape[1] / got.shape[0] == pytest.approx(truth.shape[1] / truth.shape[0], rel=0.04)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"codec": "vp8"}, "codec must be one of h264, hevc, av1"),
        ({"crf": 52}, "crf of h264 must be between 0 and 51"),
        ({"codec": "av1", "crf": 64}, "crf of av1 must be between 0 and 63"),
        ({"preset": "quick"}, "preset must be one of ultrafast"),
        ({"encoder": "hardware"}, "encoder must be software or auto"),
        ({"max_short_side": 8}, "max_short_side must be at least 16 px"),
        ({"max_fps": 0}, "max_fps must be between 0 and 1000"),
    ],
)
def test_settings_that_cannot_be_are_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        video.Encoding(**given)


# ---- one source, many spans -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["b-frames", "open-gop-mkv", "transport"])
def test_spans_of_one_source_come_out_as_they_would_alone(
    kind: str, seen: dict[str, Seen], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Seen(tmp_path / f"x.{KINDS[kind][0]}", dict(KINDS[kind][1]))
    spans = [source.span(a, b) for a, b in ((2, 7), (7, 12), (14, 20), (25, 30), (3, 9))]
    alone = [video.cut_out(source.uri, span).data for span in spans]
    opened: list[Span] = []
    monkeypatch.setattr(
        cutout, "open_before", lambda uri, span, **rest: opened.append(span) or video.open_before(uri, span, **rest)
    )
    with Cutting(source.uri) as cutting:
        for span, data in zip(spans, alone, strict=True):
            ours, theirs = cutting.cut(span).data, data
            assert ours is not None
            assert theirs is not None
            assert np.abs(video.decode_bytes(ours).pixels.astype(int) - video.decode_bytes(theirs).pixels).max() <= 8
    assert opened == [spans[0], spans[-1]]  # which lies before the one cut out last
