"""Sound is decoded to samples that stand on one grid: sample ``n`` is heard ``n / rate`` seconds after the clock's zero.

The clock is the container's, on which the frames stand too, so that whoever knows when a frame is shown knows its sample.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol

import numpy as np

from dailies.curation.types import Samples, SoundBlock

DECODED = frozenset(
    {
        *("aac", "aac_latm", "mp1", "mp2", "mp3", "ac3", "eac3", "dts", "truehd", "opus", "vorbis", "flac", "alac"),
        *("wavpack", "tta", "wmav1", "wmav2", "wmapro", "amr_nb", "amr_wb", "gsm", "gsm_ms", "speex", "nellymoser"),
        *("adpcm_ms", "adpcm_ima_wav", "adpcm_ima_qt", "adpcm_swf", "adpcm_yamaha", "mace3", "mace6", "qdm2"),
        *("pcm_u8", "pcm_s8", "pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s24be", "pcm_s32le", "pcm_s32be"),
        *("pcm_f32le", "pcm_f32be", "pcm_f64le", "pcm_f64be", "pcm_alaw", "pcm_mulaw", "pcm_bluray", "pcm_dvd"),
    }
)
"""Codecs of sound that are decoded. libav knows many more, of games and of old telephones; what it reads is not trusted."""
LONGEST = Fraction(1)  # seconds of sound that a packet that does not decode is believed to have had
MOST_CHANNELS = 64  # more are a damaged header
RATES = range(4000, 768_001)  # samples a second that are believed
ASKED = 64  # pieces whose times are looked at before the first is placed
LOOSE = Fraction(
    1, 1000
)  # seconds, and two ticks, by which a time may differ from the one that the samples so far come to


def choose_sound(container: Any, video: Any) -> Any | None:
    """Return the stream of sound that goes with the stream ``video``, of those that can be decoded; ``None`` without any.

    It is libav's choice where that can be decoded: what the container marks as the default comes first, and what is for
    people who cannot hear or see well last. Else the first that can.
    """
    known = [stream for stream in container.streams.audio if is_decoded(stream)]
    best = container.streams.best("audio", related=video)
    return next(
        (stream for stream in known if best is not None and stream.index == best.index), next(iter(known), None)
    )


def is_decoded(stream: Any) -> bool:
    """Tell whether a stream is of a codec of ``DECODED`` that libav has a decoder of."""
    return stream.codec_context is not None and stream.codec_context.codec.canonical_name in DECODED


class SoundListener(Protocol):
    """Hears a source's sound as it is decoded, which may be long before the first picture, or behind the last."""

    def begin(self, time_base: Fraction) -> None:
        """Begin anew, where a source is opened for it. ``time_base``: seconds per tick of its pictures."""

    def hear(self, block: SoundBlock) -> None:
        """Take the next piece."""

    def lose(self, start: Fraction, end: Fraction) -> None:
        """Take note that there is sound from ``start`` to ``end``, seconds, that does not decode."""


class SoundDecoder:
    """Decodes the packets of one ``stream``, in coded order, to blocks whose starts rise and that do not overlap.

    Where a packet does not decode, or the container leaves time out, the next block starts later. Samples are taken to
    follow each other without a gap as long as the times agree within what the container rounds them to, and a container
    whose ticks are longer than a sample is asked for many times before the first sample is placed. A block at another rate
    than the first is left out. ``lost`` has the (start, end), seconds, of what did not decode, to be emptied by who reads
    it.
    """

    def __init__(self, stream: Any) -> None:
        self.index: int = stream.index
        self._codec, self._base = stream.codec_context, Fraction(stream.time_base)
        self._codec.thread_count = 1
        self.rate: int | None = None
        self._tick = self._base  # in samples, once their rate is known; and how far times may be off, in samples
        self._loose = 0.0
        self._first: int | None = None  # number of the first sample that was given
        self._end: int | None = None  # and of the one behind the last
        self._unplaced: list[
            _Unplaced
        ] = []  # pieces that follow each other, whose first sample's number is not settled
        self._due: int | None = None  # number of the sample that is next where that is settled
        self.lost: list[tuple[Fraction, Fraction]] = []

    @property
    def since(self) -> Fraction | None:
        """Seconds at which the first samples begin; ``None`` before these."""
        return None if self._first is None or self.rate is None else Fraction(self._first, self.rate)

    @property
    def until(self) -> Fraction | None:
        """Seconds at which the samples so far end; ``None`` before the first."""
        return None if self._end is None or self.rate is None else Fraction(self._end, self.rate)

    def decode(self, packet: Any) -> Iterator[SoundBlock]:
        """Yield what is known with a packet; ``None`` is the end."""
        import av

        try:
            frames = list(self._codec.decode(packet))
        except (av.FFmpegError, ValueError):  # PyAV's for a layout that it cannot name
            frames = []
            if packet is not None:
                self._lose(packet.pts, packet.duration)
        for frame in frames:
            piece = self._piece(frame)
            if piece is not None:
                yield from self._take(piece)
            else:
                self._lose(frame.pts, Fraction(frame.samples, max(1, frame.sample_rate)) / self._base)
        if packet is None:
            yield from self._settle()

    def _lose(self, pts: int | None, duration: Fraction | int | None) -> None:
        """Note what does not decode, in ticks; of a length that is not known or not believed, at least where it begins."""
        if pts is not None:
            start = pts * self._base
            length = min(Fraction(duration or 0) * self._base, LONGEST)
            self.lost.append((start, start + max(self._base, length)))

    def _piece(self, frame: Any) -> _Unplaced | None:
        rate, channels = int(frame.sample_rate), tuple(channel.name for channel in frame.layout.channels)
        if frame.is_corrupt or rate not in RATES or not 0 < len(channels) <= MOST_CHANNELS:
            return None
        if self.rate is None:
            self.rate, self._tick = rate, self._base * rate
            self._loose = float(2 * self._tick + LOOSE * rate)
        if rate != self.rate:
            return None
        at = None if frame.pts is None else frame.pts * self._tick
        return _Unplaced(at=at, channels=channels, samples=_floats(frame, len(channels)))

    def _take(self, piece: _Unplaced) -> Iterator[SoundBlock]:
        """Place the next piece, or keep it until enough are there to tell where they stand."""
        due: int | Fraction | None = self._due
        if due is None and self._unplaced:
            due = self._unplaced[0].at + sum(each.samples.shape[1] for each in self._unplaced)
        if due is None and piece.at is None:
            return  # no one knows when it is heard
        if due is not None and piece.at is not None and abs(float(piece.at - due)) > self._loose:
            yield from self._settle()
            self._due = None
        if self._due is not None:
            yield from self._given(self._due, piece)
            return
        self._unplaced.append(piece)
        if len(self._unplaced) >= (ASKED if self._tick > 1 else 1):
            yield from self._settle()

    def _settle(self) -> Iterator[SoundBlock]:
        """Place the pieces that wait: halfway between the earliest and the latest place that their times speak for.

        Of times that are rounded to the tick that is the best that is known, and the same wherever a file is entered.
        """
        count, places = 0, []
        for piece in self._unplaced:
            places += [] if piece.at is None else [piece.at - count]
            count += piece.samples.shape[1]
        pieces, self._unplaced = self._unplaced, []
        if pieces:
            self._due = round((min(places) + max(places)) / 2)
        for piece in pieces:
            assert self._due is not None
            yield from self._given(self._due, piece)

    def _given(self, start: int, piece: _Unplaced) -> Iterator[SoundBlock]:
        """Yield a piece that starts at ``start``, without what is there already."""
        assert self.rate is not None
        self._due = start + piece.samples.shape[1]
        late = 0 if self._end is None else max(0, self._end - start)
        if late < piece.samples.shape[1]:
            samples = piece.samples[:, late:]
            self._first = start + late if self._first is None else self._first
            self._end = self._due
            yield SoundBlock(start=start + late, rate=self.rate, channels=piece.channels, samples=samples)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Unplaced:
    """Decoded samples, and the number of the first by the container, in fractions of one."""

    at: Fraction | None
    channels: tuple[str, ...]
    samples: Samples


def _floats(frame: Any, channels: int) -> Samples:
    """Return a frame's samples, (channels, n), finite; whole numbers are scaled to ±1."""
    values = frame.to_ndarray()
    if not frame.format.is_planar:
        values = values.reshape(-1, channels).T
    if values.dtype == np.uint8:
        values = (values.astype(np.float32) - 128) / 128
    elif values.dtype.kind == "i":
        values = values * np.float32(2.0 ** (1 - 8 * values.dtype.itemsize))
    floats = np.ascontiguousarray(values, np.float32)
    return floats if np.isfinite(floats.sum()) else np.nan_to_num(floats, copy=False, nan=0, posinf=0, neginf=0)


def filled(blocks: Iterator[SoundBlock], start: int, end: int, channels: int) -> Iterator[tuple[Samples, bool]]:
    """Yield the samples from number ``start`` up to ``end``, mixed to ``channels``, and whether they are the source's own.

    What no block holds is silence, in pieces of at most 2 ** 16 samples.
    """
    at = start
    for block in blocks:
        if block.start >= end:
            break
        if block.end > at:
            yield from _silence(at, block.start, channels)
            at = max(at, block.start)
            own = mixed(block, channels)[:, at - block.start : end - block.start]
            at += own.shape[1]
            yield own, True
    yield from _silence(at, end, channels)


def _silence(start: int, end: int, channels: int) -> Iterator[tuple[Samples, bool]]:
    for at in range(start, end, 1 << 16):
        yield np.zeros((channels, min(1 << 16, end - at)), np.float32), False


HALF = math.sqrt(0.5)


def mixed(block: SoundBlock, channels: int) -> Samples:
    """Return a block's samples mixed to one channel or two, with the weights of ITU-R BS.775 and so that none can clip.

    The channel of low effects is left out, as there.
    """
    if len(block.channels) == channels == 1 or block.channels == ("FL", "FR") == SIDES[:channels]:
        return block.samples
    weights = np.array([_weights(name) for name in block.channels], np.float32).T  # (2, channels of the block)
    if channels == 1:
        weights = weights.sum(axis=0, keepdims=True)
    loudest = float(np.abs(weights).sum(axis=1).max())
    if not loudest:  # nothing but channels of unknown places
        weights, loudest = np.ones((channels, len(block.channels)), np.float32), float(len(block.channels))
    return np.asarray(weights / max(loudest, 1.0) @ block.samples, np.float32)


SIDES = ("FL", "FR")


def _weights(name: str) -> tuple[float, float]:
    """Return by how much a channel goes to the left and to the right."""
    if name in ("FC", "BC"):
        return HALF, HALF
    if name.startswith("LFE"):
        return 0.0, 0.0
    side = 1.0 if name in (*SIDES, "DL", "DR") else HALF
    if name.endswith("L") or name == "FLC":
        return side, 0.0
    return (0.0, side) if name.endswith("R") or name == "FRC" else (0.0, 0.0)
