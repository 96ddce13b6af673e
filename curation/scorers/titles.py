"""Which high boxes are titles: RapidOCR's detector boxes single rings, pairs of shapes and frames of stripes, too.

A box that is too high for a line is looked at again in the same frame, shrunk in the middle of a plain one. Letters are found
there too; a disc or a wall has no edges in its middle, those of stripes all run one way, and a ring beside a cross is crossed
by few strokes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dailies.curation.scorers.dbnet import Box
from dailies.curation.scorers.looks import TextDetector
from dailies.curation.scorers.strokes import strokes

FARTHER = 3  # by what a frame with a high box is shrunk: a title as high as the frame is then a third of it
SURE = (0.8, 0.7)  # least score of a high box as it is and shrunk: titles have 0.85 and 0.74 or more, walls 0.6 at most
BLOCK = 1.2  # least length over height of a high box: two lines close together are one, and a ring has 1.16 at most
ONE_WAY = 0.9  # coherence of edges, from 0 to 1: stripes have 0.99 or more, letters 0.65 at most
EDGES = 200.0  # least mean square of the gradient, in steps of luma by Sobel: compression leaves less on what is plain
MOST = 0.8  # share of the frame: a box about more is of a texture, or of a blurred picture, not of letters
STROKES = 4  # least strokes along a title: two shapes have 3 at most, UP and NO have 4


def titles(detector: TextDetector, rgb: NDArray[np.uint8], high: Sequence[Box], side: int) -> list[Box]:
    """Return those of a frame's high boxes that are titles. ``side``: px of the longer side at which the detector looks."""
    may_be = [box for box in high if box.score >= SURE[0] and _is_block(box) and _has_letters(box, rgb)]
    if not may_be:
        return []
    again = [box for box in _from_farther_away(detector, rgb, side) if box.score >= SURE[1] and _is_block(box)]
    return [box for box in may_be if any(_holds(other.corners_42, box.corners_42.mean(0)) for other in again)]


def _has_letters(box: Box, rgb: NDArray[np.uint8]) -> bool:
    """Return whether the pixels in a box may be letters, by the ways and the number of their edges."""
    if box.length * box.height > MOST * rgb.shape[0] * rgb.shape[1]:
        return False
    return coherence(rgb, box.corners_42) < ONE_WAY and strokes(rgb, box.corners_42) >= STROKES


def _is_block(box: Box) -> bool:
    return box.length >= BLOCK * box.height


def _holds(box_42: NDArray[Any], point_2: NDArray[Any]) -> bool:
    return cv2.pointPolygonTest(np.asarray(box_42, np.float32), tuple(map(float, point_2)), False) >= 0


def _from_farther_away(detector: TextDetector, rgb: NDArray[np.uint8], side: int) -> list[Box]:
    """Return what the detector finds in the frame shrunk in the middle of a plain one; boxes are in px of ``rgb``."""
    height, width = rgb.shape[:2]
    small = (max(1, width // FARTHER), max(1, height // FARTHER))
    left, top = (width - small[0]) // 2, (height - small[1]) // 2
    ground = np.empty_like(rgb)
    ground[:] = np.median(np.concatenate([rgb[0], rgb[-1], rgb[:, 0], rgb[:, -1]]), axis=0)
    ground[top : top + small[1], left : left + small[0]] = cv2.resize(rgb, small, interpolation=cv2.INTER_AREA)
    scale = np.array([width / small[0], height / small[1]], np.float32)
    boxes = detector.boxes(ground, side / max(height, width))
    return [Box((box.corners_42 - np.array([left, top], np.float32)) * scale, box.score) for box in boxes]


def coherence(rgb: NDArray[np.uint8], box_42: NDArray[Any]) -> float:
    """Return how far the edges in the middle of a box run one way: 1 in stripes, 0 where every direction is as common.

    It is (a - b) / (a + b) of the eigenvalues a >= b of the structure tensor, the sum of the gradients' outer products; 1
    also where there is hardly an edge, as in the middle of a bright thing.
    """
    left, top, width, height = cv2.boundingRect(np.round(box_42).astype(np.int32))
    inner = rgb[
        max(0, top + height // 5) : top + height - height // 5, max(0, left + width // 5) : left + width - width // 5
    ]
    if not inner.size:
        return 1.0
    gray = cv2.cvtColor(inner, cv2.COLOR_RGB2GRAY)
    across, down = cv2.Sobel(gray, cv2.CV_32F, 1, 0), cv2.Sobel(gray, cv2.CV_32F, 0, 1)
    xx, yy, xy = (float((a * b).mean(dtype=np.float64)) for a, b in ((across, across), (down, down), (across, down)))
    return float(np.hypot(xx - yy, 2 * xy) / (xx + yy)) if xx + yy >= EDGES else 1.0
