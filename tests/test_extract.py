"""Spans extracted of rendered files whose every frame says which one it is, in each mode and from every kind of stream."""

from __future__ import annotations

import io
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from dailies.curation import video
from dailies.curation.errors import NotCopied, SourceError, TooFewFrames
from dailies.curation.timing import Span
from dailies.curation.types import Crop
from dailies.curation.video import extract as cutout
from dailies.curation.video.encode import CODECS, Framing
from dailies.curation.video.extract import Extractor
from dailies.curation.video.remux import decode_times
from tests.rendered_video import GOP, KINDS, UNEVEN, number, numbered, render

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
    "h264-422-10": ("mp4", {"pix_fmt": "yuv422p10le", "options": {"x264-params": GOP}}, "joins"),
    "flv": ("flv", {"options": {"x264-params": f"{GOP}:bframes=2"}}, "joins"),
    "wide-pixels": ("mp4", {"aspect": Fraction(4, 3), "options": {"x264-params": GOP}}, "joins"),
    "hevc": ("mp4", {"codec": "libx265", "options": {"x265-params": f"{X265}:open-gop=0"}}, "joins"),
    "hevc-open": ("mkv", {"codec": "libx265", "options": {"x265-params": f"{X265}:bframes=3"}}, "joins"),
    "hevc-10-ts": ("ts", {"codec": "libx265", "pix_fmt": "yuv420p10le", "options": {"x265-params": X265}}, "joins"),
    "av1": ("mp4", {"codec": "libsvtav1", "options": {"preset": "12", "g": "9", "crf": "20"}}, "joins"),
    "mpeg2": ("ts", {"codec": "mpeg2video", "options": {"g": "9", "bf": "2", "b": "2M"}, **EVEN}, "encodes"),
    "mpeg4-avi": ("avi", {"codec": "mpeg4", "options": {"g": "9", "bf": "2"}, **EVEN}, "encodes"),
    "mjpeg": ("avi", {"codec": "mjpeg", "pix_fmt": "yuvj420p", **EVEN}, "copies"),
    "vp8-uneven": (
        "webm",
        {"codec": "libvpx", "options": {"g": "9", "b": "2M", "deadline": "realtime"}, "pts": UNEVEN},
        "encodes",
    ),
    "ffv1-uneven": ("mkv", {"codec": "ffv1", "options": {"g": "1"}, "pts": UNEVEN}, "copies"),
    "dnxhr": (
        "mov",
        {"codec": "dnxhd", "pix_fmt": "yuv422p", "size": (480, 270), "options": {"profile": "dnxhr_lb"}, **EVEN},
        "copies",
    ),
    "h264-avi": ("avi", {"options": {"x264-params": f"{GOP}:bframes=2"}, **EVEN}, "encodes"),
    "prores": ("mov", {"codec": "prores_ks", "pix_fmt": "yuv422p10le", **EVEN}, "copies"),
}
UNCOPIED = {
    "intra-refresh": "decodes by itself",
    "raw-h264": "do not say when they are shown",
    "h264-avi": "the times of its packets",
}
FIRST, END = 4, 22  # keyframes stand at 0, 9, 18, 27


class Seen:
    """A source and what streaming it gives. With ``settings`` it is rendered first."""

    def __init__(self, path: Path, settings: dict[str, Any] | None = None) -> None:
        if settings is not None:
            render(path, **settings)
        self.uri = str(path)
        source = video.open_source(self.uri)
        frames = [(picture.pts, picture.rgb()) for picture in video.stream(source)]
        self.pts, self.pixels = [pts for pts, _ in frames], [rgb for _, rgb in frames]
        self.base = source.time_base

    def span(self, first: int, end: int) -> Span:
        return Span(start=self.pts[first], end=self.pts[end], time_base=self.base)

    def holds(self, cut: video.ExtractedClip, *, apart: float = 4.0) -> tuple[int, int]:
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
            video.extract_clip(source.uri, source.span(FIRST, END), "copy")
        return
    cut = video.extract_clip(source.uri, source.span(FIRST, END), "copy")
    first, end = source.holds(cut, apart=0)
    assert first == (FIRST if SOURCES[kind][2] == "copies" else 9)
    assert 17 <= end <= END  # a few frames before the end refer to one behind it
    assert (cut.encoded, cut.encoder) == (0, None)
    assert cut.span.end == source.pts[end]


@pytest.mark.parametrize("kind", SOURCES)
def test_a_smart_cut_is_exact_and_copies_what_it_can(kind: str, seen: dict[str, Seen]) -> None:
    source = seen[kind]
    cut = video.extract_clip(source.uri, source.span(FIRST, END), "smart", encoding=video.Encoding(crf=12))
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
    cut = video.extract_clip(seen[kind].uri, seen[kind].span(FIRST, END), "none")
    assert (cut.data, cut.frames) == (None, END - FIRST)
    assert (cut.height, cut.width) == seen[kind].pixels[0].shape[:2]


@pytest.mark.parametrize("mode", ["copy", "smart"])
def test_a_span_that_begins_at_a_keyframe_and_ends_before_one_is_copied_whole(mode: Any, seen: dict[str, Seen]) -> None:
    for kind in ("b-frames", "hevc", "av1", "transport"):
        cut = video.extract_clip(seen[kind].uri, seen[kind].span(9, 18), mode)
        assert seen[kind].holds(cut, apart=0) == (9, 18)
        assert cut.encoded == 0


def test_without_a_keyframe_there_is_nothing_to_copy(seen: dict[str, Seen]) -> None:
    source = seen["b-frames"]
    with pytest.raises(NotCopied, match="no keyframe inside the span"):
        video.extract_clip(source.uri, source.span(1, 9), "copy")
    smart = video.extract_clip(source.uri, source.span(1, 9), "smart", encoding=video.Encoding(crf=12))
    assert source.holds(smart) == (1, 9)
    assert smart.encoded == 8


def test_copies_turn_as_their_source_does(seen: dict[str, Seen]) -> None:
    cut = video.extract_clip(seen["portrait"].uri, seen["portrait"].span(9, 18), "copy")
    assert cut.data is not None
    assert video.probe(seen["portrait"].uri).rotation == 270
    with video.Source("memory", file=io.BytesIO(cut.data)) as made:
        assert made.probe.rotation == 270


@pytest.mark.parametrize("mode", ["encode", "copy", "smart", "none"])
def test_a_span_past_the_end_is_an_error(mode: Any, seen: dict[str, Seen]) -> None:
    base = seen["b-frames"].base
    with pytest.raises((TooFewFrames, NotCopied)):
        video.extract_clip(seen["b-frames"].uri, Span(start=10**7, end=10**7 + 1, time_base=base), mode)


def test_decode_times_rise_and_never_come_after_the_picture() -> None:
    for pts in ([0, 1, 2], [0, 40, 20, 10, 30], [0, 160, 80, 40, 20, 60, 120, 100, 140], [7, 100, 9, 8]):
        times = decode_times(pts, max(pts) + 1)
        assert times == sorted(set(times))
        assert all(dts <= at for dts, at in zip(times, pts, strict=True))
    with pytest.raises(NotCopied, match="same time"):
        decode_times([0, 1, 1], 2)


# ---- encoding -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", CODECS)
def test_each_codec_encodes_exactly_and_the_same_again(codec: str, seen: dict[str, Seen]) -> None:
    source = seen["uneven-b"]
    encoding = video.Encoding(codec=codec, crf=14)
    cut = video.extract_clip(source.uri, source.span(FIRST, END), encoding=encoding)
    assert source.holds(cut) == (FIRST, END)
    assert cut.encoder == CODECS[codec].software
    again = video.extract_clip(source.uri, source.span(FIRST, END), encoding=encoding)
    worse = video.extract_clip(source.uri, source.span(FIRST, END), encoding=replace(encoding, crf=45))
    assert cut.data is not None
    assert again.data is not None
    assert worse.data is not None
    assert again.data == cut.data
    assert len(worse.data) < len(cut.data)
    with av.open(io.BytesIO(cut.data)) as container:
        (stream,) = container.streams
        assert stream.codec_context.codec.canonical_name == codec


def test_a_hardware_encoder_is_taken_where_there_is_one(seen: dict[str, Seen], monkeypatch: pytest.MonkeyPatch) -> None:
    """Here none may open, so one that opens everywhere stands for it, behind one that opens nowhere."""
    coder = replace(CODECS["h264"], hardware=("h264_v4l2m2m", "libopenh264", "mpeg4"))
    monkeypatch.setitem(CODECS, "h264", coder)
    source = seen["b-frames"]
    for encoder, taken in (("auto", "mpeg4"), ("software", "libx264")):
        cut = video.extract_clip(source.uri, source.span(0, 9), encoding=video.Encoding(encoder=encoder))
        assert cut.encoder == taken
        assert video.count_frames(cut.data or b"") == 9


def test_a_limit_of_frames_per_second_leaves_frames_out_and_keeps_times(seen: dict[str, Seen]) -> None:
    source = seen["b-frames"]
    cut = video.extract_clip(source.uri, source.span(1, 26), encoding=video.Encoding(max_fps=5, crf=12))
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
    cut = video.extract_clip(str(path), span, encoding=video.Encoding(crf=10, max_short_side=size), crop=crop)
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
    ("settings", "message"),
    [
        ({"codec": "vp8"}, "codec\n.*'h264', 'hevc' or 'av1'"),
        ({"crf": 52}, "crf=52: h264 takes 0 to 51"),
        ({"codec": "av1", "crf": 64}, "crf=64: av1 takes 0 to 63"),
        ({"preset": "quick"}, "preset\n.*'ultrafast'"),
        ({"encoder": "hardware"}, "encoder\n.*'software' or 'auto'"),
        ({"max_short_side": 8}, "max_short_side\n.*greater than or equal to 16"),
        ({"max_fps": 0}, "max_fps\n.*greater than 0"),
        ({"max_fps": float("nan")}, "max_fps\n.*finite"),
        ({"quality": 3}, "quality\n.*[Uu]nexpected"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        video.Encoding(**settings)


# ---- one source, many spans -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["b-frames", "open-gop-mkv", "transport"])
def test_spans_of_one_source_come_out_as_they_would_alone(
    kind: str, seen: dict[str, Seen], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Seen(tmp_path / f"x.{KINDS[kind][0]}", dict(KINDS[kind][1]))
    spans = [source.span(a, b) for a, b in ((2, 7), (7, 12), (14, 20), (25, 30), (3, 9))]
    alone = [video.extract_clip(source.uri, span).data for span in spans]
    opened: list[Span] = []
    monkeypatch.setattr(
        cutout, "open_before", lambda uri, span, **rest: opened.append(span) or video.open_before(uri, span, **rest)
    )
    with Extractor(source.uri) as extractor:
        for span, data in zip(spans, alone, strict=True):
            ours, theirs = extractor.extract(span).data, data
            assert ours is not None
            assert theirs is not None
            assert np.abs(video.decode_bytes(ours).pixels.astype(int) - video.decode_bytes(theirs).pixels).max() <= 8
    assert opened == [spans[-1]]  # which lies before the one extracted last


# ---- sources that change on the way -----------------------------------------------------------------------------------


def joined_flv(path: Path) -> Path:
    """Two recordings in one FLV, the second with a codec header of its own: the script tags and packets of both, one
    after the other."""
    for part, quality in (("a", 12), ("b", 34)):
        settings: dict[str, Any] = {**EVEN, "pts": list(range(30))}
        options = {"x264-params": f"{GOP}:bframes=2:qp={quality}"}
        late = (lambda index, width, height: numbered(index + 30, width, height)) if part == "b" else numbered
        render(path.with_name(f"{part}.flv"), options=options, picture=late, **settings)
    out = bytearray(path.with_name("a.flv").read_bytes())
    second, at = path.with_name("b.flv").read_bytes(), 13
    while at < len(second):
        length = int.from_bytes(second[at + 1 : at + 4], "big")
        tag = bytearray(second[at : at + 15 + length])
        if tag[0] == 9:  # video: its time, in ms
            time = int.from_bytes(tag[4:7], "big") + 1320
            tag[4:7] = time.to_bytes(3, "big")
            out += tag
        at += 15 + length
    path.write_bytes(bytes(out))
    return path


@pytest.fixture(scope="module")
def reheaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Seen]:
    folder = tmp_path_factory.mktemp("reheaded")
    flv = joined_flv(folder / "x.flv")
    with av.open(str(flv)) as coded, av.open(str(folder / "x.mp4"), "w") as container:
        stream = container.add_stream_from_template(coded.streams.video[0])
        for packet in coded.demux(video=0):
            if packet.size:
                packet.stream = stream
                container.mux(packet)
    return {suffix: Seen(folder / f"x.{suffix}") for suffix in ("flv", "mp4")}


@pytest.mark.parametrize("suffix", ["flv", "mp4"])
@pytest.mark.parametrize(("first", "end"), [(4, 24), (34, 52), (20, 50)])
def test_a_codec_header_that_changes_on_the_way_spoils_no_clip(
    first: int, end: int, suffix: str, reheaded: dict[str, Seen]
) -> None:
    source = reheaded[suffix]
    assert len(source.pts) == 60
    span = source.span(first, end)
    for mode in ("encode", "smart"):
        cut = video.extract_clip(source.uri, span, mode, encoding=video.Encoding(crf=8))
        assert source.holds(cut) == (first, end)
    assert np.array_equal(video.read_span(source.uri, span).pixels, np.stack(source.pixels[first:end]))
    if first >= 30:  # the new header is no copy's
        cut = video.extract_clip(source.uri, span, "copy", encoding=video.Encoding(crf=8))
        assert (source.holds(cut), cut.encoded) == ((first, end), end - first)


def test_clips_of_a_source_whose_size_changes_have_their_own_size(tmp_path: Path) -> None:
    """Whatever was extracted before, and wherever reading begins."""
    for part, size in enumerate([(192, 108), (320, 180)]):
        render(tmp_path / f"{part}.ts", size=size, **{**EVEN, "pts": list(range(150))}, options={"x264-params": GOP})
    with av.open(str(tmp_path / "x.ts"), "w") as container:
        stream: Any = None
        for part in range(2):
            with av.open(str(tmp_path / f"{part}.ts")) as coded:
                stream = stream or container.add_stream_from_template(coded.streams.video[0])
                for packet in coded.demux(video=0):
                    if packet.size:
                        packet.stream = stream
                        packet.pts += part * 150 * 3600
                        packet.dts += part * 150 * 3600
                        container.mux(packet)
    source = Seen(tmp_path / "x.ts")
    late, crop = source.span(250, 270), Crop(left=4, top=12, right=20, bottom=12)
    for before in ((), (source.span(140, 149),)):
        with Extractor(source.uri) as extractor:
            for span in before:
                extractor.extract(span)
            cut = extractor.extract(late, crop=crop)
            assert (cut.width, cut.height, cut.frames) == (296, 156, 20)
    assert video.read_span(source.uri, late).pixels.shape == (20, 180, 320, 3)
    copied = video.extract_clip(source.uri, source.span(200, 270), "copy")
    assert source.holds(copied) == (
        204,
        268,
    )  # from the next keyframe to the last picture that needs none behind the end
    assert (copied.encoded, copied.width, copied.height) == (0, 320, 180)


def test_pictures_that_an_edit_list_leaves_out_are_in_no_clip(tmp_path: Path) -> None:
    """The list shows frames 2 to 20 and 31 to 47, neither beginning at a keyframe."""
    path = tmp_path / "edits.mp4"
    render(path, count=48, options={"x264-params": "keyint=9:min-keyint=9:scenecut=0:bframes=0"})
    path.write_bytes(with_edits(path.read_bytes(), [(2, 19), (31, 17)]))
    source = Seen(path)
    shown = [*range(2, 21), *range(31, 48)]
    assert [number(rgb.mean(-1)) for rgb in source.pixels] == shown
    for first, end in ((0, 18), (12, 30), (20, 35)):
        for mode in ("encode", "smart"):
            cut = video.extract_clip(source.uri, source.span(first, end), mode, encoding=video.Encoding(crf=8))
            assert source.holds(cut) == (first, end)
        assert video.extract_clip(source.uri, source.span(first, end), "none").frames == end - first
        try:
            copy = video.extract_clip(source.uri, source.span(first, end), "copy")
        except NotCopied:
            assert first == 12  # the one that reaches over what is left out
        else:
            source.holds(copy, apart=0)


def test_a_copy_with_a_packet_marked_as_damaged_is_encoded(tmp_path: Path) -> None:
    """As the last one before a join of two transport streams is marked, whole as it may be: no mode loses the clip."""
    path = tmp_path / "x.ts"
    render(path, options={"x264-params": f"{GOP}:bframes=0"})
    with av.open(str(path)) as container:
        place = [packet.pos for packet in container.demux(video=0) if packet.size][12]
    data = bytearray(path.read_bytes())
    data[place + 1] |= 0x80  # the transport error indicator
    path.write_bytes(data)
    source = Seen(path)
    cut = video.extract_clip(source.uri, source.span(FIRST, END), "copy", encoding=video.Encoding(crf=8))
    assert (source.holds(cut), cut.encoded) == ((FIRST, END), END - FIRST)
    cut = video.extract_clip(source.uri, source.span(18, 30), "copy")  # behind it
    assert (source.holds(cut, apart=0), cut.encoded) == ((18, 30), 0)


def with_edits(data: bytes, edits: list[tuple[int, int]]) -> bytes:
    """An mp4 that ends in its ``moov``, of 25 frames per second, with an edit list of (first frame, frames)."""

    def place(path: list[bytes], start: int = 0, end: int | None = None) -> tuple[int, int]:
        at = start
        while at < (end or len(data)):
            size = int.from_bytes(data[at : at + 4], "big")
            if data[at + 4 : at + 8] == path[0]:
                return (at, size) if len(path) == 1 else place(path[1:], at + 8, at + size)
            at += size
        raise AssertionError(path)

    def stamp(path: list[bytes], offset: int) -> int:
        at, _ = place(path)
        return int.from_bytes(data[at + offset : at + offset + 4], "big")

    movie, media = stamp([b"moov", b"mvhd"], 20), stamp([b"moov", b"trak", b"mdia", b"mdhd"], 20)
    entries = [
        (frames * movie // 25).to_bytes(4, "big") + (first * media // 25).to_bytes(4, "big") + b"\0\1\0\0"
        for first, frames in edits
    ]
    body = bytes(4) + len(edits).to_bytes(4, "big") + b"".join(entries)
    box = (8 + len(body)).to_bytes(4, "big") + b"elst" + body
    box = (8 + len(box)).to_bytes(4, "big") + b"edts" + box
    (old, length), (head, size) = place([b"moov", b"trak", b"edts"]), place([b"moov", b"trak", b"tkhd"])
    out = bytearray(data)
    out[old : old + length] = box
    assert old >= head + size
    for path in ([b"moov"], [b"moov", b"trak"]):
        at, size = place(path)
        out[at : at + 4] = (size + len(box) - length).to_bytes(4, "big")
    return bytes(out)


def test_another_number_of_frames_than_was_seen_is_an_error(seen: dict[str, Seen]) -> None:
    source = seen["b-frames"]
    with Extractor(source.uri) as extractor:
        for mode, encoding in (("encode", video.Encoding(max_fps=5)), ("smart", None), ("none", None)):
            with pytest.raises(SourceError, match="18 frames decoded in the span where 17 were observed"):
                extractor.extract(source.span(FIRST, END), mode, encoding=encoding, expect=17)  # type: ignore[arg-type]
            assert extractor.extract(source.span(FIRST, END), mode, encoding=encoding, expect=18).frames  # type: ignore[arg-type]


def test_every_crop_comes_to_the_size_asked_for() -> None:
    for width, height in ((1280, 720), (640, 480), (854, 480), (1920, 1080), (321, 181)):
        for edge in range(0, height // 4, 3):
            for crop in (Crop(top=edge, bottom=edge), Crop(left=edge, right=edge + 1), Crop(top=edge, right=edge)):
                for side in (96, 144, 360, 480):
                    inner = min(width - crop.left - crop.right, height - crop.top - crop.bottom)
                    framing = Framing.of((width, height), side, crop)
                    assert 0 <= min(side, inner) - min(framing.width, framing.height) <= (3 if inner <= side else 0)
                    assert framing.left + framing.width <= framing.scaled[0]
                    assert framing.top + framing.height <= framing.scaled[1]


def test_a_clip_left_in_its_source_has_the_size_without_any_of_its_borders(tmp_path: Path) -> None:
    """Excludes a width from which the right border, or a height from which the bottom one, is not taken."""
    render(tmp_path / "x.mp4")
    source = Seen(tmp_path / "x.mp4")
    left = video.extract_clip(source.uri, source.span(0, 10), "none", crop=Crop(left=4, top=6, right=20, bottom=12))
    assert (left.width, left.height) == (192 - 24, 108 - 18)
