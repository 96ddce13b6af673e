"""A source is an open video: its stream, what its container says, its frames or packets, and where to enter it for a span.

PyAV is imported when a video is opened, not with this module.
"""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterator, Mapping
from fractions import Fraction
from typing import Any

from dailies.curation.errors import Changed, NotCopied, NoVideo, TooFewFrames, Unreadable
from dailies.curation.geometry import Size
from dailies.curation.timing import Span, ticks
from dailies.curation.types import RENDERED, Probe
from dailies.curation.video.audio import SoundListener
from dailies.curation.video.boxes import described_aspects
from dailies.curation.video.decode import FrameDecoder
from dailies.curation.video.opening import OpenFile
from dailies.curation.video.pixels import Canvas, DecodedFrame, Upright, geometry, is_hdr

PACKETS_BACK = (0, 10)  # seconds before a span at which to look for a keyframe, where packets alone are wanted
SEEK_BACK = (0, 2, 10)  # the same, where frames are, before decoding from the start


class Source(OpenFile):
    """An open video, whose ``frames`` are decoded once. A context manager.

    ``stream`` is an index in the container; by default the best video stream (cover art is not video). ``threads``:
    decoder threads, 0 for one per core. ``skip_nonref``: skip frames that no other refers to. ``decoder`` counts, and can
    be read after closing. ``canvas``: of the same source's first frame, for one that is entered elsewhere: its probe
    tells the size and turn of that. ``listener``: hears its sound as it is read. Raises ``Unreadable``, ``NoVideo``.
    """

    def __init__(
        self,
        uri: str,
        *,
        stream: int | None = None,
        threads: int = 1,
        skip_nonref: bool = False,
        file: Any = None,
        canvas: Canvas | None = None,
        listener: SoundListener | None = None,
    ) -> None:
        super().__init__(uri, file)
        self._left: Generator[tuple[int, Any], None, None] | None = None
        self._first: tuple[int, Any] | None = None
        self._probe: Probe | None = None
        self._canvas = canvas
        self._canvases: dict[tuple[Any, ...], Canvas] = {}  # by geometry
        self._upright: Upright | None = None  # in force at the frame that came last
        self._container_turns: bool | None = None  # so its frames', whatever the stream states; told by a keyframe
        try:
            self._stream = self._choose(stream)
            self.decoder = FrameDecoder(
                self._container, self._stream, self._file, threads=threads, skip_nonref=skip_nonref, listener=listener
            )
            if self.decoder.overrules and "mp4" in self._container.format.name.split(","):
                self.decoder.described = self._described()
            self._left = iter(self.decoder)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Free the decoder and the file. Idempotent."""
        if self._left is not None:
            self._left.close()  # it holds a demuxer, which must not outlive its container
        self._first = self._stream = None
        super().close()

    def _choose(self, index: int | None) -> Any:
        from av.stream import Disposition

        streams = self._container.streams
        stills = Disposition.attached_pic | Disposition.timed_thumbnails
        videos = [s for s in streams.video if not s.disposition & stills and index in (None, s.index)]
        if not videos:
            kinds = ", ".join(sorted({s.type for s in streams})) or "nothing"
            raise NoVideo(f"no video stream{'' if index is None else f' {index}'}; in the file: {kinds}")
        decodable = [s for s in videos if s.codec_context is not None]
        if not decodable:
            raise Unreadable("no decoder for its video stream")
        best = streams.best("video")
        if best is not None and any(s.index == best.index for s in decodable):
            return best
        return max(decodable, key=lambda s: (s.codec_context.width * s.codec_context.height, -s.index))

    def _described(self) -> Mapping[Size, Fraction] | None:
        """Read what several sample descriptions of its stream state: libav lets the last one speak for all."""
        at = self._file.tell()  # where libav reads on
        try:
            return described_aspects(self._file, self._stream.id)
        finally:
            self._file.seek(at)

    # ---- what it is ----

    @property
    def time_base(self) -> Fraction:
        """Seconds per tick."""
        return self.decoder.time_base

    @property
    def probe(self) -> Probe:
        """Description of the video by its container; decodes the first frame, which alone tells rotation and true size.

        Raises what ``check`` does if there is no first frame.
        """
        return self._begin()

    def _begin(self) -> Probe:
        """Decode the first frame, which stays the next to come out."""
        if self._probe is None:
            assert self._left is not None
            self._first = self._first or next(self._left, None)
            if self._first is None:
                self.check()
                raise TooFewFrames("no frame")
            self._canvas = self._canvas or self._canvas_of(*self._first)
            self._probe = self._describe(self._first[1], self._canvas)
        return self._probe

    def _canvas_of(self, pts: int, frame: Any) -> Canvas:
        """Return the canvas of a frame's own geometry, the same for all frames that share it."""
        upright, aspect = self._upright_at(frame), self.decoder.aspect_at(pts, (frame.width, frame.height))
        key = geometry(frame, aspect, upright)
        canvas = self._canvases.get(key)
        if canvas is None:
            canvas = self._canvases[key] = Canvas(frame, aspect, upright)
        return canvas

    def _upright_at(self, frame: Any) -> Upright:
        """Return the turn in force at a frame: the container's throughout, or the stream's own from keyframe to keyframe.

        Of a turn that the stream states, decoders tell at the keyframe alone (H.264), or until it states another (HEVC),
        but the standards let it end at the next keyframe. Only so a source is the same wherever it is entered.
        """
        if frame.key_frame:
            stated = self.decoder.states_turn(frame)
            if self._container_turns is None:
                self._container_turns = len(Upright.matrices(frame)) > stated
            self._upright = Upright.of(frame) if stated or self._container_turns else Upright(turns=0, mirror=False)
        elif self._upright is None:
            self._upright = self._canvas.upright if self._canvas else Upright.of(frame)
        return self._upright

    @property
    def canvas(self) -> Canvas:
        """Converter of its first frame, and those like it, to arrays. Raises what ``probe`` does."""
        self._begin()
        assert self._canvas is not None
        return self._canvas

    @property
    def first_pts(self) -> int:
        """Pts of a fresh source's first frame. Raises what ``probe`` does."""
        self._begin()
        assert self._first is not None
        return int(self._first[0])

    @property
    def first_frame(self) -> Any:
        """libav's first frame of a fresh source. Raises what ``probe`` does."""
        self._begin()
        assert self._first is not None
        return self._first[1]

    def _describe(self, first: Any, canvas: Canvas) -> Probe:
        upright, decoder = canvas.upright, self.decoder
        width, height = canvas.size
        return Probe(
            container=self._container.format.name,
            codec=self._stream.codec_context.name,
            stream=self._stream.index,
            width=width,
            height=height,
            rotation=90 * upright.turns,
            pixel_format=first.format.name,
            pixel_aspect=float(canvas.aspect),
            interlaced=first.interlaced_frame,
            hdr=is_hdr(first),
            time_base=decoder.time_base,
            start=decoder.start,
            duration=decoder.duration,
            frames=decoder.declared,
            fps=decoder.rate,
            has_audio=bool(self._container.streams.audio),
            rendered=RENDERED in self._container.metadata.values(),
        )

    # ---- what is in it ----

    def frames(self) -> Iterator[DecodedFrame]:
        """Yield every frame once, in presentation order, pts strictly rising. ``check`` afterwards."""
        self._begin()
        assert self._left is not None
        first, self._first = self._first, None
        for pts, frame in itertools.chain(() if first is None else (first,), self._left):
            yield DecodedFrame(pts, frame, self._canvas_of(pts, frame))

    def check(self) -> None:
        """Raise ``Broken``, ``Truncated`` or ``TooFewFrames``, after the last frame, if these cannot stand for the source."""
        self.decoder.check()

    def enter_before(self, span: Span, seconds: int) -> bool:
        """Seek a fresh source to a keyframe at least ``seconds`` before ``span``.

        Returns whether every frame of the span comes out from there as it does from the beginning.
        """
        import av

        decoder = self.decoder
        target = span.start - ticks(seconds, self.time_base)
        if target <= (decoder.start or 0):
            return True  # the beginning, where a fresh source stands
        if not decoder.seeks:
            return False
        assert self._left is not None
        decoder.seeking = True
        try:
            self._container.seek(target, stream=self._stream)
        except av.FFmpegError:
            return False
        self._first = next(self._left, None)
        if self._first is None or decoder.entry is None or decoder.guessed:
            return False
        # After a keyframe that is shown later than the span starts, frames shown before it lack what they refer to
        # (open GOP). And a decoder that has to recover first gives its first frame later than the keyframe.
        is_key, shown = decoder.entry
        return is_key and shown is not None and shown <= span.start and self._first[0] <= span.start

    def within(self, span: Span) -> Iterator[DecodedFrame]:
        """Yield the frames with ``span.start <= pts < span.end``. Raises ``Changed`` if the source has other ticks."""
        if span.time_base != self.time_base:
            raise Changed(f"its ticks are {self.time_base} s, not {span.time_base} s")
        for picture in self.frames():
            if picture.pts >= span.end:
                self._first = (picture.pts, picture.frame)  # the next span may begin with it
                return
            if picture.pts >= span.start:
                yield picture

    # ---- without decoding ----

    @property
    def video_stream(self) -> Any:
        """libav's stream, whose packets and frames these are."""
        return self._stream

    def coded(self, span: Span) -> Iterator[Any] | None:
        """Return libav's packets from a keyframe at or before ``span`` on, of a source that decodes nothing.

        ``None`` where the container cannot seek there: a fresh source stands at the beginning.
        """
        import av

        if span.time_base != self.time_base:
            raise Changed(f"its ticks are {self.time_base} s, not {span.time_base} s")
        if self.decoder.slots:
            raise NotCopied("the times of its packets are not those of its frames")
        for seconds in PACKETS_BACK if self.decoder.seeks else ():
            try:
                self._container.seek(span.start - ticks(seconds, self.time_base), stream=self._stream)
            except av.FFmpegError:
                continue
            packets = self.decoder.coded()
            first = next(packets, None)
            if first is not None and first.is_keyframe and first.pts is not None and first.pts <= span.start:
                return itertools.chain((first,), packets)
        return None


def open_source(
    uri: str,
    *,
    stream: int | None = None,
    threads: int = 1,
    skip_nonref: bool = False,
    listener: SoundListener | None = None,
) -> Source:
    """Open a local path or any fsspec URL: see ``Source``."""
    return Source(uri, stream=stream, threads=threads, skip_nonref=skip_nonref, listener=listener)


def open_before(
    uri: str,
    span: Span,
    *,
    stream: int | None = None,
    skip_nonref: bool = False,
    canvas: Canvas | None = None,
    listener: SoundListener | None = None,
) -> Source:
    """Open a source at or before the first frame of ``span``: seek, look where it landed, try further back if need be.

    A fresh decoder for each try: one that was flushed forgets its reordering depth. ``canvas``: the source's, where it
    is known.
    """
    if canvas is None:
        with Source(uri, stream=stream) as whole:
            canvas = whole.canvas
    for seconds in SEEK_BACK:
        source = Source(uri, stream=stream, skip_nonref=skip_nonref, canvas=canvas, listener=listener)
        try:
            if source.enter_before(span, seconds):
                return source
        except BaseException:
            source.close()
            raise
        source.close()
    return Source(uri, stream=stream, skip_nonref=skip_nonref, canvas=canvas, listener=listener)
