"""These types flow between rooms, frozen and keyword-only; rows at rest are Arrow (``dailies.curation.schema``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dailies.curation.timing import Span

Planes = Literal["gray", "bgr"]

RENDERED = "rendered by dailies: curation/world"
"""The comment in a file of the rendered world. Models that know that world alone are of no use for other footage, and no
other footage has it by accident."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameSampling:
    """The grid on which an observer wants frames.

    ``fps``: frames per second, ``None`` for every frame that is decoded; ``every``: decode each frame, skip none that no
    other refers to. ``short_side``: px of the shorter side after downscaling by area (never up). ``planes``: ``gray`` is
    luma, (h, w); ``bgr`` is (h, w, 3), as OpenCV orders it.
    """

    fps: float | None
    short_side: int
    planes: Planes
    every: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A probe holds what a source's container says of its chosen video stream.

    ``width`` and ``height`` are of the upright picture in square pixels (rotation applied). ``rotation`` is the
    counter-clockwise turn in degrees (0, 90, 180, 270) that makes decoded frames upright. ``pixel_aspect``: width over height
    of a pixel as decoded. ``interlaced``: the first frame is two fields, which stay woven. ``hdr``: it is PQ or HLG, and
    every picture of it is tone-mapped. ``duration`` is in units of ``time_base``; it and ``frames`` are ``None`` where the
    container does not say. ``fps`` is the average rate, for people to read. ``rendered``: it says of itself that it is of
    the rendered world, see ``RENDERED``.
    """

    container: str
    codec: str
    stream: int
    width: int
    height: int
    rotation: int
    pixel_format: str
    pixel_aspect: float
    interlaced: bool
    hdr: bool
    time_base: Fraction
    start: int | None
    duration: int | None
    frames: int | None
    fps: Fraction | None
    has_audio: bool
    rendered: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One upright decoded frame on its way through the observers: (h, w) or (h, w, 3) uint8, read-only."""

    pts: int
    pixels: NDArray[np.uint8]


Samples = NDArray[np.float32]
"""Sound, (channels, n) float32 with full scale at ±1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SoundBlock:
    """A piece of decoded sound. Sample number n of a source is heard n / ``rate`` seconds after its clock's zero.

    ``start``: the number of the first of its ``samples``, which follow each other without a gap; ``channels``: libav's name of
    each, such as ``FL``.
    """

    start: int
    rate: int
    channels: tuple[str, ...]
    samples: Samples

    @property
    def end(self) -> int:
        """Number of the first sample behind."""
        return self.start + int(self.samples.shape[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Frames:
    """Frames of one span: ``pts`` (t,) int64, ``pixels`` (t, h, w, 3) uint8 RGB, upright, read-only. Never stored."""

    pts: NDArray[np.int64]
    pixels: NDArray[np.uint8]
    time_base: Fraction


@dataclass(frozen=True, slots=True, kw_only=True)
class Crop:
    """Pixels to take off the upright picture at each side, in px of the source."""

    left: int = 0
    top: int = 0
    right: int = 0
    bottom: int = 0

    @property
    def any(self) -> bool:
        """Return whether it takes anything off."""
        return any((self.left, self.top, self.right, self.bottom))


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """Numbers per sampled frame: ``pts`` (n,) int64 strictly rising, ``values`` (n,) float32.

    A value that compares two frames stands at the later one; the first frame's is NaN.
    """

    name: str
    pts: NDArray[np.int64]
    values: NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A place where shots meet: the old shot's last frame is at ``start`` (pts), the new shot's first at ``end`` (pts).

    Frames strictly between the two belong to neither shot, or may do so. ``core``: of a gradual transition, its first and last
    frame (pts) as near as can be told. A ``fade`` is one of the source itself, in from or out to nothing at one of its ends:
    no shots meet there, but its frames belong to no clip. At a ``geometry`` the pictures take another shape or turn.
    ``strength`` is in units of the detector's threshold: 1 is just over it.
    """

    start: int
    end: int
    kind: Literal["cut", "dissolve", "fade", "geometry"]
    detector: str
    strength: float
    core: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceFrame:
    """A JPEG of the upright frame at ``pts``."""

    pts: int
    jpeg: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Evidence is all that a model sees of one clip: its evidence frames in order and the columns of earlier steps."""

    clip_id: str
    span: Span
    frames: tuple[EvidenceFrame, ...]
    columns: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """Resources that one worker of a step needs. ``workers``: most of them at a time, whatever the engine; None: no limit."""

    cpus: float = 1
    gpus: float = 0
    memory_gb: float = 1
    workers: int | None = None
