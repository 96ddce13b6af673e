"""Cutting spans out of one open source, in four ways.

``encode`` makes every frame anew: exact, in any size. ``copy`` takes packets as they are, from keyframe to keyframe:
fast, loses a little at both ends, see ``remux``. ``smart`` copies what it can and encodes the rest in the same
codec: exact, near the cost of a copy; where the codec does not allow it, it encodes all. ``none`` leaves the clip where
it is.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Any, Literal, get_args

from dailies.curation.errors import NotCopied, SourceError, TooFewFrames
from dailies.curation.timing import Grid, Span, ticks
from dailies.curation.types import Crop, Probe
from dailies.curation.video import splice
from dailies.curation.video.encode import Cutout, Encoding, encode
from dailies.curation.video.pixels import Canvas, Picture
from dailies.curation.video.remux import REORDER, Coded, mux, stretch, timed
from dailies.curation.video.source import Source, open_before

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
        self._seen = 0  # frames of the span at hand
        self._packets: Source | None = None
        self._known: tuple[Canvas, Probe, splice.Joint | NotCopied] | None = None

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
        expect: int | None = None,
        beat: Callable[[], None] = lambda: None,
    ) -> Cutout:
        """See ``dailies.curation.video.cut_out``. ``expect``: how many frames the span is known to hold; another number in the
        modes that hold all of them raises ``SourceError``."""
        encoding = encoding or Encoding()
        try:
            if mode == "copy":
                return self._copied(span, beat)
            if mode == "smart":
                with suppress(NotCopied):
                    cut = self._spliced(span, encoding, beat)
                    if expect in (None, cut.frames):  # else some packets decode to nothing
                        return cut
            if mode == "none":
                cut = self._left(span, crop, expect, beat)
            else:
                cut = encode(self._pictures(span, encoding.max_fps, beat), span, encoding, crop)
            if expect not in (None, self._seen):
                raise SourceError(f"{self._seen} frames decoded in the span where {expect} were observed")
            return cut
        except SourceError:
            self.close()  # what failed in the middle stands nowhere
            raise

    # ---- frames ----

    def _pictures(self, span: Span, max_fps: float | None, beat: Callable[[], None]) -> Iterator[Picture]:
        """The span's frames, those due on a grid of ``max_fps`` from its start on."""
        source = self._reach(span)
        grid = Grid(max_fps, span.time_base, span.start)
        self._at, self._seen = span.end, 0
        for picture in source.within(span):
            beat()
            self._seen += 1
            if grid.due(picture.pts):
                yield picture

    def _reach(self, span: Span) -> Source:
        """A source from which the span's frames come next: the open one where it stands a little before the span, or
        cannot be entered elsewhere."""
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
        """What the source's first frame tells: how frames become pictures, what the container says, what can be joined.

        The source that it was read from stands at the beginning then, for the first span."""
        if self._known is None:
            source = self._decoding = Source(self._uri, stream=self._stream)
            try:
                joint: splice.Joint | NotCopied = splice.Joint.of(source.video_stream, source.first_frame)
            except NotCopied as error:
                joint = error
            self._known, self._at = (source.canvas, source.probe, joint), source.first_pts
        return self._known

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
            if self._packets.decoder.reheaded:
                raise NotCopied("the codec's header changes on the way")
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
                self._check(data, None)
                return self._cutout(data, held.span, len(held.packets), None, 0)

    def _spliced(self, span: Span, encoding: Encoding, beat: Callable[[], None]) -> Cutout:
        """Raises ``NotCopied`` where the span is to be encoded as a whole."""
        _, _, joint = self._source()
        if isinstance(joint, NotCopied):
            raise joint
        held = stretch(self._coded(span, beat), span, starts=joint.starts)
        parts: list[list[Coded]] = []
        for start, end in ((span.start, held.span.start), (held.span.end, span.end)):
            part = Span(start=start, end=end, time_base=span.time_base) if start < end else None
            parts.append(joint.encode(self._pictures(part, None, beat), part, encoding) if part else [])
        head, tail = parts
        whole = [*head, *joint.joined(held.packets, behind=bool(head)), *tail]
        data = mux(self._header, whole, span, tag=joint.tag if head or tail else None)
        self._check(data, len(whole))
        encoded = len(head) + len(tail)
        return self._cutout(data, span, len(whole), joint.encoder if encoded else None, encoded)

    def _check(self, data: bytes, frames: int | None) -> None:
        """Decode what was made of packets: its first frame, since not every keyframe is one to begin at, or all of its
        ``frames``. Raises ``NotCopied`` if it is not as it should be."""
        _, probe, _ = self._source()
        try:
            with Source("memory", file=io.BytesIO(data)) as made:
                begins, size = made.first_pts, (made.probe.width, made.probe.height)
                count = None if frames is None else sum(1 for _ in made.pictures())
                sound = count == frames and not (frames and made.decoder.faulty)
        except SourceError as error:
            raise NotCopied(f"what was copied does not decode: {error}") from error
        if begins or not sound:
            raise NotCopied("what was copied does not decode by itself")
        if size != (probe.width, probe.height):
            raise NotCopied("its pictures change size on the way")

    def _cutout(
        self, data: bytes | None, span: Span, frames: int, encoder: str | None, encoded: int, crop: Crop | None = None
    ) -> Cutout:
        _, probe, _ = self._source()
        crop = crop or Crop()
        return Cutout(
            data=data,
            span=span,
            frames=frames,
            width=probe.width - crop.left - crop.right,
            height=probe.height - crop.top - crop.bottom,
            fps=frames / float(span.seconds),
            encoder=encoder,
            encoded=encoded,
        )

    def _left(self, span: Span, crop: Crop | None, expect: int | None, beat: Callable[[], None]) -> Cutout:
        """Frames are counted by their packets where these are sound and say their times, else by decoding."""
        with suppress(NotCopied):
            self._seen = self._count(span, beat)
            if self._seen and expect in (None, self._seen):
                return self._cutout(None, span, self._seen, None, 0, crop)
        frames = sum(1 for _ in self._pictures(span, None, beat))
        if not frames:
            raise TooFewFrames(f"no frame from {span.start} to {span.end} ticks of {span.time_base} s")
        return self._cutout(None, span, frames, None, 0, crop)

    def _count(self, span: Span, beat: Callable[[], None]) -> int:
        """Packets whose pictures the span shows."""
        shown: set[int] = set()
        beyond = 0
        for packet in timed(self._coded(span, beat)):
            if span.start <= packet.pts < span.end:
                if packet.is_discard or packet.pts in shown:
                    raise NotCopied("not every picture is shown, or two at the same time")
                shown.add(packet.pts)
            beyond += packet.pts >= span.end
            if beyond > REORDER:
                break
        return len(shown)
