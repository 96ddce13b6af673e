"""Frames in memory are written as a clip here."""

from __future__ import annotations

import os
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from dailies.curation.atomic import new_file
from dailies.curation.timing import Span
from dailies.curation.video.encode import Encoding, ExtractedClip, encode
from dailies.curation.video.pixels import Canvas, DecodedFrame

FAITHFUL = Encoding(crf=16, preset="medium")


def write_clip(
    frames: NDArray[np.uint8],
    fps: float | Fraction,
    path: str | os.PathLike[str],
    *,
    encoding: Encoding = FAITHFUL,
) -> ExtractedClip:
    """Write RGB ``frames``, (t, h, w, 3), as an mp4 file of ``fps`` frames per second; it appears whole or not at all.

    An odd side loses its last row or column. Raises ``ValueError`` for an array of another shape or type, ``SourceError``
    where the encoder refuses it.
    """
    import av

    if frames.ndim != 4 or frames.shape[-1] != 3 or not len(frames) or frames.dtype != np.uint8:
        raise ValueError(
            f"frames={frames.shape} {frames.dtype}: must be (t, h, w, 3) of uint8, with at least one frame"
        )
    decoded = [av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24") for rgb in frames]
    canvas = Canvas(decoded[0])
    span = Span(start=0, end=len(decoded), time_base=1 / Fraction(fps).limit_denominator(1001))
    clip = encode((DecodedFrame(pts, frame, canvas) for pts, frame in enumerate(decoded)), span, encoding)
    assert clip.data is not None
    with new_file(path) as hidden:
        hidden.write_bytes(clip.data)
    return clip
