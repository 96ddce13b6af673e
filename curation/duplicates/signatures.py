"""A clip's signature: a small gray picture of each of its evidence frames, by which copies of it are found.

A picture is 16×16 block means of luma, whatever the frame's size and shape, so that resizing, cropping of bars and coding anew
leave it much as it was. Where black bars lie around the picture in every frame, there is a second one of what lies within:
bars in a dark scene are told one way in a clip and another way in its copy, and one of the two kinds still agrees.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic.dataclasses import dataclass

from dailies.curation import video
from dailies.curation.config import SPEC
from dailies.curation.schema import field
from dailies.curation.types import Evidence, Resources

SIDE = 16  # blocks along each side of a picture
PIXELS = SIDE * SIDE
LOOKED = 256  # px: frames are brought to this square before bars are looked for; a row is then 1/256 of the picture
BLACK = 32  # luma, of 255: the most that a bar has, but for specks; black is 0 to 16, and coding rings around what is bright
SPECKS = 0.02  # of a row or column of a bar
MOST_BARS = (
    0.4  # of the height or width that the bar of one side may take; a scene that is black altogether has no bars
)


@dataclass(frozen=True, kw_only=True, config=SPEC)
class FrameSignatures:
    """Small gray pictures of each clip's evidence, by which its copies are found."""

    identity: ClassVar[str] = "curation.duplicates.signatures.FrameSignatures"
    meaning: ClassVar[int] = 1
    columns: ClassVar[tuple[pa.Field, ...]] = (
        field("seconds", pa.list_(pa.float32()), "of each evidence frame, from the clip's start on", "s"),
        field("pictures", pa.list_(pa.binary()), "of each, 16×16 block means of luma, row by row"),
        field("inner", pa.list_(pa.binary()), "the same within black bars; null where there are none"),
        field(
            "bars", pa.list_(pa.int32()), "at top, bottom, left and right; null where there are none", "1/256 of side"
        ),
    )
    needs: ClassVar[tuple[str, ...]] = ()
    requires: ClassVar[tuple[str, ...]] = ()
    models: ClassVar[tuple[str, ...]] = ()
    resources: ClassVar[Resources] = Resources(cpus=1, memory_gb=0.5)

    def weights(self) -> None:
        return None

    @contextmanager
    def open(self) -> Iterator[Callable[[Sequence[Evidence]], pa.Table]]:
        def sign(evidence: Sequence[Evidence]) -> pa.Table:
            rows = [_row(clip) for clip in evidence]
            return pa.Table.from_pylist(rows, schema=pa.schema(list(self.columns)))

        yield sign


def _row(clip: Evidence) -> dict[str, object]:
    looked = np.stack([_square(frame.jpeg) for frame in clip.frames])
    top, bottom, left, right = bars(looked)
    inner = None
    if top or bottom or left or right:
        within = looked[:, top : LOOKED - bottom, left : LOOKED - right]
        inner = [blocks(picture).tobytes() for picture in within]
    return {
        "seconds": [float((frame.pts - clip.span.start) * clip.span.time_base) for frame in clip.frames],
        "pictures": [blocks(picture).tobytes() for picture in looked],
        "inner": inner,
        "bars": None if inner is None else [top, bottom, left, right],
    }


def _square(jpeg: bytes) -> NDArray[np.uint8]:
    gray = cv2.cvtColor(video.unjpeg(jpeg), cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.resize(gray, (LOOKED, LOOKED), interpolation=cv2.INTER_AREA), np.uint8)


def blocks(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a gray picture's means over ``SIDE`` × ``SIDE`` blocks."""
    return np.asarray(cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.uint8)


def bars(frames: NDArray[np.uint8]) -> tuple[int, int, int, int]:
    """Return the rows and columns at top, bottom, left and right that are black in all of these frames (t, h, w) of luma."""
    bright = frames > BLACK
    rows = (bright.mean(2) <= SPECKS).all(0)
    columns = (bright.mean(1) <= SPECKS).all(0)
    sides = (_run(rows), _run(rows[::-1]), _run(columns), _run(columns[::-1]))
    most = int(MOST_BARS * len(rows))
    return (0, 0, 0, 0) if max(sides) > most else sides


def _run(black: NDArray[np.bool_]) -> int:
    """Return how many entries are true before the first that is not."""
    return len(black) if black.all() else int(np.argmin(black))


def inside(bars: Sequence[int] | None) -> NDArray[np.bool_]:
    """Return which of a picture's blocks lie wholly outside of ``bars``, row by row."""
    told = np.zeros((SIDE, SIDE), bool)
    top, bottom, left, right = (-(-bar * SIDE // LOOKED) for bar in bars or (0, 0, 0, 0))
    told[top : SIDE - bottom, left : SIDE - right] = True
    return told.ravel()
