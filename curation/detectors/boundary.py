"""The boundary detector thresholds the boundary network's tracks and places cuts by the frame-to-frame step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass

from dailies.curation.config import SPEC
from dailies.curation.observers.boundary import HELD_TRACK, STEP, TRACKS
from dailies.curation.types import Cut, Track

Floats = NDArray[np.float32]
MIDDLE = 0.25  # least strength of a transition's middle: a run of blends without one is motion


Strength = Annotated[float, Field(gt=0, lt=1)]


@dataclass(frozen=True, kw_only=True, config=SPEC)
class BoundaryDetector:
    """Cuts where the observer's network is sure enough; lower thresholds find more, false cuts included.

    Strengths are 0 to 1.

    Args:
        hard: least strength of a hard cut.
        gradual: least strength of a gradual transition at its strongest sample.
        edge: a transition reaches as far as samples are a blend with at least this strength.
        guard: samples (12 a second) added to a transition on either side.
    """

    hard: Strength = 0.5
    gradual: Strength = 0.9
    edge: Strength = 0.1
    guard: Annotated[int, Field(ge=0, le=100)] = 1

    name: ClassVar[str] = "boundary"
    identity: ClassVar[str] = "curation.cuts.boundary.Boundary"
    meaning: ClassVar[int] = 2
    observers: ClassVar[tuple[str, ...]] = ("boundary",)

    def cuts(self, tracks: Mapping[str, Track]) -> list[Cut]:
        """Return hard cuts and transitions in order of time, none overlapping another."""
        step, cut = tracks[STEP], tracks["boundary_cut"]
        if len(cut.pts) < 2:
            return []
        blends = self._blends(tracks)
        hard = [
            at
            for at in self._hard(cut, step, tracks.get(HELD_TRACK))
            if not any(blend.start < at.end <= blend.end for blend in blends)
        ]
        return sorted([*blends, *hard], key=lambda at: at.start)

    # ---- hard cuts ----

    def _hard(self, cut: Track, step: Track, after_pauses: Track | None) -> list[Cut]:
        """Return a cut for each sample that passes and is the strongest of its neighbours, placed by the steps around it.

        After a pause every sample that passes is one: ``after_pauses`` says how strong.
        """
        passing = {
            at: float(cut.values[at])
            for at in np.flatnonzero(cut.values >= self.hard).tolist()
            if at
            and cut.values[at] >= cut.values[at - 1 : at + 2].max()
            and (at == 1 or cut.values[at] != cut.values[at - 1])
        }
        if after_pauses is not None:
            for pts, strength in zip(after_pauses.pts, after_pauses.values, strict=True):
                if strength >= self.hard:
                    at = int(np.searchsorted(cut.pts, pts))
                    passing[at] = max(passing.get(at, 0.0), float(strength))
        cuts = []
        for at, strength in sorted(passing.items()):
            start, end = _place(step, int(cut.pts[at - 1]), int(cut.pts[at]))
            cuts.append(Cut(start=start, end=end, kind="cut", detector=self.name, strength=strength / self.hard))
        return cuts

    # ---- gradual transitions ----

    def _blends(self, tracks: Mapping[str, Track]) -> list[Cut]:
        cut, middle, blend = (tracks[name] for name in TRACKS)
        pts = cut.pts
        blends: list[Cut] = []
        for first, last in runs(blend.values >= self.edge):
            peak = float(blend.values[first : last + 1].max())
            # A fade in from nothing or out to nothing has no middle; its last sample may be nothing.
            at_an_end = first <= 1 or last >= len(pts) - 2
            if peak < self.gradual or not (at_an_end or middle.values[first : last + 2].max() >= MIDDLE):
                continue
            # Samples stand for the frames up to the next ones.
            old, new = max(0, first - 1 - self.guard), min(len(pts) - 1, last + 1 + self.guard)
            blends.append(
                Cut(
                    start=int(pts[old]),
                    end=int(pts[new]),
                    kind="fade" if at_an_end else "dissolve",
                    detector=self.name,
                    strength=peak / self.gradual,
                    core=_core(pts[first : last + 1], blend.values[first : last + 1]),
                )
            )
        return _merged(blends)


def _place(step: Track, before: int, after: int) -> tuple[int, int]:
    """Return the two decoded frames between which the largest step lies, from the frame at ``before`` to that at ``after``."""
    first, last = np.searchsorted(step.pts, (before, after))
    at = int(first) + 1 + int(np.argmax(step.values[first + 1 : last + 1]))
    return int(step.pts[at - 1]), int(step.pts[at])


def runs(high: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return the first and last index of each run of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], high, [False]]).astype(np.int8)))
    return [(int(a), int(b) - 1) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _core(pts: NDArray[np.int64], blend: Floats) -> tuple[int, int]:
    """Return first and last of the samples around the strongest that are more likely blends than not."""
    peak = int(blend.argmax())
    ((first, last),) = [run for run in runs(blend >= min(0.5, float(blend[peak]))) if run[0] <= peak <= run[1]]
    return int(pts[first]), int(pts[last])


def _merged(blends: list[Cut]) -> list[Cut]:
    """Merge those that overlap; the result takes kind and strength of the strongest at which shots meet."""
    out: list[Cut] = []
    for span in blends:
        if out and span.start < out[-1].end:
            last = out.pop()
            best = max(last, span, key=lambda cut: (cut.kind != "fade", cut.strength))
            span = replace(best, start=last.start, end=max(last.end, span.end))
        out.append(span)
    return out
