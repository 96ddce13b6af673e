"""Cuts from change at three frame rates at once: what SVD's cascade is for, without running three detectors.

Hard cuts are spikes between neighbouring frames. Gradual transitions are told from motion by *straightness*: in a dissolve,
a fade or a wipe each pixel goes from old to new once, so the change over half a second is close to the sum of the
changes on the way; where things move, pixels change back and forth and the sum is much larger. Flashes and dips to
black are told apart by luma.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from curation.observers.change import track_name
from curation.types import Cut, Track

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Fused:
    """Thresholds.

    ``hard``: change between neighbouring frames, 0–255. ``spike``: how many times the frames around it a hard cut must
    stand out. ``gradual``: change over one step of the slow rate, 0–255. ``straight``: that change over the sum of the changes
    at the middle rate within the step, 0–1; ``contrast``: how many times faster such a step must change than the livelier
    shot beside it; ``plateau``: from which contrast on it need not be straight (a push moves). ``widen``: how fast the
    middle rate must change, as a share of the step's mean, to belong to the transition. ``slow_fps``, ``middle_fps``: the
    rates; the middle one a multiple of the slow. ``flash_seconds``: longest flash. ``black``: luma under which a frame counts
    as black, 0–255. ``guard_seconds``: given up on either side of a gradual transition, whose first and last blended
    frames hardly differ from the shots'.
    """

    hard: float = 15.0
    spike: float = 3.0
    gradual: float = 20.0
    straight: float = 0.6
    contrast: float = 1.0
    plateau: float = 3.0
    widen: float = 0.7
    slow_fps: float = 2.0
    middle_fps: float = 6.0
    flash_seconds: float = 0.2
    black: float = 20.0
    guard_seconds: float = 0.15

    meaning: ClassVar[int] = 1

    @property
    def tracks(self) -> tuple[str, ...]:
        return ("change", track_name(self.middle_fps), track_name(self.slow_fps), "luma")

    def cuts(self, tracks: Mapping[str, Track]) -> list[Cut]:
        source = _Source(tracks, self)
        hard = [source.hard_or_fade(frame) for frame in source.without_flashes(source.spikes())]
        spans = source.guarded(hard + source.gradual([span for span in hard if span.kind == "cut"]))
        return [
            Cut(
                start=int(source.pts[span.old]),
                end=int(source.pts[span.new]),
                kind=span.kind,
                detector="fused",
                strength=span.strength,
            )
            for span in _merged(spans)
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """Indexes of the old shot's last frame and the new shot's first."""

    old: int
    new: int
    kind: Literal["cut", "dissolve", "fade"]
    strength: float


class _Source:
    """One source's tracks by frame index."""

    def __init__(self, tracks: Mapping[str, Track], limits: Fused) -> None:
        self.limits = limits
        self.pts = tracks["change"].pts
        self.change = _known(tracks["change"])
        self.luma = _known(tracks["luma"])
        middle, slow = tracks[track_name(limits.middle_fps)], tracks[track_name(limits.slow_fps)]
        self.middle, self.middle_at = _known(middle), np.searchsorted(self.pts, middle.pts)
        self.slow, self.slow_at = _known(slow), np.searchsorted(self.pts, slow.pts)
        step = float(np.median(np.diff(self.slow_at))) if len(self.slow_at) > 1 else 1.0
        self.second = max(1.0, step * limits.slow_fps)  # frames in a second

    # ---- hard cuts and flashes ----

    def spikes(self) -> list[int]:
        """Frames that differ from the one before far more than their neighbours do: first frames of new shots."""
        change, count = self.change, len(self.change)
        padded = np.pad(change[1:], 2, constant_values=np.nan)
        around = np.stack([padded[offset : offset + count - 1] for offset in (0, 1, 3, 4)]) if count > 1 else None
        if around is None:
            return []
        known = np.maximum(np.isfinite(around).sum(axis=0), 1)
        mean = np.nansum(around, axis=0) / known
        high = (change[1:] >= self.limits.hard) & (change[1:] >= self.limits.spike * np.maximum(mean, 1.0))
        return [int(frame) + 1 for frame in np.flatnonzero(high)]

    def without_flashes(self, spikes: list[int]) -> list[int]:
        """Drop pairs of spikes between which luma leaves and comes back."""
        longest = max(4, round(self.limits.flash_seconds * self.second))
        flashes: set[int] = set()
        for number, rise in enumerate(spikes):
            for fall in spikes[number + 1 : number + 4]:
                if fall - rise <= longest and self._returns(rise, fall):
                    flashes |= {rise, fall}
        return [frame for frame in spikes if frame not in flashes]

    def _returns(self, rise: int, fall: int) -> bool:
        before, after = self.luma[max(0, rise - 2)], self.luma[min(len(self.luma) - 1, fall + 1)]
        within = float(self.luma[rise:fall].mean())
        away = max(abs(within - before), abs(within - after))
        return bool(abs(within - before) > 15 and abs(before - after) < 0.35 * away)

    # ---- fades ----

    def hard_or_fade(self, frame: int) -> _Found:
        """A spike between black frames is where a fade turns; elsewhere it is a hard cut."""
        strength = float(self.change[frame]) / self.limits.hard
        if min(self.luma[frame - 1], self.luma[frame]) >= self.limits.black:
            return _Found(old=frame - 1, new=frame, kind="cut", strength=strength)
        old, new = self._downhill(frame - 1, -1), self._downhill(frame, +1)
        kind: Literal["cut", "fade"] = "fade" if new - old > 3 else "cut"
        return _Found(old=old, new=new, kind=kind, strength=strength)

    def _downhill(self, frame: int, step: int) -> int:
        """Walk out of black for as long as luma rises, two seconds at most."""
        for _ in range(round(2 * self.second)):
            onward = frame + step
            if not 0 <= onward < len(self.luma) or self.luma[onward] <= self.luma[frame] + 0.3:
                break
            frame = onward
        return frame

    # ---- gradual transitions ----

    def guarded(self, spans: list[_Found]) -> list[_Found]:
        """Gradual spans with the guard on either side, as far as the source and the hard cuts around it let it."""
        guard = math.ceil(self.limits.guard_seconds * self.second)
        firm = sorted(span.new for span in spans if span.kind == "cut")
        out = []
        for span in spans:
            if span.kind != "cut":
                floor, ceiling = self._room(span.old, span.new, firm)
                span = replace(span, old=max(floor, span.old - guard), new=min(ceiling, span.new + guard))
            out.append(span)
        return out

    def _room(self, old: int, new: int, firm: list[int]) -> tuple[int, int]:
        """First and last frame between the hard cuts around ``[old, new]``."""
        floor = max((frame for frame in firm if frame <= old), default=0)
        return floor, min((frame - 1 for frame in firm if frame > new), default=len(self.pts) - 1)

    def gradual(self, hard: list[_Found]) -> list[_Found]:
        """Steps of the slow rate that change much and straight, joined and widened to where the change begins and ends."""
        firm = sorted(span.new for span in hard)
        out: list[_Found] = []
        for number in range(1, len(self.slow)):
            old, new = int(self.slow_at[number - 1]), int(self.slow_at[number])
            if self.slow[number] < self.limits.gradual or any(old < frame <= new for frame in firm):
                continue
            path = float(self.middle[self._between(old, new)].sum())
            contrast = self._contrast(old, new, firm)
            straight = self.slow[number] >= self.limits.straight * path and contrast >= self.limits.contrast
            if path > 0 and (straight or contrast >= self.limits.plateau):
                out.append(self._widened(old, new, firm, float(self.slow[number]) / self.limits.gradual))
        return _merged(out)

    def _between(self, old: int, new: int) -> NDArray[np.bool_]:
        """Which samples of the middle rate compare frames in ``[old, new]``."""
        return (self.middle_at > old) & (self.middle_at <= new)

    def _contrast(self, old: int, new: int, firm: list[int]) -> float:
        """How many times faster a step changes than the livelier of the shots around it; than the one there is at an end."""
        floor, ceiling = self._room(old, new, firm)
        step = round(self.second)
        before = self._between(max(floor, old - 2 * step), old - step // 2)
        after = self._between(new + step // 2, min(ceiling, new + 2 * step))
        quiet = [float(np.median(self.middle[side])) for side in (before, after) if side.any()]
        within = float(self.middle[self._between(old, new)].mean())
        return within / max([*quiet, 1.0])

    def _widened(self, old: int, new: int, firm: list[int], strength: float) -> _Found:
        """Widen by steps of the middle rate while they change at least half as fast as the transition, a second at most."""
        enough = self.limits.widen * float(self.middle[self._between(old, new)].mean())
        floor, ceiling = self._room(old, new, firm)
        at, first, last = self.middle_at, int(np.argmax(self.middle_at >= old)), int(np.argmax(self.middle_at >= new))
        for _ in range(round(self.limits.middle_fps)):
            if first > 0 and self.middle[first] >= enough:
                first -= 1
            if last + 1 < len(at) and self.middle[last + 1] >= enough:
                last += 1
        old, new = max(floor, int(at[first])), min(ceiling, int(at[last]))
        dark = float(self.luma[old : new + 1].min())
        fade = dark < self.limits.black and dark < 0.4 * min(self.luma[old], self.luma[new])
        return _Found(old=old, new=max(new, old + 1), kind="fade" if fade else "dissolve", strength=strength)


def _known(track: Track) -> Floats:
    """Values with the first frame's missing one as no change."""
    return np.nan_to_num(track.values.astype(np.float64))


def _merged(spans: list[_Found]) -> list[_Found]:
    """In order, with overlapping ones joined into the widest; the strongest names the kind, unless one is a fade."""
    out: list[_Found] = []
    for span in sorted(spans, key=lambda span: (span.old, span.new)):
        if out and span.old < out[-1].new:
            last = out.pop()
            named = last if last.kind == "fade" or (span.kind != "fade" and last.strength >= span.strength) else span
            kind = "dissolve" if named.kind == "cut" else named.kind
            strength = max(last.strength, span.strength)
            span = _Found(old=last.old, new=max(last.new, span.new), kind=kind, strength=strength)
        out.append(span)
    return out
