"""A source's sound is read by its own times, wherever in the file it lies: some keep it far from the pictures it goes with.

Mp4 has an index, by which libav hands out sound and pictures side by side. Elsewhere who enters a file at a picture meets
the sound that lies there: sound of before, where it lies behind its pictures, and of later, where it lies before them.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from fractions import Fraction
from itertools import chain

from dailies.curation.errors import machine_raised
from dailies.curation.timing import Span
from dailies.curation.types import SoundBlock
from dailies.curation.video.audio import SoundDecoder, SoundListener, choose_sound
from dailies.curation.video.opening import OpenFile

FARTHEST = 10  # seconds before a span from which on what sounds may reach into it
BEYOND = 10  # seconds of pictures without sound behind a span, after which it is asked whether there is any to wait for
PRIMED = Fraction(1, 4)  # seconds by which a sound's first packets may only set up its decoder


class SoundFile(OpenFile):
    """A file open for its sound. ``video``: the index of the stream of pictures that it goes with."""

    def __init__(self, uri: str, video: int) -> None:
        super().__init__(uri)
        self._video = self._container.streams[video]
        self.stream = choose_sound(self._container, self._video)
        self.absent = not self._container.streams.audio

    @property
    def is_indexed(self) -> bool:
        """Return whether an index leads to its sound, whose seeks never land late: mp4 and mov."""
        return "mp4" in self._container.format.name

    def close(self) -> None:
        """Free the file. Idempotent."""
        self._video = self.stream = None
        super().close()

    def packets(self, heartbeat: Callable[[], None]) -> Iterator[tuple[bool, float]]:
        """Read a fresh file through, and yield when each packet is due, seconds; and first whether it is of the sound."""
        import av

        sound = self.stream
        assert sound is not None
        try:
            for packet in self._container.demux(sound, self._video):
                heartbeat()
                heard = packet.stream_index == sound.index
                at = packet.pts if heard and packet.pts is not None else packet.dts
                if packet.size and at is not None:
                    yield heard, float(at * packet.time_base)
        except (av.FFmpegError, IndexError) as error:
            machine_raised(error)
        self._file.check()

    def blocks(
        self,
        span: Span,
        back: int | None,
        heartbeat: Callable[[], None],
        places: SoundPlaces,
        lose: Callable[[Fraction, Fraction], None] = lambda start, end: None,
    ) -> Generator[SoundBlock, None, None]:
        """Decode a fresh file from about ``back`` seconds before the span on, ``None`` for its start, until past its end.

        ``lose``: is told of what does not decode, from when to when, seconds. Raises ``Unreadable`` where reading fails: a
        disk's error is not the end of a sound.
        """
        import av

        container, sound = self._container, self.stream
        assert sound is not None
        begins, ends = span.start * span.time_base, span.end * span.time_base
        decoder = SoundDecoder(sound)
        streams = [sound] if self.is_indexed else [sound, self._video]  # which tells how far the file is read
        skipped = begins - FARTHEST if back is None else begins - max(back, FARTHEST)
        try:
            if back is not None:
                container.seek(int((begins - back) / sound.time_base), stream=sound)
            for packet in container.demux(*streams):
                heartbeat()
                if packet.stream_index != decoder.index:
                    if packet.dts is None or packet.dts * packet.time_base <= ends + BEYOND:
                        continue
                    if packet.dts * packet.time_base > ends + places.lag(heartbeat) + 1:
                        return
                    continue
                if packet.pts is not None and packet.pts * packet.time_base < skipped:
                    continue
                for block in decoder.decode(packet if packet.size else None):
                    yield block
                    if block.end >= (ends + 1) * block.rate:
                        return
                while decoder.lost:
                    lose(*decoder.lost.pop(0))
        except (av.FFmpegError, IndexError) as error:
            machine_raised(error)  # else it is read as far as it can be; PyAV stumbles over streams that came up late
        yield from decoder.decode(None)
        for start, end in decoder.lost:
            lose(start, end)
        self._file.check()


class SoundPlaces:
    """Where the sound of one source lies. Its packets are read through once, as soon as a span seems to lack some.

    ``video``: the index of the pictures' stream.
    """

    def __init__(self, uri: str, video: int) -> None:
        self._uri, self._video = uri, video
        self._starts: Sequence[float] | None = None  # when its packets begin, seconds, in order
        self._lag = self._lead = 0.0

    def _read(self, heartbeat: Callable[[], None]) -> Sequence[float]:
        if self._starts is None:
            starts, shown, early = array("d"), -math.inf, -math.inf
            with SoundFile(self._uri, self._video) as file:
                for heard, at in file.packets(heartbeat):
                    if not heard:
                        self._lead = max(self._lead, early - at) if shown == -math.inf else self._lead
                        shown = max(shown, at)
                        continue
                    starts.append(at)
                    if shown == -math.inf:
                        early = max(early, at)
                    else:
                        self._lead, self._lag = max(self._lead, at - shown), max(self._lag, shown - at)
            self._starts = sorted(starts)
        return self._starts

    def lag(self, heartbeat: Callable[[], None]) -> float:
        """Return how far sound may lie behind its pictures, seconds of pictures."""
        self._read(heartbeat)
        return self._lag

    def backs(self, heartbeat: Callable[[], None]) -> Iterator[int | None]:
        """Yield how many seconds before a span to enter its file, until its sound is met; ``None`` for the file's start.

        Codecs need what was before, too.
        """
        yield from (2, FARTHEST)
        self._read(heartbeat)
        yield from (math.ceil(self._lead) + FARTHEST, None)

    def misses(self, first: SoundBlock | None, span: Span, heartbeat: Callable[[], None]) -> bool:
        """Tell whether a span has, or may have, sound before ``first``, which is what was met first."""
        begins, ends = span.start * span.time_base, span.end * span.time_base
        if first is not None and first.start <= begins * first.rate:
            return False
        starts = self._read(heartbeat)
        at = bisect_left(starts, begins - FARTHEST)
        if at == len(starts) or starts[at] >= ends:
            return False
        return first is None or Fraction(first.start, first.rate) > starts[at] + PRIMED

    def has_none(self, span: Span) -> bool:
        """Tell whether it is known that no sound begins in a span, in the seconds before it, nor later."""
        begins = float(span.start * span.time_base - FARTHEST)
        return self._starts is not None and not (self._starts and self._starts[-1] >= begins)


def hear_span(uri: str, video: int, span: Span, listener: SoundListener, heartbeat: Callable[[], None]) -> None:
    """Let ``listener`` hear the sound of a span, and a little more, anew. Raises ``SourceError``.

    ``video``: the index of the pictures' stream.
    """
    listener.begin(span.time_base)
    places = SoundPlaces(uri, video)
    for back in places.backs(heartbeat):
        with SoundFile(uri, video) as file:
            if file.stream is None:
                return
            # A demuxer must not outlive its container.
            with closing(file.blocks(span, back, heartbeat, places, listener.lose)) as blocks:
                first = next(blocks, None)
                if first is not None and (back is None or not places.misses(first, span, heartbeat)):
                    for block in chain((first,), blocks):
                        listener.hear(block)
                    return
        if first is None and not places.misses(None, span, heartbeat):
            return
