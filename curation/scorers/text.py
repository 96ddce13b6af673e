"""Text on screen, on first, middle and last evidence: RapidOCR's detector (DBNet), or CRAFT as SVD used it.

SVD detects text with CRAFT on the first, middle and last frame of a clip and adds up the boxes' area (arXiv 2311.15127,
App. C); more than 7 % of the frame is too much there. Here the area is of the boxes' union, so that overlapping boxes do
not count twice. CRAFT looks at the three frames whole, and each of its boxes counts. A box of RapidOCR's counts only when it
has the shape of a line of text, in any script, or is a title (``titles``); where a line stands on a plate close about it, the
plate counts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, ClassVar

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from dailies.curation import video
from dailies.curation.config import SPEC, GpuShare
from dailies.curation.schema import field
from dailies.curation.scorers import state_dict
from dailies.curation.scorers.craft import Craft, check_file, check_tensors, is_weights
from dailies.curation.scorers.dbnet import Box, DBNet, model_path, union_area
from dailies.curation.scorers.looks import TextDetector, is_high, look
from dailies.curation.scorers.overlay import static_share
from dailies.curation.scorers.plates import plate_about
from dailies.curation.scorers.strokes import strokes
from dailies.curation.scorers.titles import titles
from dailies.curation.types import Evidence, EvidenceFrame, Resources

POSITIONS = ("first", "middle", "last")
STROKES = 3  # least strokes of a line along which the frame's edge runs: a ring that is cut has 2
BORDER = 0.2  # of the frame's height, at the top and at the bottom: where subtitles, tickers and most logos stand

BOX = pa.struct(
    [
        field("position", pa.string(), "first, middle or last: the frame that it is on"),
        field(
            "corners",
            pa.list_(pa.float32()),
            "x and y of four corners in order around it, as shares of width and height",
        ),
    ]
)


@dataclass(frozen=True, kw_only=True, config=SPEC)
class TextScorer:
    """The share of the picture that is text.

    Args:
        side: of the longer side at which the detector looks at a whole frame, px.
        aspect: least length of a box over its height to count as text. CRAFT's boxes all count.
        height: most height of a box to count as a line at once, as a share of the frame's; a higher one is looked at again.
            CRAFT's count at once.
        craft: a file with CRAFT's weights, in place of RapidOCR's detector: the state dict that is published as
            craft_mlt_25k.pth.
        gpus: what one worker gets for CRAFT, a share of one such as 0.25 or whole ones; with none it runs on the CPU.
    """

    side: Annotated[int, Field(ge=32)] = 640
    aspect: Annotated[float, Field(ge=0)] = 1.5
    height: Annotated[float, Field(gt=0, le=1)] = 0.3
    craft: Annotated[str, AfterValidator(is_weights)] | None = dataclasses.field(default=None, metadata={"later": True})
    gpus: GpuShare = dataclasses.field(default=0, metadata={"meaning": False})

    identity: ClassVar[str] = "curation.scorers.text.Text"
    meaning: ClassVar[int] = 4
    columns: ClassVar[tuple[pa.Field, ...]] = (
        field("text_area", pa.float64(), "largest of the three shares below", "share of frame"),
        *(
            field(
                f"text_area_{position}", pa.float64(), f"text boxes on the {position} evidence frame", "share of frame"
            )
            for position in POSITIONS
        ),
        field("text_boxes", pa.int32(), "most boxes on one of the three", "box"),
        field("text_area_mean", pa.float64(), "mean of the three shares", "share of frame"),
        field(
            "text_border",
            pa.float64(),
            "most text on one of the three within the upper and the lower fifth of the frame, as subtitles are",
            "share of frame",
        ),
        field(
            "text_static",
            pa.float64(),
            "what stays in place over all evidence frames while the picture about it changes, such as a logo, text or not; "
            "null where too little of the picture changes to tell",
            "share of frame",
        ),
        field("text_quads", pa.list_(BOX), "the boxes on the three frames", "share of frame"),
    )
    needs: ClassVar[tuple[str, ...]] = ()
    models: ClassVar[tuple[str, ...]] = ()  # ``craft`` is a file, and no model of the zoo

    def __post_init__(self) -> None:
        if self.gpus and self.craft is None:
            raise ValueError(
                f"gpus={self.gpus:g}: RapidOCR's detector runs on the CPU; give craft too, or leave gpus out"
            )

    @property
    def requires(self) -> tuple[str, ...]:
        """The packages of the detector that is chosen."""
        return ("safetensors", "torch") if self.craft else ("rapidocr",)

    @property
    def resources(self) -> Resources:
        return Resources(cpus=1, gpus=self.gpus, memory_gb=2 if self.craft else 1)

    def weights(self) -> str:
        """Return the sha256 of the detector's file. Raises ``UsageError`` as ``check`` does."""
        self.check()
        return state_dict.fingerprint(self.craft or model_path())

    def check(self) -> None:
        """Raise ``UsageError`` where CRAFT's file is none, or of another network, where torch is there to tell."""
        if self.craft:
            check_file(self.craft)
            if find_spec("torch"):
                check_tensors(self.craft, Path(self.craft).stat().st_mtime_ns)

    @contextmanager
    def open(self) -> Iterator[Callable[[Sequence[Evidence]], pa.Table]]:
        detector = Craft(self.craft, gpu=self.gpus > 0) if self.craft else _load()

        def score(evidence: Sequence[Evidence]) -> pa.Table:
            rows = [self._clip(detector, clip) for clip in evidence]
            return pa.Table.from_pylist(rows, schema=pa.schema(list(self.columns)))

        yield score

    def _clip(self, detector: TextDetector, clip: Evidence) -> dict[str, Any]:
        looked = first_middle_last(clip.frames)
        pictures = {frame.pts: video.unjpeg(frame.jpeg) for frame in dict.fromkeys(looked)}
        texts = dict(zip(pictures, self._texts_of(detector, list(pictures.values())), strict=True))
        return {
            **_row([pictures[frame.pts].shape[:2] for frame in looked], [texts[frame.pts] for frame in looked]),
            "text_static": static_share(
                pictures[frame.pts] if frame.pts in pictures else video.unjpeg(frame.jpeg) for frame in clip.frames
            ),
        }

    def _texts_of(
        self, detector: TextDetector, pictures: Sequence[NDArray[np.uint8]]
    ) -> list[list[NDArray[np.float32]]]:
        """Return the boxes (4, 2) of text on each of a clip's pictures (h, w, 3), in px."""
        if self.craft:
            wholes = [detector.boxes(rgb, self.side / max(rgb.shape[:2])) for rgb in pictures]
            return [[box.corners_42 for box in boxes] for boxes in wholes]
        boxes_of = look(detector, pictures, self.side, self.height)
        return [self._texts(detector, rgb, boxes) for rgb, boxes in zip(pictures, boxes_of, strict=True)]

    def _texts(
        self, detector: TextDetector, rgb: NDArray[np.uint8], candidates: Sequence[Box]
    ) -> list[NDArray[np.float32]]:
        """Return those boxes (4, 2) in px that are lines of text, or titles."""
        boxes = [
            box.corners_42
            for box in candidates
            if self._is_line(box.corners_42, rgb.shape[0])
            and (not _is_cut(box.corners_42, rgb) or strokes(rgb, box.corners_42) >= STROKES)
        ]
        high = [box for box in candidates if is_high(box, rgb, self.height)]
        return [_with_plate(rgb, box) for box in boxes] + [
            box.corners_42 for box in titles(detector, rgb, high, self.side)
        ]

    def _is_line(self, box_42: NDArray[Any], frame_height: int) -> bool:
        height, length = _high_and_long(box_42)
        return bool(height <= self.height * frame_height and length >= self.aspect * max(height, 1.0))


def _high_and_long(box_42: NDArray[Any]) -> tuple[float, float]:
    """Return a box's height, which is its shorter side, and its length, in px."""
    height, length = sorted(cv2.minAreaRect(box_42)[1])
    return float(height), float(length)


def _is_cut(box_42: NDArray[Any], rgb: NDArray[np.uint8]) -> bool:
    """Return whether the frame's edge runs along a box: half a ring there has the shape of a line."""
    (left, top), (right, bottom) = box_42.min(0), box_42.max(0)
    height, width = rgb.shape[:2]
    if right - left < bottom - top:
        return bool(left < 1 or right > width - 1)
    return bool(top < 1 or bottom > height - 1)


def _with_plate(rgb: NDArray[np.uint8], box_42: NDArray[np.float32]) -> NDArray[np.float32]:
    plate = plate_about(rgb, box_42)
    return box_42 if plate is None else plate


def first_middle_last(frames: Sequence[EvidenceFrame]) -> tuple[EvidenceFrame, EvidenceFrame, EvidenceFrame]:
    """Return the three evidence frames that SVD's filters look at; of fewer than three, some come twice."""
    return frames[0], frames[len(frames) // 2], frames[-1]


def _row(sizes: Sequence[tuple[int, int]], boxes: Sequence[Sequence[NDArray[np.float32]]]) -> dict[str, Any]:
    """Return the columns of the boxes (4, 2) in px on each of the three frames, whose sizes are (height, width)."""
    areas = [union_area(each, *size) for each, size in zip(boxes, sizes, strict=True)]
    bands = [border_area(each, *size) for each, size in zip(boxes, sizes, strict=True)]
    return {
        "text_area": max(areas),
        **{f"text_area_{position}": area for position, area in zip(POSITIONS, areas, strict=True)},
        "text_boxes": max(len(each) for each in boxes),
        "text_area_mean": sum(areas) / len(areas),
        "text_border": max(bands),
        "text_quads": [
            {"position": position, "corners": np.clip(box / (width, height), 0, 1).ravel().tolist()}
            for position, each, (height, width) in zip(POSITIONS, boxes, sizes, strict=True)
            for box in each
        ],
    }


def border_area(boxes_n42: Sequence[NDArray[Any]], height: int, width: int) -> float:
    """Return the share of a frame that lies under boxes in its upper and lower ``BORDER``."""
    band = round(BORDER * height)
    lower = [np.asarray(box) - np.array([0, height - band]) for box in boxes_n42]
    return (union_area(boxes_n42, band, width) + union_area(lower, band, width)) * band / height if band else 0.0


def _load() -> TextDetector:
    return DBNet()
