"""Cutting out without decoding: the coded pictures of a span, copied from keyframe to keyframe.

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
from dailies.curation.video.encode import new_file

REORDER = (
    16  # pictures that one shown before them can at most wait for (H.264 and HEVC: the size of the picture buffer)
)
CONTAINERS = {
    **dict.fromkeys(("h264", "hevc", "av1", "vp9", "mpeg4", "mpeg2video", "mpeg1video", "mjpeg"), "mp4"),
    **dict.fromkeys(("prores", "dnxhd", "png"), "mov"),
}  # any other codec goes into Matroska


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Packets in coded order that hold every picture of ``span``, and no other."""

    packets: Sequence[Any]
    span: Span


def stretch(
    packets: Iterable[Any], span: Span, *, after: int | None = None, starts: Callable[[Any], bool] = lambda packet: True
) -> Stretch:
    """The first stretch in ``span`` of ``packets``, which are read from a keyframe at or before it on.

    ``after``: begin later than this pts; ``starts``: whether a keyframe will do. Raises ``NotCopied`` where there is
    none.
    """
    held: list[Any] = []
    waiting = timed(packets)
    for packet in waiting:
        if packet.pts >= span.end:
            break
        if held:
            if packet.is_discard:
                raise NotCopied("an edit list leaves pictures out in the middle of it")
            if packet.pts > held[0].pts:
                held.append(packet)
        elif (
            packet.is_keyframe
            and not packet.is_discard
            and packet.pts >= span.start
            and (after is None or packet.pts > after)
            and starts(packet)
        ):
            held.append(packet)
    else:
        packet = None
    if not held:
        raise NotCopied(
            "no keyframe inside the span" if after is None else "no keyframe inside the span decodes by itself"
        )
    first = held[0].pts
    after_it = [] if packet is None else [packet, *(one for one, _ in zip(waiting, range(REORDER), strict=False))]
    rest = [one.pts for one in after_it if not one.is_discard]
    # A picture that comes later and is shown earlier than one held would leave a hole.
    while (hole := min((pts for pts in rest if pts > first), default=span.end)) <= max(one.pts for one in held):
        late = next(number for number, one in enumerate(held) if one.pts >= hole)
        rest, held = [*rest, *(one.pts for one in held[late:])], held[:late]
    if len(held) < 2:
        raise NotCopied("from its keyframe on, no more than one frame can be copied")
    return Stretch(packets=held, span=Span(start=first, end=min(hole, span.end), time_base=span.time_base))


def timed(packets: Iterable[Any]) -> Iterator[Any]:
    """The packets, as long as each says when it is shown and none is damaged; else raises ``NotCopied``."""
    for packet in packets:
        if packet.pts is None:
            raise NotCopied("its packets do not say when they are shown")
        if packet.is_corrupt:
            raise NotCopied("a packet near the span is damaged")
        yield packet


def codec_of(stream: Any) -> str:
    """A codec's name, whatever its decoder is called."""
    name: str = stream.codec_context.codec.canonical_name
    return name


# ---- packets to a file ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Coded:
    """One packet to write: libav's own ``packet``, shown at ``pts``."""

    packet: Any
    pts: int


def mux(stream: Any, coded: Sequence[Coded], span: Span, *, tag: str | None = None) -> bytes:
    """A file with ``coded`` in coded order, the first picture shown at 0. ``stream``: whose header and rotation it
    takes over; ``tag``: another name for its codec. Raises ``NotCopied`` where the container refuses them."""
    import av

    buffer = io.BytesIO()
    container_format = CONTAINERS.get(codec_of(stream), "matroska")
    times = decode_times([one.pts for one in coded])
    lasts = dict(zip(sorted(one.pts for one in coded), [*sorted(one.pts for one in coded)[1:], span.end], strict=True))
    try:
        with new_file(buffer, container_format) as container:
            out = container.add_stream_from_template(stream, opaque=True)  # opaque: there need be no encoder
            out.time_base = span.time_base
            if tag is not None:
                out.codec_context.codec_tag = tag
            for one, dts in zip(coded, times, strict=True):
                packet = one.packet
                packet.stream, packet.time_base = out, span.time_base
                packet.pts, packet.dts = one.pts - span.start, dts - span.start
                # Matroska would count a last duration in its header and state it nowhere else.
                packet.duration = 0 if container_format == "matroska" else lasts[one.pts] - one.pts
                container.mux(packet)
    except (av.FFmpegError, ValueError) as error:
        raise NotCopied(f"{container_format} does not take its packets: {one_line(error)}") from error
    return buffer.getvalue()


def decode_times(pts: Sequence[int]) -> list[int]:
    """When each of the packets, in coded order, is to be decoded: rising, and never after it is shown.

    The times shown, in order, as late as that allows: containers differ in what they say, or say nothing.
    """
    shown = sorted(pts)
    if len(set(shown)) < len(shown):
        raise NotCopied("two of its pictures are shown at the same time")
    place = {at: number for number, at in enumerate(shown)}
    delay = max(number - place[at] for number, at in enumerate(pts))
    gap = shown[1] - shown[0] if len(shown) > 1 else 1
    early = [shown[0] - gap * (delay - number) for number in range(delay)]
    return [*early, *shown][: len(shown)]
