"""Cutting spans out of one open source, in four ways.
 ``encode`` makes every frame anew: exact, in any size. ``copy`` takes packets as they are, from keyframe to keyframe:
fast, loses a little at both ends, see ``curation.remux``. ``smart`` copies what it can and encodes the rest in the same
codec: exact, near the cost of a copy; where the codec does not allow it, it encodes all. ``none`` leaves the clip where
it is.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Any, Literal, get_args

from curation import splice
from curation.encode import Cutout, Encoding, encode
from curation.errors import NotCopied, SourceError, TooFewFrames
from curation.pixels import Picture
from curation.reader import Source, open_before
from curation.remux import REORDER, Coded, mux, stretch, timed
from curation.timing import Grid, Span, ticks
from curation.types import Crop

Mode = Literal["encode", "copy", "smart", "none"]
MODES: tuple[Mode, ...] = get_args(Mode)
AHEAD = 4  # seconds: a span that starts within so many of the last one's end is reached by decoding on


class Cutting:
    """A source from which spans are cut out; one after another, in the order of time, it is opened and decoded once.

    A context manager. ``beat`` is called for every frame. Raises ``SourceError``.
    """

    def __init__(self, uri: str, *, stream: int | None = None) -> None:
        self._uri, self._stream = uri, stream
        self._decoding: Source | None = None
        self._at: int | None = None  # pts from which on ``_decoding`` goes
        self._packets: Source | None = None
        self._joint: splice.Joint | None = None

    def __enter__(self) -> Cutting:
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

    def cut(
        self,
        span: Span,
        mode: Mode = "encode",
        *,
        encoding: Encoding | None = None,
        crop: Crop | None = None,
        beat: Callable[[], None] = lambda: None,
    ) -> Cutout:
        """See ``curation.video.cut_out``."""
        encoding = encoding or Encoding()
        try:
            if mode == "none":
                return self._left(span, crop, beat)
            if mode == "copy":
                return self._copied(span, beat)
            if mode == "smart":
                try:
                    return self._spliced(span, encoding, beat)
                except NotCopied:
                    pass
            return encode(self._pictures(span, encoding.max_fps, beat), span, encoding, crop)
        except SourceError:
            self.close()  # what failed in the middle stands nowhere
            raise

    # ---- frames ----

    def _pictures(self, span: Span, max_fps: float | None, beat: Callable[[], None]) -> Iterator[Picture]:
        """The span's frames, those due on a grid of ``max_fps`` from its start on."""
        source = self._reach(span)
        grid = Grid(max_fps, span.time_base, span.start)
        self._at = span.end
        for picture in source.within(span):
            beat()
            if grid.due(picture.pts):
                yield picture

    def _reach(self, span: Span) -> Source:
        """A source from which the span's frames come next: the open one where it stands a little before the span."""
        near = ticks(AHEAD, span.time_base)
        if self._decoding is None or self._at is None or not self._at <= span.start <= self._at + near:
            if self._decoding is not None:
                self._decoding.close()
            self._decoding = open_before(self._uri, span, stream=self._stream)
        return self._decoding

    # ---- packets ----

    def _coded(self, span: Span, beat: Callable[[], None]) -> Iterator[Any]:
        """Packets in coded order, from a keyframe at or before the span on."""
        if self._packets is None:
            self._packets = Source(self._uri, stream=self._stream)
        packets = self._packets.coded(span)
        if packets is None:
            self._packets.close()
            self._packets = Source(self._uri, stream=self._stream)
            packets = self._packets.decoder.coded()
        for packet in packets:
            beat()
            yield packet

    @property
    def _header(self) -> Any:
        assert self._packets is not None
        return self._packets.video_stream

    def _copied(self, span: Span, beat: Callable[[], None]) -> Cutout:
        """The first stretch of the span whose first frame is the keyframe: a decoder that recovers slowly shows later
        ones."""
        after = None
        while True:
            held = stretch(self._coded(span, beat), span, after=after)
            after = held.packets[0].pts
            data = mux(self._header, [Coded(packet=one, pts=one.pts) for one in held.packets], held.span)
            with suppress(NotCopied):
                return _cutout(data, held.span, len(held.packets), None, 0)

    def _spliced(self, span: Span, encoding: Encoding, beat: Callable[[], None]) -> Cutout:
        """Raises ``NotCopied`` where the span is to be encoded as a whole."""
        joint = self._joint = self._joint or self._look()
        held = stretch(self._coded(span, beat), span, starts=joint.starts)
        parts: list[list[Coded]] = []
        for start, end in ((span.start, held.span.start), (held.span.end, span.end)):
            part = Span(start=start, end=end, time_base=span.time_base) if start < end else None
            parts.append(joint.encode(self._pictures(part, None, beat), part, encoding) if part else [])
        head, tail = parts
        whole = [*head, *joint.joined(held.packets, behind=bool(head)), *tail]
        data = mux(self._header, whole, span, tag=joint.tag if head or tail else None)
        encoded = len(head) + len(tail)
        return _cutout(data, span, len(whole), joint.encoder if encoded else None, encoded)

    def _look(self) -> splice.Joint:
        with Source(self._uri, stream=self._stream) as source:
            return splice.Joint.of(source.video_stream, source.first_frame)

    def _left(self, span: Span, crop: Crop | None, beat: Callable[[], None]) -> Cutout:
        with Source(self._uri, stream=self._stream) as source:
            probe = source.probe
        crop, frames = crop or Crop(), self._count(span, beat)
        return Cutout(
            data=None,
            span=span,
            frames=frames,
            width=probe.width - crop.left - crop.right,
            height=probe.height - crop.top - crop.bottom,
            fps=frames / float(span.seconds),
            encoder=None,
            encoded=0,
        )

    def _count(self, span: Span, beat: Callable[[], None]) -> int:
        """The span's frames, by their packets where these are sound and say their times, else by decoding."""
        try:
            held, beyond = 0, 0
            for packet in timed(self._coded(span, beat)):
                held += span.start <= packet.pts < span.end and not packet.is_discard
                beyond += packet.pts >= span.end
                if beyond > REORDER:
                    break
        except NotCopied:
            return sum(1 for _ in self._pictures(span, None, beat))
        if not held:
            raise TooFewFrames(f"no frame from {span.start} to {span.end} ticks of {span.time_base} s")
        return held


def _cutout(data: bytes, span: Span, frames: int, encoder: str | None, encoded: int) -> Cutout:
    """What a file made of packets holds. Raises ``NotCopied`` if its first frame does not decode: not every keyframe is
    one to begin at."""
    with Source("memory", file=io.BytesIO(data)) as made:
        try:
            first, probe = made.first_pts, made.probe
        except SourceError as error:
            raise NotCopied(f"what was copied does not decode: {error}") from error
        if first:
            raise NotCopied("its first keyframe does not decode by itself")
    return Cutout(
        data=data,
        span=span,
        frames=frames,
        width=probe.width,
        height=probe.height,
        fps=frames / float(span.seconds),
        encoder=encoder,
        encoded=encoded,
    )
