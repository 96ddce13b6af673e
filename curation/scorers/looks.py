"""How closely a text detector looks at the frames of a clip: a glance at each, and a close look where the glance saw something.

What a detector costs is the number of pixels that it looks at, and what it measures is best on letters of the size that it
learnt. So each frame is looked at small first; where that shows lines of text, in this frame or in another of the clip (a logo
stays where it is), these parts are cut out and looked at again, scaled so that the lines are ``LINE`` px high. A frame with
much text, or with a title, is looked at as a whole instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from dailies.curation.scorers.dbnet import Box

GLANCE = 320  # px of the longer side of a frame at a glance
HINT = 0.3  # least score at a glance: what it says is looked at again
CLEAR = 0.7  # least score of a line in a close look, where letters are of the size that it knows: a lone heart has 0.68
LINE = 66  # px of a line's height in a close look
CLOSEST = 2.0  # most zoom of a close look over that of a whole frame
SMALL = 0.005  # share of the frame: smaller lines are looked at no closer, as little hangs on their area
AROUND = 0.8  # of a line's height, how far a close look reaches past it on each side
SURE, BLOCK = 0.7, 1.2  # least score, and length over height, of what may be a title at a glance
LOOSE = 2.5  # px by which the boxes of small letters are too high, in px of the look
SAME = 2.5  # steps of luma: most difference of two frames, in blocks of 8 px, that show the same


class TextDetector(Protocol):
    """Finds text in a picture (h, w, 3) RGB that it looks at scaled by ``zoom``; boxes are in px of the picture."""

    def boxes(self, rgb: NDArray[np.uint8], zoom: float, score: float = ...) -> list[Box]: ...


class FramePart(NamedTuple):
    """A part of a frame that holds lines about ``line`` px high, the largest of them ``share`` of the frame; edges are
    px, right and bottom outside."""

    left: int
    top: int
    right: int
    bottom: int
    line: float
    share: float

    def zoom(self, whole: float) -> float:
        """Return at what scale to look at it; ``whole``: at what scale a whole frame is looked at."""
        return min(CLOSEST * whole, LINE / self.line) if self.share >= SMALL else whole

    def cost(self, whole: float) -> float:
        """Return how many pixels the detector then looks at."""
        return (self.right - self.left) * (self.bottom - self.top) * self.zoom(whole) ** 2

    def holds(self, box: Box) -> bool:
        """Return whether the middle of a box lies in it."""
        x, y = box.corners_42.mean(0)
        return bool(self.left <= x < self.right and self.top <= y < self.bottom)

    def joined(self, other: FramePart) -> FramePart | None:
        """Return one part for both where they touch and their lines are about as high; None where they are apart."""
        touch = (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )
        if not touch or max(self.line, other.line) > 1.5 * min(self.line, other.line):
            return None
        return FramePart(
            min(self.left, other.left),
            min(self.top, other.top),
            max(self.right, other.right),
            max(self.bottom, other.bottom),
            (self.line * other.line) ** 0.5,
            max(self.share, other.share),
        )


def look(detector: TextDetector, frames: Sequence[NDArray[np.uint8]], side: int, high: float) -> list[list[Box]]:
    """Return the boxes in each of a clip's frames (h, w, 3) RGB, in order.

    ``side``: px of a whole frame's longer side; ``high``: boxes above this share of a frame's height may be titles, for which
    the whole frame is looked at.

    The frame in the middle is looked at as a whole: a screen full of small letters shows at no glance.
    """
    first_like = [
        next(earlier for earlier in range(number + 1) if same(frames[earlier], frame))
        for number, frame in enumerate(frames)
    ]
    middle = first_like[len(frames) // 2]
    wholes: dict[int, list[Box]] = {}
    parts: list[FramePart] = []
    for number in dict.fromkeys(first_like):
        rgb = frames[number]
        whole, glance = (min(1.0, px / max(rgb.shape[:2])) for px in (side, min(GLANCE, side)))
        if number == middle:
            hints = wholes[number] = detector.boxes(rgb, whole)
        else:
            hints = detector.boxes(rgb, glance, HINT)
            if any(_may_be_title(box) for box in hints if is_high(box, rgb, high)):
                wholes[number] = detector.boxes(rgb, whole)
        zoom = whole if number == middle else glance
        parts += [part_of(box, rgb, zoom) for box in hints if not is_high(box, rgb, high)]
    parts = merged(parts)
    boxes_of = {
        number: _boxes(detector, frames[number], side, parts, wholes.get(number), high)
        for number in dict.fromkeys(first_like)
    }
    return [boxes_of[number] for number in first_like]


def _boxes(
    detector: TextDetector,
    rgb: NDArray[np.uint8],
    side: int,
    parts: Sequence[FramePart],
    whole: list[Box] | None,
    high: float,
) -> list[Box]:
    """Return the boxes of a frame: of its lines by close looks where these cost less than a look at the whole."""
    height, width = rgb.shape[:2]
    zoom = side / max(height, width)
    inside = [part for part in parts if part.right <= width and part.bottom <= height]
    if sum(part.cost(zoom) for part in inside) > height * width * zoom**2:
        return detector.boxes(rgb, zoom) if whole is None or zoom > 1 else whole
    boxes = [box for box in whole or () if is_high(box, rgb, high)]
    for part in inside:
        if whole is not None and part.share < SMALL:
            boxes += [box for box in whole if not is_high(box, rgb, high) and part.holds(box)]
        else:
            boxes += [box for box in close(detector, rgb, part, part.zoom(zoom)) if not is_high(box, rgb, high)]
    return boxes


def is_high(box: Box, rgb: NDArray[np.uint8], high: float) -> bool:
    """Return whether a box may be of a title that fills much of the frame, which a look at a part of it cannot tell."""
    return bool(box.height > high * rgb.shape[0])


def _may_be_title(box: Box) -> bool:
    return box.score >= SURE and box.length >= BLOCK * box.height


def same(this: NDArray[np.uint8], other: NDArray[np.uint8]) -> bool:
    """Return whether two frames show the same, so that one look does for both."""
    if this is other:
        return True
    if this.shape != other.shape:
        return False
    height, width = this.shape[:2]
    size = (max(1, width // 8), max(1, height // 8))
    small = [cv2.resize(each, size, interpolation=cv2.INTER_AREA).astype(np.float32) for each in (this, other)]
    return bool(np.abs(small[0] - small[1]).max() <= SAME)


def part_of(box: Box, rgb: NDArray[Any], zoom: float) -> FramePart:
    """Return the part of a frame about a box that was found at a scale of ``zoom``."""
    line = max(box.height - LOOSE / zoom, 1.0)
    around = AROUND * line
    left, top = np.floor(box.corners_42.min(0) - around).astype(int)
    right, bottom = np.ceil(box.corners_42.max(0) + around).astype(int)
    return FramePart(
        max(0, int(left)),
        max(0, int(top)),
        min(rgb.shape[1], int(right)),
        min(rgb.shape[0], int(bottom)),
        line,
        box.length * box.height / (rgb.shape[0] * rgb.shape[1]),
    )


def merged(parts: Sequence[FramePart]) -> list[FramePart]:
    """Return parts of which none touch whose lines are about as high."""
    apart: list[FramePart] = []
    for part in parts:
        while True:
            for number, other in enumerate(apart):
                if (both := part.joined(other)) is not None:
                    part = both
                    del apart[number]
                    break
            else:
                break
        apart.append(part)
    return apart


def close(detector: TextDetector, rgb: NDArray[np.uint8], part: FramePart, zoom: float) -> list[Box]:
    """Return what is found in a part, in px of the whole frame."""
    cut = np.ascontiguousarray(rgb[part.top : part.bottom, part.left : part.right])
    at = np.array([part.left, part.top], np.float32)
    return [Box(box.corners_42 + at, box.score) for box in detector.boxes(cut, zoom, CLEAR)]
