"""Decode times of coded pictures, from which mp4 makes up how long a file and its last frame last."""

from __future__ import annotations

from collections.abc import Sequence

from dailies.curation.errors import NotCopied


def shown_for(pts: Sequence[int], end: int) -> dict[int, int]:
    """Return how long each picture is shown, in ticks, by its pts; the one shown last until ``end``."""
    shown = sorted(pts)
    return {at: until - at for at, until in zip(shown, [*shown[1:], end], strict=True)}


def decode_times(pts: Sequence[int], end: int) -> list[int]:
    """Return when each packet, in coded order, is to be decoded: rising, and never after it is shown.

    These are the times shown, in order, as late as that allows: containers differ in what they say, or say nothing. Where
    frames are uneven, ``true_times``. Raises ``NotCopied`` where two pictures are shown at the same time.
    """
    shown = sorted(pts)
    if len(set(shown)) < len(shown):
        raise NotCopied("two of its pictures are shown at the same time")
    place = {at: number for number, at in enumerate(shown)}
    delay = max(number - place[at] for number, at in enumerate(pts))
    gap = shown[1] - shown[0] if len(shown) > 1 else 1
    early = [shown[0] - gap * (delay - number) for number in range(delay)]
    times = [*early, *shown][: len(shown)]
    return times if are_true(pts, times, end) else true_times(pts, end)


def are_true(pts: Sequence[int], times: Sequence[int], end: int) -> bool:
    """Tell whether mp4 with these decode times lasts until ``end``, and its last frame as long as it is shown.

    Mp4 takes a packet to last until the next one is decoded, and all of them together for the length of the file.
    """
    shown, lengths = sorted(pts), shown_for(pts, end)
    near = max(1, min(lengths.values()) / 20)  # containers round
    last = pts.index(shown[-1])
    lasts = lengths[shown[-1]] if last == len(pts) - 1 else times[last + 1] - times[last]
    length = times[-1] + lengths[pts[-1]] - times[0]
    return abs(lasts - lengths[shown[-1]]) <= near and length >= end - shown[0] - near


def true_times(pts: Sequence[int], end: int) -> list[int]:
    """Return decode times as late as each packet allows, but for the frame shown last, which lasts as long as it is shown."""
    shown = sorted(pts)
    times = list(pts)
    latest = after = pts[-1] + 1
    for at in range(len(pts) - 1, -1, -1):
        latest = min(latest, pts[at])
        before_next = after - (end - shown[-1] if pts[at] == shown[-1] and at < len(pts) - 1 else 1)
        times[at] = after = min(latest, before_next)
    return times


def last_duration(pts: Sequence[int], times: Sequence[int], end: int) -> int:
    """Return the duration to write of the last packet in coded order, so that all of them last until ``end``."""
    if are_true(pts, times, end):
        return shown_for(pts, end)[pts[-1]]
    return max(shown_for(pts, end)[pts[-1]], end - min(pts) - (times[-1] - times[0]))
