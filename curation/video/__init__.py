"""Videos, for who reads or writes them: probe, stream, read a span, cut a span out, write a clip.

Time is integer pts over the stream's own time base, pixels are upright, square and SDR, and what goes wrong is one of
``dailies.curation.errors``. PyAV is imported when a video is opened, not with this module: a reader of finished tables has no
need of it.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dailies.curation.errors import Changed, SourceError, TooFewFrames, Unreadable
from dailies.curation.timing import Span
from dailies.curation.types import Crop, Frames, Probe
from dailies.curation.video.bytes_io import content_id
from dailies.curation.video.encode import Encoding, ExtractedClip, encode
from dailies.curation.video.extract import Extractor, Mode
from dailies.curation.video.pixels import Canvas, DecodedFrame, fit, jpeg, unjpeg
from dailies.curation.video.source import Source, open_before, open_source

__all__ = [
    "Crop",
    "DecodedFrame",
    "Encoding",
    "ExtractedClip",
    "Frames",
    "Source",
    "SourceError",
    "clip_frames",
    "content_id",
    "count_frames",
    "decode_bytes",
    "extract_clip",
    "jpeg",
    "open_before",
    "open_source",
    "probe",
    "read_span",
    "span_frames",
    "stream",
    "unjpeg",
    "write_clip",
]

WRITTEN = Encoding(crf=16, preset="medium")


# ---- whole sources --------------------------------------------------------------------------------------------------


def probe(uri: str, *, stream: int | None = None) -> Probe:
    """What the container says of its best (or the given) video stream. Decodes one frame. Raises ``SourceError``."""
    with open_source(uri, stream=stream) as source:
        return source.probe


def stream(source: Source) -> Iterator[DecodedFrame]:
    """Every frame of a fresh source, then ``check``. Closes the source, also when left early."""
    try:
        yield from source.frames()
        source.check()
    finally:
        source.close()


def decode_bytes(data: bytes) -> Frames:
    """All frames of a video held in memory, such as an exported clip, as RGB. Raises ``SourceError``."""
    with Source("memory", file=io.BytesIO(data)) as source:
        return _frames([(picture.pts, picture.rgb()) for picture in stream(source)], source.time_base)


def count_frames(data: bytes) -> int:
    """How many frames of a video held in memory decode. Raises ``SourceError``."""
    with Source("memory", file=io.BytesIO(data)) as source:
        return sum(1 for _ in stream(source))


# ---- spans ----------------------------------------------------------------------------------------------------------


def span_frames(uri: str, span: Span, *, stream: int | None = None) -> Iterator[DecodedFrame]:
    """The frames with ``span.start <= pts < span.end``: exactly those that streaming from the start gives."""
    with open_before(uri, span, stream=stream) as source:
        yield from source.within(span)


def read_span(
    uri: str, span: Span, *, stream: int | None = None, short_side: int | None = None, crop: Crop | None = None
) -> Frames:
    """The span's frames as RGB, without ``crop``, downscaled by area to ``short_side`` if given. Raises
    ``TooFewFrames`` if it has none.

    ``pts`` are the source's, over the source's time base.
    """
    found = [(picture.pts, _inner(picture, short_side, crop)) for picture in span_frames(uri, span, stream=stream)]
    if not found:
        raise TooFewFrames(f"no frame from {span.start} to {span.end} ticks of {span.time_base} s")
    return _frames(found, span.time_base)


def _inner(picture: DecodedFrame, short_side: int | None, crop: Crop | None) -> NDArray[np.uint8]:
    if crop is None or not crop.any:
        return picture.rgb(short_side)
    import cv2

    rgb = picture.rgb()
    inner = rgb[crop.top : rgb.shape[0] - crop.bottom, crop.left : rgb.shape[1] - crop.right]
    if not inner.size:
        raise Unreadable(f"nothing is left of {rgb.shape[1]}×{rgb.shape[0]} without {crop}")
    size = fit(inner.shape[1], inner.shape[0], short_side)
    return np.asarray(cv2.resize(inner, size, interpolation=cv2.INTER_AREA), np.uint8)


def clip_frames(row: Mapping[str, Any], *, at: Sequence[float] | None = None, short_side: int | None = None) -> Frames:
    """The frames of a row of an export: of its bytes or, where it was made by mode ``none``, of its source.

    ``at``: for each of these times, in seconds from the first frame on and rising, the first frame at or after it, the
    last one past the end; without it all frames. ``short_side`` scales down. Raises ``SourceError``, such as
    ``Changed`` for a source that is no longer what was curated.
    """
    if row["video"] is not None:
        with Source("memory", file=io.BytesIO(row["video"])) as source:
            return _frames(list(_chosen(stream(source), at, source.time_base, short_side, None)), source.time_base)
    if content_id(row["uri"])[0] != row["content_id"]:
        raise Changed(f"{row['uri']} changed since it was observed")
    base = Fraction(row["time_base_num"], row["time_base_den"])
    span = Span(start=row["source_start"], end=row["source_end"], time_base=base)
    crop = Crop(**{side: row[f"crop_{side}"] for side in ("left", "top", "right", "bottom")})
    pictures = span_frames(row["uri"], span, stream=row["stream"])
    found = list(_chosen(pictures, at, base, short_side, crop))
    if not found:
        raise TooFewFrames(f"no frame from {span.start} to {span.end} ticks of {base} s")
    return _frames(found, base)


def _chosen(
    pictures: Iterator[DecodedFrame],
    at: Sequence[float] | None,
    base: Fraction,
    short_side: int | None,
    crop: Crop | None,
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """(pts, RGB) of the frames wanted; others are not converted, and what comes after the last is not decoded."""
    first: int | None = None
    last: DecodedFrame | None = None
    given = 0
    for picture in pictures:
        last, first = picture, picture.pts if first is None else first
        if at is None:
            yield picture.pts, _inner(picture, short_side, crop)
            continue
        seconds = float((picture.pts - first) * base)
        while given < len(at) and at[given] <= seconds:
            yield picture.pts, _inner(picture, short_side, crop)
            given += 1
        if given == len(at):
            return
    if last is not None and at is not None:
        yield from [(last.pts, _inner(last, short_side, crop))] * (len(at) - given)


def extract_clip(
    uri: str,
    span: Span,
    mode: Mode = "encode",
    *,
    encoding: Encoding | None = None,
    crop: Crop | None = None,
    stream: int | None = None,
    heartbeat: Callable[[], None] = lambda: None,
) -> ExtractedClip:
    """The span as a file of its own: see ``dailies.curation.video.extract`` for the modes, ``Encoding`` for its settings.

    ``encode`` gives the span's frames, and no others, upright with square pixels, ``crop`` taken off. The other modes
    leave the pictures as they are, turned by the container where the source is, and know no crop, size or rate.
    ``heartbeat`` is called for every frame. Raises ``SourceError``, of which
    ``NotCopied`` where ``copy`` finds no keyframe.
    """
    with Extractor(uri, stream=stream) as extractor:
        return extractor.extract(span, mode, encoding=encoding, crop=crop, heartbeat=heartbeat)


# ---- new clips ------------------------------------------------------------------------------------------------------


def write_clip(
    frames: NDArray[np.uint8],
    fps: float | Fraction,
    path: str | os.PathLike[str],
    *,
    encoding: Encoding | None = None,
) -> ExtractedClip:
    """Write RGB ``frames``, (t, h, w, 3), as an mp4 file of ``fps`` frames per second; it appears whole or not at all.

    Encoded as ``extract_clip`` does, by default H.264 at crf 16; an odd side loses its last row or column. Raises
    ``ValueError`` for an array of another form, ``SourceError`` if the encoder refuses it.
    """
    import av

    if frames.ndim != 4 or frames.shape[-1] != 3 or not len(frames) or frames.dtype != np.uint8:
        raise ValueError(f"frames must be (t, h, w, 3) uint8, not {frames.shape} {frames.dtype}")
    shown = [av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24") for rgb in frames]
    canvas = Canvas(shown[0])
    span = Span(start=0, end=len(shown), time_base=1 / Fraction(fps).limit_denominator(1001))
    clip = encode((DecodedFrame(pts, frame, canvas) for pts, frame in enumerate(shown)), span, encoding or WRITTEN)
    assert clip.data is not None
    final = Path(path)
    hidden = final.with_name(f".part-{os.getpid()}-{final.name}")
    try:
        hidden.write_bytes(clip.data)
        os.replace(hidden, final)
    finally:
        hidden.unlink(missing_ok=True)
    return clip


def _frames(found: list[tuple[int, Any]], time_base: Fraction) -> Frames:
    pixels = np.stack([rgb for _, rgb in found])
    pts = np.array([pts for pts, _ in found], np.int64)
    pixels.flags.writeable = pts.flags.writeable = False
    return Frames(pts=pts, pixels=pixels, time_base=time_base)
