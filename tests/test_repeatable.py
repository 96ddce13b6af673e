"""The same frames and settings are encoded to the same bytes, whatever lay in memory before, on one core and on all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from dailies.curation import video, world
from dailies.curation.timing import Span
from dailies.curation.video import repeatable
from dailies.curation.video.encode import CODECS
from dailies.curation.video.repeatable import encoder_options
from dailies.curation.world.render import Pixels

SIZE = (320, 180)  # 20 macroblocks wide, at which x264's AVX-512 code gave other numbers each time


@pytest.fixture(scope="module")
def frames() -> list[Pixels]:
    return list(world.frames(world.write_script((1,), shots=3, size=SIZE)))


@pytest.fixture(scope="module")
def source(frames: list[Pixels], tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(world.encode(frames, tmp_path_factory.mktemp("source") / "a.mp4", gop=12))


@pytest.fixture
def on_one_core() -> Iterator[Callable[[], None]]:
    """A function that leaves this process one core, until the test is over."""
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system does not bind processes to cores")
    cores = os.sched_getaffinity(0)
    yield lambda: os.sched_setaffinity(0, {min(cores)})
    os.sched_setaffinity(0, cores)


def disturb(seed: int) -> list[bytes]:
    """Leave memory of other contents and at other addresses behind; what is returned stays taken."""
    rng = np.random.default_rng(seed)
    pieces = [bytes([seed + 1]) * int(size) for size in rng.integers(1000, 2_000_000, 30)]
    return pieces[::2]


def all_same(encode: Callable[[], bytes], on_one_core: Callable[[], None]) -> bool:
    made, taken = [encode()], []
    for seed in range(4):
        taken.append(disturb(seed))
        if seed == 2:
            on_one_core()
        made.append(encode())
    assert made[0]
    return len(set(made)) == 1


@pytest.mark.parametrize(
    ("codec", "suffix"),
    [
        *(("libx264", suffix) for suffix in (".mp4", ".mkv", ".ts")),
        *(("libx265", ".mp4"), ("libsvtav1", ".mkv"), ("libvpx-vp9", ".webm"), ("ffv1", ".mkv"), ("mpeg4", ".avi")),
    ],
)
def test_the_rendered_world_is_the_same_file_again(
    codec: str, suffix: str, frames: list[Pixels], tmp_path: Path, on_one_core: Callable[[], None]
) -> None:
    options = {"cpu-used": "8", "deadline": "realtime"} if codec == "libvpx-vp9" else None
    pictures = frames if codec == "libx264" else frames[:40]
    tone = 440.0 if suffix in (".mp4", ".ts") else None

    def encode() -> bytes:
        path = world.encode(pictures, tmp_path / f"a{suffix}", codec=codec, tone=tone, options=options)
        return path.read_bytes()

    assert all_same(encode, on_one_core)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("codec", CODECS)
def test_an_encoded_clip_is_the_same_file_again(
    codec: str, threads: int, source: str, on_one_core: Callable[[], None]
) -> None:
    settings = video.Encoding(codec=codec, threads=threads)
    assert all_same(lambda: extracted(source, "encode", settings), on_one_core)


@pytest.mark.parametrize("codec", ["libx264", "libx265", "libsvtav1"])
def test_a_smart_clip_is_the_same_file_again(
    codec: str, frames: list[Pixels], tmp_path: Path, on_one_core: Callable[[], None]
) -> None:
    source = str(world.encode(frames[:40], tmp_path / "a.mp4", codec=codec, gop=12))
    assert all_same(lambda: extracted(source, "smart", video.Encoding()), on_one_core)


def test_a_copy_in_matroska_is_the_same_file_again(
    frames: list[Pixels], tmp_path: Path, on_one_core: Callable[[], None]
) -> None:
    source = str(world.encode(frames[:40], tmp_path / "a.mkv", codec="ffv1"))
    assert all_same(lambda: extracted(source, "copy", video.Encoding()), on_one_core)


@pytest.mark.parametrize(("suffix", "codec", "mode"), [("mp4", "libx264", "encode"), ("mkv", "ffv1", "copy")])
def test_a_clip_with_sound_is_the_same_file_again(
    suffix: str, codec: str, mode: video.Mode, frames: list[Pixels], tmp_path: Path, on_one_core: Callable[[], None]
) -> None:
    """AAC in mp4, and Opus in Matroska."""
    source = str(world.encode(frames[:40], tmp_path / f"a.{suffix}", codec=codec, gop=12, tone=440.0))
    assert all_same(lambda: extracted(source, mode, video.Encoding(), "keep"), on_one_core)


def extracted(source: str, mode: video.Mode, encoding: video.Encoding, audio: video.Audio = "drop") -> bytes:
    opened = video.open_source(source)
    times = [picture.pts for picture in video.stream(opened)]
    span = Span(start=times[5], end=times[-3], time_base=Fraction(opened.time_base))
    clip = video.extract_clip(source, span, mode, encoding=encoding, audio=audio)
    assert (clip.sound.audio == "kept") == (audio == "keep")
    assert clip.data is not None
    return clip.data


def test_what_a_caller_sets_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last of an encoder's parameters counts; AVX2 is asked for only where there is more, as it may not be there."""
    monkeypatch.setattr(repeatable, "has_avx512", lambda: True)
    given = encoder_options("libx264", {"crf": "3", "threads": "4", "x264-params": "keyint=9:asm=0"})
    assert given == {"crf": "3", "threads": "4", "x264-params": "asm=AVX2:keyint=9:asm=0"}
    assert encoder_options("libx264", {})["x264-params"] == "asm=AVX2"
    monkeypatch.setattr(repeatable, "has_avx512", lambda: False)
    assert encoder_options("libx264", {"crf": "3"}, threads=2) == {"crf": "3", "threads": "2"}
    assert encoder_options("mpeg4", {"b": "1M"}) == {"threads": "1", "b": "1M"}
