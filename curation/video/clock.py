"""What a stream's packets tell of time: how long the frame shown last is shown, and where a recording lacks a part."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from dailies.curation.timing import Pause, ticks, usual_gap

LEAST_HOLE = Fraction(1, 2)  # seconds: a shorter gap is a few dropped frames
NEAR = 4  # packets from the one marked to the one behind the break


class PacketTimes:
    """Takes note of packets in coded order. Ticks are of ``time_base`` seconds.

    Mp4 says how long each packet lasts; where the next one is due later, as between the fragments of a live recording,
    something is missing. A transport stream counts its packets and marks one where the count breaks. Elsewhere a duration is
    libav's guess from a nominal rate, which may be that of the codec's clock, and a pause is a frame that is shown for long.
    """

    def __init__(self, time_base: Fraction, container: str) -> None:
        self._states, self._marks = "mp4" in container, container == "mpegts"
        self._least = ticks(LEAST_HOLE, time_base)
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
        that is the time between two frames before it.
        """
        if not self._states or self._last is None or self._last[0] != pts[-1]:
            return None
        return None if self._reordered and self._last[1] > 2 * usual_gap(pts) else self._last[1] or None

    def holes(self, pts: Sequence[int]) -> list[Pause]:
        """Return where frames are missing between those of ``pts``, sorted."""
        pauses = []
        for last, missing in self._holes:
            at = bisect_right(pts, last)
            if not 0 < at < len(pts):
                continue
            end = pts[at - 1] + usual_gap(pts[:at]) if missing is None else pts[at] - missing
            if pts[at - 1] < end < pts[at]:
                pauses.append(Pause(end=end, until=pts[at]))
        return pauses
