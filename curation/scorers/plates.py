"""The plate that a line of text stands on: a plain rectangle close about it, which hides the picture as the letters do.

A detector of text finds letters, and its boxes end somewhere between them and the edges of the plate.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dailies.curation.scorers.upright import upright

HIGH = 48  # px of a line's height at which its surroundings are looked at
INWARDS, OUTWARDS = 0.3, 0.45  # of a line's height: how far inside its box and outside a plate's edge may lie
ALIKE = 36  # steps of a channel: most difference of a plate's pixel from its colour; some let the picture through
PLAIN, OTHER = 0.8, 0.65  # share of a row of the plate that has its colour, at least; and of a row beyond it, at most
EDGE = 4  # px at ``HIGH``: an edge is no wider, with letters of ten px and what compression does to them


def plate_about(rgb: NDArray[np.uint8], box_42: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """Return the corners (4, 2) px of the plate under a line of text in ``rgb`` (h, w, 3) with the box ``box_42``.

    None where one of four sides has no edge near the box: text on the picture itself, on a wall, on a bar across the frame.
    """
    around = upright(rgb, box_42, HIGH, round(OUTWARDS * HIGH) + EDGE)
    margin = around.margin
    inside = around.rgb[margin:-margin, margin:-margin].reshape(-1, 3)
    off = np.abs(around.rgb.astype(np.float32) - np.median(inside, axis=0)).max(-1)
    up, down = _edge(off[::-1, margin:-margin], margin), _edge(off[:, margin:-margin], margin)
    if up is None or down is None:
        return None
    height, width = off.shape
    columns = off[round(height - up) : round(down)].T
    left, right = _edge(columns[::-1], margin), _edge(columns, margin)
    if left is None or right is None:
        return None
    return around.corners(width - left, height - up, right, down)


def _edge(off: NDArray[np.float32], margin: int) -> float | None:
    """Return where a plate ends, towards the last of the rows (n, m) of which ``off`` says how far they are off its colour.

    The box ends ``margin`` rows before the last. Of several edges it is the one nearest to that, where the mean is halfway
    between the plate's and that of what follows.
    """
    alike, mean = (off <= ALIKE).mean(1), off.mean(1)
    box = len(off) - margin
    ends = [
        end
        for end in range(max(box - round(INWARDS * HIGH), EDGE), box + round(OUTWARDS * HIGH) + 1)
        if alike[end - EDGE : end - EDGE + 2].min() >= PLAIN and alike[end : end + 2].max() <= OTHER
    ]
    if not ends:
        return None
    first = min(ends, key=lambda end: abs(end - box)) - EDGE
    rising = np.maximum.accumulate(mean[first : first + EDGE + 2])
    return float(first + 0.5 + np.interp((rising[0] + rising[-1]) / 2, rising, np.arange(len(rising))))
