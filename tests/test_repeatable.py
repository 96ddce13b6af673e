"""The same frames and settings are encoded to the same bytes, whatever lay in memory before, on one core and on all."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dailies.curation import video, world
from dailies.curation.timing import Span
from dailies.curation.video import repeatable
from dailies.curation.video.encode import CODECS, Codec
from dailies.curation.video.repeatable import encoder_options
from dailies.curation.world.render import Pixels

SIZE = (320, 180)  # 20 macroblocks wide, at which x264's AVX-512 code gave other numbers each time


@pytest.fixture(scope="module")
def frames() -> list[Pixels]:
    return list(world.frames(world.write_script((1,), shots=3, size=SIZE)))


@pytest.fixture(scope="module")
def source(frames: list[Pixels], tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(world.encode(frames, tmp_path_factory.mktemp("source") / "a.mp4", gop=12))


def on_one_core() -> None:
    """Leave this process one core, where the system binds processes to cores."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


@pytest.fixture(autouse=True)
def all_cores_again() -> Iterator[None]:
    """This process's cores are as before once a test is over."""
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    yield
    if cores:
        os.sched_setaffinity(0, cores)


def disturb(seed: int) -> list[bytes]:
    """Leave memory of other contents and at other addresses behind; what is returned stays taken."""
    rng = np.random.default_rng(seed)
    pieces = [bytes([seed + 1]) * int(size) for size in rng.integers(1000, 2_000_000, 30)]
    return pieces[::2]


def all_same(encode: Callable[[], bytes]) -> bool:
    made, taken = [encode()], []
    for seed in range(4):
        taken.append(disturb(seed))
        if seed == 2:
            on_one_core()
        made.append(encode())
    assert made[0]
    return len(set(made)) == 1


HUNG = 90  # seconds after which a child process is taken to hang: it needs a few


def in_child(test: Callable[..., None], *values: Any) -> None:
    """Run ``test`` in a child process, once more if it hangs.

    SVT-AV1 hung once for good within an encoder's flush (``svt_av1_enc_get_packet``), while all of its threads waited.
    Hundreds of encodes on one core and on two did not show it again, and no setting is known that avoids it. Nothing within
    the process could end it: pipelines, too, encode in a child, which is killed when it stalls.
    """
    for tries in (1, 0):
        child = multiprocessing.get_context("spawn").Process(target=test, args=values, daemon=True)
        child.start()
        child.join(HUNG)
        if child.exitcode is not None:
            assert child.exitcode == 0  # what it raised stands on stderr
            return
        child.kill()
        child.join()
        assert tries, f"hangs each time: {test.__name__}{values}"


@pytest.mark.parametrize(
    ("codec", "suffix"),
    [
        *(("libx264", suffix) for suffix in (".mp4", ".mkv", ".ts")),
        *(("libx265", ".mp4"), ("libsvtav1", ".mkv"), ("libvpx-vp9", ".webm"), ("ffv1", ".mkv"), ("mpeg4", ".avi")),
    ],
)
def test_the_rendered_world_is_the_same_file_again(
    codec: str, suffix: str, frames: list[Pixels], tmp_path: Path
) -> None:
    pictures = frames if codec == "libx264" else frames[:40]
    run = in_child if codec == "libsvtav1" else _run
    run(rendered_again, codec, pictures, tmp_path / f"a{suffix}")


def rendered_again(codec: str, pictures: list[Pixels], path: Path) -> None:
    options = {"cpu-used": "8", "deadline": "realtime"} if codec == "libvpx-vp9" else None
    tone = 440.0 if path.suffix in (".mp4", ".ts") else None
    assert all_same(lambda: world.encode(pictures, path, codec=codec, tone=tone, options=options).read_bytes())


def _run(test: Callable[..., None], *values: Any) -> None:
    test(*values)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("codec", CODECS)
def test_an_encoded_clip_is_the_same_file_again(codec: Codec, threads: int, source: str) -> None:
    settings = video.Encoding(codec=codec, threads=threads)
    run = in_child if codec == "av1" else _run
    run(extracted_again, source, "encode", settings)


def extracted_again(source: str, mode: video.Mode, encoding: video.Encoding) -> None:
    assert all_same(lambda: extracted(source, mode, encoding))


@pytest.mark.parametrize("codec", ["libx264", "libx265", "libsvtav1"])
def test_a_smart_clip_is_the_same_file_again(codec: str, frames: list[Pixels], tmp_path: Path) -> None:
    run = in_child if codec == "libsvtav1" else _run
    run(spliced_again, codec, frames[:40], tmp_path / "a.mp4")


def spliced_again(codec: str, pictures: list[Pixels], path: Path) -> None:
    extracted_again(str(world.encode(pictures, path, codec=codec, gop=12)), "smart", video.Encoding())


def test_a_copy_in_matroska_is_the_same_file_again(frames: list[Pixels], tmp_path: Path) -> None:
    source = str(world.encode(frames[:40], tmp_path / "a.mkv", codec="ffv1"))
    assert all_same(lambda: extracted(source, "copy", video.Encoding()))


@pytest.mark.parametrize(("suffix", "codec", "mode"), [("mp4", "libx264", "encode"), ("mkv", "ffv1", "copy")])
def test_a_clip_with_sound_is_the_same_file_again(
    suffix: str, codec: str, mode: video.Mode, frames: list[Pixels], tmp_path: Path
) -> None:
    """AAC in mp4, and Opus in Matroska."""
    source = str(world.encode(frames[:40], tmp_path / f"a.{suffix}", codec=codec, gop=12, tone=440.0))
    assert all_same(lambda: extracted(source, mode, video.Encoding(), "keep"))


def extracted(source: str, mode: video.Mode, encoding: video.Encoding, audio: video.Audio = "drop") -> bytes:
    opened = video.open_source(source)
    times = [picture.pts for picture in video.stream(opened)]
    span = Span(start=times[5], end=times[-3], time_base=Fraction(opened.time_base))
    clip = video.extract_clip(source, span, mode, encoding=encoding, audio=audio)
    assert (clip.sound.audio == "kept") == (audio == "keep")
    assert clip.data is not None
    return clip.data


def _hang_at_first(path: Path) -> None:
    if not path.exists():
        path.touch()
        time.sleep(1000)


@pytest.mark.slow
def test_a_child_that_hangs_is_tried_once_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.test_repeatable.HUNG", 10)
    in_child(_hang_at_first, tmp_path / "begun")


def test_what_a_caller_sets_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last of an encoder's parameters counts; AVX2 is asked for only where there is more, as it may not be there."""
    monkeypatch.setattr(repeatable, "has_avx512", lambda: True)
    given = encoder_options("libx264", {"crf": "3", "threads": "4", "x264-params": "keyint=9:asm=0"})
    assert given == {"crf": "3", "threads": "4", "x264-params": "asm=AVX2:keyint=9:asm=0"}
    assert encoder_options("libx264", {})["x264-params"] == "asm=AVX2"
    monkeypatch.setattr(repeatable, "has_avx512", lambda: False)
    assert encoder_options("libx264", {"crf": "3"}, threads=2) == {"crf": "3", "threads": "2"}
    assert encoder_options("mpeg4", {"b": "1M"}) == {"threads": "1", "b": "1M"}
