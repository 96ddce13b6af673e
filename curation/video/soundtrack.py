"""The sound of a clip: a span's samples are decoded from its source, and encoded to go with the clip's pictures.

It is always encoded anew, whatever becomes of the pictures: packets of sound begin where they like, and only so does the
clip's first sample belong to its first frame. A clip has as many samples as its frames last, to the nearest; where the
source has none, they are silence. The encoder's own delay is stated in the container, as an edit list or a codec delay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from typing import Any, ClassVar, Literal

import numpy as np

from dailies.curation.timing import Span
from dailies.curation.types import Samples, SoundBlock
from dailies.curation.video.audio import filled
from dailies.curation.video.sound_file import SoundFile, SoundPlaces

Audio = Literal["drop", "keep"]
AAC_RATES = frozenset((96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000))
USUAL_RATE = 48000  # samples a second of Opus, and where AAC does not take the source's rate
BITS = 80_000  # per second and channel


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipSound:
    """What a clip holds of its source's sound.

    ``audio``: ``kept``; ``dropped``: it was not wanted; ``absent``: the source has none; ``unreadable``: none that is
    decoded. Of sound that is kept: ``codec`` and ``rate`` (samples a second) in the clip, the number of its ``channels``,
    the ``stream`` of the source, and the seconds ``missing``: silence, since no sound decodes there.
    """

    audio: Literal["kept", "dropped", "absent", "unreadable"]
    codec: str | None = None
    rate: int | None = None
    channels: int | None = None
    stream: int | None = None
    missing: float | None = None

    meaning: ClassVar[int] = 1  # raised when the code changes what a clip's sound is


DROPPED = ClipSound(audio="dropped")


class Soundtrack:
    """The sound of one span, to be encoded once. A context manager.

    Each span's file is opened anew: what a decoder gives may hang on what it decoded before, and a clip's bytes must not.
    ``facts`` are whole once it is encoded. ``video``: the index of the pictures' stream. ``places``: to be shared by the
    spans of one source. Raises ``SourceError``.
    """

    def __init__(
        self, uri: str, span: Span, video: int, heartbeat: Callable[[], None] = lambda: None, *, places: SoundPlaces
    ) -> None:
        self._span, self._places = span, places
        self._blocks: Iterator[SoundBlock] = iter(())
        self._first: SoundBlock | None = None
        for back in places.backs(heartbeat):
            self._file = SoundFile(uri, video)
            try:
                # Behind the end of a sound, or far before its start, nothing comes of looking at all that was before.
                if self._begin(back, heartbeat) or not places.misses(self._first, span, heartbeat):
                    break
            except BaseException:
                self.close()
                raise
            self.close()

    def _begin(self, back: int | None, heartbeat: Callable[[], None]) -> bool:
        """Decode the first block; return whether none before it can be there."""
        stream = self._file.stream
        if stream is None:
            self.facts = ClipSound(audio="absent" if self._file.absent else "unreadable")
            return True
        if not self._places.has_none(self._span):
            self._blocks = self._file.blocks(self._span, back, heartbeat, self._places)
        self._first = next(self._blocks, None)
        rate = self._first.rate if self._first else USUAL_RATE
        self._rate = rate
        channels = min(2, len(self._first.channels)) if self._first else 1
        self.facts = ClipSound(audio="kept", rate=rate, channels=channels, stream=stream.index)
        return back is None or self._file.is_indexed

    def __enter__(self) -> Soundtrack:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the decoder and the file. Idempotent."""
        self._blocks = iter(())  # it holds a demuxer, which must not outlive its container
        self._file.close()

    @property
    def is_kept(self) -> bool:
        """Return whether there is sound to encode."""
        return self.facts.audio == "kept"

    def rate_in(self, container_format: str) -> int:
        """Return the samples a second with which it stands in a container: its own where the encoder takes it."""
        return self._rate if container_format != "matroska" and self._rate in AAC_RATES else USUAL_RATE

    def encode(self, container: Any, container_format: str) -> list[Any]:
        """Add a stream to libav's ``container`` and return its packets, in order, as Opus in Matroska and AAC elsewhere."""
        from av.codec.context import Flags

        rate, channels = self.rate_in(container_format), self.facts.channels or 1
        encoder, codec = ("libopus", "opus") if container_format == "matroska" else ("aac", "aac")
        stream = container.add_stream(encoder, rate=rate, layout="stereo" if channels == 2 else "mono")
        context = stream.codec_context
        context.bit_rate, context.time_base = BITS * channels, Fraction(1, rate)
        context.format = "flt" if encoder == "libopus" else "fltp"
        context.flags |= Flags.bitexact
        context.open()
        missing = Fraction(0)

        def counted() -> Iterator[Samples]:
            nonlocal missing
            for samples, own in self._samples(rate, channels):
                missing += 0 if own else Fraction(samples.shape[1], rate)
                yield samples

        packets = []
        for start, samples in _framed(counted(), context.frame_size):
            packets += stream.encode(_frame(samples, rate, start))
        packets += stream.encode(None)
        self.facts = ClipSound(
            audio="kept", codec=codec, rate=rate, channels=channels, stream=self.facts.stream, missing=float(missing)
        )
        return packets

    def _samples(self, rate: int, channels: int) -> Iterator[tuple[Samples, bool]]:
        """Yield the span's samples at ``rate``, and whether they are the source's own."""
        start, count = round(self._span.start * self._span.time_base * self._rate), round(self._span.seconds * rate)
        blocks = chain(() if self._first is None else (self._first,), self._blocks)
        if rate == self._rate:
            yield from filled(blocks, start, start + count, channels)
            return
        # A second more at both ends, that the filter has what it needs, is a whole number of samples at either rate.
        more = round(self._span.seconds * self._rate) + self._rate
        at = -rate
        for samples, own in _resampled(filled(blocks, start - self._rate, start + more, channels), self._rate, rate):
            inside = samples[:, max(0, -at) : max(0, count - at)]
            at += samples.shape[1]
            if inside.shape[1]:
                yield inside, own


def _resampled(pieces: Iterator[tuple[Samples, bool]], rate: int, into: int) -> Iterator[tuple[Samples, bool]]:
    import av

    resampler, at, own = None, 0, False
    for samples, own in pieces:
        layout = "stereo" if len(samples) == 2 else "mono"
        resampler = resampler or av.AudioResampler(format="fltp", layout=layout, rate=into)
        for frame in resampler.resample(_frame(samples, rate, at)):
            yield frame.to_ndarray(), own
        at += samples.shape[1]
    if resampler is not None:
        for frame in resampler.resample(None):
            yield frame.to_ndarray(), own


def _framed(pieces: Iterator[Samples], size: int) -> Iterator[tuple[int, Samples]]:
    """Yield the samples anew, ``size`` at a time, with the number of each one's first; the last may have fewer."""
    waiting: list[Samples] = []
    count = at = 0
    for piece in pieces:
        waiting.append(piece)
        count += piece.shape[1]
        if count < size:
            continue
        whole = np.concatenate(waiting, axis=1)
        for start in range(0, count - size + 1, size):
            yield at, whole[:, start : start + size]
            at += size
        waiting, count = [whole[:, count - count % size :]], count % size
    if count:
        yield at, np.concatenate(waiting, axis=1)


def _frame(samples: Samples, rate: int, pts: int) -> Any:
    import av

    # Codecs that lose may go beyond full scale; whoever plays them stops there.
    whole = np.ascontiguousarray(np.clip(samples, -1, 1))
    frame = av.AudioFrame.from_ndarray(whole, format="fltp", layout="stereo" if len(samples) == 2 else "mono")
    frame.sample_rate, frame.pts, frame.time_base = rate, pts, Fraction(1, rate)
    return frame


def interleaved(*streams: list[Any]) -> list[Any]:
    """Return the packets of several streams in the order of their decode times, as containers are read."""
    packets = [packet for stream in streams for packet in stream]
    return sorted(packets, key=lambda packet: packet.dts * packet.time_base)
