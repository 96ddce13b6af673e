"""From libav's frames to arrays: upright, downscaled by area, full range. And to JPEG and back.

Opens nothing. Arrays are read-only and contiguous, so that several observers can share them.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curation.errors import Broken, Unreadable
from curation.types import Planes, Sampling

UNSPECIFIED = 2  # AVColorSpace
BT709, BT601 = 1, 5  # swscale's names of the matrices
MATRICES = frozenset({1, 4, 5, 6, 7, 9, 10})  # AVColorSpace values that swscale converts
LIMITED_RANGE, FULL_RANGE = 1, 2  # AVColorRange
HD_LINES = 720  # from so many lines on, a video that names no matrix is taken to use BT.709, below it BT.601
FORMATS: dict[Planes, str] = {"gray": "gray", "bgr": "bgr24"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Upright:
    """What makes decoded frames upright: ``turns`` quarter turns counter-clockwise, then mirrored left to right."""

    turns: int
    mirror: bool

    @classmethod
    def of(cls, frame: Any) -> Upright:
        """By the frame's display matrix, which takes (x, y) to (a·x + c·y, b·x + d·y), y pointing down."""
        side = frame.side_data.get("DISPLAYMATRIX")
        if side is None:
            return cls(turns=0, mirror=False)
        a, b, _, c, d, *_ = struct.unpack("=9i", bytes(side)[:36])
        mirror = a * d - b * c < 0
        if mirror:
            a = -a
        if abs(a) >= abs(b):  # to the nearest quarter turn
            return cls(turns=0 if a >= 0 else 2, mirror=mirror)
        return cls(turns=1 if b < 0 else 3, mirror=mirror)

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(h, w) or (h, w, 3) as decoded → upright. A view."""
        turned = np.rot90(pixels, self.turns) if self.turns else pixels
        return turned[:, ::-1] if self.mirror else turned

    def size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) of the upright picture; its own inverse."""
        return (height, width) if self.turns % 2 else (width, height)


def matrix(frame: Any) -> int | None:
    """swscale's matrix for a frame that does not name one that swscale knows, else ``None``: its own."""
    if frame.colorspace in MATRICES or not is_yuv(frame):
        return None
    return BT709 if frame.height >= HD_LINES else BT601


def is_yuv(frame: Any) -> bool:
    return not frame.format.is_rgb and not frame.format.has_palette


def fit(width: int, height: int, short_side: int | None) -> tuple[int, int]:
    """(width, height) with the shorter side brought down to ``short_side``, never up; ``None`` leaves them.

    The longer side comes out even: swscale takes twice as long for an odd width.
    """
    short, long = sorted((width, height))
    if short_side is None or short_side >= short:
        return width, height
    long = max(2, 2 * round(long * short_side / short / 2))
    return (short_side, long) if width == short else (long, short_side)


class Canvas:
    """Converts the frames of one source, whose ``width`` and ``height`` as decoded are those of its first frame.

    Scalers are kept: one rebuilt per frame costs more than the decode.
    """

    def __init__(self, first: Any) -> None:
        self.upright = Upright.of(first)
        self.width, self.height = first.width, first.height
        self._scalers: dict[tuple[int, int, str], Any] = {}

    def scale(self, frame: Any, width: int, height: int, form: str, *, range_: int) -> Any:
        """libav's frame in pixel format ``form``, as decoded (not turned), scaled by area. Raises ``Broken``.

        A frame that is YUV keeps its matrix where ``form`` is YUV or gray; RGB becomes BT.709 there.
        """
        import av
        from av.video.reformatter import Interpolation, VideoReformatter

        scaler = self._scalers.get((width, height, form))
        if scaler is None:
            scaler = self._scalers[width, height, form] = VideoReformatter()
        if form not in ("gray", "yuv420p"):
            source, target = matrix(frame), None
        elif is_yuv(frame):
            source = target = BT601  # any, but the same twice: else swscale goes from one to the other through RGB
        else:
            source, target = None, BT709
        try:
            return scaler.reformat(
                frame,
                width,
                height,
                form,
                src_colorspace=source,
                dst_colorspace=target,
                interpolation=Interpolation.AREA,
                dst_color_range=range_,
                threads=1,
            )
        except av.FFmpegError as error:
            raise Broken(f"a frame of {frame.format.name} does not convert to {form}: {error.strerror}") from error

    def array(self, frame: Any, short_side: int | None, form: str) -> NDArray[np.uint8]:
        """Upright (h, w) or (h, w, 3), full range, contiguous, read-only."""
        width, height = fit(self.width, self.height, short_side)
        scaled = self.scale(frame, width, height, form, range_=FULL_RANGE)
        array = np.ascontiguousarray(self.upright(scaled.to_ndarray()))
        array.flags.writeable = False
        return array


class Picture:
    """One decoded frame. ``pts`` in ticks of its source's time base; ``frame`` is libav's, as decoded.

    Pixels are made when asked for, once per size and planes however many ask.
    """

    __slots__ = ("_arrays", "canvas", "frame", "pts")

    def __init__(self, pts: int, frame: Any, canvas: Canvas) -> None:
        self.pts = pts
        self.frame = frame
        self.canvas = canvas
        self._arrays: dict[tuple[int | None, str], NDArray[np.uint8]] = {}

    def planes(self, sampling: Sampling) -> NDArray[np.uint8]:
        """Upright, downscaled by area to ``sampling.short_side`` (never up), full range, read-only.

        ``gray``: (h, w), luma stretched to 0–255. ``bgr``: (h, w, 3).
        """
        return self._array(sampling.short_side, FORMATS[sampling.planes])

    def rgb(self, short_side: int | None = None) -> NDArray[np.uint8]:
        """Upright (h, w, 3) RGB at full size, or downscaled by area to ``short_side``; read-only."""
        return self._array(short_side, "rgb24")

    def _array(self, short_side: int | None, form: str) -> NDArray[np.uint8]:
        key = (short_side, form)
        if key not in self._arrays:
            self._arrays[key] = self.canvas.array(self.frame, short_side, form)
        return self._arrays[key]


# ---- JPEG -----------------------------------------------------------------------------------------------------------


def jpeg(rgb: NDArray[np.uint8], quality: int = 80) -> bytes:
    """(h, w, 3) RGB as a JPEG of ``quality`` 0–100."""
    import cv2

    done, data = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done, "OpenCV refused an RGB array"
    return bytes(data)


def unjpeg(data: bytes) -> NDArray[np.uint8]:
    """The (h, w, 3) RGB pixels of a JPEG. Raises ``Unreadable``."""
    import cv2

    bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    if bgr is None:
        raise Unreadable(f"not a JPEG: {len(data)} bytes")
    rgb: NDArray[np.uint8] = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
    return rgb
