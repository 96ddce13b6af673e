"""Rendered frames are encoded into a video file, through PyAV."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import av
import numpy as np

from dailies.curation.atomic import new_file
from dailies.curation.types import RENDERED
from dailies.curation.video import CONTAINER_OPTIONS, encoder_options
from dailies.curation.world.render import Pixels, frames
from dailies.curation.world.script import Script

_CRF_CODECS = ("libx264", "libx264rgb", "libx265", "libvpx-vp9", "libsvtav1")
_PRESET_CODECS = ("libx264", "libx264rgb", "libx265")


def encode(
    source: Script | Iterable[Pixels],
    path: str | os.PathLike[str],
    *,
    codec: str = "libx264",
    crf: int = 20,
    bitrate: int | None = None,
    preset: str = "veryfast",
    gop: int | None = None,
    bframes: int | None = None,
    fps: float | Fraction | None = None,
    pts: Sequence[int] | None = None,
    time_base: Fraction = Fraction(1, 90_000),
    pix_fmt: str = "yuv420p",
    rotation: int = 0,
    tone: float | None = None,
    options: Mapping[str, str] | None = None,
) -> Path:
    """Encode a script, or RGB frames (h, w, 3) uint8, into ``path``; its suffix says which container. Returns ``path``.

    ``crf`` and ``preset`` rule where the codec knows them, ``crf`` only while no ``bitrate`` (bit/s) is given. ``gop``:
    most frames from one keyframe to the next; ``bframes``: most B-frames in a row. ``fps``: the script's by default,
    24 for bare frames. ``pts``: each frame's time in units of ``time_base``, for a variable frame rate. ``rotation``:
    0, 90, 180 or 270 degrees; the file stores the frames turned and says by how much to turn them counter-clockwise,
    so that players show them as given. ``tone``: Hz of a sine in an AAC stream, none by default. ``options``: passed to
    the codec as they are. A script's file says in its comment that it is of the rendered world, where its container has
    comments. The same frames and arguments give the same bytes. The file appears whole or not at all. Raises
    ``ValueError`` for no frames, frames that do not fit ``pix_fmt``, or a wrong number of ``pts``.
    """
    path = Path(path)
    if rotation not in (0, 90, 180, 270):
        raise ValueError(f"rotation={rotation}: must be 0, 90, 180 or 270")
    pictures = frames(source) if isinstance(source, Script) else iter(source)
    rate = Fraction(fps or (source.fps if isinstance(source, Script) else 24)).limit_denominator(1001)
    first = next(pictures, None)
    if first is None:
        raise ValueError("source: holds no frame to encode")
    height, width = _stored(first, rotation).shape[:2]
    if "420" in pix_fmt and (width % 2 or height % 2):
        raise ValueError(f"pix_fmt={pix_fmt!r}: needs even sides, not {width} x {height}")
    settings = {"crf": str(crf)} if codec in _CRF_CODECS and bitrate is None else {}
    settings |= {"preset": preset} if codec in _PRESET_CODECS else {}
    tick = 1 / rate if pts is None else time_base
    settings = encoder_options(codec, settings | dict(options or {}))
    with new_file(path) as hidden, av.open(str(hidden), "w", options=CONTAINER_OPTIONS) as container:
        if isinstance(source, Script):
            container.metadata["comment"] = RENDERED
        stream: Any = container.add_stream(codec, rate=rate, options=settings)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.codec_context.time_base = tick
        for name, value in {"bit_rate": bitrate, "gop_size": gop, "max_b_frames": bframes}.items():
            if value is not None:
                setattr(stream.codec_context, name, value)
        if rotation:
            stream.set_display_rotation(rotation)
        sound = _Tone(container, tone) if tone is not None else None
        _mux(container, stream, (_stored(picture, rotation) for picture in chain([first], pictures)), pts, tick, sound)
    return path


def _mux(
    container: Any,
    stream: Any,
    pictures: Iterable[Pixels],
    pts: Sequence[int] | None,
    tick: Fraction,
    sound: _Tone | None,
) -> None:
    """Encode every picture at its time, the sound along with them. Raises ``ValueError`` for a wrong number of ``pts``."""
    count = 0
    for count, picture in enumerate(pictures, start=1):
        if pts is not None and count > len(pts):
            break
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame.pts, frame.time_base = count - 1 if pts is None else pts[count - 1], tick
        container.mux(stream.encode(frame))
        if sound is not None:
            sound.until(float((frame.pts + (pts is None)) * tick))
    if pts is not None and count != len(pts):
        raise ValueError(f"pts={len(pts)} times: there are {'more' if count > len(pts) else count} frames")
    container.mux(stream.encode(None))
    if sound is not None:
        sound.close()


def _stored(picture: Pixels, rotation: int) -> Pixels:
    """Turn ``picture`` clockwise, so that turning it by ``rotation`` degrees counter-clockwise brings it back."""
    return np.ascontiguousarray(np.rot90(picture, -rotation // 90)) if rotation else picture


class _Tone:
    """A sine at 48 kHz in an AAC stream, written along with the pictures so that neither waits for the other."""

    RATE, BLOCK = 48_000, 1024

    def __init__(self, container: Any, hertz: float) -> None:
        self._container, self._hertz, self._done = container, hertz, 0
        self._stream = container.add_stream("aac", rate=self.RATE, layout="mono")

    def until(self, seconds: float) -> None:
        """Write whole blocks while they end by ``seconds``."""
        while (self._done + self.BLOCK) / self.RATE <= seconds:
            t = np.arange(self._done, self._done + self.BLOCK) / self.RATE
            wave = (0.2 * np.sin(math.tau * self._hertz * t)).astype(np.float32)[None]
            block = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
            block.sample_rate, block.pts, block.time_base = self.RATE, self._done, Fraction(1, self.RATE)
            self._container.mux(self._stream.encode(block))
            self._done += self.BLOCK

    def close(self) -> None:
        self._container.mux(self._stream.encode(None))
