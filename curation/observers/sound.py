"""The sound observer measures how loud a source is, where it is silent, where it clips, and where someone speaks.

It sees no frames: it hears the sound that is read along with them. Its tracks have a value for each block of 0.1 seconds
that has sound, in the ticks of the pictures, so that a clip's measures follow from them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic.dataclasses import dataclass

from dailies.curation.config import SPEC
from dailies.curation.observers import loudness, speech
from dailies.curation.observers.loudness import BLOCK, GATING, Filter
from dailies.curation.observers.speech import PACKAGE, SECONDS, SpeechPass, by_block
from dailies.curation.schema import field
from dailies.curation.timing import Span
from dailies.curation.types import Samples, SoundBlock, Track

SILENCE = 1e-6  # mean square of the samples of a silent block: -60 dBFS
FULL = 1 - 2**-14  # a sample from here on is at full scale: of 16 bits, the last two steps
RUN = 3  # samples at full scale in a row, in one channel, that are clipped: a peak has one or two
SPOKEN = 0.5  # probability from which on a block is speech
AHEAD = RUN - 1  # samples to either side that tell whether one is clipped
TRACKS = ("sound", "sound_level", "sound_clipped", "sound_speech")
LOST = "sound_lost"  # the track of the blocks in which there is sound that does not decode


@dataclass(frozen=True, kw_only=True, config=SPEC)
class SoundObserver:
    """How loud the sound is, and how much of it is silent, clipped or speech.

    A clip's measures are of the blocks of 0.1 seconds that lie wholly in it; where the source has no sound for a while, it
    is silent. A source without sound has none. What does not decode is not known, and left out of all but its own share.

    Args:
        speech: tell speech too, by Silero VAD, which comes with dailies[sound].
    """

    speech: bool = False

    identity: ClassVar[str] = "curation.observers.sound.Sound"
    meaning: ClassVar[int] = 2
    measures: ClassVar[tuple[pa.Field, ...]] = (
        field("loudness", pa.float64(), "integrated loudness by EBU R 128; null where nothing is above -70", "LUFS"),
        field("silence_share", pa.float64(), "share of blocks of 0.1 s below -60 dBFS (RMS over all channels)", "0-1"),
        field("clipping_share", pa.float64(), "share of samples at full scale, in threes and more", "0-1"),
        field(
            "speech_share",
            pa.float64(),
            "share of blocks of 0.1 s in which someone likely speaks; null unless asked",
            "0-1",
        ),
        field(
            "sound_broken",
            pa.float64(),
            "share of blocks of 0.1 s with sound that does not decode; left out of the other measures of sound",
            "0-1",
        ),
    )
    needs: ClassVar[None] = None

    @property
    def packages(self) -> tuple[str, ...]:
        """Importable names of the packages that its parameters ask for."""
        return (PACKAGE,) if self.speech else ()

    def weights(self) -> str | None:
        """Return the sha256 of the network that tells speech, where it is asked for."""
        return speech.weights() if self.speech else None

    @property
    def name(self) -> str:
        return "sound"

    @property
    def lookback(self) -> float:
        return max(2.0, SECONDS + 1 if self.speech else 0.0)

    def start(self, time_base: Fraction) -> _SoundPass:
        return _SoundPass(time_base, SpeechPass() if self.speech else None)

    def reduce(self, tracks: Mapping[str, Track], span: Span) -> Mapping[str, float | None]:
        energies, levels, clipped, spoken = (_within(tracks.get(name), span) for name in TRACKS)
        broken = _within(tracks.get(LOST), span)
        measures: dict[str, float | None] = {column.name: None for column in self.measures}
        measures["sound_broken"] = None if broken is None else float(broken.mean())
        if energies is None or levels is None or clipped is None:
            return measures
        known = np.ones(len(levels), bool) if broken is None else broken == 0
        gating = max(1, int(GATING * BLOCK / block_seconds(span.time_base)))
        measures |= {
            "loudness": loudness.integrated(np.where(known, energies, np.nan), gating),
            "sound_broken": float((~known).mean()),
        }
        if known.any():
            measures["silence_share"] = float((levels[known] <= SILENCE).mean())
            measures["clipping_share"] = float(clipped[known].mean())
            measures["speech_share"] = None if spoken is None else float((spoken[known] >= SPOKEN).mean())
        return measures


def block_seconds(time_base: Fraction) -> Fraction:
    """Return the length of a block: 0.1 seconds, or as many as a tick has, since tracks have one value a tick."""
    return BLOCK * max(1, math.ceil(time_base / BLOCK))


def _within(track: Track | None, span: Span) -> NDArray[np.float64] | None:
    """Return the values of the blocks that lie in ``span``, 0 where there is no sound; ``None`` where there are no blocks."""
    if track is None or not len(track.pts):
        return None
    block = block_seconds(span.time_base)
    first, last = (math.ceil(span.start * span.time_base / block), math.floor(span.end * span.time_base / block))
    if last <= first:
        return None
    low, high = np.searchsorted(track.pts, (span.start, span.end))
    places = np.rint(track.pts[low:high] * float(span.time_base / block)).astype(np.int64) - first
    inside = (places >= 0) & (places < last - first)
    values = np.zeros(last - first)
    values[places[inside]] = track.values[low:high][inside]
    return values


class _SoundPass:
    """Adds up each block's energies as the sound comes, in runs of samples that follow each other."""

    def __init__(self, time_base: Fraction, speech: SpeechPass | None) -> None:
        self._base, self._block, self._speech = time_base, block_seconds(time_base), speech
        self._run: tuple[int, tuple[str, ...]] | None = None  # its rate and channels
        self._start = 0  # number of the first sample that is held
        self._held: list[Samples] = []
        self._count = 0  # of the samples held
        self._before = np.zeros((0, AHEAD), bool)  # whether the samples before those are at full scale
        self._filter: Filter | None = None
        self._weights = np.zeros(0)
        self._sums: list[tuple[NDArray[np.int64], NDArray[np.float64]]] = []  # blocks, and by each as ``TRACKS``
        self._rate = 1
        self._lost: list[NDArray[np.int64]] = []  # numbers of blocks

    def lose(self, start: Fraction, end: Fraction) -> None:
        """Take note of sound that does not decode, seconds."""
        self._lost.append(np.arange(math.floor(start / self._block), math.ceil(end / self._block), dtype=np.int64))

    def hear(self, block: SoundBlock) -> None:
        """Take the next piece of sound."""
        if self._run != (block.rate, block.channels) or block.start != self._start + self._count:
            self._measure(last=True)
            self._run, self._rate, self._start = (block.rate, block.channels), block.rate, block.start
            self._filter = Filter(loudness.response(block.rate), len(block.channels))
            self._weights = loudness.weights(block.channels)
            self._before = np.zeros((len(block.channels), AHEAD), bool)
            if self._speech:
                self._speech.begin(block.rate)
        self._held.append(block.samples)
        self._count += block.samples.shape[1]
        if self._count >= 2 * loudness.SIZE:
            self._measure(last=False)

    def _measure(self, *, last: bool) -> None:
        """Measure what is held; but for the last samples where more follow, on which depends whether these are clipped."""
        if not self._held or self._filter is None:
            return
        whole = np.concatenate(self._held, axis=1)
        count = whole.shape[1] if last else whole.shape[1] - AHEAD
        if count <= 0:
            return
        samples = whole[:, :count]
        full = np.concatenate([self._before, np.abs(whole) >= FULL], axis=1)
        clipped = _clipped(np.pad(full, ((0, 0), (0, AHEAD if last else 0))), count)
        energies = self._weights @ np.square(self._filter(samples), dtype=np.float64)
        values = np.stack([energies, np.square(samples, dtype=np.float64).mean(axis=0), clipped.mean(axis=0)])
        starts = self._starts(count)
        self._sums.append((self._numbers(starts), np.add.reduceat(values, starts, axis=1).T))
        if self._speech:
            self._speech.hear(self._start, self._rate, samples)
        self._before = full[:, count : count + AHEAD]
        self._held, self._count = [whole[:, count:]], whole.shape[1] - count
        self._start += count

    def _starts(self, count: int) -> NDArray[np.int64]:
        """Return where blocks begin among the ``count`` samples from ``_start`` on, the first of them with these."""
        length = self._block * self._rate
        first = math.floor(self._start / length)
        last = math.floor((self._start + count - 1) / length)
        edges = [math.ceil(number * length) - self._start for number in range(first + 1, last + 1)]
        return np.array([0, *edges], np.int64)

    def _numbers(self, starts: NDArray[np.int64]) -> NDArray[np.int64]:
        length = self._block * self._rate
        return np.array([math.floor((self._start + int(at)) / length) for at in starts], np.int64)

    def finish(self) -> Sequence[Track]:
        """Return the tracks; none of a source without sound, and of what is lost only where something is."""
        self._measure(last=True)
        lost = np.unique(np.concatenate(self._lost)) if self._lost else np.zeros(0, np.int64)
        broken = [Track(name=LOST, pts=self._pts(lost), values=np.ones(len(lost), np.float32))] if len(lost) else []
        if not self._sums:
            return broken
        numbers, places = np.unique(np.concatenate([numbers for numbers, _ in self._sums]), return_inverse=True)
        values = np.zeros((len(numbers), 3))
        np.add.at(values, places, np.concatenate([sums for _, sums in self._sums]))
        values /= float(self._block * self._rate)  # a block that a sound begins or ends in is silent for the rest of it
        columns = [*np.clip(values, 0, [np.inf, np.inf, 1]).T]
        if self._speech:
            self._speech.finish()
            spoken = dict(by_block(self._speech.windows, float(self._block)))
            columns.append(np.array([spoken.get(int(number), 0.0) for number in numbers]))
        pts = self._pts(numbers)
        measured = [
            Track(name=name, pts=pts, values=column.astype(np.float32))
            for name, column in zip(TRACKS, columns, strict=False)
        ]
        return [*measured, *broken]

    def _pts(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the ticks of the pictures at which blocks begin."""
        return np.array([round(int(number) * self._block / self._base) for number in numbers], np.int64)


def _clipped(full: NDArray[np.bool_], count: int) -> NDArray[np.bool_]:
    """Tell which of ``count`` samples are in a run of ``RUN`` at full scale, given ``AHEAD`` more on either side."""
    if not full.any():
        return np.zeros((len(full), count), bool)
    runs = full[:, 2:] & full[:, 1:-1] & full[:, :-2]  # at the first sample of each three
    return np.asarray(runs[:, :count] | runs[:, 1 : count + 1] | runs[:, 2 : count + 2], np.bool_)
