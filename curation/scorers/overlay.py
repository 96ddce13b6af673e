"""What stays in place over a clip while the picture changes: a watermark, a channel's logo, a frame about it, text or not.

An edge is of an overlay when it stays: its gradient is strong, and the same in all evidence frames. In a static shot every edge
stays, so most must change for anything to be told. The borders of black bars stay too, and are too thin to count.
"""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
from numpy.typing import NDArray

FRAMES = 3  # fewer are alike by chance
SIDE = 320  # px of the longer side at which frames are compared
EDGE = 12.0  # steps of luma a px: the least mean gradient of an edge that stays
STEADY = 0.9  # least length of the mean gradient over its mean length: 1 where all frames have the same
MOVING = (
    0.7  # share of the edges, and of the parts of the frame that have any, that must change for anything to be told
)
CELLS = 8  # parts of a frame across, and down
CLUSTER = 7  # px: edges of one logo are no farther apart
LEAST = 24  # px of edges in a cluster
OWN = 0.5  # least share of the edges within a cluster's box that stay: twigs before others stay by chance
THIN = 4  # px: a cluster that is no higher, or no wider, is a line
MOST = 0.25  # share of the frame in one cluster, above which it is no overlay


def static_share(pictures: Iterable[NDArray[np.uint8]]) -> float | None:
    """Return the share of the frame under what stays in place in all ``pictures`` of a clip, (h, w, 3), seen one by one.

    None where nothing can be told: of fewer than three pictures, or of several sizes, and where most of the picture stays.
    """
    gradients: _Gradients | None = None
    for picture in pictures:
        gray = _gray(picture)
        if gradients is None:
            gradients = _Gradients(gray.shape)
        if gray.shape != gradients.least.shape:
            return None
        gradients.add(gray)
    if gradients is None or gradients.count < FRAMES:
        return None
    mean, lengths = np.hypot(*(gradients.sums[:2] / gradients.count)), gradients.sums[2] / gradients.count
    edges = gradients.most >= EDGE
    staying = edges & (mean >= EDGE) & (mean >= STEADY * lengths) & (gradients.least >= mean / 2)
    if not _most_change(edges, staying):
        return None
    return _covered(edges, staying)


class _Gradients:
    """Gradients of the pictures so far: ``sums`` (3, h, w) across, down and of their lengths, ``least`` and ``most`` length."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.count = 0
        self.sums = np.zeros((3, *shape), np.float32)
        self.least, self.most = np.full(shape, np.inf, np.float32), np.zeros(shape, np.float32)

    def add(self, gray: NDArray[np.uint8]) -> None:
        across, down = (cv2.Sobel(gray, cv2.CV_32F, *way, scale=1 / 8) for way in ((1, 0), (0, 1)))
        length = np.hypot(across, down)
        for total, each in zip(self.sums, (across, down, length), strict=True):
            total += each
        np.minimum(self.least, length, out=self.least)
        np.maximum(self.most, length, out=self.most)
        self.count += 1


def _gray(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    gray = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    scale = SIDE / max(gray.shape)
    size = (max(1, round(gray.shape[1] * scale)), max(1, round(gray.shape[0] * scale)))
    return np.asarray(cv2.resize(gray, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR), np.uint8)


def _most_change(edges: NDArray[np.bool_], staying: NDArray[np.bool_]) -> bool:
    """Return whether most edges change, over most of the frame: a camera that stands still leaves half of it as it is."""
    if not edges.any() or staying.sum() > (1 - MOVING) * edges.sum():
        return False
    counts = [
        cv2.resize(each.astype(np.float32), (CELLS, CELLS), interpolation=cv2.INTER_AREA) for each in (edges, staying)
    ]
    busy = counts[0] > 0.01
    still = busy & (counts[1] > 0.25 * counts[0])
    return bool(still.sum() <= (1 - MOVING) * busy.sum())


def _covered(edges: NDArray[np.bool_], staying: NDArray[np.bool_]) -> float:
    """Return the share of the frame in the upright boxes about clusters of edges that stay."""
    grown = cv2.dilate(staying.astype(np.uint8), np.ones((CLUSTER, CLUSTER), np.uint8))
    count, labels = cv2.connectedComponents(grown)
    covered = np.zeros(edges.shape, bool)
    for label in range(1, count):
        down, across = np.nonzero(staying & (labels == label))
        if len(down) < LEAST or min(np.ptp(down), np.ptp(across)) < THIN:
            continue
        box = np.s_[down.min() : down.max() + 1, across.min() : across.max() + 1]
        if covered[box].size <= MOST * covered.size and staying[box].sum() >= OWN * edges[box].sum():
            covered[box] = True
    return float(covered.mean())
