"""Clips are extracted from one open source, in four ways.

``encode`` makes every frame anew: exact, in any size. ``copy`` takes packets as they are, from keyframe to keyframe:
fast, loses a little at both ends, see ``remux``. ``smart`` copies what it can and encodes the rest in the same
codec: exact, near the cost of a copy; where the codec does not allow it, it encodes all. ``none`` leaves the clip where
it is. Sound, where it is kept, is encoded anew in each of them but ``none``.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from fractions import Fraction
from functools import reduce
from types import TracebackType
from typing import Any, Literal, get_args

from dailies.curation.errors import NotCopied, SourceError, TooFewFrames
from dailies.curation.geometry import Size, larger
from dailies.curation.timing import Grid, Span, ticks
from dailies.curation.types import Crop, Probe
from dailies.curation.video import splice
from dailies.curation.video.encode import Encoding, ExtractedClip, LargerPicture, encode
from dailies.curation.video.pixels import Canvas, DecodedFrame
from dailies.curation.video.remux import REORDER, Coded, MarkedDamaged, codec_of, mux, stretch, timed
from dailies.curation.video.sound_file import SoundPlaces
from dailies.curation.video.soundtrack import DROPPED, Audio, Soundtrack
from dailies.curation.video.source import Source, open_before

RESIZING = frozenset({"vp9", "av1"})  # codecs whose pictures may change size at any frame, not only at keyframes
Mode = Literal["encode", "copy", "smart", "none"]
MODES: tuple[Mode, ...] = get_args(Mode)
AHEAD = 4  # seconds: a span that starts within so many of the last one's end is reached by decoding on


class _PicturesDiffer(NotCopied):
    """Pictures of a span are of two geometries, or under two headers: no copy of them is one clip."""


def extract_clip(
    uri: str,
    span: Span,
    mode: Mode = "encode",
    *,
    encoding: Encoding | None = None,
    crop: Crop | None = None,
    audio: Audio = "drop",
    stream: int | None = None,
    heartbeat: Callable[[], None] = lambda: None,
) -> ExtractedClip:
    """Extract a span as a file of its own: see this module for the modes, ``Encoding`` for its settings.

    ``encode`` gives the span's frames, and no others, upright with square pixels, ``crop`` taken off. The other modes
    leave the pictures as they are, turned by the container where the source is, and know no crop, size or rate. A clip has
    pictures of one size, the largest that the span has; copies of pictures that change on the way are encoded instead, and so
    are those with a packet that the demuxer marks as damaged. ``audio``: ``keep`` to have the sound along, see ``soundtrack``.
    ``heartbeat`` is called for every frame. Raises ``SourceError``; ``NotCopied`` where ``copy`` finds no keyframe.
    """
    with Extractor(uri, stream=stream) as extractor:
        return extractor.extract(span, mode, encoding=encoding, crop=crop, audio=audio, heartbeat=heartbeat)


class Extractor:
    """Extracts spans of one source; asked for in the order of time, it is opened and decoded once.

    A context manager. ``heartbeat`` is called for every frame. Raises ``SourceError``.
    """

    def __init__(self, uri: str, *, stream: int | None = None) -> None:
        self._uri, self._stream = uri, stream
        self._decoding: Source | None = None
        self._at: int | None = None  # pts from which on ``_decoding`` goes
        self._frames = 0  # frames of the span at hand
        self._packets: Source | None = None
        self._facts: tuple[Canvas, Probe, splice.Joint | NotCopied] | None = None
        self._audio: Audio = "drop"  # of the span at hand
        self._places: SoundPlaces | None = None

    def __enter__(self) -> Extractor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free what is open. Idempotent."""
        for source in (self._decoding, self._packets):
            if source is not None:
                source.close()
        self._decoding = self._packets = self._at = None

    def extract(
        self,
        span: Span,
        mode: Mode = "encode",
        *,
        encoding: Encoding | None = None,
        crop: Crop | None = None,
        audio: Audio = "drop",
        expect: int | None = None,
        size: Size | None = None,
        least: Fraction = Fraction(0),
        heartbeat: Callable[[], None] = lambda: None,
    ) -> ExtractedClip:
        """Extract ``span``, as ``extract_clip`` says.

        ``expect``: how many frames the span is known to hold; another number, in the modes that hold all of them, raises
        ``SourceError``. ``size``: (width, height) of the largest of its pictures, where it is known: who leaves the clip
        in its source need not decode it. ``least``: seconds that a copy must have, or it raises ``NotCopied``.
        """
        encoding = encoding or Encoding()
        self._audio = audio
        try:
            if mode == "copy":
                with suppress(_PicturesDiffer, MarkedDamaged):
                    return self._copy(span, least, heartbeat)
            if mode == "smart":
                with suppress(NotCopied):
                    clip = self._splice(span, encoding, heartbeat)
                    if expect in (None, clip.frames):  # else some packets decode to nothing
                        return clip
            if mode == "none":
                clip = self._leave(span, crop, expect, size, heartbeat)
            else:
                clip = self._encode(span, encoding, crop, heartbeat)
            if expect not in (None, self._frames):
                raise SourceError(f"{self._frames} frames decoded in the span where {expect} were observed")
            return clip
        except SourceError:
            self.close()  # what failed in the middle stands nowhere
            raise

    # ---- frames ----

    def frames(self, span: Span, heartbeat: Callable[[], None] = lambda: None) -> Iterator[DecodedFrame]:
        """Yield the frames of ``span``, every one of them."""
        return self._decoded(span, None, heartbeat)

    def _encode(
        self, span: Span, encoding: Encoding, crop: Crop | None, heartbeat: Callable[[], None]
    ) -> ExtractedClip:
        """Encode the span at the size of its largest picture: where it is not the first, the span is decoded again."""
        size: Size | None = None
        while True:
            try:
                with self._sound(span, heartbeat) as sound:
                    return encode(self._decoded(span, encoding.max_fps, heartbeat), span, encoding, crop, size, sound)
            except LargerPicture as picture:
                size = picture.size

    def _decoded(self, span: Span, max_fps: float | None, heartbeat: Callable[[], None]) -> Iterator[DecodedFrame]:
        """Yield the span's frames that are due on a grid of ``max_fps`` from its start on."""
        source = self._reach(span)
        grid = Grid(max_fps, span.time_base, span.start)
        self._at, self._frames = span.end, 0
        for picture in source.within(span):
            heartbeat()
            self._frames += 1
            if grid.due(picture.pts):
                yield picture

    def _reach(self, span: Span) -> Source:
        """Return a source from which the span's frames come next.

        That is the open one where it stands a little before the span, or cannot be entered elsewhere.
        """
        canvas, _, _ = self._source()
        if self._decoding is not None and self._at is not None and self._at <= span.start:
            near = self._at + ticks(AHEAD, span.time_base)
            if span.start <= near or not self._decoding.decoder.seeks:
                return self._decoding
        if self._decoding is not None:
            self._decoding.close()
        self._decoding = open_before(self._uri, span, stream=self._stream, canvas=canvas)
        return self._decoding

    def _source(self) -> tuple[Canvas, Probe, splice.Joint | NotCopied]:
        """Return what the source's first frame tells: its canvas, its probe, and how coded pictures can be joined to it.

        The source that it was read from then stands at the beginning, for the first span.
        """
        if self._facts is None:
            source = self._decoding = Source(self._uri, stream=self._stream)
            try:
                joint: splice.Joint | NotCopied = splice.Joint.of(source.video_stream, source.first_frame)
            except NotCopied as error:
                joint = error
            self._facts, self._at = (source.canvas, source.probe, joint), source.first_pts
        return self._facts

    # ---- sound ----

    def _sound(self, span: Span, heartbeat: Callable[[], None]) -> AbstractContextManager[Soundtrack | None]:
        """Open the sound of ``span``, which goes into its clip's file; ``None`` where it is not wanted."""
        if self._audio == "drop":
            return nullcontext()
        _, probe, _ = self._source()
        self._places = self._places or SoundPlaces(self._uri, probe.stream)
        return Soundtrack(self._uri, span, probe.stream, heartbeat, places=self._places)

    # ---- packets ----

    def _coded(self, span: Span, heartbeat: Callable[[], None]) -> Iterator[Any]:
        """Yield packets in coded order, from a keyframe at or before the span on."""
        if self._packets is None:
            self._packets = Source(self._uri, stream=self._stream)
        packets = self._packets.coded(span)
        if packets is None:
            self._packets.close()
            self._packets = Source(self._uri, stream=self._stream)
            packets = self._packets.decoder.coded()
        for packet in packets:
            heartbeat()
            if self._packets.decoder.reheaded or self._packets.decoder.described is not None:
                raise _PicturesDiffer("the codec's header changes on the way")
            yield packet

    @property
    def _header(self) -> Any:
        assert self._packets is not None
        return self._packets.video_stream

    def _copy(self, span: Span, least: Fraction, heartbeat: Callable[[], None]) -> ExtractedClip:
        """Copy the first stretch of the span that decodes from its keyframe on: a slow decoder shows later frames first."""
        after = None
        while True:
            copied = stretch(self._coded(span, heartbeat), span, after=after)
            after = copied.packets[0].pts
            coded = [Coded(packet=packet, pts=packet.pts) for packet in copied.packets]
            with self._sound(copied.span, heartbeat) as sound:
                data = mux(self._header, coded, copied.span, sound=sound)
            try:
                size = self._check(data, None)
            except _PicturesDiffer:
                raise
            except NotCopied:
                continue
            if copied.span.seconds < least:
                seconds, short = float(copied.span.seconds), float(least)
                raise NotCopied(f"{seconds:.2f} s from its keyframe on are left of it, under min_seconds={short:g}")
            return self._clip(data, copied.span, len(copied.packets), None, 0, size, sound=sound)

    def _splice(self, span: Span, encoding: Encoding, heartbeat: Callable[[], None]) -> ExtractedClip:
        """Copy what a keyframe allows and encode the ends. Raises ``NotCopied`` where the whole span is to be encoded."""
        _, _, joint = self._source()
        if isinstance(joint, NotCopied):
            raise joint
        copied = stretch(self._coded(span, heartbeat), span, starts=joint.starts)
        parts: list[list[Coded]] = []
        for start, end in ((span.start, copied.span.start), (copied.span.end, span.end)):
            part = Span(start=start, end=end, time_base=span.time_base) if start < end else None
            parts.append(joint.encode(self._decoded(part, None, heartbeat), part, encoding) if part else [])
        head, tail = parts
        whole = [*head, *joint.joined(copied.packets, behind=bool(head)), *tail]
        with self._sound(span, heartbeat) as sound:
            data = mux(self._header, whole, span, tag=joint.tag if head or tail else None, sound=sound)
        size = self._check(data, len(whole))
        encoded = len(head) + len(tail)
        return self._clip(data, span, len(whole), joint.encoder if encoded else None, encoded, size, sound=sound)

    def _check(self, data: bytes, frames: int | None) -> Size:
        """Decode a file made of packets, and return the size of its pictures.

        All of its ``frames``, or, of a copy: its first frame, since not every keyframe starts a stream, and its keyframes,
        since at these alone most codecs can change the pictures. Raises ``NotCopied`` where it does not decode as it should,
        ``_PicturesDiffer`` where they do not all have one geometry.
        """
        try:
            with Source("memory", file=io.BytesIO(data)) as clip:
                begins, canvas = clip.first_pts, clip.canvas
                if frames is None and codec_of(clip.video_stream) not in RESIZING:
                    clip.video_stream.codec_context.skip_frame = "NONKEY"
                canvases = [picture.canvas for picture in clip.frames()]
                sound = frames is None or (len(canvases) == frames and not clip.decoder.faulty)
        except SourceError as error:
            raise NotCopied(f"what was copied does not decode: {error}") from error
        if any(other is not canvas for other in canvases):
            raise _PicturesDiffer("its pictures change size, turn or format on the way")
        if begins or not sound:
            raise NotCopied("what was copied does not decode by itself")
        return canvas.size

    @staticmethod
    def _clip(
        data: bytes | None,
        span: Span,
        frames: int,
        encoder: str | None,
        encoded: int,
        size: Size,
        crop: Crop | None = None,
        *,
        sound: Soundtrack | None = None,
    ) -> ExtractedClip:
        crop = crop or Crop()
        return ExtractedClip(
            data=data,
            span=span,
            frames=frames,
            width=size[0] - crop.left - crop.right,
            height=size[1] - crop.top - crop.bottom,
            fps=frames / float(span.seconds),
            encoder=encoder,
            encoded=encoded,
            sound=sound.facts if sound else DROPPED,
        )

    def _leave(
        self, span: Span, crop: Crop | None, expect: int | None, size: Size | None, heartbeat: Callable[[], None]
    ) -> ExtractedClip:
        """Leave the clip in its source, its frames counted by packets where these are sound and timed, else by decoding."""
        with suppress(NotCopied):
            self._frames = self._count(span, heartbeat) if size else 0
            if size and self._frames and expect in (None, self._frames):
                return self._clip(None, span, self._frames, None, 0, size, crop)
        sizes = [picture.canvas.size for picture in self._decoded(span, None, heartbeat)]
        if not sizes:
            raise TooFewFrames(f"no frame from {span.start} to {span.end} ticks of {span.time_base} s")
        return self._clip(None, span, len(sizes), None, 0, size or reduce(larger, sizes), crop)

    def _count(self, span: Span, heartbeat: Callable[[], None]) -> int:
        """Count the packets whose pictures the span shows. Raises ``NotCopied`` where packets do not tell."""
        shown: set[int] = set()
        beyond = 0
        for packet in timed(self._coded(span, heartbeat), span):
            if span.start <= packet.pts < span.end:
                if packet.is_discard or packet.pts in shown:
                    raise NotCopied("not every picture is shown, or two at the same time")
                shown.add(packet.pts)
            beyond += packet.pts >= span.end
            if beyond > REORDER:
                break
        return len(shown)
