"""Clips keep the sound of their span, in step with their frames to the sample, in every mode."""

from __future__ import annotations

import errno
import io
import json
import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from dailies.curation import export_schema
from dailies.curation.errors import Unreadable
from dailies.curation.observe import observe
from dailies.curation.observers import SoundObserver
from dailies.curation.timing import Span
from dailies.curation.video import Extractor, audio, bytes_io, count_frames, decode_bytes, extract_clip, probe
from dailies.curation.video.encode import ExtractedClip
from dailies.curation.video.sound_file import SoundFile
from dailies.curation.video.soundtrack import ClipSound
from tests.conftest import Dailies
from tests.rendered_video import numbered

FPS = 25
SECONDS = 4
Sound = NDArray[np.float32]


def noise(rate: int, channels: int = 1, seconds: float = SECONDS, seed: int = 5) -> Sound:
    """Noise below 4 kHz, other in each channel: what is like it at one place alone."""
    rng = np.random.default_rng(seed)
    spectrum = np.fft.rfft(rng.standard_normal((channels, round(seconds * rate))))
    spectrum[:, np.fft.rfftfreq(round(seconds * rate), 1 / rate) > 4000] = 0
    wave = np.fft.irfft(spectrum, round(seconds * rate))
    return np.asarray(0.25 * wave / wave.std(), np.float32)


def film(
    path: Path,
    sound: Sound | Sequence[Sound],
    rate: int = 48000,
    *,
    codec: str = "aac",
    starts: float = 0,
    picture: str = "libx264",
    options: dict[str, str] | None = None,
    keep: Any = lambda packet: True,
    seconds: float = SECONDS,
    layout: str | None = None,
) -> str:
    """Four seconds of numbered frames, 25 a second, with sound that ``starts`` after the first frame, seconds."""
    tracks = [sound] if isinstance(sound, np.ndarray) else list(sound)
    exact = {"movie_timescale": str(rate)} if path.suffix in (".mp4", ".mov") else {}  # else edit lists round to 1 ms
    with av.open(path, "w", options={"fflags": "+bitexact", **exact}) as container:
        stream = container.add_stream(picture, rate=FPS, width=64, height=48, options=options or {"g": "10"})
        stream.pix_fmt = "yuv420p"
        layouts = [layout or {1: "mono", 2: "stereo"}[len(track)] for track in tracks]
        heard = [container.add_stream(codec, rate=rate, layout=layout) for layout in layouts]
        packets = []
        for index in range(round(seconds * FPS)):
            frame = av.VideoFrame.from_ndarray(numbered(index, 64, 48), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, FPS)
            packets += stream.encode(frame.reformat(format="yuv420p"))
        packets += stream.encode(None)
        for out, track, name in zip(heard, tracks, layouts, strict=True):
            size = 1024
            for start in range(0, track.shape[1], size):
                block = np.ascontiguousarray(track[:, start : start + size])
                frame = av.AudioFrame.from_ndarray(block, format="fltp", layout=name)
                frame.sample_rate, frame.pts, frame.time_base = rate, start + round(starts * rate), Fraction(1, rate)
                packets += [packet for packet in out.encode(frame) if keep(packet)]
            packets += out.encode(None)
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)
    return str(path)


def cut(path: str, first: int, last: int, mode: str = "encode", **settings: Any) -> ExtractedClip:
    """The frames from ``first`` up to ``last``, with their sound."""
    told = probe(path)
    begins = (told.start or 0) + round(Fraction(first, FPS) / told.time_base)
    ends = (told.start or 0) + round(Fraction(last, FPS) / told.time_base)
    span = Span(start=begins, end=ends, time_base=told.time_base)
    return extract_clip(path, span, mode, audio="keep", **settings)  # type: ignore[arg-type]


def heard(clip: ExtractedClip | bytes) -> tuple[Sound, int]:
    """The samples of a clip as whoever heeds its container hears them, from the first frame on; and their rate."""
    data = clip if isinstance(clip, bytes) else clip.data
    assert data is not None
    with av.open(io.BytesIO(data)) as container:
        (sound,) = container.streams.audio
        (picture,) = container.streams.video
        rate = sound.codec_context.rate
        out: dict[int, Sound] = {}
        for frame in container.decode(sound):
            assert frame.pts is not None
            out[round(frame.pts * sound.time_base * rate)] = frame.to_ndarray().reshape(frame.layout.nb_channels, -1)
        assert (picture.start_time or 0) == 0
        whole = np.concatenate([out[at] for at in sorted(out)], axis=1)
        # Asked while the container is open: a closed one's time base is what happens to lie there.
        count = whole.shape[1] if sound.duration is None else round(sound.duration * sound.time_base * rate)
    first = min(out)
    return np.asarray(whole[:, -first if first < 0 else 0 :][:, :count], np.float32), rate


def lag(sound: Sound, truth: Sound) -> int:
    """By how many samples ``sound`` is behind ``truth``, by where they are most alike; they must be alike."""
    size = 2 * max(len(sound), len(truth))
    alike = np.fft.irfft(np.fft.rfft(sound, size) * np.conj(np.fft.rfft(truth, size)), size)
    at = int(alike.argmax())
    assert alike[at] > 0.9 * np.linalg.norm(sound) * np.linalg.norm(truth)
    return at if at < size // 2 else at - size


SOURCES: dict[str, tuple[str, str, int, int]] = {
    "mp4": ("mp4", "aac", 48000, 1),
    "mp4 at 44100": ("mp4", "aac", 44100, 2),
    "mov of samples as they are": ("mov", "pcm_s16le", 32000, 2),
    "transport stream": ("ts", "mp2", 48000, 1),
    "avi": ("avi", "pcm_s16le", 22050, 1),
    "a rate that AAC does not know": ("mov", "pcm_s16le", 37800, 1),
}


@pytest.mark.parametrize("mode", ["encode", "copy", "smart"])
@pytest.mark.parametrize("source", SOURCES)
def test_a_clips_sound_is_that_of_its_frames(source: str, mode: str, tmp_path: Path) -> None:
    suffix, codec, rate, channels = SOURCES[source]
    truth = noise(rate, channels)
    path = film(tmp_path / f"a.{suffix}", truth, rate, codec=codec, picture="mpeg4" if suffix == "avi" else "libx264")
    clip = cut(path, 27, 73, mode)
    base, origin = clip.span.time_base, probe(path).start or 0
    begins, ends = ((at - origin) * base for at in (clip.span.start, clip.span.end))
    assert (begins, ends) == (Fraction(27, FPS), Fraction(73, FPS)) or mode == "copy"
    assert (clip.sound.audio, clip.sound.codec) == ("kept", "aac")
    sound, its_rate = heard(clip)
    assert its_rate == clip.sound.rate == (48000 if rate == 37800 else rate)
    assert clip.sound.channels == channels == len(sound)
    assert abs(sound.shape[1] - clip.span.seconds * its_rate) <= 1
    assert clip.sound.missing == 0
    times = float(begins) + np.arange(sound.shape[1]) / its_rate
    for of_clip, whole in zip(sound, truth, strict=True):
        expected = np.interp(times, np.arange(len(whole)) / rate, whole)
        for part in (slice(None), slice(0, 1024), slice(-1024, None)):  # the first and the last packet are whole
            assert abs(lag(of_clip[part], expected[part])) <= 1


@pytest.mark.parametrize("mode", ["copy", "smart"])
def test_sound_lasts_as_long_as_the_frames_where_these_end_between_milliseconds(mode: str, tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", noise(44100), 44100)
    told = probe(path)
    span = Span(start=13824, end=37380, time_base=told.time_base)  # 1.08 s, and 1.8403125 s later
    assert told.time_base == Fraction(1, 12800)
    clip = extract_clip(path, span, mode, audio="keep")  # type: ignore[arg-type]
    sound, _ = heard(clip)
    assert sound.shape[1] == round(clip.span.seconds * 44100)


@pytest.mark.parametrize("mode", ["copy", "smart"])
def test_what_goes_into_matroska_has_opus(mode: str, tmp_path: Path) -> None:
    """Its decoder heeds the delay and the padding that the container states, and gives the samples of the frames alone."""
    truth = noise(44100)
    path = film(tmp_path / "a.mkv", truth, 44100, codec="flac", picture="ffv1", options={"g": "1"})
    clip = cut(path, 27, 73, mode)
    assert (clip.sound.codec, clip.sound.rate, clip.frames) == ("opus", 48000, 46)
    assert clip.data is not None
    with av.open(io.BytesIO(clip.data)) as container:
        assert "matroska" in container.format.name
        samples = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    assert len(samples) == 46 * 48000 // FPS
    times = 27 / FPS + np.arange(len(samples)) / 48000
    expected = np.interp(times, np.arange(truth.shape[1]) / 44100, truth[0])
    # Matroska counts milliseconds: the source's sound may lie half of one aside.
    assert abs(lag(samples, expected)) <= 8


def test_a_clip_is_the_same_bytes_alone_and_after_others(tmp_path: Path) -> None:
    """A decoder's memory must not show: clips of one id have the same bytes in every export."""
    path = film(tmp_path / "a.mp4", noise(48000, 2))
    told = probe(path)
    spans = [
        Span(start=round(Fraction(first, FPS) / told.time_base), end=round(Fraction(first + 20, FPS) / told.time_base),
             time_base=told.time_base)
        for first in (5, 30, 60)
    ]  # fmt: skip
    with Extractor(path) as extractor:
        together = [extractor.extract(span, audio="keep").data for span in spans]
    assert together == [extract_clip(path, span, audio="keep").data for span in spans]
    assert together == [extract_clip(path, span, audio="keep").data for span in spans]


def test_what_the_source_does_not_sound_is_silence(tmp_path: Path) -> None:
    """It begins a second after the pictures and ends a second before them."""
    truth = noise(48000, seconds=2)
    path = film(tmp_path / "a.mp4", truth, starts=1)
    for first, last, missing in ((10, 90, 2 * 15 / FPS), (0, 20, 20 / FPS), (80, 100, 20 / FPS), (30, 70, 0.0)):
        clip = cut(path, first, last)
        sound, _ = heard(clip)
        assert sound.shape[1] == (last - first) * 48000 // FPS
        assert clip.sound.missing == pytest.approx(missing, abs=0.03)  # AAC's last packet is filled up
        own = np.concatenate([np.zeros(48000), truth[0], np.zeros(48000)])[first * 1920 : last * 1920]
        near = np.convolve(own != 0, np.ones(6001), "same") > 0.5  # AAC rings before and behind an edge
        assert np.abs(sound[0][~near]).max(initial=0) < 1e-3
        if np.any(own):
            assert abs(lag(sound[0], own)) <= 1


@pytest.mark.parametrize("suffix", ["mkv", "ts"])
def test_a_gap_in_the_sound_does_not_move_what_follows(suffix: str, tmp_path: Path) -> None:
    lost = range(40 * 1024, 60 * 1024)
    path = film(
        tmp_path / f"a.{suffix}",
        truth := noise(48000),
        keep=lambda packet: round(packet.pts * packet.time_base * 48000) not in lost,
    )
    clip = cut(path, 10, 90)
    sound, _ = heard(clip)
    assert clip.sound.missing == pytest.approx(20 * 1024 / 48000, abs=0.05)
    behind = slice(62 * 1024 - 10 * 1920, None)
    assert abs(lag(sound[0][behind], truth[0, 10 * 1920 : 90 * 1920][behind])) <= (24 if suffix == "mkv" else 1)


def test_damaged_sound_costs_no_picture(tmp_path: Path) -> None:
    """Packets of FLAC that fail their checksum are silence; the frames, and the sound behind, stay where they are."""
    path = Path(film(tmp_path / "a.mkv", truth := noise(48000), codec="flac"))
    data = bytearray(path.read_bytes())
    with av.open(path) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(audio=0) if packet.size]
    for place, size in places[len(places) // 2 : len(places) // 2 + 3]:
        data[place + 8 : place + size] = bytes(255 - byte for byte in data[place + 8 : place + size])
    path.write_bytes(data)
    clip = cut(str(path), 10, 90)
    sound, _ = heard(clip)
    assert clip.frames == 80
    assert clip.sound.missing == pytest.approx(3 * 4608 / 48000, abs=0.15)
    assert abs(lag(sound[0][-38400:], truth[0, 10 * 1920 : 90 * 1920][-38400:])) <= 8


@pytest.mark.parametrize("starts", [0, 38])
def test_where_a_source_has_no_sound_its_clips_are_not_looked_for_from_its_start(starts: int, tmp_path: Path) -> None:
    """Behind the end of its sound, or before its beginning: a clip late in a file costs no more than an early one."""
    truth = noise(48000, seconds=2)
    path = film(tmp_path / "a.mkv", truth, codec="flac", starts=starts, seconds=40)
    told, costs, clips = probe(path), [], []
    with Extractor(path) as extractor:
        for second in (13, 17, 22, 35):
            beats = [0]

            def heartbeat(beats: list[int] = beats) -> None:
                beats[0] += 1

            span = Span(start=second * 1000, end=second * 1000 + 400, time_base=told.time_base)
            clips.append(extractor.extract(span, audio="keep", heartbeat=heartbeat))
            costs.append(beats[0])
            if second < 35:
                assert clips[-1].sound.missing == pytest.approx(0.4)
    assert told.time_base == Fraction(1, 1000)
    assert max(costs[1:3]) < 15 * (FPS + 12)  # packets and frames of ten seconds, and a few more
    alone = extract_clip(path, clips[2].span, audio="keep")
    assert (alone.data, alone.sound) == (clips[2].data, clips[2].sound)


@pytest.mark.parametrize("shift", [13, -13, 100, -100])
def test_a_clips_sound_is_its_own_wherever_in_the_file_it_lies(shift: int, tmp_path: Path) -> None:
    """Seconds of pictures by which it lies behind those that it goes with, or before them."""
    from tests.test_sound import moved_sound

    truth = noise(48000, seconds=40)
    plain = film(tmp_path / "a.mkv", truth, codec="flac", seconds=40, options={"g": "10", "bf": "0"})
    path = moved_sound(plain, tmp_path / "b.mkv", shift)
    for first in (100, 500, 900):
        clip = cut(path, first, first + 50)
        sound, _ = heard(clip)
        assert clip.sound.missing == 0
        assert abs(lag(sound[0], truth[0, first * 1920 : (first + 50) * 1920])) <= 8


def test_what_the_machine_lacks_does_not_pass_for_the_end_of_the_sound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without memory a clip would be silent, and another one the next time."""
    path = film(tmp_path / "a.mkv", noise(48000), codec="flac")

    def out_of_memory(_decoder: object, packet: object) -> tuple[()]:
        if packet is not None:
            av.error.err_check(-errno.ENOMEM)
        return ()

    monkeypatch.setattr(audio.SoundDecoder, "decode", out_of_memory)
    with pytest.raises(MemoryError):
        cut(path, 10, 30)


class BadDisk(io.FileIO):
    """A file that cannot be read from byte ``bad`` on."""

    def __init__(self, path: str, bad: int) -> None:
        super().__init__(path)
        self._bad = bad

    def read(self, size: int | None = -1, /) -> bytes | None:
        if self.tell() >= self._bad:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().read(min(size or 0, self._bad - self.tell()))


def fail_from(bad: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let files on the disk fail that are given to libav."""

    def opened(path: str, mode: str, **settings: Any) -> Any:
        return BadDisk(path, bad) if "buffering" in settings else open(path, mode, **settings)

    monkeypatch.setattr(bytes_io, "open", opened, raising=False)


@pytest.mark.parametrize("suffix", ["mkv", "ts", "mp4"])
def test_a_disk_that_fails_does_not_pass_for_the_end_of_the_sound(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pictures were read, and the clip would be silent; a disk that fails is another time whole."""
    path = film(tmp_path / f"a.{suffix}", noise(48000), codec="mp2", options={"g": "10", "bf": "0"})
    size, init = Path(path).stat().st_size, SoundFile.__init__

    def on_a_bad_disk(self: SoundFile, uri: str, video: int) -> None:
        with monkeypatch.context() as patch:
            fail_from(size // 2, patch)
            init(self, uri, video)

    monkeypatch.setattr(SoundFile, "__init__", on_a_bad_disk)
    for first, last in ((40, 70), (80, 99)):  # it fails within the one, and before the other
        with pytest.raises(Unreadable, match=r"^(reading stopped: )?Input/output error$"):
            cut(path, first, last)


@pytest.mark.parametrize("suffix", ["mkv", "ts", "mp4"])
def test_a_disk_that_fails_does_not_pass_for_the_end_of_a_source(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a Matroska file that has all its bytes, the last frame that could be read would last until the end, in silence."""
    path = film(tmp_path / f"a.{suffix}", noise(48000), codec="mp2")
    fail_from(Path(path).stat().st_size * 2 // 3, monkeypatch)
    with pytest.raises(Unreadable, match="Input/output error"):
        observe(path, [SoundObserver()], None)


def test_six_channels_are_mixed_to_two(tmp_path: Path) -> None:
    """Front left goes left, the centre to both sides, and low effects nowhere."""
    channels = np.zeros((6, 4 * 48000), np.float32)
    channels[0], channels[3] = noise(48000, seed=1)[0], noise(48000, seed=2)[0]
    path = film(tmp_path / "a.mov", channels, codec="pcm_s16le", layout="5.1")
    (left, right), _ = heard(cut(path, 25, 75))
    assert abs(lag(left, channels[0, 48000:144000])) <= 1
    assert np.abs(right).max() < 1e-2


def test_the_containers_default_sound_is_kept(tmp_path: Path) -> None:
    from av.stream import Disposition

    one, other = noise(48000, seed=1), noise(48000, seed=2)
    plain = film(tmp_path / "a.mkv", [one, other], codec="flac")
    marked = tmp_path / "b.mkv"
    with av.open(plain) as source, av.open(marked, "w") as out:
        streams = {stream.index: out.add_stream_from_template(stream) for stream in source.streams}
        streams[1].disposition, streams[2].disposition = Disposition(0), Disposition.default
        for packet in source.demux():
            if packet.size:
                packet.stream = streams[packet.stream_index]
                out.mux(packet)
    clip = cut(str(marked), 25, 75)
    assert clip.sound.stream == 2
    assert abs(lag(heard(clip)[0][0], other[0, 48000:144000])) <= 8


def test_clips_of_silent_films_and_of_unknown_codecs_have_no_sound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = cut(film(tmp_path / "a.mp4", []), 10, 30)
    assert silent.sound == ClipSound(audio="absent")
    path = film(tmp_path / "b.mp4", noise(48000))
    monkeypatch.setattr(audio, "DECODED", audio.DECODED - {"aac"})
    for mode in ("encode", "copy", "smart"):
        refused = cut(path, 10, 50, mode)
        assert refused.sound == ClipSound(audio="unreadable")
        assert refused.data is not None
        with av.open(io.BytesIO(refused.data)) as container:
            assert [stream.type for stream in container.streams] == ["video"]


@pytest.mark.parametrize("mode", ["encode", "copy", "smart"])
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_pictures_are_the_same_with_sound_and_without(suffix: str, mode: str, tmp_path: Path) -> None:
    """Frames, their times, and how long the last is shown."""
    codec = "libx264" if suffix == "mp4" else "ffv1"
    path = film(tmp_path / f"a.{suffix}", noise(44100), 44100, codec="flac", picture=codec)
    with_sound, told = cut(path, 27, 73, mode), probe(path)
    silent = extract_clip(path, with_sound.span, mode)  # type: ignore[arg-type]
    assert silent.data is not None
    assert with_sound.data is not None
    ours, theirs = decode_bytes(with_sound.data), decode_bytes(silent.data)
    assert ours.time_base == theirs.time_base
    np.testing.assert_array_equal(ours.pts, theirs.pts)
    np.testing.assert_array_equal(ours.pixels, theirs.pixels)
    if suffix == "mp4":
        ends = []
        for data in (with_sound.data, silent.data):
            with av.open(io.BytesIO(data)) as container:
                picture = container.streams.video[0]
                assert picture.duration is not None
                ends.append(picture.duration * picture.time_base)
        assert ends[0] == pytest.approx(ends[1], abs=1 / 1000)
    assert told.has_audio


RECIPE = """
name: sounding
steps:
  - observe: {observers: [boundary, luma, sound], evidence: {fps: 2, short_side: 48}}
  - cut: {detector: boundary, min_seconds: 1, max_seconds: 2, validation_share: 0, test_share: 0}
  - select: {rules: {loudness: {min: -40, nulls: keep}, silence_share: {max: 0.5, nulls: keep}}}
  - export: {audio: keep, preset: ultrafast}
"""


def test_an_export_has_sound_and_says_so(dailies: Dailies, tmp_path: Path) -> None:
    folder, dataset, recipe = tmp_path / "videos", tmp_path / "dataset", tmp_path / "recipe.yaml"
    folder.mkdir()
    film(folder / "sounding.mp4", truth := noise(48000))
    film(folder / "silent.mp4", [])
    film(folder / "faint.mp4", noise(48000) * np.float32(1e-3))
    recipe.write_text(RECIPE)
    done = dailies("curate", folder, "--out", dataset, "--recipe", recipe, "--engine", "local", "--json")
    assert done.returncode == 0, done.stderr
    (export,) = (dataset / "exports").glob("export@*")
    rows = pq.read_table(export / "data").to_pylist()
    assert {row["uri"]: row["audio"] for row in rows} == {"sounding.mp4": "kept", "silent.mp4": "absent"}
    for row in rows:
        assert count_frames(row["video"]) == row["frames"]
        measures = (row["loudness"], row["silence_share"], row["clipping_share"])
        if row["audio"] == "absent":
            assert measures == (None, None, None)
            assert {row[name] for name in export_schema.AUDIO_COLUMNS} == {"absent", None}
            continue
        assert (row["audio_codec"], row["audio_stream"], row["audio_rate"], row["audio_channels"]) == (
            "aac",
            1,
            48000,
            1,
        )
        assert -20 < measures[0] < -5
        start = round(row["source_start"] * row["time_base_num"] / row["time_base_den"] * 48000)
        sound, _ = heard(row["video"])
        assert abs(lag(sound[0], truth[0, start : start + sound.shape[1]])) <= 1
    card = (export / "README.md").read_text()
    assert "Clips have their sound" in card
    assert "Audio is dropped" not in card
    assert json.loads((export / "export.json").read_text())["extraction"]["audio"] == "keep"
    again = dailies("export", dataset, "--set", "export.audio=drop", "--engine", "local", "--json")
    assert again.returncode == 0, again.stderr
    dropped = pq.read_table(Path(json.loads(again.stdout)["path"]) / "data").to_pylist()
    assert {row["audio"] for row in dropped} == {"dropped"}
    for row in dropped:
        with av.open(io.BytesIO(row["video"])) as container:
            assert not container.streams.audio
