"""The sound observer: loudness by the standards' own cases and by another implementation, silence, clipping, speech."""

from __future__ import annotations

import importlib.util
import tracemalloc
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from dailies.curation.observe import Observation, Segment, observe
from dailies.curation.observers import SoundObserver
from dailies.curation.observers.loudness import coefficients, integrated
from dailies.curation.timing import Span
from dailies.curation.types import SoundBlock, Track
from tests.test_clip_sound import Sound, film, noise

BASE = Fraction(1, 12800)
ORDERED = {"g": "10", "bf": "0"}  # no frame before its turn, for which muxers would move all that follows
STEREO, SURROUND = ("FL", "FR"), ("FL", "FR", "FC", "LFE", "BL", "BR")


def tone(decibels: float, seconds: float, rate: int = 48000, frequency: float = 1000.0, channels: int = 2) -> Sound:
    """A sine with its peak at so many dBFS, in each channel."""
    wave = 10 ** (decibels / 20) * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)
    return np.tile(wave, (channels, 1)).astype(np.float32)


def tracks_of(sound: Sound, rate: int = 48000, names: Sequence[str] = STEREO, **settings: Any) -> dict[str, Track]:
    """What the observer keeps of sound that comes in pieces of 1024 samples."""
    going = SoundObserver(**settings).start(BASE)
    for start in range(0, sound.shape[1], 1024):
        piece = sound[:, start : start + 1024]
        going.hear(SoundBlock(start=start, rate=rate, channels=tuple(names), samples=piece))
    return {track.name: track for track in going.finish()}


def measured(sound: Sound, rate: int = 48000, names: Sequence[str] = STEREO, **settings: Any) -> dict[str, Any]:
    ticks = round(Fraction(sound.shape[1], rate) / BASE)
    span = Span(start=0, end=ticks, time_base=BASE)
    return dict(SoundObserver(**settings).reduce(tracks_of(sound, rate, names, **settings), span))


def test_the_filter_is_the_standards_at_its_rate() -> None:
    """ITU-R BS.1770-4, tables 1 and 2, at 48 kHz."""
    (b, a), (high_b, high_a) = coefficients(48000)
    np.testing.assert_allclose(b, [1.53512485958697, -2.69169618940638, 1.19839281085285], atol=1e-12)
    np.testing.assert_allclose(a, [1, -1.69065929318241, 0.73248077421585], atol=1e-12)
    np.testing.assert_array_equal(high_b, [1, -2, 1])
    np.testing.assert_allclose(high_a, [1, -1.99004745483398, 0.99007225036621], atol=1e-12)


def joined(*pieces: Sound) -> Sound:
    return np.concatenate(pieces, axis=1)


EBU_3341 = {
    1: (lambda: tone(-23, 20), -23.0),
    2: (lambda: tone(-33, 20), -33.0),
    3: (lambda: joined(tone(-36, 10), tone(-23, 60), tone(-36, 10)), -23.0),  # the relative gate
    4: (lambda: joined(tone(-72, 10), tone(-36, 10), tone(-23, 60), tone(-36, 10), tone(-72, 10)), -23.0),
    5: (lambda: joined(tone(-26, 20), tone(-20, 20.1), tone(-26, 20)), -23.0),
    # Ours: what is below -70 LUFS must not lower the relative gate, which would let the second level in.
    "absolute gate": (lambda: joined(tone(-30, 20), tone(-44, 20), tone(-90, 200)), -30.0),
}  # EBU Tech 3341, table 1: minimum requirements, each within 0.1 LU


@pytest.mark.parametrize("case", EBU_3341)
def test_loudness_is_that_of_ebu_tech_3341(case: Any) -> None:
    sound, expected = EBU_3341[case]
    assert measured(sound())["loudness"] == pytest.approx(expected, abs=0.1)


def test_surround_counts_more_and_low_effects_not_at_all() -> None:
    """EBU Tech 3341, case 6: -28, -24 and -30 dBFS in front, in the centre and behind come to -23 LUFS."""
    levels = (-28, -28, -24, 0, -30, -30)
    sound = joined(*[tone(0, 5) for _ in range(1)])[:1] * np.array(
        [[10 ** (level / 20)] for level in levels], np.float32
    )
    assert measured(sound.astype(np.float32), names=SURROUND)["loudness"] == pytest.approx(-23.0, abs=0.1)


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        (("FL", "FR", "FC", "LFE", "SL", "SR"), {"FL": 1, "FR": 1, "FC": 1, "LFE": 0, "SL": 1.41, "SR": 1.41}),
        (SURROUND, {"FL": 1, "FR": 1, "FC": 1, "LFE": 0, "BL": 1.41, "BR": 1.41}),
        ((*SURROUND, "SL", "SR"), {"FL": 1, "FR": 1, "FC": 1, "LFE": 0, "BL": 1, "BR": 1, "SL": 1.41, "SR": 1.41}),
        (("FL", "FR", "FC", "BC"), {"FL": 1, "FR": 1, "FC": 1, "BC": 1}),
    ],
)
def test_where_a_channel_stands_tells_how_much_it_counts(layout: Sequence[str], expected: dict[str, float]) -> None:
    """ITU-R BS.1770-4, table 4: more between 60 and 120 degrees alone; in 7.1 the back ones are farther round."""
    for number, name in enumerate(layout):
        sound = np.zeros((len(layout), 48000), np.float32)
        sound[number] = tone(-20, 1, channels=1)[0]
        loud = measured(sound, names=layout)["loudness"]
        if expected[name]:
            assert loud == pytest.approx(-23 + 10 * np.log10(expected[name]), abs=0.05)
        else:
            assert loud is None


def by_libav(sound: Sound, rate: int) -> float:
    """Integrated loudness by libav's filter, which resamples to 48 kHz where it must."""
    graph = av.filter.Graph()
    layout = "stereo" if len(sound) == 2 else "mono"
    source = graph.add_abuffer(sample_rate=rate, format="fltp", layout=layout, time_base=Fraction(1, rate))
    meter, sink = graph.add("ebur128", "metadata=1"), graph.add("abuffersink")
    source.link_to(meter)
    meter.link_to(sink)
    graph.configure()
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound), format="fltp", layout=layout)
    frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
    graph.push(frame)
    graph.push(None)
    said = -70.0
    while True:
        try:
            said = float(graph.pull().metadata["lavfi.r128.I"])
        except (av.error.EOFError, av.error.BlockingIOError):
            return said


@pytest.mark.parametrize(("rate", "channels"), [(48000, 2), (44100, 1), (32000, 2), (22050, 1), (96000, 2)])
def test_loudness_agrees_with_another_implementation(rate: int, channels: int) -> None:
    """Of noise whose level changes, so that both gates count."""
    levels = [10 ** (level / 20) for level in (-10, -30, -90, 0, -22, -40)]
    sound = joined(*[noise(rate, channels, 2, seed) * level for seed, level in enumerate(levels)]).astype(np.float32)
    names = STEREO if channels == 2 else ("FC",)
    assert measured(sound, rate, names)["loudness"] == pytest.approx(by_libav(sound, rate), abs=0.1)


def test_what_is_too_short_or_not_heard_has_no_loudness() -> None:
    assert measured(tone(-20, 0.3))["loudness"] is None
    assert measured(tone(-20, 0.3))["silence_share"] == 0
    assert measured(tone(-200, 2)) == {
        "loudness": None, "silence_share": 1.0, "clipping_share": 0.0, "speech_share": None,
        "sound_broken": 0.0,
    }  # fmt: skip
    assert integrated(np.zeros(0)) is None


def test_silence_and_clipping_are_where_they_are() -> None:
    sound = joined(tone(-10, 2), tone(-61, 1), tone(-56, 1))  # a sine's RMS is 3 dB below its peak
    assert measured(sound)["silence_share"] == 0.25
    wave = tone(-10, 2)
    wave[0, 1000:1005] = 1.0  # five samples of a run; and two, which a peak may have
    wave[1, 5000:5002] = -1.0
    wave[1, 70000:70003] = -1.0
    wave[0, 65534:65537] = 32767 / 32768  # across two of the pieces that are measured at once
    assert measured(wave)["clipping_share"] == pytest.approx((5 + 3 + 3) / wave.size, rel=1e-5)


def test_a_clip_is_measured_by_what_lies_in_it_alone() -> None:
    tracks = tracks_of(joined(tone(0, 2), tone(-40, 2), tone(0, 2)))
    for start, end, expected in ((2.05, 3.95, -40.0), (0.0, 2.0, 0.0), (1.0, 3.0, None)):
        span = Span(start=round(start / BASE), end=round(end / BASE), time_base=BASE)
        loud = SoundObserver().reduce(tracks, span)["loudness"]
        assert expected is None or loud == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize("base", [Fraction(1, 25), Fraction(1, 8), Fraction(1, 2), Fraction(1, 90000)])
def test_coarse_ticks_have_a_value_each(base: Fraction) -> None:
    going = SoundObserver().start(base)
    sound = tone(-23, 8)
    going.hear(SoundBlock(start=0, rate=48000, channels=STEREO, samples=sound))
    tracks = {track.name: track for track in going.finish()}
    assert (np.diff(tracks["sound"].pts) > 0).all()
    measures = SoundObserver().reduce(tracks, Span(start=0, end=round(8 / base), time_base=base))
    assert measures["loudness"] == pytest.approx(-23, abs=0.1)
    assert measures["silence_share"] == 0


# ---- files ----------------------------------------------------------------------------------------------------------


def of_file(path: str, *observers: Any, start: float = 0, end: float | None = None) -> dict[str, Any]:
    seen = observe(path, observers or [SoundObserver()], None)
    base, first = seen.probe.time_base, seen.pts[0]
    span = Span(
        start=first + round(start / base), end=seen.end if end is None else first + round(end / base), time_base=base
    )
    return dict(SoundObserver().reduce({track.name: track for track in seen.tracks}, span))


@pytest.mark.parametrize(
    ("suffix", "codec", "rate"),
    [
        *[("mp4", "aac", 48000), ("mkv", "libopus", 48000), ("ts", "mp2", 44100), ("avi", "pcm_s16le", 22050)],
        ("mov", "pcm_s16le", 96000),
    ],
)
def test_a_file_is_heard_along_with_its_pictures(suffix: str, codec: str, rate: int, tmp_path: Path) -> None:
    sound = joined(tone(-40, 2, rate, channels=1), tone(-13, 2, rate, channels=1))
    path = film(tmp_path / f"a.{suffix}", sound, rate, codec=codec, picture="mpeg4" if suffix == "avi" else "libx264")
    loud = of_file(path, start=2.2)["loudness"]
    assert loud == pytest.approx(-16.0, abs=0.2)  # one channel is 3 LU below two
    assert of_file(path, end=1.8)["loudness"] == pytest.approx(-43.0, abs=0.3)
    whole = of_file(path)
    assert whole["loudness"] == pytest.approx(loud, abs=0.6)  # gating blocks that lie across count in part
    assert (whole["silence_share"], whole["clipping_share"]) == (0, 0)


def test_a_file_without_sound_has_no_measures_and_sound_that_ends_is_silent(tmp_path: Path) -> None:
    assert set(of_file(film(tmp_path / "a.mp4", [])).values()) == {None}
    half = of_file(film(tmp_path / "b.mp4", tone(-20, 2, channels=1)))
    assert half["silence_share"] == pytest.approx(0.5, abs=0.03)
    assert half["loudness"] == pytest.approx(-23, abs=0.6)  # gating blocks that lie across count in part


def in_segments(path: str, observers: Sequence[Any], seconds: float) -> list[Observation]:
    first = observe(path, observers, None, segment_seconds=seconds)
    return [first, *(
        observe(path, observers, None, segment=Segment(number=number, count=first.segments, origin=first.origin))
        for number in range(1, first.segments)
    )]  # fmt: skip


@pytest.mark.parametrize("suffix", ["mp4", "ts", "mkv"])
def test_segments_joined_are_the_whole(suffix: str, tmp_path: Path) -> None:
    levels = np.repeat(10 ** (np.random.default_rng(3).uniform(-40, 0, 60) / 20), 24000)
    sound = (noise(48000, 1, 30)[:, : len(levels)] * levels).astype(np.float32)
    path = film(tmp_path / f"a.{suffix}", sound, seconds=30)
    whole, parts = observe(path, [SoundObserver()], None), in_segments(path, [SoundObserver()], 8)
    assert len(parts) == 4
    for number, track in enumerate(whole.tracks):
        np.testing.assert_array_equal(np.concatenate([part.tracks[number].pts for part in parts]), track.pts)
        values = np.concatenate([part.tracks[number].values for part in parts])
        # AAC has noise that each decoder makes up as it goes.
        np.testing.assert_allclose(values, track.values, rtol=2e-3, atol=1e-7)


@pytest.mark.parametrize("shift", [13, -13, 100, -100])
@pytest.mark.parametrize("suffix", ["ts", "mkv"])
def test_a_segments_sound_is_its_own_wherever_in_the_file_it_lies(suffix: str, shift: int, tmp_path: Path) -> None:
    """Seconds of pictures by which it lies behind them, or before; of a hundred, all of one comes before all of the other."""
    rate, seconds = 16000, 40
    levels = np.repeat(10 ** (np.random.default_rng(3).uniform(-40, -10, 80) / 20), rate // 2)
    sound = (noise(rate, 1, seconds) * levels).astype(np.float32)
    plain = film(tmp_path / f"plain.{suffix}", sound, rate, codec="mp2", seconds=seconds, options=ORDERED)
    path = moved_sound(plain, tmp_path / f"a.{suffix}", shift)
    whole, parts = observe(path, [SoundObserver()], None), in_segments(path, [SoundObserver()], 10)
    assert len(parts) == 4
    for number, track in enumerate(whole.tracks):
        np.testing.assert_array_equal(np.concatenate([part.tracks[number].pts for part in parts]), track.pts)
        values = np.concatenate([part.tracks[number].values for part in parts])
        np.testing.assert_allclose(values, track.values, rtol=2e-3, atol=1e-7)
    assert whole.tracks[1].values[:-2].min() > 1e-6  # none of it is silent


def moved_sound(path: str, out: Path, shift: float) -> str:
    """The same file, where sound lies ``shift`` seconds of pictures behind those that it goes with."""
    with av.open(path) as source, av.open(out, "w", options={"max_interleave_delta": "1"}) as container:
        streams = {stream.index: container.add_stream_from_template(stream) for stream in source.streams}
        packets = [packet for packet in source.demux() if packet.size and packet.dts is not None]
        late = {stream.index: shift if stream.type == "audio" else 0 for stream in source.streams}
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base + late[packet.stream_index]):
            packet.stream = streams[packet.stream_index]
            container.mux(packet)
    with av.open(str(out)) as container:
        kinds = [packet.stream.type for packet in container.demux() if packet.size]
    first = "audio" if shift < 0 else "video"
    assert set(kinds[: 12 * 25 if shift > 0 else 100]) == {first}
    return str(out)


@pytest.mark.parametrize("starts", [0, 25])
def test_sound_that_ends_early_or_begins_late_is_silent_in_the_other_segments(starts: int, tmp_path: Path) -> None:
    path = film(tmp_path / "a.mkv", tone(-20, 14, 16000, channels=1), 16000, codec="flac", starts=starts, seconds=40)
    parts = in_segments(path, [SoundObserver()], 10)
    loud = [[track.values for track in part.tracks if track.name == "sound_level"] for part in parts]
    blocks = [int((np.concatenate(values) > 1e-6).sum()) if values else 0 for values in loud]
    assert blocks == pytest.approx([100, 40, 0, 0] if not starts else [0, 0, 50, 90], abs=1)


@pytest.mark.parametrize("damaged", [0.5, 1.0])
def test_sound_that_does_not_decode_is_not_silence(damaged: float, tmp_path: Path) -> None:
    """What fails its checksum is counted, and the other measures are of the rest: there are none where nothing is left."""
    path = Path(film(tmp_path / "a.mkv", tone(-20, 4, channels=1), codec="flac"))
    assert of_file(str(path))["sound_broken"] == 0
    data = bytearray(path.read_bytes())
    with av.open(path) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(audio=0) if packet.size]
    for place, size in places[: round(damaged * len(places))]:
        data[place + 8 : place + size] = bytes(255 - byte for byte in data[place + 8 : place + size])
    path.write_bytes(data)
    measures = of_file(str(path))
    assert measures["sound_broken"] == pytest.approx(damaged, abs=0.06)
    if damaged == 1:
        assert {measures[name] for name in ("loudness", "silence_share", "clipping_share")} == {None}
    else:
        assert measures["silence_share"] == 0
        assert measures["loudness"] == pytest.approx(-23, abs=0.1)


def test_sound_that_is_far_ahead_of_the_pictures_is_heard_as_it_comes(tmp_path: Path) -> None:
    """All of it stands before the first picture: it is not kept until then, and a watcher sees that work goes on."""
    seconds, rate = 400, 8000
    path, beats = badly_interleaved(tmp_path / "a.mkv", tone(-23, seconds, rate, channels=1), rate), [0]

    def heartbeat() -> None:
        beats[0] += 1

    tracemalloc.start()
    try:
        seen = observe(path, [SoundObserver()], None, heartbeat)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < seconds * rate * 4 / 2  # bytes: half of what the samples take
    assert beats[0] > 2 * len(seen.pts)
    (energies,) = (track.values for track in seen.tracks if track.name == "sound")
    assert len(energies) == seconds * 10
    assert integrated(energies.astype(np.float64)) == pytest.approx(-26, abs=0.1)


def badly_interleaved(path: Path, sound: Sound, rate: int) -> str:
    """A picture a second for as long as the sound lasts, all of which stands before the first of them."""
    with av.open(path, "w", options={"max_interleave_delta": "1"}) as container:
        stream = container.add_stream("mpeg4", rate=1, width=32, height=32, options={"g": "10"})
        stream.pix_fmt, out = "yuv420p", container.add_stream("flac", rate=rate, layout="mono")
        for start in range(0, sound.shape[1], 4096):
            samples = (sound[:, start : start + 4096] * 32767).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
            container.mux(out.encode(frame))
        container.mux(out.encode(None))
        for index in range(sound.shape[1] // rate):
            picture = av.VideoFrame.from_ndarray(np.full((32, 32, 3), index % 200, np.uint8), format="rgb24")
            picture.pts, picture.time_base = index, Fraction(1, 1)
            container.mux(stream.encode(picture.reformat(format="yuv420p")))
        container.mux(stream.encode(None))
    with av.open(path) as container:
        assert [packet.stream_index for packet in container.demux() if packet.size][: sound.shape[1] // 4096] == [1] * (
            sound.shape[1] // 4096
        )
    return str(path)


# ---- speech ---------------------------------------------------------------------------------------------------------

spoken_to = pytest.mark.skipif(importlib.util.find_spec("silero_vad") is None, reason="needs dailies[sound]")


def voice(seconds: float, rate: int, seed: int = 1) -> Sound:
    """Something like a voice: a gliding glottal pulse through formants that change four times a second, with pauses."""
    rng, count = np.random.default_rng(seed), round(seconds * rate)
    at = np.arange(count) / rate
    pitch = 120 + 25 * np.sin(2 * np.pi * 0.7 * at) + 10 * np.sin(2 * np.pi * 5 * at)
    phase = np.cumsum(pitch) / rate
    vowels = [(730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480), (570, 840, 2410)]
    out = np.zeros(count)
    syllable = round(rate / 4)
    for start in range(0, count, syllable):
        piece = slice(start, min(count, start + syllable))
        formants = vowels[rng.integers(len(vowels))]
        wave = np.zeros(piece.stop - piece.start)
        for harmonic in range(1, 30):
            frequency = harmonic * pitch[piece]
            gain = sum(1 / (1 + ((frequency - formant) / 80) ** 2) for formant in formants) / harmonic**0.3
            wave += gain * np.sin(2 * np.pi * harmonic * phase[piece])
        out[piece] = wave * np.hanning(len(wave)) ** 0.5
    return (0.2 * out / np.abs(out).max())[None].astype(np.float32)


@spoken_to
@pytest.mark.parametrize("shift", [0, 13])
def test_speech_is_told_in_segments_as_in_the_whole(shift: int, tmp_path: Path) -> None:
    """The network hears what was before a segment's start; where it does not, it is unsure of the first words."""
    rate = 16000
    quiet = (noise(rate, 1, 7) * 0.02).astype(np.float32)
    sound = joined(voice(6.3, rate), quiet, voice(8.9, rate, 2), quiet, voice(5.8, rate, 3))
    path = film(tmp_path / "plain.mkv", sound, rate, codec="flac", seconds=35, options=ORDERED)
    if shift:
        path = moved_sound(path, tmp_path / "a.mkv", shift)
    observers = [SoundObserver(speech=True)]
    whole, parts = observe(path, observers, None), in_segments(path, observers, 9)
    assert len(parts) == 4
    (spoken,) = (track for track in whole.tracks if track.name == "sound_speech")
    joined_up = np.concatenate([t.values for part in parts for t in part.tracks if t.name == "sound_speech"])
    np.testing.assert_allclose(joined_up, spoken.values, atol=0.02)
    assert 0.2 < (spoken.values > 0.5).mean() < 0.8


@spoken_to
@pytest.mark.parametrize("rate", [48000, 16000, 44100])
def test_what_sounds_like_a_voice_is_speech_and_noise_is_not(rate: int) -> None:
    quiet = (noise(rate, 1, 6) * 0.1).astype(np.float32)
    both = joined(quiet, voice(6, rate), quiet)
    tracks = tracks_of(both, rate, ("FC",), speech=True)
    spans = [
        Span(start=round(a / BASE), end=round(b / BASE), time_base=BASE) for a, b in ((0, 5.5), (6.5, 12), (13, 18))
    ]
    before, spoken, behind = (SoundObserver(speech=True).reduce(tracks, span)["speech_share"] or 0.0 for span in spans)
    assert before < 0.05
    assert spoken > 0.3
    assert behind < 0.05
