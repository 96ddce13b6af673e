"""Files that are not videos, or not whole: a failed row that says why, or the frames that are there, at their times."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from dailies.curation import video
from tests.observed import GRAY, check_frames, observed, times
from tests.rendered_video import GOP, number, numbered, render, silence

COUNT = 36
EVEN = [Fraction(index, 25) for index in range(COUNT)]
ON_FRAMES = {"pts": list(range(COUNT)), "time_base": Fraction(1, 25)}
X264: dict[str, Any] = {"options": {"x264-params": GOP, "threads": "1"}}
MPEG2: dict[str, Any] = {"codec": "mpeg2video", "options": {"g": "12"}}
PRORES: dict[str, Any] = {"codec": "prores_ks", "pix_fmt": "yuv422p10le"}
MJPEG: dict[str, Any] = {"codec": "mjpeg", "pix_fmt": "yuvj420p"}
VP9: dict[str, Any] = {"codec": "libvpx-vp9", "options": {"g": "12", "deadline": "realtime", "cpu-used": "8"}}


def cut_short(path: Path, share: float, **settings: Any) -> Path:
    """The first ``share`` of a rendered file's bytes."""
    render(path, **{**ON_FRAMES, **X264, **settings})
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


# ---- files that cannot be used --------------------------------------------------------------------------------------


def written(data: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / "file.mp4").write_bytes(data)
        return folder / "file.mp4"

    return make


def half(suffix: str, **settings: Any) -> Callable[[Path], Path]:
    return lambda folder: cut_short(folder / f"half.{suffix}", 0.5, **settings)


def folder_of_that_name(folder: Path) -> Path:
    (folder / "file.mp4").mkdir()
    return folder / "file.mp4"


def sound(folder: Path, *, cover: bool = False) -> Path:
    with av.open(folder / "file.mp4", "w") as container:
        stream = container.add_stream("aac", rate=48000)
        if cover:
            picture = container.add_stream("mjpeg", width=64, height=64, pix_fmt="yuvj420p")
            picture.disposition = av.stream.Disposition.attached_pic
            container.mux(picture.encode(av.VideoFrame(64, 64, "yuvj420p")))
            container.mux(picture.encode(None))
        silence(container, stream)
    return folder / "file.mp4"


def still(suffix: str) -> Callable[[Path], Path]:
    """A picture, renamed."""

    def make(folder: Path) -> Path:
        cv2.imwrite(str(folder / f"still.{suffix}"), numbered(0))
        return (folder / f"still.{suffix}").rename(folder / "file.mp4")

    return make


def one_frame(folder: Path) -> Path:
    render(folder / "file.mp4", count=1)
    return folder / "file.mp4"


def noise(folder: Path) -> Path:
    """Every second frame's slices overwritten."""
    return scratched(folder / "file.mp4", 2)


UNUSABLE: dict[
    str, tuple[Callable[[Path], Path], str, str]
] = {  # how it is made, the failure's kind, words of its message
    "missing": (lambda folder: folder / "file.mp4", "unreadable", "No such file"),
    "zero bytes": (written(b""), "unreadable", "the file is empty"),
    "ten bytes": (written(b"0123456789"), "unreadable", "Invalid data"),
    "text": (written(b"not a video\n" * 1000), "unreadable", "Invalid data"),
    "zeros": (written(bytes(100_000)), "unreadable", "Invalid data"),
    "random bytes": (written(np.random.default_rng(1).bytes(100_000)), "unreadable", "Invalid data"),
    "a folder": (folder_of_that_name, "unreadable", "is a folder, not a file"),
    "half an mp4 with its index at the end": (half("mp4"), "unreadable", "moov atom not found"),
    "sound only": (sound, "no_video", "in the file: audio"),
    "cover art only": (lambda folder: sound(folder, cover=True), "no_video", "no video stream"),
    "one frame": (one_frame, "too_few_frames", "1 frame from 1 packets"),
    "a PNG": (still("png"), "too_few_frames", "1 frame from 1 packets"),
    "a JPEG": (still("jpg"), "too_few_frames", "1 frame from 1 packets"),
    "half an mp4": (half("mp4", movflags="faststart"), "truncated", "of the 36 frames that the header declares: ends"),
    "half a mov": (
        half("mov", movflags="faststart", **PRORES),
        "truncated",
        "of the 36 frames that the header declares",
    ),
    "half a mkv": (half("mkv"), "truncated", "that the header declares"),
    "half a webm": (half("webm", **VP9), "truncated", "that the header declares"),
    "half a flv": (half("flv", time_base=Fraction(1, 1000), pts=[40 * i for i in range(36)]), "truncated", "header"),
    "half a mxf": (half("mxf", **MPEG2), "truncated", "that the header declares"),
    "half an avi": (half("avi", **MJPEG), "truncated", "of the 36 frames that the header declares"),
    "noise": (noise, "broken", "of 36 packets do not decode"),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_a_file_that_cannot_be_used_is_a_failed_row_that_says_why(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    make, kind, words = UNUSABLE[name]
    path = make(tmp_path)
    capfd.readouterr()
    row = observed(path)
    assert (row["status"], row["failure"]["stage"], row["failure"]["kind"]) == ("failed", "observe", kind)
    assert words in row["failure"]["message"]
    assert "\n" not in row["failure"]["message"]
    assert not row["pts"]
    assert capfd.readouterr() == ("", "")


# ---- files that end early and declare no length ---------------------------------------------------------------------

SHORT: dict[str, dict[str, Any]] = {
    "mp4": {"movflags": "frag_keyframe+empty_moov"},
    "ts": {},
    "mpg": MPEG2,
    "h264": {},
}


@pytest.mark.parametrize("suffix", SHORT)
def test_what_is_there_of_a_file_that_declares_no_length_is_used(suffix: str, tmp_path: Path) -> None:
    path = cut_short(tmp_path / f"short.{suffix}", 0.6, **SHORT[suffix])
    row = observed(path)
    assert row["status"] == "ok", row["failure"]
    whole = len(row["pts"]) - row["frames_corrupt"]
    assert 15 < whole < 30
    with video.open_source(str(path)) as source:
        seen = [number(picture.planes(GRAY)) for picture in source.frames()]
    assert seen[:whole] == list(range(whole))  # half a frame at the end counts as corrupt
    assert len(seen) == len(row["pts"])
    assert max(abs(at - times(row)[0] - wanted) for at, wanted in zip(times(row), EVEN, strict=False)) <= Fraction(
        1, 1000
    )


# ---- broken packets in the middle -----------------------------------------------------------------------------------


def scratched(path: Path, every: int) -> Path:
    """An mp4 with noise over the slices of every n-th frame. Its ``mdat`` is the last box."""
    render(path, movflags="faststart", **X264)
    body = bytearray(path.read_bytes())
    with av.open(path) as container:
        for count, packet in enumerate(container.demux(video=0)):
            if packet.size > 16 and packet.pos and count and count % every == 0:
                body[packet.pos + 4 : packet.pos + packet.size] = b"\xff" * (packet.size - 4)
    path.write_bytes(body)
    return path


def test_a_broken_packet_is_counted_and_the_rest_is_used(tmp_path: Path) -> None:
    source = video.open_source(str(scratched(tmp_path / "a.mp4", 20)))
    assert len(list(video.stream(source))) == 35
    assert source.decoder.packets_broken == 1


def busy(index: int, width: int, height: int) -> np.ndarray:
    """A numbered picture over moving grain, so that every packet holds something to damage."""
    grain = np.random.default_rng(5).integers(-25, 25, (height, width + 200, 3))
    return np.clip(numbered(index, width, height) + np.roll(grain, 3 * index, 1)[:, :width], 0, 255).astype(np.uint8)


# name: suffix, how it is rendered, whether its decoder notices what is done to it here
DAMAGED: dict[str, tuple[str, dict[str, Any], bool]] = {
    "h264": ("mp4", {"options": {"g": "12", "bf": "0", "threads": "1"}}, False),
    "h264-ts": ("ts", {"options": {"g": "12", "bf": "0", "threads": "1"}}, True),
    "hevc": ("mp4", {"codec": "libx265", "options": {"x265-params": "log-level=none:keyint=12"}}, False),
    "vp9": ("webm", VP9, False),
    "vp8": ("webm", {**VP9, "codec": "libvpx"}, False),
    "av1": ("mp4", {"codec": "libsvtav1", "options": {"g": "12", "crf": "15", "preset": "11"}}, True),
    "mpeg4": ("avi", {"codec": "mpeg4", "options": {"g": "12", "qmax": "5"}}, True),
    "mpeg2": ("ts", {**MPEG2, "options": {"g": "12", "qmax": "5"}}, True),
    "prores": ("mov", PRORES, True),
    "mjpeg": ("mov", {**MJPEG, "options": {"qmax": "5"}}, True),
    "png": ("mov", {"codec": "png", "pix_fmt": "rgb24"}, True),
    "ffv1": ("mkv", {"codec": "ffv1", "options": {"g": "12"}}, False),
}


def damage(path: Path, which: int, content: Callable[[int], bytes]) -> None:
    """Put ``content`` over the middle of one packet's bytes."""
    with av.open(path) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][which]
        place, size, start = packet.pos or 0, packet.size, bytes(packet)[:64]
    data = bytearray(path.read_bytes())
    if path.suffix == ".ts":  # the second of the pieces that it lies in, header and all
        place, length = place + 188, 188
    else:
        place, length = data.find(start, place) + size // 3, size // 2
    data[place : place + length] = content(length)
    path.write_bytes(data)


def random_bytes(length: int) -> bytes:
    return np.random.default_rng(17).bytes(length)


@pytest.mark.parametrize("content", [bytes, random_bytes])
@pytest.mark.parametrize("name", DAMAGED)
def test_damage_stays_between_two_keyframes_and_is_counted_where_the_decoder_notices(
    name: str, content: Callable[[int], bytes], tmp_path: Path
) -> None:
    suffix, settings, noticed = DAMAGED[name]
    path = tmp_path / f"{name}.{suffix}"
    render(path, **ON_FRAMES, **settings, picture=busy)
    check_frames(path, observed(path), EVEN)
    damage(path, 16, content)
    row = observed(path)
    assert row["status"] == "ok", row["failure"]
    with video.open_source(str(path)) as source:
        seen = {picture.pts: number(picture.planes(GRAY)) for picture in source.frames()}
    assert list(seen) == row["pts"]
    shown = [round((at - times(row)[0]) * 25) for at in times(row)]
    right = {index: said == index for index, said in zip(shown, seen.values(), strict=True)}
    assert all(right[index] for index in [*range(12), *range(24, COUNT)])
    assert len(right) >= COUNT - 3
    if noticed:
        assert row["packets_broken"] + row["frames_corrupt"] > 0
