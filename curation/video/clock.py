"""What a stream's packets tell of time: how long the frame shown last is shown, and where a recording lacks a part."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from dailies.curation.timing import LATELY, Pause, ticks, usual_gap
from dailies.curation.video.sound import SoundTimes, Stop

LEAST_HOLE = Fraction(1, 2)  # seconds: a shorter gap is a few dropped frames
NEAR = 4  # packets from the one marked to the one behind the break
PARSED = frozenset({"vp8", "vp9", "vc1"})  # codecs of which libav puts its own guess for the durations that mp4 states
ROUNDING = Fraction(
    1, 250
)  # seconds by which what a container says in two places may differ: clocks of a thousand a second


class PacketTimes:
    """Takes note of the packets of a video ``stream``, in coded order, and of those of ``sounds``. Ticks are the stream's.

    Mp4 says how long each packet lasts; where the next one is due later, as between the fragments of a live recording,
    something is missing. A transport stream counts its packets and marks one where the count breaks. In any container
    something is missing where sound stops with the picture. Elsewhere a duration is libav's guess from a nominal rate,
    which may be that of the codec's clock, and a pause is a frame that is shown for long: without sound nothing tells a
    hole from a still.
    """

    def __init__(self, stream: Any, sounds: Sequence[Any], container: str) -> None:
        self._indexed, self._marks = "mp4" in container, container == "mpegts"
        self._states = self._indexed and stream.codec_context.codec.canonical_name not in PARSED
        self.sound = SoundTimes(sounds, container)
        self._stream = stream
        self._time_base: Fraction = stream.time_base
        self._least = ticks(LEAST_HOLE, self._time_base)
        self._last: tuple[int, int] | None = None  # pts of the packet shown last, and its duration
        self._reordered = False  # the last packet is shown before that one
        self._before: tuple[int, int] | None = None  # dts and duration of the last packet
        self._unmarked = NEAR + 1  # packets since the last that was marked
        self._holes: list[tuple[int, int | None]] = []  # the last pts before it, and its ticks where they are stated

    def note(self, packet: Any) -> None:
        """Take the stream's next packet."""
        if packet.pts is None:
            return
        dts = packet.pts if packet.dts is None else packet.dts
        self._unmarked = 0 if packet.is_corrupt else self._unmarked + 1
        if self._before is not None and self._last is not None:
            before, duration = self._before
            missing = dts - before - (duration if self._states else 0)
            if missing >= self._least and (self._states or (self._marks and self._unmarked <= NEAR)):
                self._holes.append((self._last[0], missing if self._states else None))
        self._before = dts, packet.duration or 0
        if not packet.is_discard:
            self._reordered = self._last is not None and packet.pts < self._last[0]
            if not self._reordered:
                self._last = packet.pts, packet.duration or 0

    def stated_after(self, pts: Sequence[int]) -> int | None:
        """Return how long the container says that the last frame of ``pts``, sorted, is shown.

        Mp4 counts from when a packet is decoded to when the next one is. Where others are decoded after the one shown last,
        that is the time between two frames before it, unless the stream as a whole is said to last as long.
        """
        if not self._indexed or self._last is None or self._last[0] != pts[-1]:
            return None
        last, duration = self._last
        end = None if self._stream.duration is None else (self._stream.start_time or 0) + self._stream.duration
        if not self._states:
            return end - last if end is not None and end > last and self._is_indexed_last(last) else None
        if self._reordered and duration > 2 * usual_gap(pts):
            agreed = end is not None and abs(end - last - duration) * self._time_base <= ROUNDING
            return duration if agreed else None
        return duration or None

    def _is_indexed_last(self, pts: int) -> bool:
        """Tell whether no packet is due after the one at ``pts``, of a stream whose packets are shown in coded order."""
        entries = self._stream.index_entries
        return len(entries) > 0 and entries[len(entries) - 1].timestamp == pts

    def holes(self, pts: Sequence[int]) -> list[Pause]:
        """Return where frames are missing between those of ``pts``, sorted."""
        pauses = {pause.until: pause for pause in self._unheard(pts)}
        for last, missing in self._holes:
            at = bisect_right(pts, last)
            if not 0 < at < len(pts):
                continue
            end = _due(pts, at) if missing is None else pts[at] - missing
            if pts[at - 1] < end < pts[at]:
                pauses[pts[at]] = Pause(end=end, until=pts[at])
        return [pauses[until] for until in sorted(pauses)]

    def _unheard(self, pts: Sequence[int]) -> list[Pause]:
        """Return the pauses in which there is no sound either."""
        base, pauses, stops = self._time_base, [], []
        for at in range(1, len(pts)):
            if pts[at] - pts[at - 1] >= self._least and pts[at] - (due := _due(pts, at)) >= self._least:
                pauses.append(Pause(end=due, until=pts[at]))
                stops.append(Stop(last=pts[at - 1] * base, due=due * base, until=pts[at] * base))
        told = self.sound.missing(stops, LEAST_HOLE)
        return [pause for pause, missing in zip(pauses, told, strict=True) if missing]


def _due(pts: Sequence[int], at: int) -> int:
    """Return when frame ``at`` would come if frames went on as before it; as behind it, where that is the second frame."""
    near = pts[max(0, at - LATELY - 1) : at] if at > 1 else pts[at : at + LATELY + 1]
    return int(pts[at - 1]) + usual_gap(near)
