"""Frames of a clip on a phase's grid, scaled to what the phase needs, by PyAV or decord.

PyAV reads clips of every mode, in their bytes or in their sources, and what it gives is upright, of square pixels and
SDR. decord reads bytes as they are stored, so it is for clips that an export encoded. Both choose frames by the same
times. Which is the faster depends on the clips (``benchmarks/read.py``).
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dailies.curation import video
from dailies.curation.errors import Misshapen, NoVideo, Unreadable
from dailies.curation.export_schema import extraction_of
from dailies.training.models.pixels import Pixels, cover

Backend = Literal["pyav", "decord"]
MOST_COVER = 8.0  # areas of a shape that a picture covering it may have: 21:9 over 9:16 has 4.1
MOST_ENLARGED = 16.0


def read(
    row: Mapping[str, Any],
    fps: float,
    count: int,
    size: tuple[int, int],
    backend: Backend = "pyav",
    *,
    first: int = 0,
) -> Pixels:
    """Read (count, h, w, 3) RGB of an export's ``row``: the first frame at or after each point of a grid of ``fps`` from its
    point number ``first`` on, the last one past its end; resized to cover ``size`` (width, height) px.

    Half a frame early counts, since times are rounded to ticks. Raises ``SourceError`` of ``dailies.curation.errors``,
    ``Misshapen`` among them.
    """
    if row["video"] is None and extraction_of(row) != "none":
        raise NoVideo("the row holds no video")
    check_shape(row["width"], row["height"], size)
    points = (first + np.arange(count)) / fps - 0.5 / row["fps"]
    if backend == "decord" and extraction_of(row) == "encode":
        return cover(_by_decord(row["video"], points), size)
    share = max(size[0] / row["width"], size[1] / row["height"])
    short_side = math.ceil(min(row["width"], row["height"]) * share)
    pixels = video.clip_frames(row, at=points.tolist(), short_side=short_side).pixels
    covers = pixels.shape[1] >= size[1] and pixels.shape[2] >= size[0]
    return pixels if covers else cover(pixels, size)  # what is a pixel too large would only be blurred


def check_shape(width: int, height: int, size: tuple[int, int]) -> None:
    """Raise ``Misshapen`` for a picture of (width, height) px that, covering ``size``, would be mostly cut away or blur."""
    scale = max(size[0] / width, size[1] / height)
    if (width * scale) * (height * scale) > MOST_COVER * size[0] * size[1]:
        raise Misshapen(f"{width}x{height} px are too narrow: of {size[0]}x{size[1]} px, most would be cut away")
    if scale > MOST_ENLARGED:
        raise Misshapen(f"{width}x{height} px are too small: enlarged {scale:.0f} times for {size[0]}x{size[1]} px")


def a_number(value: Any) -> float | None:
    """Return a column's value as a number; ``None`` for none, and for what is not a number."""
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def _by_decord(data: bytes, points: NDArray[np.float64]) -> Pixels:
    from decord import DECORDError, VideoReader

    if data[4:8] != b"ftyp":  # its libav opens lists of other files and addresses too, and has no list of what it may
        raise Unreadable("the row's video is not an mp4, as exports encode; reader=pyav says what it is")
    try:
        reader = VideoReader(io.BytesIO(data), num_threads=1)
        starts = reader.get_frame_timestamp(range(len(reader)))[:, 0].astype(np.float64)
        chosen = np.minimum(np.searchsorted(starts - starts[0], points), len(reader) - 1)
        frames: Pixels = reader.get_batch(chosen.tolist()).asnumpy()
    except (DECORDError, RuntimeError, IndexError) as error:
        raise Unreadable(f"decord: {str(error).strip().splitlines()[-1]}") from error
    return frames
