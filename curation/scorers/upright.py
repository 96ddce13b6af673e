"""What a text box holds, turned level and scaled to one height, so that lengths are shares of a line's height."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

LEVEL = 2.0  # degrees: a box that is turned less is of a level line, whose ends it would smear otherwise


class LevelPatch(NamedTuple):
    """``rgb`` (h, w, 3) around a level box, which lies ``margin`` px within it, and the matrix (2, 3) back to the frame."""

    rgb: NDArray[np.uint8]
    margin: int
    back_23: NDArray[np.float64]

    def corners(self, left: float, top: float, right: float, bottom: float) -> NDArray[np.float32]:
        """Return the corners (4, 2) of a rectangle in px of the frame; an edge between two pixels is a whole number."""
        here = np.array([(left, top), (right, top), (right, bottom), (left, bottom)]) - 0.5
        return np.asarray(here @ self.back_23[:, :2].T + self.back_23[:, 2] + 0.5, np.float32)


def upright(rgb: NDArray[np.uint8], box_42: NDArray[np.float32], high: int, margin: int) -> LevelPatch:
    """Return the box's part of ``rgb`` (h, w, 3) and ``margin`` px around it, where the box is ``high`` px high."""
    (x, y), (length, height), angle = cv2.minAreaRect(box_42)
    if length < height:
        length, height, angle = height, length, angle + 90
    near = 90.0 * round(angle / 90)
    zoom = high / max(height, 1.0)
    size = (max(round(length * zoom), 1) + 2 * margin, high + 2 * margin)
    there_23 = cv2.getRotationMatrix2D((x - 0.5, y - 0.5), near if abs(angle - near) < LEVEL else angle, zoom)
    there_23[:, 2] += (np.array(size) - 1) / 2 - (x - 0.5, y - 0.5)
    around = cv2.warpAffine(rgb, there_23, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return LevelPatch(np.asarray(around, np.uint8), margin, cv2.invertAffineTransform(there_23))
