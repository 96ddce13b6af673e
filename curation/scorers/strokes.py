"""How many strokes a line of letters has, which single shapes have few of."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from dailies.curation.scorers.upright import upright

HIGH = 64  # px of a box's height at which strokes are counted
FULLEST = 75  # percentile of the rows by which they are counted: above letters, and between two lines, there are none


def strokes(rgb: NDArray[np.uint8], box_42: NDArray[np.float32]) -> float:
    """Return how many strokes a row of the box crosses: runs of pixels unlike its border, in three of four rows at most."""
    inside = cv2.GaussianBlur(upright(rgb, box_42, HIGH, 0).rgb, (0, 0), 1)
    ground = np.median(np.concatenate([inside[0], inside[-1], inside[:, 0], inside[:, -1]]), axis=0)
    off = np.abs(inside.astype(np.float32) - ground).max(-1).astype(np.uint8)
    _, ink = cv2.threshold(off, 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    ink = cv2.morphologyEx(ink, cv2.MORPH_OPEN, np.ones((1, 3), np.uint8))
    begins = np.diff(ink.astype(np.int8), axis=1, prepend=0) == 1
    return float(np.percentile(begins.sum(1), FULLEST))
