"""libav's frames become arrays: upright, of square pixels, downscaled by area, full range, SDR; and JPEGs, and back.

Opens nothing. Arrays are read-only and contiguous, so that several observers can share them.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dailies.curation.errors import Broken, Unreadable
from dailies.curation.geometry import Size, placed
from dailies.curation.types import FrameSampling, Planes
from dailies.curation.video import tonemap

UNSPECIFIED = 2  # of AVColorSpace, AVColorPrimaries and AVColorTransferCharacteristic
BT709, BT601 = 1, 5  # swscale's names of the matrices
MATRICES = frozenset({1, 4, 5, 6, 7, 9, 10})  # AVColorSpace values that swscale converts
SWSCALE = {6: BT601, 10: 9}  # AVColorSpace values that swscale knows under another number
UNREAD = {8: "YCgCo", 11: "SMPTE ST 2085", 12: "chroma-derived", 13: "chroma-derived", 14: "ICtCp", 15: "IPT-C2"}
UNREAD |= {16: "YCgCo-Re", 17: "YCgCo-Ro"}  # AVColorSpace values that it takes for something else
LIMITED_RANGE, FULL_RANGE = 1, 2  # AVColorRange
HD_LINES = 720  # from so many lines on, a video that names no matrix is taken to use BT.709, below it BT.601
OBLONG = 10  # a pixel longer or wider than so many times its other side is a mistake in the file
FORMATS: dict[Planes, str] = {"gray": "gray", "bgr": "bgr24"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Upright:
    """Makes decoded frames upright: ``turns`` quarter turns counter-clockwise, then mirrored left to right."""

    turns: int
    mirror: bool

    @classmethod
    def of(cls, frame: Any) -> Upright:
        """Read the frame's display matrix, the container's before the stream's own."""
        matrices = cls.matrices(frame)
        return cls._of_matrix(matrices[0]) if matrices else cls(turns=0, mirror=False)

    @staticmethod
    def matrices(frame: Any) -> list[bytes]:
        """Return the display matrices that libav gave a frame: the container's, then the one that the stream states."""
        return [bytes(side) for side in frame.side_data if side.type.name == "DISPLAYMATRIX"]

    @classmethod
    def _of_matrix(cls, side: bytes) -> Upright:
        """Read a display matrix, which takes (x, y) to (a·x + c·y, b·x + d·y), y pointing down."""
        a, b, _, c, d, *_ = struct.unpack("=9i", side[:36])
        mirror = a * d - b * c < 0
        if mirror:
            a = -a
        if abs(a) >= abs(b):  # to the nearest quarter turn
            return cls(turns=0 if a >= 0 else 2, mirror=mirror)
        return cls(turns=1 if b < 0 else 3, mirror=mirror)

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Turn (h, w) or (h, w, 3) as decoded upright; a view."""
        turned = np.rot90(pixels, self.turns) if self.turns else pixels
        return turned[:, ::-1] if self.mirror else turned

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Return (width, height) of the upright picture; its own inverse."""
        return (height, width) if self.turns % 2 else (width, height)


def matrix(frame: Any) -> int | None:
    """Return swscale's matrix for a frame whose own swscale does not know, else ``None``."""
    if frame.colorspace in MATRICES or not is_yuv(frame):
        return None
    return BT709 if frame.height >= HD_LINES else BT601


def is_yuv(frame: Any) -> bool:
    """Tell whether a frame is YUV or gray, neither RGB nor with a palette."""
    return not frame.format.is_rgb and not frame.format.has_palette


def is_squeezed(frame: Any) -> bool:
    """Tell whether a frame is gray in limited range, which swscale takes for full range."""
    return bool(frame.color_range == LIMITED_RANGE) and str(frame.format.name).startswith(("gray", "ya"))


def is_hdr(frame: Any) -> bool:
    """Tell whether a frame's transfer is PQ or HLG, whatever its bit depth. ``Canvas.scale`` makes it SDR."""
    return frame.color_trc in (tonemap.PQ, tonemap.HLG)


def fit(width: int, height: int, short_side: int | None) -> tuple[int, int]:
    """Return (width, height) with the shorter side brought down to ``short_side``, never up; ``None`` leaves them.

    The longer side comes out even: swscale takes twice as long for an odd width.
    """
    short, long = sorted((width, height))
    if short_side is None or short_side >= short:
        return width, height
    long = max(2, 2 * round(long * short_side / short / 2))
    return (short_side, long) if width == short else (long, short_side)


def onto(rgb: NDArray[np.uint8], size: Size) -> NDArray[np.uint8]:
    """Bring an (h, w, 3) picture whole into (width, height): see ``placed``. Returns the picture itself where it fits."""
    import cv2

    height, width = rgb.shape[:2]
    if (width, height) == size:
        return rgb
    left, top, inner_width, inner_height = placed((width, height), size)
    shrinks = inner_width < width
    scaled = cv2.resize(rgb, (inner_width, inner_height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    whole = np.zeros((size[1], size[0], 3), np.uint8)
    whole[top : top + inner_height, left : left + inner_width] = scaled
    return whole


class Canvas:
    """Converts frames of one geometry: ``width`` × ``height`` as decoded, turned and mirrored as ``upright`` says.

    ``aspect``: width of its pixels over their height, 1 where the source says nothing or something absurd. ``square``:
    (width, height) of the picture as decoded, not turned, once its pixels are square: the width gives way. Raises
    ``Unreadable`` for colours that cannot be converted. Scalers are kept: one rebuilt per frame costs more than the decode.
    """

    def __init__(self, first: Any, aspect: Fraction | None = None, upright: Upright | None = None) -> None:
        if is_yuv(first) and first.colorspace in UNREAD:
            raise Unreadable(f"its colours are in {UNREAD[first.colorspace]}, which is not read")
        self.upright = upright or Upright.of(first)
        self.width, self.height = first.width, first.height
        sane = aspect is not None and Fraction(1, OBLONG) <= aspect <= OBLONG
        self.aspect = aspect if aspect is not None and sane else Fraction(1)
        self.square = (max(1, round(self.width * self.aspect)), self.height)
        self._scalers: dict[tuple[int, int, str], Any] = {}

    @property
    def size(self) -> Size:
        """(width, height) of the picture, upright and of square pixels."""
        return self.upright.size(*self.square)

    def scale(self, frame: Any, width: int, height: int, pix_fmt: str, *, range_: int, into: int | None = None) -> Any:
        """Scale a frame by area, as decoded (not turned), into pixel format ``pix_fmt``. Raises ``Broken``.

        ``pix_fmt``: gray, bgr24, rgb24 or yuv420p. A frame that is YUV keeps its matrix where ``pix_fmt`` is YUV or gray; RGB
        becomes BT.709 there. An HDR frame becomes SDR, in BT.709: see ``dailies.curation.video.tonemap``. ``into``: another
        matrix for YUV, an AVColorSpace.
        """
        import av

        if is_squeezed(frame):
            frame = self._stretched(frame, width, height)
        if is_hdr(frame):
            codes = self._reformat(frame, width, height, "rgb48le", FULL_RANGE).to_ndarray()
            rgb = tonemap.sdr_rgb(codes, frame.color_trc, frame.color_primaries)
            frame = av.VideoFrame.from_ndarray(rgb, "rgb24")
        if pix_fmt == "gray" and not is_yuv(frame):  # swscale would take BT.601's luma of RGB
            luma = self._reformat(frame, width, height, "yuv444p", range_).to_ndarray()[0]
            return av.VideoFrame.from_ndarray(luma, "gray")
        return self._reformat(frame, width, height, pix_fmt, range_, into)

    def _stretched(self, frame: Any, width: int, height: int) -> Any:
        """Convert gray of limited range to gray of full range and 16 bits, scaled."""
        import av

        luma = self._reformat(frame, width, height, "gray16le", FULL_RANGE).to_ndarray() / 65535
        stretched = np.clip((luma * 255 - 16) / 219, 0, 1) * 65535
        full = av.VideoFrame.from_ndarray(np.rint(stretched).astype(np.uint16), "gray16le")
        full.color_trc, full.color_primaries = frame.color_trc, frame.color_primaries
        return full

    def _reformat(self, frame: Any, width: int, height: int, pix_fmt: str, range_: int, into: int | None = None) -> Any:
        import av
        from av.video.reformatter import Interpolation, VideoReformatter

        scaler = self._scalers.get((width, height, pix_fmt))
        if scaler is None:
            scaler = self._scalers[width, height, pix_fmt] = VideoReformatter()
        if pix_fmt not in ("gray", "gray16le", "yuv420p", "yuv444p"):
            source, target = matrix(frame), None
        elif into is not None:
            own = matrix(frame) or SWSCALE.get(frame.colorspace, frame.colorspace)
            source, target = own if is_yuv(frame) else None, SWSCALE.get(into, into)
        elif is_yuv(frame):
            source = target = BT601  # any, but the same twice: else swscale goes from one to the other through RGB
        else:
            source, target = None, BT709
        try:
            return scaler.reformat(
                frame,
                width,
                height,
                pix_fmt,
                src_colorspace=source,
                dst_colorspace=target,
                interpolation=Interpolation.AREA,
                dst_color_range=range_,
                threads=1,
            )
        except av.FFmpegError as error:
            raise Broken(f"a frame of {frame.format.name} does not convert to {pix_fmt}: {error.strerror}") from error

    def array(self, frame: Any, width: int, height: int, pix_fmt: str) -> NDArray[np.uint8]:
        """Return an upright array, (height, width) or (height, width, 3), full range, contiguous, read-only."""
        scaled = self.scale(frame, *self.upright.size(width, height), pix_fmt, range_=FULL_RANGE)
        array = np.ascontiguousarray(self.upright(scaled.to_ndarray()))
        array.flags.writeable = False
        return array


def geometry(frame: Any, aspect: Fraction | None, upright: Upright) -> tuple[Any, ...]:
    """Return all by which frames differ that need different canvases."""
    return frame.width, frame.height, frame.format.name, upright, aspect


class DecodedFrame:
    """One decoded frame. ``pts`` in ticks of its source's time base; ``frame`` is libav's, as decoded.

    Pixels are made when asked for, once per size and planes however many ask.
    """

    __slots__ = ("_arrays", "canvas", "frame", "pts")

    def __init__(self, pts: int, frame: Any, canvas: Canvas) -> None:
        self.pts = pts
        self.frame = frame
        self.canvas = canvas
        self._arrays: dict[tuple[int, int, str], NDArray[np.uint8]] = {}

    def planes(self, sampling: FrameSampling, size: Size | None = None) -> NDArray[np.uint8]:
        """Return an upright array, downscaled by area to ``sampling.short_side`` (never up), full range, read-only.

        ``gray``: (h, w), luma stretched to 0–255. ``bgr``: (h, w, 3). ``size``: (width, height) that it is brought to
        before, up or down, in place of its own.
        """
        return self._array(sampling.short_side, FORMATS[sampling.planes], size)

    def rgb(self, short_side: int | None = None) -> NDArray[np.uint8]:
        """Return upright (h, w, 3) RGB at full size, or downscaled by area to ``short_side``; read-only."""
        return self._array(short_side, "rgb24")

    def _array(self, short_side: int | None, pix_fmt: str, size: Size | None = None) -> NDArray[np.uint8]:
        width, height = fit(*(size or self.canvas.size), short_side)
        key = (width, height, pix_fmt)
        if key not in self._arrays:
            self._arrays[key] = self.canvas.array(self.frame, width, height, pix_fmt)
        return self._arrays[key]


# ---- JPEG -----------------------------------------------------------------------------------------------------------


def jpeg(rgb: NDArray[np.uint8], quality: int = 80) -> bytes:
    """Encode (h, w, 3) RGB as a JPEG of ``quality`` 0–100."""
    import cv2

    done, data = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done, "OpenCV refused an RGB array"
    return bytes(data)


def unjpeg(data: bytes) -> NDArray[np.uint8]:
    """Decode a JPEG to (h, w, 3) RGB. Raises ``Unreadable``, also for another picture or one of over ``MOST_PIXELS``."""
    import cv2

    size = _jpeg_size(data)  # OpenCV opens whatever it knows, of up to a thousand million px
    if size > MOST_PIXELS:
        raise Unreadable(f"a JPEG of {size:,} px, more than {MOST_PIXELS:,}")
    bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if size else None
    if bgr is None:
        raise Unreadable(f"not a JPEG: {len(data)} bytes")
    rgb: NDArray[np.uint8] = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
    return rgb


MOST_PIXELS = 89_000_000


def _jpeg_size(data: bytes) -> int:
    """Return the largest number of px that a JPEG's headers state, 0 where there is none."""
    size, at = 0, 2
    if data[:2] != b"\xff\xd8":
        return 0
    while (at := data.find(b"\xff", at)) >= 0 and at + 9 <= len(data):
        kind = data[at + 1]
        if kind == 0xFF or kind <= 0x01 or 0xD0 <= kind <= 0xD8:  # filling, and markers without a length
            at += 1
        elif kind in (0xD9, 0xDA):  # what follows are pixels
            break
        else:
            if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
                size = max(size, int.from_bytes(data[at + 5 : at + 7]) * int.from_bytes(data[at + 7 : at + 9]))
            at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return size
