"""Frames are encoded into an mp4 file: H.264, HEVC or AV1, 8 bits, limited range, upright, square, each at its own time.

Pixels that are yuv420p already are copied, and turned plane by plane: nothing goes through RGB.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass as spec

from dailies.curation.config import SPEC
from dailies.curation.errors import TooFewFrames, Unreadable
from dailies.curation.geometry import Size, larger, placed
from dailies.curation.timing import Span
from dailies.curation.types import Crop
from dailies.curation.video.bytes_io import one_line
from dailies.curation.video.dts import are_true, last_duration, true_times
from dailies.curation.video.pixels import HD_LINES, LIMITED_RANGE, MATRICES, DecodedFrame, fit, is_hdr, is_yuv
from dailies.curation.video.repeatable import CONTAINER_OPTIONS, encoder_options
from dailies.curation.video.soundtrack import DROPPED, ClipSound, Soundtrack, interleaved

TAGS_709, TAGS_601 = (1, 1, 1), (6, 6, 6)  # AVColorSpace, AVColorPrimaries, AVColorTransferCharacteristic
UNKNOWN = frozenset({0, 2, 3})  # of each of the three: reserved or unspecified
Codec = Literal["h264", "hevc", "av1"]
Preset = Literal[
    "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow"
]  # from least effort to most
PRESETS: tuple[Preset, ...] = get_args(Preset)


@dataclass(frozen=True, slots=True, kw_only=True)
class Coder:
    """Encoders of a codec: the one that is always there, and those that need a device. ``worst``: the largest crf."""

    software: str
    hardware: tuple[str, ...]
    worst: int


CODECS: dict[Codec, Coder] = {
    "h264": Coder(software="libx264", hardware=("h264_nvenc", "h264_videotoolbox", "h264_qsv"), worst=51),
    "hevc": Coder(software="libx265", hardware=("hevc_nvenc", "hevc_videotoolbox", "hevc_qsv"), worst=51),
    "av1": Coder(software="libsvtav1", hardware=("av1_nvenc", "av1_qsv"), worst=63),
}


DECODERS = ("h264", "hevc", "libdav1d", "vp8", "vp9", "vvc", "prores", "dnxhd", "mpeg4", "mpeg2video", "mjpeg", "ffv1")
"""Those of what cameras, editors and sites make."""


@spec(frozen=True, kw_only=True, config=SPEC)
class Encoding:
    """Settings by which frames become a video.

    ``codec``: a key of ``CODECS``. ``crf``: quality, 0 the best, on the codec's own scale. ``preset``: effort, by
    x264's names. ``encoder``: ``software``, or ``auto`` for a hardware encoder where there is one, whose bytes and
    sizes differ from machine to machine. ``max_short_side`` in px downscales, ``max_fps`` leaves frames out; ``None``
    keeps all. The same pictures give the same bytes as long as ``threads`` are the same, on any number of cores. Raises
    pydantic's ``ValidationError``, a ``ValueError``, for values that are not allowed.
    """

    codec: Codec = "h264"
    crf: int = 18
    preset: Preset = "veryfast"
    encoder: Literal["software", "auto"] = "software"
    max_short_side: Annotated[int, Field(ge=16)] | None = None
    max_fps: Annotated[float, Field(gt=0, le=1000)] | None = None
    threads: int = 1

    meaning: ClassVar[int] = 2

    def __post_init__(self) -> None:
        worst = CODECS[self.codec].worst
        if not 0 <= self.crf <= worst:
            raise ValueError(f"crf={self.crf}: {self.codec} takes 0 to {worst}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractedClip:
    """A span of a source as a file of its own, or left in its source.

    ``data``: the bytes of a video file, ``None`` where the clip stays in its source; ``span``: what they hold of the
    source, the span asked for or a part of it; ``width`` and ``height`` of the pictures in px, upright; ``fps``: frames
    over the span's seconds. ``encoder``: which made the frames that were encoded, ``None`` if there are none;
    ``encoded``: how many those are. ``sound``: what it holds of the source's.
    """

    data: bytes | None
    span: Span
    frames: int
    width: int
    height: int
    fps: float
    encoder: str | None
    encoded: int
    sound: ClipSound = DROPPED


# ---- encoders -------------------------------------------------------------------------------------------------------


def encoder_of(encoding: Encoding) -> str:
    """Return libav's name of the encoder to use on this machine."""
    coder = CODECS[encoding.codec]
    hardware = next(filter(_opens, coder.hardware), None) if encoding.encoder == "auto" else None
    return hardware or coder.software


def encoders() -> dict[str, tuple[str, ...]]:
    """Return by codec the encoders that are built in and, of those of a device, that find it."""
    import av

    there = {
        codec: ([coder.software] if coder.software in av.codecs_available else [], filter(_opens, coder.hardware))
        for codec, coder in CODECS.items()
    }
    return {codec: (*software, *hardware) for codec, (software, hardware) in there.items()}


def decoders() -> tuple[str, ...]:
    """Return which of the decoders of ``DECODERS`` are built in."""
    import av

    return tuple(name for name in DECODERS if name in av.codecs_available)


@lru_cache
def _opens(name: str) -> bool:
    """Tell whether a hardware encoder is built in and finds its device."""
    import av

    try:
        context = av.CodecContext.create(name, "w")
        context.width, context.height, context.pix_fmt = 256, 256, "yuv420p"
        context.time_base = Fraction(1, 25)
        context.open()
    except (av.FFmpegError, ValueError):
        return False
    return True


def options_of(encoder: str, encoding: Encoding) -> dict[str, str]:
    """Return the options that set an encoder's quality, effort and threads."""
    effort, crf = PRESETS.index(encoding.preset), str(encoding.crf)
    if encoder in ("libx264", "libx265"):
        return encoder_options(encoder, {"crf": crf, "preset": encoding.preset}, threads=encoding.threads)
    if encoder == "libsvtav1":
        hush()
        # Its presets go from 0, the slowest, to 13; those above 8 are for tests, its makers say.
        return encoder_options(encoder, {"crf": crf, "preset": str(min(8, 10 - effort))}, threads=encoding.threads)
    kind = encoder.rpartition("_")[2]
    if kind == "nvenc":
        return {"rc": "vbr", "cq": crf, "b": "0", "preset": f"p{1 + effort * 6 // 8}"}
    if kind == "qsv":
        return {"global_quality": crf, "preset": encoding.preset.replace("ultra", "very").replace("super", "very")}
    return {"global_quality": str(118 * max(1, 100 - 2 * encoding.crf))}  # videotoolbox: 1 to 100, in lambda units


def hush() -> None:
    """Silence SVT-AV1, which reports on stderr and heeds this variable alone."""
    os.environ.setdefault("SVT_LOG", "0")


# ---- encoding -------------------------------------------------------------------------------------------------------


class LargerPicture(Exception):
    """A picture of another ``size``, (width, height), larger than that to which the clip is being encoded."""

    def __init__(self, size: Size) -> None:
        super().__init__(f"{size[0]}×{size[1]}")
        self.size = size


def encode(
    pictures: Iterable[DecodedFrame],
    span: Span,
    encoding: Encoding,
    crop: Crop | None = None,
    size: Size | None = None,
    sound: Soundtrack | None = None,
) -> ExtractedClip:
    """Encode every frame once, at ``pts - span.start``; the last one lasts until ``span.end``.

    ``size``: (width, height) that pictures are brought to before all else, the first one's where it is ``None``: pictures
    of the same shape fill it, others stand between black bars. One that is larger raises ``LargerPicture``, with which to
    begin again. An odd width or height loses its last column or row; only ``max_short_side`` scales. ``crop`` is taken
    off first. ``sound`` goes along. Raises ``TooFewFrames`` if there is no frame, ``Unreadable`` if the encoder refuses them.
    """
    import av

    buffer, encoder, last, count = io.BytesIO(), None, None, 0
    try:
        with open_container(buffer, "mp4", sound) as container:
            for picture in pictures:
                encoder = encoder or _Encoder(container, picture, span, encoding, crop, size)
                if last is not None:
                    encoder.add(last, picture.pts)
                last, count = picture, count + 1
            if encoder is None or last is None:
                raise TooFewFrames(f"no frame from {span.start} to {span.end} ticks of {span.time_base} s")
            encoder.add(last, span.end)
            encoder.finish(sound)
    except av.FFmpegError as error:
        raise Unreadable(f"does not encode: {one_line(error)}") from error
    return ExtractedClip(
        data=buffer.getvalue(),
        span=span,
        frames=count,
        width=encoder.frame.width,
        height=encoder.frame.height,
        fps=count / float(span.seconds),
        encoder=encoder.name,
        encoded=count,
        sound=sound.facts if sound else DROPPED,
    )


def open_container(buffer: io.BytesIO, container_format: str, sound: Soundtrack | None = None) -> Any:
    """Open libav's container to write into ``buffer``; mp4 and mov get their index at the front.

    With ``sound`` they count in samples, so that how long it is to be heard is stated to the sample.
    """
    import av

    def reread(_url: str, _flags: int, _options: dict[str, str]) -> io.BytesIO:
        return io.BytesIO(buffer.getvalue())  # to move the index it reads what was written, once

    options = {}
    if container_format in ("mp4", "mov"):
        options["movflags"] = "+faststart"
        if sound is not None and sound.is_kept:
            options["movie_timescale"] = str(sound.rate_in(container_format))
    return av.open(buffer, "w", format=container_format, options=options | CONTAINER_OPTIONS, io_open=reread)


class _Encoder:
    """Encodes one video stream of an mp4 container. ``frame``: how its pictures are framed."""

    def __init__(
        self,
        container: Any,
        first: DecodedFrame,
        span: Span,
        encoding: Encoding,
        crop: Crop | None,
        size: Size | None,
    ) -> None:
        self._container, self._span = container, span
        self._size = size or first.canvas.size
        self.name = encoder_of(encoding)
        self._options = options_of(self.name, encoding)
        self._stream: Any = None
        self._packets: list[Any] = []  # kept to the end, which alone tells when they are to be decoded
        self.frame = Framing.of(self._size, encoding.max_short_side, crop)
        self._tags = _tags(first.frame)

    def _add_stream(self, gap: int) -> Any:
        """Add the stream. ``gap``: ticks from the first frame to the second, for level and rate control, not for times."""
        from av.codec.context import Flags

        rate = min(max(1 / (gap * self._span.time_base), Fraction(1)), Fraction(240))
        stream = self._container.add_stream(
            self.name,
            rate=rate.limit_denominator(1001),
            options=self._options,
            width=self.frame.width,
            height=self.frame.height,
            time_base=self._span.time_base,
        )
        context = stream.codec_context
        context.pix_fmt = "yuv420p"
        if "265" in self.name or "hevc" in self.name:
            context.codec_tag = "hvc1"  # the one that players of every maker take
        context.flags |= Flags.frame_duration  # else the last frame's length is lost
        context.color_range = LIMITED_RANGE
        context.colorspace, context.color_primaries, context.color_trc = self._tags
        return stream

    def add(self, picture: DecodedFrame, until: int) -> None:
        """Encode ``picture``, shown ``until`` a pts of its source."""
        frame = self._yuv(picture)
        frame.pts, frame.duration = picture.pts - self._span.start, until - picture.pts
        frame.time_base = self._span.time_base
        if self._stream is None:
            self._stream = self._add_stream(frame.duration)
        self._packets += self._stream.encode(frame)

    def finish(self, sound: Soundtrack | None) -> None:
        """Encode what the encoder still holds, and write all, with the ``sound``. After at least one picture."""
        assert self._stream is not None
        self._packets += self._stream.encode(None)
        end = round((self._span.end - self._span.start) * self._span.time_base / self._packets[0].time_base)
        pts, times = ([getattr(packet, name) for packet in self._packets] for name in ("pts", "dts"))
        if not are_true(pts, times, end):
            times = true_times(pts, end)
        self._packets[-1].duration = last_duration(pts, times, end)  # not every encoder passes it on
        for packet, dts in zip(self._packets, times, strict=True):
            packet.dts = dts
        heard = sound.encode(self._container, "mp4") if sound is not None and sound.is_kept else []
        for packet in interleaved(self._packets, heard):
            self._container.mux(packet)

    def _yuv(self, picture: DecodedFrame) -> Any:
        """Return a new frame, upright: the decoder's own would carry its frame types and side data into the encoder."""
        import av

        canvas = picture.canvas
        if larger(self._size, canvas.size) != self._size:
            raise LargerPicture(canvas.size)
        left, top, width, height = 0, 0, *self.frame.scaled
        if canvas.size != self._size:
            left, top, width, height = placed(canvas.size, self.frame.scaled)
        into = None if _tags(picture.frame)[0] == self._tags[0] else self._tags[0]
        scaled = canvas.scale(
            picture.frame, *canvas.upright.size(width, height), "yuv420p", range_=LIMITED_RANGE, into=into
        )
        frame = av.VideoFrame(self.frame.width, self.frame.height, "yuv420p")
        for number, (source, target) in enumerate(zip(scaled.planes, frame.planes, strict=True)):
            share = 2 if number else 1
            # Of an odd size the last column or row goes, as decoded: chroma samples are shared from the first on.
            view = canvas.upright(_array(source)[: scaled.height // 2 * 2 // share, : scaled.width // 2 * 2 // share])
            if (width, height) != self.frame.scaled:
                view = _between_bars(view, tuple(side // share for side in (left, top, *self.frame.scaled)), number)
            _array(target)[:] = self.frame.crop(view, share)
        frame.color_range = LIMITED_RANGE
        frame.colorspace, frame.color_primaries, frame.color_trc = self._tags
        return frame


def _between_bars(plane: NDArray[np.uint8], place: Sequence[int], number: int) -> NDArray[np.uint8]:
    """Put the ``number``-th plane of a picture on a black one; ``place``: left, top, and the width and height of that."""
    left, top, width, height = place
    whole = np.full((height, width), 128 if number else 16, np.uint8)
    whole[top : top + plane.shape[0], left : left + plane.shape[1]] = plane
    return whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Framing:
    """Place of a clip's picture in the source's.

    That is, upright, ``scaled`` to (width, height); of it the clip has the ``width`` × ``height`` px
    from (``left``, ``top``) on, all of them even, since chroma has half the size.
    """

    scaled: tuple[int, int]
    left: int
    top: int
    width: int
    height: int

    @classmethod
    def of(cls, full: Size, max_short_side: int | None, crop: Crop | None) -> Framing:
        """Frame pictures whose (width, height) is ``full``, upright. Raises ``Unreadable`` where nothing is left to encode."""
        crop = crop or Crop()
        inner = (full[0] - crop.left - crop.right, full[1] - crop.top - crop.bottom)
        if min(inner) < 2:
            raise Unreadable(f"too small to encode: {full[0]}×{full[1]}" + (f" without {crop}" if crop.any else ""))
        fitted = fit(*inner, None if max_short_side is None else max(2, max_short_side // 2 * 2))
        exact = cls._at(full, crop, inner, fitted, 0)
        # What is left begins and ends at even pixels, which may take two or four from what was asked for.
        more = (2, 4, 6) if fitted != inner else ()
        tries = (cls._at(full, crop, inner, fitted, spare) for spare in more)
        return next((framing for framing in (exact, *tries) if (framing.width, framing.height) == fitted), exact)

    @classmethod
    def _at(
        cls, full: tuple[int, int], crop: Crop, inner: tuple[int, int], fitted: tuple[int, int], spare: int
    ) -> Framing:
        """Frame with what is left scaled to ``fitted`` and ``spare`` px more, of which ``fitted`` is kept; as if upright."""
        share = 1.0
        if fitted != inner:
            share = max((want + spare) / have for want, have in zip(fitted, inner, strict=True))
        scaled = full if share == 1 else (2 * round(full[0] * share / 2), 2 * round(full[1] * share / 2))
        # Of an odd size the last column or row goes, as decoded: chroma samples are shared from the first on.
        ends = (
            min(scaled[0] // 2 * 2, scaled[0] - crop.right * share),
            min(scaled[1] // 2 * 2, scaled[1] - crop.bottom * share),
        )
        left, top = (2 * -int(-(start * share - 1e-6) // 2) for start in (crop.left, crop.top))
        return cls(
            scaled=scaled,
            left=left,
            top=top,
            width=min(fitted[0], int(ends[0] - left + 1e-6)) // 2 * 2,
            height=min(fitted[1], int(ends[1] - top + 1e-6)) // 2 * 2,
        )

    def crop(self, plane: NDArray[np.uint8], share: int) -> NDArray[np.uint8]:
        """Return a view of this picture's part of an upright plane; ``share``: luma px per sample, 1 or 2."""
        left, top = self.left // share, self.top // share
        return plane[top : top + self.height // share, left : left + self.width // share]


def _array(plane: Any) -> NDArray[np.uint8]:
    """Return a view of a plane, (h, w), top row first, without the padding of its rows."""
    rows = np.frombuffer(plane, np.uint8).reshape(plane.height, abs(plane.line_size))[:, : plane.width]
    return rows if plane.line_size > 0 else rows[::-1]


def _tags(frame: Any) -> tuple[int, int, int]:
    """Return matrix, primaries and transfer of the encoded frames: the source's, or what its size lets assume."""
    if not is_yuv(frame) or is_hdr(frame):
        return TAGS_709
    assumed = TAGS_709 if frame.height >= HD_LINES else TAGS_601
    matrix = frame.colorspace if frame.colorspace in MATRICES else assumed[0]
    if matrix != assumed[0]:
        assumed = TAGS_709 if matrix == 1 else TAGS_601 if matrix in (5, 6) else assumed
    primaries = assumed[1] if frame.color_primaries in UNKNOWN else frame.color_primaries
    transfer = assumed[2] if frame.color_trc in UNKNOWN else frame.color_trc
    return matrix, primaries, transfer
