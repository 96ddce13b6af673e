"""DBNet finds text: RapidOCR's weights (Apache-2.0, in its wheel) by onnxruntime, and boxes from its map.

The network gives each pixel the probability that it is of the core of a line of text (arXiv 1911.08947). A core is the line's
box shrunk on every side by D = A (1 - r²) / L, of area A and perimeter L, with r = 0.4 in the paper. ``grown`` solves this for
the box; the paper's own way back, a multiple of the core's A / L, errs by up to a tenth more, by how long the line is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from dailies.curation.errors import NotInstalled
from dailies.curation.packages import install_line, package_folder

CORE = 0.3  # least probability of a core's pixel
SCORE = 0.6  # least mean probability in the rectangle about a core
SHRUNK = 0.78  # 1 - r² of cores above ``CORE``, by lines of known boxes 40 to 80 px high; labels were made with 0.84
FULL = 0.65  # least share of the rectangle about a core that is core: lines have 0.8 or more, stars and crosses 0.6
FINE = 2  # pixels that areas are counted in, to a px: those that an edge touches count as a whole
BRIDGE = 7  # px: what joins a core to another is narrower
MULTIPLE = 32  # px of both sides of what the network takes
SMALLEST = 3  # px of a core's height


class Box(NamedTuple):
    """A text box: ``corners_42`` x and y in px of the picture, in order around it, and the detector's score, 0 to 1."""

    corners_42: NDArray[np.float32]
    score: float

    @property
    def height(self) -> float:
        """Its shorter side, px."""
        return min(self._sides)

    @property
    def length(self) -> float:
        """Its longer side, px."""
        return max(self._sides)

    @property
    def _sides(self) -> tuple[float, float]:
        along, down = self.corners_42[1] - self.corners_42[0], self.corners_42[2] - self.corners_42[1]
        return float(np.hypot(*along)), float(np.hypot(*down))


class DBNet:
    """The network, opened on one thread: parallelism is over clips."""

    def __init__(self) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session: Any = onnxruntime.InferenceSession(
            str(model_path()), options, providers=["CPUExecutionProvider"]
        )
        self._input: str = self._session.get_inputs()[0].name

    def map(self, rgb: NDArray[np.uint8], zoom: float) -> NDArray[np.float32]:
        """Return the probability of a core at each pixel of the picture scaled by ``zoom``."""
        height, width = (max(1, round(side * zoom)) for side in rgb.shape[:2])
        scaled = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA if zoom < 1 else cv2.INTER_CUBIC)
        down, across = (-side % MULTIPLE for side in (height, width))
        padded = cv2.copyMakeBorder(scaled, 0, down, 0, across, cv2.BORDER_REPLICATE)
        # The network takes BGR from -1 to 1.
        pixels = cv2.dnn.blobFromImage(padded, 1 / 127.5, mean=(127.5, 127.5, 127.5), swapRB=True)
        probabilities: NDArray[np.float32] = self._session.run(None, {self._input: pixels})[0][0, 0]
        return probabilities[:height, :width]

    def boxes(self, rgb: NDArray[np.uint8], zoom: float, score: float = SCORE) -> list[Box]:
        """Return the text boxes in a picture (h, w, 3), in its px; ``zoom``: at what scale the network looks at it."""
        map_hw = self.map(rgb, zoom)
        scale = np.array([rgb.shape[1] / map_hw.shape[1], rgb.shape[0] / map_hw.shape[0]], np.float32)
        edge = np.array([rgb.shape[1], rgb.shape[0]], np.float32)
        return [
            Box(np.clip(box.corners_42 * scale, 0, edge).astype(np.float32), box.score)
            for box in boxes_in(map_hw, score=score)
        ]


def boxes_in(map_hw: NDArray[np.float32], *, core: float = CORE, score: float = SCORE) -> list[Box]:
    """Return the boxes whose cores a map of probabilities shows, in px of the map; a pixel is one px wide."""
    cores = (map_hw > core).astype(np.uint8)
    boxes, joined = _boxes_of(cores, map_hw, score)
    if joined:
        # What is joined to something else by a bridge, which is narrower than a core, is a line without it.
        mask = np.zeros_like(cores)
        cv2.drawContours(mask, joined, -1, 1, cv2.FILLED)
        parts = cv2.morphologyEx(mask & cores, cv2.MORPH_OPEN, np.ones((BRIDGE, BRIDGE), np.uint8))
        boxes += _boxes_of(parts, map_hw, score)[0]
    return boxes


def _boxes_of(
    cores: NDArray[np.uint8], map_hw: NDArray[np.float32], score: float
) -> tuple[list[Box], list[NDArray[np.int32]]]:
    """Return the boxes of cores (h, w) that are full, and the contours of those that are not."""
    contours, _ = cv2.findContours(cores, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    boxes, others = [], []
    for contour in contours:
        centre, (width, height), angle = cv2.minAreaRect(contour)
        width, height = width + 1, height + 1  # the contour runs through the middles of its pixels
        if min(width, height) < SMALLEST:
            continue
        mean, pixels = _inside(map_hw, contour, cv2.boxPoints((centre, (width - 1, height - 1), angle)))
        if mean < score or pixels < FULL * width * height:
            others.append(np.asarray(contour, np.int32))
            continue
        # Of a line that waves or is bent, the rectangle is too high: the area over the length is its height.
        long, high = max(width, height), pixels / max(width, height)
        by = grown(long, high)
        size = (long + by, high + by) if width >= height else (high + by, long + by)
        boxes.append(Box(np.asarray(cv2.boxPoints((centre, size, angle)) + 0.5, np.float32), mean))
    return boxes, others


def grown(length: float, height: float, shrunk: float = SHRUNK) -> float:
    """Return by how much the sides of a core's box are longer than the core's, px: twice D.

    Of a box of sides l + d and h + d, d is ``shrunk`` (l + d)(h + d) / (l + h + 2 d), which is an equation of second degree.
    """
    a, b, c = 2 - shrunk, (1 - shrunk) * (length + height), shrunk * length * height
    return (math.sqrt(b * b + 4 * a * c) - b) / (2 * a)


def _inside(map_hw: NDArray[np.float32], contour: NDArray[Any], rectangle: NDArray[Any]) -> tuple[float, int]:
    """Return the mean of the map in the rectangle about a contour, which is low for rings and crosses, and the contour's
    area, px."""
    left, top, width, height = cv2.boundingRect(np.round(rectangle).astype(np.int32))
    right, bottom = min(left + width, map_hw.shape[1]), min(top + height, map_hw.shape[0])
    left, top = max(left, 0), max(top, 0)
    mask = np.zeros((bottom - top, right - left), np.uint8)
    cv2.fillPoly(mask, [np.round(rectangle - (left, top)).astype(np.int32)], 1)
    mean = float(cv2.mean(np.ascontiguousarray(map_hw[top:bottom, left:right]), mask)[0])
    mask[:] = 0
    cv2.fillPoly(mask, [contour - np.array([left, top], np.int32)], 1)
    return mean, int(mask.sum())


def union_area(boxes_n42: Sequence[NDArray[Any]], height: int, width: int) -> float:
    """Return share of a ``height`` x ``width`` frame that lies under any of the quadrilaterals (n, 4, 2) in px."""
    mask = np.zeros((FINE * height, FINE * width), np.uint8)
    for box in boxes_n42:
        cv2.fillPoly(mask, [np.round((FINE * np.asarray(box) - 0.5) * 16).astype(np.int32)], 1, shift=4)
    return float(mask.mean())


def model_path() -> Path:
    """Return the detector's weights, inside RapidOCR's wheel. Raises ``NotInstalled`` where they are not there."""
    folder = package_folder("rapidocr") / "models"
    models = sorted(folder.glob("*_det_*.onnx"))
    if len(models) != 1:
        raise NotInstalled(
            f"{folder}: holds {len(models)} text detectors, not one; install it anew: {install_line(['rapidocr'])}"
        )
    return models[0]
