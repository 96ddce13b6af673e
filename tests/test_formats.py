"""Every codec, container and way to store a picture that people's files come in: right frames, times and colours, upright."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.codec.context import Flags

from dailies.curation import video
from dailies.curation.errors import NoVideo
from tests.observed import check_colours, check_frames, observed
from tests.rendered_video import COLOURS, chart, patches, remuxed, render, silence

COUNT = 12
WEIGHTS = {  # of R, G, B in luma, by AVColorSpace
    1: (0.2126, 0.7152, 0.0722),
    4: (0.30, 0.59, 0.11),
    6: (0.299, 0.587, 0.114),
    7: (0.212, 0.701, 0.087),
    9: (0.2627, 0.6780, 0.0593),
}
X264: dict[str, Any] = {"options": {"crf": "4", "x264-params": "keyint=6:bframes=2:b-adapt=0:scenecut=0"}}
X265: dict[str, Any] = {"codec": "libx265", "options": {"crf": "4", "x265-params": "log-level=none:keyint=6"}}
AV1: dict[str, Any] = {"codec": "libsvtav1", "options": {"crf": "10", "preset": "12"}}
VP9: dict[str, Any] = {"codec": "libvpx-vp9", "options": {"crf": "4", "deadline": "realtime", "cpu-used": "8"}}
MPEG4: dict[str, Any] = {"codec": "mpeg4", "options": {"qmax": "2", "g": "6", "bf": "2"}}
MPEG2: dict[str, Any] = {"codec": "mpeg2video", "options": {"qmax": "2", "g": "6", "bf": "2"}}
MJPEG: dict[str, Any] = {"codec": "mjpeg", "pix_fmt": "yuvj420p", "options": {"qmax": "2"}}
PRORES: dict[str, Any] = {"codec": "prores_ks", "pix_fmt": "yuv422p10le"}
FFV1: dict[str, Any] = {"codec": "ffv1"}
DNXHR: dict[str, Any] = {"codec": "dnxhd", "pix_fmt": "yuv422p", "size": (480, 270), "tags": (1, 1)}
DNXHR["options"] = {"profile": "dnxhr_hq"}
FIELDS = Flags.interlaced_dct | Flags.interlaced_me

# name: suffix, how it is rendered, what its row says beside the plain.
Table = dict[str, tuple[str, dict[str, Any], dict[str, Any]]]

CODECS: Table = {
    "h264": ("mp4", X264, {"codec": "h264", "pixel_format": "yuv420p"}),
    "hevc": ("mp4", X265, {"codec": "hevc"}),
    "vp9": ("webm", VP9, {"codec": "vp9"}),
    "vp8": ("webm", {**VP9, "codec": "libvpx"}, {"codec": "vp8"}),
    "av1": ("mp4", AV1, {}),
    "mpeg4": ("mp4", MPEG4, {"codec": "mpeg4"}),
    "mpeg2": ("ts", MPEG2, {"codec": "mpeg2video"}),
    "prores": ("mov", PRORES, {"codec": "prores", "pixel_format": "yuv422p10le"}),
    "mjpeg": ("avi", MJPEG, {"codec": "mjpeg"}),
    "ffv1": ("mkv", FFV1, {"codec": "ffv1"}),
    "dnxhr": ("mov", DNXHR, {"codec": "dnxhd"}),
    "gif": ("gif", {"codec": "gif", "pix_fmt": "rgb8", "time_base": Fraction(1, 100)}, {"pixel_format": "bgra"}),
    "qtrle": ("mov", {"codec": "qtrle", "pix_fmt": "argb"}, {}),
    "png": ("mov", {"codec": "png", "pix_fmt": "rgba"}, {}),
}
CONTAINERS: Table = {
    "h264-mov": ("mov", X264, {}),
    "h264-mkv": ("mkv", X264, {"container": "matroska,webm"}),
    "h264-ts": ("ts", X264, {"container": "mpegts"}),
    "h264-flv": ("flv", {**X264, "time_base": Fraction(1, 1000)}, {"container": "flv"}),
    "h264-avi": ("avi", X264, {"container": "avi"}),
    "h264-raw": ("h264", X264, {"container": "h264", "duration": None}),
    "hevc-ts": ("ts", X265, {}),
    "hevc-raw": ("hevc", X265, {}),
    "av1-mkv": ("mkv", AV1, {}),
    "av1-ivf": ("ivf", AV1, {}),
    "mpeg4-avi": ("avi", MPEG4, {}),
    "mpeg2-mpg": ("mpg", MPEG2, {}),
    "mpeg2-mxf": ("mxf", {**MPEG2, "options": {"qmax": "2"}}, {}),
    "mjpeg-mov": ("mov", MJPEG, {}),
    "with-sound": ("mp4", {**X264, "audio": True}, {"has_audio": True}),
}
STORED: Table = {  # bit depth, chroma, alpha, RGB
    "h264-420-10": ("mkv", {**X264, "pix_fmt": "yuv420p10le"}, {"pixel_format": "yuv420p10le"}),
    "h264-422": ("mkv", {**X264, "pix_fmt": "yuv422p"}, {}),
    "h264-422-10": ("mkv", {**X264, "pix_fmt": "yuv422p10le"}, {}),
    "h264-444": ("mkv", {**X264, "pix_fmt": "yuv444p"}, {}),
    "h264-444-10": ("mkv", {**X264, "pix_fmt": "yuv444p10le"}, {}),
    "h264-rgb": ("mkv", {**X264, "codec": "libx264rgb", "pix_fmt": "rgb24"}, {"pixel_format": "gbrp"}),
    "hevc-420-10": ("mov", {**X265, "pix_fmt": "yuv420p10le"}, {}),
    "hevc-422-12": ("mkv", {**X265, "pix_fmt": "yuv422p12le"}, {"pixel_format": "yuv422p12le"}),
    "hevc-rgb-10": ("mkv", {**X265, "pix_fmt": "gbrp10le"}, {"pixel_format": "gbrp10le"}),
    "vp9-444": ("webm", {**VP9, "pix_fmt": "yuv444p"}, {"pixel_format": "yuv444p"}),
    "vp9-alpha": ("webm", {**VP9, "pix_fmt": "yuva420p", "options": {**VP9["options"], "auto-alt-ref": "0"}}, {}),
    "av1-10": ("mkv", {**AV1, "pix_fmt": "yuv420p10le"}, {"pixel_format": "yuv420p10le"}),
    "prores-4444": ("mov", {**PRORES, "pix_fmt": "yuva444p10le"}, {"pixel_format": "yuva444p12le"}),
    "mpeg2-422": ("ts", {**MPEG2, "pix_fmt": "yuv422p"}, {}),
    "mjpeg-422": ("mov", {**MJPEG, "pix_fmt": "yuvj422p"}, {}),
    **{
        f"ffv1-{form}": ("mkv", {**FFV1, "pix_fmt": form}, {"pixel_format": form})
        for form in (
            "yuv410p",
            "yuv411p",
            "yuv440p",
            "yuva420p",
            "yuv444p16le",
            "bgr0",
            "bgra",
            "gbrp16le",
            "gbrap12le",
        )
    },
}
SHAPES: Table = {
    "interlaced-mpeg2": ("ts", {**MPEG2, "flags": FIELDS}, {"interlaced": True}),
    "interlaced-h264": ("mp4", {"options": {"crf": "4", "x264-params": "tff=1"}}, {"interlaced": True}),
    "interlaced-prores": ("mov", {**PRORES, "flags": Flags.interlaced_dct}, {"interlaced": True}),
    "wide-pixels": ("mp4", {**X264, "aspect": Fraction(4, 3)}, {"width": 256}),
    "wide-pixels-mkv": ("mkv", {**X264, "aspect": Fraction(4, 3)}, {"width": 256}),
    "wide-pixels-avi": ("avi", {**MPEG4, "aspect": Fraction(16, 11)}, {"width": 279}),
    "wide-pixels-mpg": (
        "mpg",
        {**MPEG2, "size": (180, 144), "aspect": Fraction(64, 45)},
        {"width": 256, "height": 144},
    ),
    "wide-pixels-raw": ("h264", {**X264, "aspect": Fraction(4, 3)}, {"width": 256}),
    "narrow-pixels": ("ts", {**X264, "aspect": Fraction(8, 9)}, {"width": 171}),
    "narrow-pixels-mov": ("mov", {**PRORES, "aspect": Fraction(1, 2)}, {"width": 96}),
    "absurd-pixels": ("mp4", {**X264, "aspect": Fraction(50)}, {"pixel_aspect": 1.0}),
    "turned": ("mov", {**X264, "rotation": 90}, {"width": 108, "height": 192, "rotation": 90}),
    "turned-back": ("mp4", {**X264, "rotation": -90}, {"width": 108, "height": 192, "rotation": 270}),
    "upside-down": ("mov", {**MJPEG, "rotation": 180}, {"rotation": 180}),
    "mirrored": ("mov", {**X264, "rotation": 0, "flip": True}, {}),
    "turned-wide-pixels": (
        *("mp4", {**X264, "rotation": 90, "aspect": Fraction(4, 3)}),
        {"width": 108, "height": 256, "rotation": 90},
    ),
    **{
        f"odd-{name}": (suffix, {**settings, "size": (193, 109)}, {"width": 193, "height": 109})
        for name, suffix, settings in (
            ("h264", "mkv", {**X264, "pix_fmt": "yuv444p"}),
            ("vp9", "webm", VP9),
            ("av1", "mkv", AV1),
            ("mjpeg", "mov", MJPEG),
            ("prores", "mov", PRORES),
            ("ffv1", "mkv", FFV1),
        )
    },
}
PLAIN = {"rotation": 0, "interlaced": False, "hdr": False, "has_audio": False}
CASES = CODECS | CONTAINERS | STORED | SHAPES


@pytest.mark.parametrize("name", CASES)
def test_frames_times_and_colours_are_those_rendered(name: str, tmp_path: Path) -> None:
    suffix, settings, said = CASES[name]
    path, base = tmp_path / f"{name}.{suffix}", settings.get("time_base", Fraction(1, 25))
    pts = [round(index / 25 / base) for index in range(COUNT)]
    render(path, **{"pts": pts, "time_base": base, "picture": chart, **settings})
    row = observed(path)
    check_frames(path, row, [at * base for at in pts])
    check_colours(path, row)
    width, height = settings.get("size", (192, 108))
    plain = {"width": width, "height": height, "pixel_aspect": float(settings.get("aspect", 1))}
    for key, value in {**PLAIN, **plain, **said}.items():
        assert row["probe"][key] == pytest.approx(value), key
    assert row["seconds"] == pytest.approx(COUNT / 25, abs=0.0015)
    assert (row["packets_broken"], row["frames_corrupt"]) == (0, 0)


# ---- colours --------------------------------------------------------------------------------------------------------

RANGES = {"unstated": 0, "limited": 1, "full": 2}
COLOURED: Table = {
    **{
        f"h264-{matrix}-{name}": ("mkv", {**X264, "pix_fmt": "yuv444p", "tags": (range_, matrix)}, {})
        for matrix in (1, 4, 6, 7)
        for name, range_ in RANGES.items()
    },
    "hevc-bt2020-sdr": ("ts", {**X265, "pix_fmt": "yuv420p10le", "tags": (1, 9), "light": (9, 14)}, {}),
    "vp9-bt709-full": ("webm", {**VP9, "tags": (2, 1)}, {}),
    "av1-bt709-full": ("mp4", {**AV1, "tags": (2, 1)}, {}),
    "prores-bt709": ("mov", {**PRORES, "tags": (1, 1)}, {}),
    "mpeg2-bt709": ("ts", {**MPEG2, "tags": (1, 1)}, {}),
    "mjpeg-limited": (
        "mkv",
        {**MJPEG, "pix_fmt": "yuv420p", "tags": (1, 6), "options": {"qmax": "2", "strict": "-1"}},
        {},
    ),
}


@pytest.mark.parametrize("name", COLOURED)
def test_colours_are_right_by_the_range_and_matrix_that_the_file_names(name: str, tmp_path: Path) -> None:
    suffix, settings, _ = COLOURED[name]
    path = tmp_path / f"{name}.{suffix}"
    render(path, pts=[0, 1], time_base=Fraction(1, 25), picture=chart, **settings)
    check_colours(path, observed(path), luma=COLOURS @ WEIGHTS[settings["tags"][1]])


def squeezed(index: int, width: int, height: int) -> np.ndarray:
    """The chart in limited range, to which swscale does not bring gray."""
    return np.rint(16 + chart(index, width, height) * (219 / 255)).astype(np.uint8)


LIMITED = {"tags": (1, 6), "picture": squeezed}
GRAYS = {
    "h264": ("mkv", {**X264, **LIMITED, "pix_fmt": "gray"}),
    "h264-10": ("mkv", {**X264, **LIMITED, "pix_fmt": "gray10le"}),
    "h264-full": ("mkv", {**X264, "pix_fmt": "gray", "tags": (2, 6)}),
    "hevc": ("ts", {**X265, **LIMITED, "pix_fmt": "gray"}),
    "hevc-12": ("ts", {**X265, **LIMITED, "pix_fmt": "gray12le"}),
    "ffv1-limited": ("mkv", {**FFV1, **LIMITED, "pix_fmt": "gray"}),
    "ffv1": ("mkv", {**FFV1, "pix_fmt": "gray"}),
    "ffv1-16": ("mkv", {**FFV1, "pix_fmt": "gray16le"}),
    "ffv1-alpha": ("mkv", {**FFV1, "pix_fmt": "ya8"}),
}


@pytest.mark.parametrize("name", GRAYS)
def test_gray_stays_gray(name: str, tmp_path: Path) -> None:
    suffix, settings = GRAYS[name]
    path = tmp_path / f"{name}.{suffix}"
    render(path, **{"pts": [0, 1], "time_base": Fraction(1, 25), "picture": chart, **settings})
    luma = COLOURS @ WEIGHTS[6]
    check_colours(path, observed(path), np.repeat(luma[:, None], 3, axis=1), luma)


@pytest.mark.parametrize("matrix", ["YCgCo", "ICtCp"])
def test_colours_that_cannot_be_converted_are_a_failed_row(matrix: str, tmp_path: Path) -> None:
    path = tmp_path / "odd.mkv"
    render(path, count=2, options={"x264-params": f"colormatrix={matrix}"})
    row = observed(path)
    assert (row["status"], row["failure"]["kind"]) == ("failed", "unreadable")
    assert row["failure"]["message"] == f"its colours are in {matrix}, which is not read"


# ---- several streams, and other sizes on the way --------------------------------------------------------------------


def two_streams(path: Path, *, default: int) -> None:
    sizes = ((96, 54), (192, 108))
    with av.open(path, "w") as container:
        streams = [container.add_stream("libx264", rate=25, width=width, height=height) for width, height in sizes]
        for number, stream in enumerate(streams):
            stream.pix_fmt, stream.options = "yuv420p", {"crf": "4"}
            stream.disposition = av.stream.Disposition.default if number == default else av.stream.Disposition(0)
        for index in range(COUNT):
            for stream, size in zip(streams, sizes, strict=True):
                frame = av.VideoFrame.from_ndarray(chart(index, *size), format="rgb24")
                frame.pts, frame.time_base = index, Fraction(1, 25)
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode(None))


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("default", [0, 1])
def test_of_several_video_streams_the_files_default_is_read(suffix: str, default: int, tmp_path: Path) -> None:
    path = tmp_path / f"two.{suffix}"
    two_streams(path, default=default)
    row = observed(path)
    check_frames(path, row, [Fraction(index, 25) for index in range(COUNT)])
    check_colours(path, row)
    assert (row["probe"]["stream"], row["probe"]["width"]) == (default, (96, 192)[default])
    assert video.probe(str(path), stream=1 - default).width == (192, 96)[default]
    with pytest.raises(NoVideo, match="no video stream 7; in the file: video"):
        video.probe(str(path), stream=7)


def test_cover_art_beside_a_video_is_not_the_video(tmp_path: Path) -> None:
    plain, path = tmp_path / "plain.mp4", tmp_path / "cover.mp4"
    render(plain, count=COUNT, picture=chart, **X264)
    with av.open(plain) as source, av.open(path, "w") as container:
        cover = container.add_stream("mjpeg", width=640, height=640, pix_fmt="yuvj420p")
        cover.disposition = av.stream.Disposition.attached_pic
        copy, sound = (
            container.add_stream_from_template(source.streams.video[0]),
            container.add_stream("aac", rate=48000),
        )
        container.mux(cover.encode(av.VideoFrame(640, 640, "yuvj420p")))
        container.mux(cover.encode(None))
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = copy
                container.mux(packet)
        silence(container, sound)
    row = observed(path)
    check_frames(path, row, [Fraction(index, 25) for index in range(COUNT)])
    check_colours(path, row)
    assert (row["probe"]["codec"], row["probe"]["has_audio"]) == ("h264", True)


@pytest.mark.parametrize("suffix", ["h264", "ts"])
def test_pictures_whose_size_changes_on_the_way_are_on_record_and_keep_their_own(suffix: str, tmp_path: Path) -> None:
    parts = [tmp_path / f"{number}.{suffix}" for number in range(2)]
    for number, (part, size) in enumerate(zip(parts, [(192, 108), (96, 54)], strict=True)):
        settings = {"pts": [25 + 50 * number + index for index in range(COUNT)], "time_base": Fraction(1, 25)}
        render(tmp_path / "one.mp4", size=size, picture=chart, **settings, **X264)
        remuxed(tmp_path / "one.mp4", part, **({"mpegts_copyts": "1"} if suffix == "ts" else {}))
    path = tmp_path / f"both.{suffix}"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    row = observed(path)
    starts = (0, 2) if suffix == "ts" else (0, Fraction(COUNT, 25))
    truth = [start + Fraction(index, 25) for start in starts for index in range(COUNT)]
    check_frames(path, row, truth, [*range(COUNT), *range(COUNT)])
    with video.open_source(str(path)) as source:
        for index, picture in enumerate(source.frames()):
            assert picture.rgb().shape == ((108, 192, 3) if index < COUNT else (54, 96, 3))
            assert np.abs(patches(picture.rgb()) - COLOURS).max() <= 5
    assert [(g["width"], g["height"]) for g in row["geometries"]] == [(192, 108), (96, 54)]
    assert [g["pts"] for g in row["geometries"]] == [row["pts"][0], row["pts"][COUNT]]
