"""The technical quality of a clip's pictures, from first, middle and last evidence; no weights.

Evidence is scaled down and compressed as JPEG, so nothing here tells of the source's noise or blocks: the observer
``artifacts`` reads these off whole decoded frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic.dataclasses import dataclass

from dailies.curation import video
from dailies.curation.config import SPEC
from dailies.curation.schema import field
from dailies.curation.scorers.text import first_middle_last
from dailies.curation.types import Evidence, Resources

DARK, BRIGHT = 16, 239  # luma: what is below has no shadows left, what is above no lights, as in video's own range
BLUR = 9  # px: the length of the mean that a picture is blurred by to see how sharp it was


@dataclass(frozen=True, kw_only=True, config=SPEC)
class TechnicalScorer:
    """Sharpness, exposure, colourfulness, contrast and black, by formulas."""

    identity: ClassVar[str] = "curation.scorers.technical.Technical"
    meaning: ClassVar[int] = 1
    columns: ClassVar[tuple[pa.Field, ...]] = (
        field(
            "technical_sharpness",
            pa.float64(),
            "1 less the blur effect of Crété-Roffet et al. 2007, mean of three frames; 0 is blurred, contrast does not count",
            "0-1",
        ),
        field(
            "exposure",
            pa.float64(),
            f"share of pixels with a luma from {DARK} to {BRIGHT}, neither crushed nor blown out, mean of three frames",
            "share of frame",
        ),
        field("colourfulness", pa.float64(), "M3 of Hasler and Süsstrunk 2003, mean of three frames; 0 is gray", "M3"),
        field("contrast", pa.float64(), "standard deviation of luma (RMS contrast), mean of three frames", "0-255"),
        field(
            "black_share",
            pa.float64(),
            f"most pixels with a luma below {DARK} on one of three frames",
            "share of frame",
        ),
    )
    needs: ClassVar[tuple[str, ...]] = ()
    requires: ClassVar[tuple[str, ...]] = ()
    models: ClassVar[tuple[str, ...]] = ()
    resources: ClassVar[Resources] = Resources(cpus=1, memory_gb=1)

    def weights(self) -> None:
        return None

    @contextmanager
    def open(self) -> Iterator[Callable[[Sequence[Evidence]], pa.Table]]:
        def score(evidence: Sequence[Evidence]) -> pa.Table:
            return pa.Table.from_pylist([_row(clip) for clip in evidence], schema=pa.schema(list(self.columns)))

        yield score


def _row(clip: Evidence) -> dict[str, Any]:
    looked = first_middle_last(clip.frames)
    of = {frame.pts: measured(video.unjpeg(frame.jpeg)) for frame in dict.fromkeys(looked)}
    frames = [of[frame.pts] for frame in looked]
    return {name: (max if name == "black_share" else np.mean)([frame[name] for frame in frames]) for name in frames[0]}


def measured(rgb: NDArray[np.uint8]) -> dict[str, float]:
    """Return the columns of one picture (h, w, 3)."""
    luma = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    dark, bright = float((luma < DARK).mean()), float((luma > BRIGHT).mean())
    return {
        "technical_sharpness": sharpness(luma),
        "exposure": 1 - dark - bright,
        "colourfulness": colourfulness(rgb),
        "contrast": float(luma.std()),
        "black_share": dark,
    }


def sharpness(luma_hw: NDArray[np.uint8]) -> float:
    """Return how much of the difference between neighbours a blur takes away, 0 to 1: none of what is blurred already.

    The blur effect (Crété-Roffet, Dolmiere, Ladret and Nicolas, "The blur effect: perception and estimation with a new
    no-reference perceptual blur metric", 2007) is (S - V) / S of the sums S of |D(f)| and V of max(0, |D(f)| - |D(b)|), where
    D is the difference of neighbours in one direction and b is f blurred in it; the greater of both directions counts. A plain
    picture has no differences: it counts as blurred.
    """
    blurs = []
    picture = luma_hw.astype(np.float32)
    for axis, size in ((0, (1, BLUR)), (1, (BLUR, 1))):
        if picture.shape[axis] < 2:
            continue
        there = np.abs(np.diff(picture, axis=axis))
        left = np.abs(np.diff(cv2.blur(picture, size, borderType=cv2.BORDER_REFLECT), axis=axis))
        total = float(there.sum(dtype=np.float64))
        lost = float(np.maximum(there - left, 0).sum(dtype=np.float64))
        blurs.append(1 - lost / total if total else 1.0)
    return 1 - max(blurs, default=1.0)


def colourfulness(rgb: NDArray[np.uint8]) -> float:
    """Return M3 of Hasler and Süsstrunk, "Measuring colourfulness in natural images", 2003.

    With rg = R - G and yb = (R + G) / 2 - B it is sqrt(sd(rg)² + sd(yb)²) + 0.3 sqrt(mean(rg)² + mean(yb)²): 15 is slightly
    colourful, 59 quite, 109 extremely.
    """
    red, green, blue = (rgb[..., channel].astype(np.float32) for channel in range(3))
    rg, yb = red - green, (red + green) / 2 - blue
    spread = float(np.hypot(rg.std(dtype=np.float64), yb.std(dtype=np.float64)))
    return spread + 0.3 * float(np.hypot(rg.mean(dtype=np.float64), yb.mean(dtype=np.float64)))
