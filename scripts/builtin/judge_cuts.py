"""What thresholds cost and bring on random footage that the cut network has not learnt from.

    python -m scripts.builtin.judge_cuts --kept FOLDER [--chunks 15]

``--kept``: the folder of ``train_cuts``, whose first twentieth it holds out. That footage is far harder than most: a cut every
second or two, often within one scene, and something that fools detectors in most shots.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dailies.curation.detectors.boundary import BoundaryDetector, runs
from dailies.curation.observers.boundary import NETWORK_FILE, STEP, TRACKS, strengths
from dailies.curation.types import Cut, Track

Floats = NDArray[np.float32]
Labels = NDArray[np.uint8]  # (N, 3): see ``train_cuts.labels``
LEVELS = (0.3, 0.5, 0.7, 0.8, 0.85, 0.9, 0.95)


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Counts of found, missed and false ones, of hard cuts and of gradual transitions."""

    cuts: tuple[int, int, int]
    gradual: tuple[int, int, int]

    def __str__(self) -> str:
        shares = [hits / max(1, hits + missed) for hits, missed, _ in (self.cuts, self.gradual)]
        return f"{shares[0]:12.3f} {self.cuts[2]:11d} {shares[1]:15.3f} {self.gradual[2]:14d}"


def judge(detector: BoundaryDetector, seen: Sequence[Floats], truth: Sequence[Labels]) -> Judged:
    """``seen``: (N, 3) strengths of each sequence."""
    counts = np.zeros((2, 3), int)
    for values, labels in zip(seen, truth, strict=True):
        pts = np.arange(len(values))
        tracks = [Track(name=name, pts=pts, values=values[:, i]) for i, name in enumerate(TRACKS)]
        tracks.append(Track(name=STEP, pts=pts, values=np.zeros(len(pts), np.float32)))
        free = [(_place(cut), cut.core is not None) for cut in detector.cuts({track.name: track for track in tracks})]
        events = [(first, last, True) for first, last in runs(labels[:, 2] > 0)]
        events += [(at, at, False) for at in np.flatnonzero(labels[:, 0]).tolist()]
        for first, last, gradual in sorted(events):
            near = [one for one in free if first - 1 <= one[0] <= last + 1]
            counts[int(gradual), 0 if near else 1] += 1
            if near:
                free.remove(near[0])
        for _, gradual in free:
            counts[int(gradual), 2] += 1
    of_cuts, of_gradual = ((int(a), int(b), int(c)) for a, b, c in counts)
    return Judged(cuts=of_cuts, gradual=of_gradual)


def _place(cut: Cut) -> float:
    return (cut.core[0] + cut.core[1]) / 2 if cut.core else cut.end


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kept", type=Path, required=True)
    parser.add_argument("--chunks", type=int, default=15)
    parser.add_argument("--network", type=Path, default=NETWORK_FILE)
    args = parser.parse_args()
    seen, truth = [], []
    for number in range(args.chunks):
        with np.load(args.kept / f"cuts-{number}.npz") as data:
            seen += [strengths(x.astype(np.float32), args.network) for x in data["x"]]
            truth += list(data["y"])
    for name in ("gradual", "hard"):
        print(f"{name:<8} cuts found  false cuts   gradual found  false gradual")
        for level in LEVELS:
            detector = BoundaryDetector(gradual=level) if name == "gradual" else BoundaryDetector(hard=level)
            print(f"{level:<6}", judge(detector, seen, truth))


if __name__ == "__main__":
    main()
