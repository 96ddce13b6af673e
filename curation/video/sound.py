"""What a source's sound tells of time: it runs on while a picture is held, and stops where a part is missing."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

NEAR = 1  # seconds by which sound may stop and go on earlier or later than the picture: containers interleave loosely
COVERED = Fraction(1, 2)  # least share of what is missing of the picture that is missing of the sound


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """Seconds in which no frame comes: after the frame at ``last`` one was ``due``, and the next is at ``until``."""

    last: Fraction
    due: Fraction
    until: Fraction


@dataclass(frozen=True, slots=True, kw_only=True)
class _Heard:
    """When a stream's first and last packets begin, and the silences between that last ``least`` seconds or more."""

    first: Fraction
    last: Fraction
    silences: Sequence[tuple[Fraction, Fraction]]

    def lacks(self, stop: Stop) -> bool:
        """Tell whether sound stops and goes on where the picture does. A silence of its own is a microphone turned off."""
        return any(
            stop.last - NEAR <= start <= stop.due + NEAR
            and abs(end - stop.until) <= NEAR
            and min(end, stop.until) - max(start, stop.due) >= COVERED * (stop.until - stop.due)
            for start, end in self.silences
        )


class SoundTimes:
    """Takes note of when the packets of ``streams``, all of sound, begin.

    Mp4 has an index that tells, and may keep the sound far from the pictures; elsewhere the packets are demuxed along.
    """

    def __init__(self, streams: Sequence[Any], container: str) -> None:
        self._streams = streams
        self._indexed = "mp4" in container
        self._starts = {stream.index: array("q") for stream in streams}

    @property
    def demuxed(self) -> Sequence[Any]:
        """Streams whose packets are to be noted."""
        return () if self._indexed else self._streams

    def note(self, packet: Any) -> None:
        """Take the next packet of any stream but the video's."""
        starts, at = self._starts.get(packet.stream_index), packet.dts if packet.pts is None else packet.pts
        if starts is not None and at is not None:
            starts.append(at)

    def missing(self, stops: Sequence[Stop], least: Fraction) -> list[bool]:
        """Tell of each stop whether sound is missing too, for ``least`` seconds or more, in every stream that spans it."""
        heard = [self._heard(stream, least) for stream in self._streams] if stops else []
        told = []
        for stop in stops:
            spanning = [s for s in heard if s and s.first <= stop.due and s.last >= stop.until - NEAR]
            told.append(bool(spanning) and all(sound.lacks(stop) for sound in spanning))
        return told

    def _heard(self, stream: Any, least: Fraction) -> _Heard | None:
        base = stream.time_base
        known = (entry.timestamp for entry in stream.index_entries) if self._indexed else self._starts[stream.index]
        starts = np.unique(np.fromiter(known, np.int64))
        if len(starts) < 2:
            return None
        gaps = np.diff(starts)
        usual = int(np.median(gaps))
        long = np.flatnonzero((gaps - usual) * float(base) >= float(least))
        silences = [(int(starts[at] + usual) * base, int(starts[at + 1]) * base) for at in long]
        return _Heard(first=int(starts[0]) * base, last=int(starts[-1]) * base, silences=silences)
