"""Coded pictures of a span are copied from keyframe to keyframe, without decoding.

Packets come in coded order, in which a picture stands after all that it refers to. What is copied is a stretch of them
that needs nothing from outside and shows no picture from outside: from a keyframe in the span, without the pictures
shown before it, up to the first picture that the span does not hold. So clips never reach over a cut; they lose what is
shown before the keyframe, as SVD's did (arXiv 2311.15127, App. C), and at the end a few pictures that refer to one
behind the cut.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from dailies.curation.errors import NotCopied
from dailies.curation.timing import Span
from dailies.curation.video.bytes_io import one_line
from dailies.curation.video.dts import decode_times, last_duration, shown_for
from dailies.curation.video.encode import open_container
from dailies.curation.video.soundtrack import Soundtrack, interleaved

REORDER = 16  # pictures that one shown earlier may at most stand behind (H.264 and HEVC: size of the picture buffer)
CONTAINERS = {
    **dict.fromkeys(("h264", "hevc", "av1", "vp9", "mpeg4", "mpeg2video", "mpeg1video", "mjpeg"), "mp4"),
    **dict.fromkeys(("prores", "dnxhd", "png"), "mov"),
}  # any other codec goes into Matroska


class MarkedDamaged(NotCopied):
    """The demuxer marks a packet of the span as damaged, as the last one before a join of two files: decoding will tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Packets in coded order that hold the pictures of ``span`` and no others."""

    packets: Sequence[Any]
    span: Span


def stretch(
    packets: Iterable[Any], span: Span, *, after: int | None = None, starts: Callable[[Any], bool] = lambda packet: True
) -> Stretch:
    """Return the first stretch in ``span`` of ``packets``, which are read from a keyframe at or before it on.

    ``after``: begin later than this pts; ``starts``: whether a keyframe will do. Raises ``NotCopied`` where there is
    none.
    """
    copied: list[Any] = []
    waiting = timed(packets, span)
    for packet in waiting:
        if packet.pts >= span.end:
            break
        if copied:
            if packet.is_discard:
                raise NotCopied("an edit list leaves pictures out in the middle of it")
            if packet.pts > copied[0].pts:
                copied.append(packet)
        elif (
            packet.is_keyframe
            and not packet.is_discard
            and packet.pts >= span.start
            and (after is None or packet.pts > after)
            and starts(packet)
        ):
            copied.append(packet)
    else:
        packet = None
    if not copied:
        raise NotCopied("no keyframe inside the span" + ("" if after is None else " decodes by itself"))
    first = copied[0].pts
    following = [] if packet is None else [packet, *(later for later, _ in zip(waiting, range(REORDER), strict=False))]
    rest = [packet.pts for packet in following if not packet.is_discard]
    # A picture that comes later and is shown earlier than one copied would leave a hole.
    while (hole := min((pts for pts in rest if pts > first), default=span.end)) <= max(packet.pts for packet in copied):
        late = next(number for number, packet in enumerate(copied) if packet.pts >= hole)
        rest, copied = [*rest, *(packet.pts for packet in copied[late:])], copied[:late]
    if len(copied) < 2:
        raise NotCopied("from its keyframe on, no more than one frame can be copied")
    return Stretch(packets=copied, span=Span(start=first, end=min(hole, span.end), time_base=span.time_base))


def timed(packets: Iterable[Any], span: Span) -> Iterator[Any]:
    """Yield the packets. Raises ``NotCopied`` at one that does not say when it is shown, ``MarkedDamaged`` in the span."""
    for packet in packets:
        if packet.pts is None:
            raise NotCopied("its packets do not say when they are shown")
        if packet.is_corrupt and packet.pts in span:
            raise MarkedDamaged("a packet of the span is damaged")
        yield packet


def codec_of(stream: Any) -> str:
    """Return a codec's name, whatever its decoder is called."""
    name: str = stream.codec_context.codec.canonical_name
    return name


# ---- packets to a file ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Coded:
    """One packet to write: libav's own ``packet``, shown at ``pts``."""

    packet: Any
    pts: int


def mux(
    stream: Any, coded: Sequence[Coded], span: Span, *, tag: str | None = None, sound: Soundtrack | None = None
) -> bytes:
    """Write ``coded``, in coded order, to a file whose first picture is shown at 0; return its bytes.

    ``stream``: whose header and rotation it takes over; ``tag``: another name for its codec; ``sound``: goes along.
    Raises ``NotCopied`` where the container refuses them.
    """
    import av

    buffer = io.BytesIO()
    container_format = CONTAINERS.get(codec_of(stream), "matroska")
    pts = [picture.pts for picture in coded]
    times, lengths = decode_times(pts, span.end), shown_for(pts, span.end)
    try:
        with open_container(buffer, container_format, sound) as container:
            out = container.add_stream_from_template(stream, opaque=True)  # opaque: there need be no encoder
            out.time_base = span.time_base
            if tag is not None:
                out.codec_context.codec_tag = tag
            heard = sound.encode(container, container_format) if sound is not None and sound.is_kept else []
            for picture, dts in zip(coded, times, strict=True):
                packet = picture.packet
                packet.stream, packet.time_base = out, span.time_base
                packet.pts, packet.dts = picture.pts - span.start, dts - span.start
                packet.duration = lengths[picture.pts]
                if picture is coded[-1]:
                    packet.duration = last_duration(pts, times, span.end)
            for packet in interleaved([picture.packet for picture in coded], heard):
                container.mux(packet)
    except (av.FFmpegError, ValueError) as error:
        raise NotCopied(f"{container_format} does not take its packets: {one_line(error)}") from error
    return buffer.getvalue()
