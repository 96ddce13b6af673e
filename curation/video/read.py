"""Videos are read here: probed, streamed frame by frame, and read as arrays of a span, of a clip or of bytes in memory."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dailies.curation.addresses import name_of, public
from dailies.curation.errors import Changed, TooFewFrames, Unreadable
from dailies.curation.geometry import Size
from dailies.curation.policy import local_path
from dailies.curation.timing import Span
from dailies.curation.types import Crop, Frames, Probe
from dailies.curation.video.contents import holds
from dailies.curation.video.pixels import DecodedFrame, fit, onto
from dailies.curation.video.source import Source, open_before, open_source

# ---- whole sources --------------------------------------------------------------------------------------------------


def probe(uri: str, *, stream: int | None = None) -> Probe:
    """Return what the container says of its best video stream, or of ``stream``. Decodes one frame. Raises ``SourceError``."""
    with open_source(uri, stream=stream) as source:
        return source.probe


def stream(source: Source) -> Iterator[DecodedFrame]:
    """Yield every frame of a fresh source, then check it. Closes the source, also when left early. Raises ``SourceError``."""
    try:
        yield from source.frames()
        source.check()
    finally:
        source.close()


def decode_bytes(data: bytes) -> Frames:
    """Decode a video held in memory, such as an exported clip: all frames, RGB. Raises ``SourceError``."""
    with Source("memory", file=io.BytesIO(data)) as source:
        size = source.canvas.size
        return _frames([(picture.pts, _inner(picture, size)) for picture in stream(source)], source.time_base)


def count_frames(data: bytes, heartbeat: Callable[[], None] = lambda: None) -> int:
    """Count the frames of a video held in memory that decode, with a heartbeat each. Raises ``SourceError``."""
    count = 0
    with Source("memory", file=io.BytesIO(data)) as source:
        for _ in stream(source):
            heartbeat()
            count += 1
    return count


def check_content(address: str, content: str) -> None:
    """Raise ``Changed`` where what lies at an address is no longer what was observed, and ``Unreadable``.

    Of a URL, only what is left of it may be known here: the reason then says what to do.
    """
    hint = "" if local_path(address) is not None or address != public(address) else f"; {UNSIGNED}"
    try:
        same = holds(address, content)
    except Unreadable as error:
        raise type(error)(f"{error}{hint}") from None
    if not same:
        raise Changed(f"{name_of(address)} changed since it was observed{hint}")


UNSIGNED = (
    "if its URL had a password or a query, such as a signature, that is not stored: "
    "give the sources again (dailies export DATASET --sources SOURCE, or dailies curate)"
)


# ---- spans ----------------------------------------------------------------------------------------------------------


def span_frames(uri: str, span: Span, *, stream: int | None = None) -> Iterator[DecodedFrame]:
    """Yield the frames with ``span.start <= pts < span.end``: exactly those that streaming from the start gives."""
    with open_before(uri, span, stream=stream) as source:
        yield from source.within(span)


def read_span(
    uri: str, span: Span, *, stream: int | None = None, short_side: int | None = None, crop: Crop | None = None
) -> Frames:
    """Read a span's frames as RGB, ``crop`` taken off, downscaled by area to ``short_side`` px where that is not ``None``.

    ``pts`` are the source's, over the source's time base. Pictures of another size than the first are brought to that,
    between bars where their shape is another. Raises ``TooFewFrames`` where the span has none.
    """
    decoded, size = [], None
    for picture in span_frames(uri, span, stream=stream):
        size = size or picture.canvas.size
        decoded.append((picture.pts, _inner(picture, size, short_side, crop)))
    if not decoded:
        raise TooFewFrames(f"no frame from {span.start} to {span.end} ticks of {span.time_base} s")
    return _frames(decoded, span.time_base)


def _inner(
    picture: DecodedFrame, full: Size, short_side: int | None = None, crop: Crop | None = None
) -> NDArray[np.uint8]:
    """Return the picture as RGB, brought to the size ``full``, ``crop`` taken off, then scaled down to ``short_side``."""
    if (crop is None or not crop.any) and picture.canvas.size == full:
        return picture.rgb(short_side)
    import cv2

    rgb, crop = onto(picture.rgb(), full), crop or Crop()
    inner = rgb[crop.top : rgb.shape[0] - crop.bottom, crop.left : rgb.shape[1] - crop.right]
    if not inner.size:
        raise Unreadable(f"nothing is left of {rgb.shape[1]}×{rgb.shape[0]} without {crop}")
    size = fit(inner.shape[1], inner.shape[0], short_side)
    return np.asarray(cv2.resize(inner, size, interpolation=cv2.INTER_AREA), np.uint8)


def clip_frames(row: Mapping[str, Any], *, at: Sequence[float] | None = None, short_side: int | None = None) -> Frames:
    """Read the frames of an export's row: from its bytes or, where it was made in mode ``none``, from its source.

    ``at``: for each of these times, in seconds from the first frame on and rising, the first frame at or after it, the
    last one past the end; without it all frames. ``short_side`` scales down. Raises ``SourceError``, such as
    ``Changed`` for a source that is no longer what was curated.
    """
    if row["video"] is not None:
        with Source("memory", file=io.BytesIO(row["video"])) as source:
            size = source.canvas.size
            return _frames(list(_chosen(stream(source), at, source.time_base, size, short_side)), source.time_base)
    check_content(row["uri"], row["content_id"])
    base = Fraction(row["time_base_num"], row["time_base_den"])
    span = Span(start=row["source_start"], end=row["source_end"], time_base=base)
    crop = Crop(**{side: row[f"crop_{side}"] for side in ("left", "top", "right", "bottom")})
    pictures = span_frames(row["uri"], span, stream=row["stream"])
    size = (row["width"] + crop.left + crop.right, row["height"] + crop.top + crop.bottom)
    decoded = list(_chosen(pictures, at, base, size, short_side, crop))
    if not decoded:
        raise TooFewFrames(f"no frame from {span.start} to {span.end} ticks of {base} s")
    return _frames(decoded, base)


def _chosen(
    pictures: Iterator[DecodedFrame],
    at: Sequence[float] | None,
    base: Fraction,
    size: Size,
    short_side: int | None,
    crop: Crop | None = None,
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Yield (pts, RGB) of the frames asked for; others are not converted, and none is decoded after the last."""
    first: int | None = None
    last: DecodedFrame | None = None
    count = 0  # of the times in ``at`` that are met
    for picture in pictures:
        last, first = picture, picture.pts if first is None else first
        if at is None:
            yield picture.pts, _inner(picture, size, short_side, crop)
            continue
        seconds = float((picture.pts - first) * base)
        while count < len(at) and at[count] <= seconds:
            yield picture.pts, _inner(picture, size, short_side, crop)
            count += 1
        if count == len(at):
            return
    if last is not None and at is not None:
        yield from [(last.pts, _inner(last, size, short_side, crop))] * (len(at) - count)


def _frames(decoded: Sequence[tuple[int, NDArray[np.uint8]]], time_base: Fraction) -> Frames:
    """Stack (pts, RGB) of at least one frame, read-only."""
    pixels = np.stack([rgb for _, rgb in decoded])
    pts = np.array([pts for pts, _ in decoded], np.int64)
    pixels.flags.writeable = pts.flags.writeable = False
    return Frames(pts=pts, pixels=pixels, time_base=time_base)
