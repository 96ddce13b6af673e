"""Pictures into the bytes of an mp4 file: H.264, yuv420p, limited range, upright, each frame at its own time.

Pixels that are yuv420p already are copied, and turned plane by plane: nothing goes through RGB.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curation.errors import TooFewFrames, Unreadable
from curation.pixels import HD_LINES, LIMITED_RANGE, MATRICES, Picture, fit, is_yuv
from curation.timing import Span
from curation.uri import one_line

TAGS_709, TAGS_601 = (1, 1, 1), (6, 6, 6)  # AVColorSpace, AVColorPrimaries, AVColorTransferCharacteristic
UNKNOWN = frozenset({0, 2, 3})  # of each of the three: reserved or unspecified


@dataclass(frozen=True, slots=True, kw_only=True)
class Cutout:
    """A span cut out. ``data``: an mp4 file; ``width`` and ``height`` of its pictures in px; ``fps``: frames over the
    span's seconds."""

    data: bytes
    frames: int
    width: int
    height: int
    fps: float


def encode(
    pictures: Iterable[Picture],
    span: Span,
    *,
    crf: int,
    preset: str,
    max_short_side: int | None = None,
    aspect: Fraction | None = None,
    threads: int = 1,
) -> Cutout:
    """Every picture once, at ``pts - span.start``; the last one lasts until ``span.end``.

    An odd width or height loses its last column or row, as decoded; only ``max_short_side`` (px) scales. ``aspect``: the
    source's pixel aspect ratio. The same pictures give the same bytes, as long as ``threads`` are the same. Raises
    ``TooFewFrames`` if there is no picture, ``Unreadable`` if x264 refuses them.
    """
    import av

    buffer, encoder, last, count = io.BytesIO(), None, None, 0
    options = {"crf": str(crf), "preset": preset, "threads": str(threads)}

    def reread(_url: str, _flags: int, _options: dict[str, str]) -> io.BytesIO:
        return io.BytesIO(buffer.getvalue())  # faststart reads what was written, once, to move the index to the front

    try:
        with av.open(buffer, "w", format="mp4", options={"movflags": "+faststart"}, io_open=reread) as container:
            for picture in pictures:
                encoder = encoder or _Encoder(container, picture, span, max_short_side, aspect, options)
                if last is not None:
                    encoder.add(last, picture.pts)
                last, count = picture, count + 1
            if encoder is None or last is None:
                raise TooFewFrames(f"no frame from {span.start} to {span.end} ticks of {span.time_base} s")
            encoder.add(last, span.end)
            encoder.finish()
    except av.FFmpegError as error:
        raise Unreadable(f"does not encode: {one_line(error)}") from error
    seconds = float(span.seconds)
    data = buffer.getvalue()
    return Cutout(data=data, frames=count, width=encoder.width, height=encoder.height, fps=count / seconds)


class _Encoder:
    """One video stream of an mp4 container. ``width`` and ``height``: upright, even."""

    def __init__(
        self,
        container: Any,
        first: Picture,
        span: Span,
        max_short_side: int | None,
        aspect: Fraction | None,
        options: dict[str, str],
    ) -> None:
        self._container, self._span, self._canvas = container, span, first.canvas
        self._aspect, self._options = aspect, options
        self._stream: Any = None
        size = (self._canvas.width, self._canvas.height)
        self._scaled = fit(*size, None if max_short_side is None else max(2, max_short_side // 2 * 2))
        self._even = (self._scaled[0] // 2 * 2, self._scaled[1] // 2 * 2)
        self.width, self.height = self._canvas.upright.size(*self._even)
        if not min(self._even):
            raise Unreadable(f"too small to encode: {size[0]}×{size[1]}")
        self._tags = _tags(first.frame)

    def _add_stream(self, gap: int) -> Any:
        """``gap``: ticks from the first frame to the second; gives the rate for level and rate control, not for times."""
        from av.codec.context import Flags

        rate = min(max(1 / (gap * self._span.time_base), Fraction(1)), Fraction(240))
        stream = self._container.add_stream(
            "libx264",
            rate=rate.limit_denominator(1001),
            options=self._options,
            width=self.width,
            height=self.height,
            time_base=self._span.time_base,
        )
        context = stream.codec_context
        context.pix_fmt = "yuv420p"
        context.flags |= Flags.frame_duration  # else the last frame's length is lost
        context.color_range = LIMITED_RANGE
        context.colorspace, context.color_primaries, context.color_trc = self._tags
        if self._aspect:
            context.sample_aspect_ratio = 1 / self._aspect if self._canvas.upright.turns % 2 else self._aspect
        return stream

    def add(self, picture: Picture, until: int) -> None:
        """Encode ``picture``, shown ``until`` a pts of its source."""
        frame = self._yuv(picture.frame)
        frame.pts, frame.duration = picture.pts - self._span.start, until - picture.pts
        frame.time_base = self._span.time_base
        if self._stream is None:
            self._stream = self._add_stream(frame.duration)
        self._container.mux(self._stream.encode(frame))

    def finish(self) -> None:
        """Encode what x264 still holds. After at least one picture."""
        assert self._stream is not None
        self._container.mux(self._stream.encode(None))

    def _yuv(self, decoded: Any) -> Any:
        """A new frame, upright. New: the decoder's own would carry its frame types and side data into the encoder."""
        import av

        scaled = self._canvas.scale(decoded, *self._scaled, "yuv420p", range_=LIMITED_RANGE)
        frame = av.VideoFrame(self.width, self.height, "yuv420p")
        for number, (source, target) in enumerate(zip(scaled.planes, frame.planes, strict=True)):
            half = 2 if number else 1
            width, height = self._even[0] // half, self._even[1] // half
            _array(target)[:] = self._canvas.upright(_array(source)[:height, :width])
        frame.color_range = LIMITED_RANGE
        frame.colorspace, frame.color_primaries, frame.color_trc = self._tags
        return frame


def _array(plane: Any) -> NDArray[np.uint8]:
    """A view of a plane, (h, w), top row first, without the padding of its rows."""
    rows = np.frombuffer(plane, np.uint8).reshape(plane.height, abs(plane.line_size))[:, : plane.width]
    return rows if plane.line_size > 0 else rows[::-1]


def _tags(frame: Any) -> tuple[int, int, int]:
    """Matrix, primaries and transfer of the encoded frames: the source's, or what its size lets assume."""
    if not is_yuv(frame):
        return TAGS_709
    assumed = TAGS_709 if frame.height >= HD_LINES else TAGS_601
    matrix = frame.colorspace if frame.colorspace in MATRICES else assumed[0]
    if matrix != assumed[0]:
        assumed = TAGS_709 if matrix == 1 else TAGS_601 if matrix in (5, 6) else assumed
    primaries = assumed[1] if frame.color_primaries in UNKNOWN else frame.color_primaries
    transfer = assumed[2] if frame.color_trc in UNKNOWN else frame.color_trc
    return matrix, primaries, transfer
