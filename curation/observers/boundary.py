"""The boundary observer gives the strengths of hard cuts and gradual transitions, from a small network over likeness.

Frames are compared on two grids out of one decode. The track ``boundary`` is each frame's distance from the one seen before,
which tells exactly between which two frames a cut lies. On a grid of 12 a second, frames near and far are compared in many
ways (``likeness``), and four small networks, averaged, read those measures with 1.3 seconds on either
side. Several rates fused are what SVD's cascade of detectors is for (arXiv 2311.15127, App. C). The networks are
one graph in ``boundary.onnx``, which ``scripts/builtin/train_cuts.py`` trained on random footage with known transitions
(``docs/cuts.md``) and which onnxruntime runs in about half the time of the same sums in numpy (``docs/performance.md``).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic.dataclasses import dataclass

from dailies.curation.config import SPEC
from dailies.curation.observers import likeness
from dailies.curation.observers.likeness import LOOK, Described, Floats
from dailies.curation.observers.tracking import Fps, Recorder
from dailies.curation.timing import Grid, Span, ticks
from dailies.curation.types import Frame, FrameSampling, Probe, Track

NETWORK_FILE = Path(__file__).with_name("boundary.onnx")
STEP = "boundary"
TRACKS = ("boundary_cut", "boundary_middle", "boundary_blend")
HELD_TRACK = "boundary_held"  # only of sources with pauses
PAUSE = Fraction(3, 4)  # seconds between samples from which on the one before is held
HELD = 12  # samples that it is held for
HELD_CUT = 0.8  # strength after a pause that is as good as 0.5 elsewhere
# The same of shorter pauses, as between slides at two a second. Footage at that rate moves far, and is not to be cut.
BRIEF = Fraction(2, 5)
BRIEF_HELD = 4
BRIEF_CUT = 0.98
CHUNK = 96  # samples described at a time
BLOCK = 4096  # samples that the network sees at a time
CONTEXT = 16  # samples on either side that an output depends on: the sum of the network's dilations 1, 2, 4, 8 and 1


@dataclass(frozen=True, kw_only=True, config=SPEC)
class BoundaryObserver:
    """Where shots meet: strengths of hard cuts and gradual transitions, by a small network.

    Args:
        fps: samples a second; the network was trained at 12.
    """

    fps: Fps = 12.0

    identity: ClassVar[str] = "curation.observers.boundary.Boundary"
    meaning: ClassVar[int] = 3
    measures: ClassVar[tuple[pa.Field, ...]] = ()

    @property
    def name(self) -> str:
        return "boundary"

    @property
    def needs(self) -> FrameSampling:
        return FrameSampling(fps=None, short_side=likeness.HEIGHT, planes="bgr")

    @property
    def lookback(self) -> float:
        # Decoders that skip frames may leave three samples a second, of sources of twelve or more.
        return (LOOK + CONTEXT) / 3

    def start(self, probe: Probe) -> _BoundaryPass:
        return _BoundaryPass(self.fps, probe)

    def reduce(self, tracks: Mapping[str, Track], span: Span) -> Mapping[str, float | None]:
        return {}


class _BoundaryPass:
    """Records the steps from frame to frame, and gives samples to be measured."""

    def __init__(self, fps: float, probe: Probe) -> None:
        self._grid = Grid(fps, probe.time_base)
        self._steps = Recorder(STEP)
        self._last: NDArray[np.uint8] | None = None
        self._pts: list[int] = []
        self._samples = _Measured()
        self._held = _Held(probe.time_base)

    def see(self, frame: Frame) -> None:
        thumb = likeness.thumbnail(frame.pixels)
        step = math.nan if self._last is None else cv2.norm(thumb, self._last, cv2.NORM_L1) / thumb.size
        self._steps.add(frame.pts, step)
        self._last = thumb
        if self._grid.due(frame.pts):
            self._pts.append(frame.pts)
            self._samples.add(thumb)
            self._held.see(frame.pts, thumb)

    def finish(self) -> Sequence[Track]:
        pts, values = np.asarray(self._pts, np.int64), self._samples.strengths()
        after_pauses = self._held.track()
        tracks = [Track(name=name, pts=pts, values=values[:, i]) for i, name in enumerate(TRACKS)]
        return (self._steps.track(), *tracks, *([after_pauses] if len(after_pauses.pts) else []))


class _Measured:
    """Describes samples as they come and keeps the vectors of as many as have yet to be compared."""

    def __init__(self) -> None:
        self._waiting: list[NDArray[np.uint8]] = []
        self._described: Described | None = None  # the last samples, at most 2 · LOOK + CHUNK
        self._first = 0  # which sample the first of them is
        self._done: list[Floats] = []  # rows of measures
        self._rows = 0
        self.count = 0

    def add(self, thumb: NDArray[np.uint8]) -> None:
        """Take the next sample."""
        self.count += 1
        self._waiting.append(thumb)
        if len(self._waiting) == CHUNK:
            self._measure(last=False)

    def _measure(self, *, last: bool) -> None:
        """Describe the waiting samples, and measure the boundaries with enough samples on both sides."""
        if self._waiting:
            new = likeness.describe(np.stack(self._waiting))
            self._described = new if self._described is None else likeness.joined([self._described, new])
            self._waiting.clear()
        if self._described is None:
            return
        until = self._first + len(self._described) - (0 if last else LOOK)
        if until > self._rows:
            rows = likeness.measures(self._described)[self._rows - self._first : until - self._first]
            self._done.append(rows)
            self._rows = until
        spare = max(0, self._rows - LOOK - self._first)
        self._described, self._first = self._described[slice(spare, None)], self._first + spare

    def strengths(self) -> Floats:
        """Return what the network says of all samples, (N, 3), once the last one is taken."""
        self._measure(last=True)
        return strengths(np.concatenate(self._done)) if self._done else np.empty((0, len(TRACKS)), np.float32)


class _Held:
    """Looks at samples after a pause as a viewer does: the one before stays on the screen all the while.

    The network knows 12 samples a second. Of slides, or at one frame a second, each sample differs from the next, and
    they look to it like a fast pan unless each is repeated while it is shown.
    """

    def __init__(self, time_base: Fraction) -> None:
        self._pauses = ticks(BRIEF, time_base), ticks(PAUSE, time_base)
        self._recent: deque[tuple[int, NDArray[np.uint8]]] = deque(maxlen=LOOK + CONTEXT)
        self._run: _Measured | None = None
        self._places: list[tuple[int, int, float]] = []  # in the run: pts after a pause, which sample, as good as 0.5
        self._repeats = 0  # of the sample before the last pause
        self._since = 0  # samples since the last pause
        self._values: list[tuple[int, float]] = []

    def see(self, pts: int, thumb: NDArray[np.uint8]) -> None:
        """Take the next sample."""
        pause = pts - self._recent[-1][0] if self._recent else 0
        paused, long = (pause >= least for least in self._pauses)
        if paused and self._run is None:
            self._run = _Measured()
            for _, earlier in self._recent:
                self._run.add(earlier)
        if self._run is not None:
            if paused:
                self._repeats = (HELD if long else BRIEF_HELD) - 1
                for _ in range(self._repeats):
                    self._run.add(self._recent[-1][1])
                self._places.append((pts, self._run.count, HELD_CUT if long else BRIEF_CUT))
            self._run.add(thumb)
            self._since = 0 if paused else self._since + 1
            if self._since > LOOK + CONTEXT:
                self._close()
        self._recent.append((pts, thumb))

    def _close(self) -> None:
        if self._run is not None:
            cut = self._run.strengths()[:, 0].astype(np.float64)
            odds = cut / np.maximum(1 - cut, 1e-6)
            for pts, at, even in self._places:
                # Much moves in a second: what is as likely as HELD_CUT there is as likely as not.
                fair = odds[at] * (1 - even) / even
                self._values.append((pts, float(fair / (1 + fair))))
        self._run, self._places, self._since = None, [], 0

    def track(self) -> Track:
        """Return how likely a hard cut is at each sample after a pause, once the last one is taken."""
        if self._run is not None and not self._since:
            for _ in range(self._repeats):
                self._run.add(self._recent[-1][1])
        self._close()
        pts, values = zip(*self._values, strict=True) if self._values else ((), ())
        return Track(name=HELD_TRACK, pts=np.asarray(pts, np.int64), values=np.asarray(values, np.float32))


# ---- the network ----------------------------------------------------------------------------------------------------


@lru_cache(maxsize=2)
def _session(path: Path) -> Any:
    """Load the network to run on one thread: parallelism is over sources."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def strengths(measures: Floats, path: Path = NETWORK_FILE) -> Floats:
    """Return (N, 3) probabilities, columns as ``TRACKS``, for (N, 105) measures, columns as ``likeness.NAMES``: a hard cut
    right before the sample, the middle of a gradual transition right before it, the sample is a blend of two shots.
    """
    session, rows = _session(path), np.asarray(measures, np.float32)
    out = np.empty((len(rows), len(TRACKS)), np.float32)
    for start in range(0, len(rows), BLOCK):
        low, high = max(0, start - CONTEXT), min(len(rows), start + BLOCK + CONTEXT)
        (piece,) = session.run(None, {"measures": rows[low:high]})
        out[start : start + BLOCK] = piece[start - low : start - low + BLOCK]
    return out
