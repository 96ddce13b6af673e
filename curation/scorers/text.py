"""Text on screen: RapidOCR's detector (DBNet, Apache-2.0, weights in its wheel) on first, middle and last evidence.

SVD detects text with CRAFT on the first, middle and last frame of a clip and adds up the boxes' area (arXiv 2311.15127,
App. C); more than 7 % of the frame is too much there. Here the area is of the boxes' union, so that overlapping boxes do
not count twice, and a box counts only when it has the shape of a line of text, in any script: the detector also boxes single
rings and crosses, and whole frames of stripes.

A box that is too high for a line is looked at again in the same frame, shrunk in the middle of a plain one. Letters are found
there too; a disc or a wall has no edges in its middle, and those of stripes all run one way.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, ClassVar

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass

from dailies.curation import video
from dailies.curation.config import SPEC
from dailies.curation.packages import package_folder
from dailies.curation.schema import field
from dailies.curation.types import Evidence, EvidenceFrame, Resources

POSITIONS = ("first", "middle", "last")
FARTHER = 3  # by what a frame with a high box is shrunk: a title as high as the frame is then a third of it
SURE = (0.8, 0.7)  # least score of a high box as it is and shrunk: titles have 0.85 and 0.74 or more, walls 0.6 at most
BLOCK = 1.2  # least length over height of a high box: two lines close together are one, and a ring has 1.16 at most
ONE_WAY = 0.9  # coherence of edges, from 0 to 1: stripes have 0.99 or more, letters 0.65 at most
EDGES = 200.0  # least mean square of the gradient, in steps of luma by Sobel: compression leaves less on what is plain


@dataclass(frozen=True, kw_only=True, config=SPEC)
class TextScorer:
    """The share of the picture that is text.

    Args:
        side: of the longer side at which the detector looks, px.
        aspect: least length of a box over its height to count as text.
        height: most height of a box to count as a line at once, as a share of the frame's; a higher one is looked at again.
    """

    side: Annotated[int, Field(ge=32)] = 640
    aspect: Annotated[float, Field(ge=0)] = 1.5
    height: Annotated[float, Field(gt=0, le=1)] = 0.3

    identity: ClassVar[str] = "curation.scorers.text.Text"
    meaning: ClassVar[int] = 2
    columns: ClassVar[tuple[pa.Field, ...]] = (
        field("text_area", pa.float64(), "largest of the three shares below", "share of frame"),
        *(
            field(
                f"text_area_{position}", pa.float64(), f"text boxes on the {position} evidence frame", "share of frame"
            )
            for position in POSITIONS
        ),
        field("text_boxes", pa.int32(), "most boxes on one of the three", "box"),
    )
    needs: ClassVar[tuple[str, ...]] = ()
    requires: ClassVar[tuple[str, ...]] = ("rapidocr",)
    models: ClassVar[tuple[str, ...]] = ()
    resources: ClassVar[Resources] = Resources(cpus=1, memory_gb=1)

    def weights(self) -> str:
        return hashlib.sha256(_model_path().read_bytes()).hexdigest()

    @contextmanager
    def open(self) -> Iterator[Callable[[Sequence[Evidence]], pa.Table]]:
        detector = _load(self.side)

        def score(evidence: Sequence[Evidence]) -> pa.Table:
            rows = []
            for clip in evidence:
                looked = first_middle_last(clip.frames)
                measured = {frame.pts: self._look(detector, frame) for frame in dict.fromkeys(looked)}
                rows.append(_row([measured[frame.pts] for frame in looked]))
            return pa.Table.from_pylist(rows, schema=pa.schema(list(self.columns)))

        yield score

    def _look(self, detector: Any, frame: EvidenceFrame) -> tuple[float, int]:
        """Union of the text boxes as a share of the frame, and how many there are."""
        rgb = video.unjpeg(frame.jpeg)
        detected = _detected(detector, rgb)
        boxes = [box for box, _ in detected if self._is_line(box, rgb.shape[0])]
        high = [box for box, score in detected if score >= SURE[0] and self._may_be_title(box, rgb)]
        if high:
            titles = [box for box, score in _from_farther_away(detector, rgb) if score >= SURE[1] and _is_block(box)]
            boxes += [box for box in high if any(_holds(title, box.mean(0)) for title in titles)]
        return union_area(boxes, rgb.shape[0], rgb.shape[1]), len(boxes)

    def _may_be_title(self, box_42: NDArray[Any], rgb: NDArray[np.uint8]) -> bool:
        height, _ = _high_and_long(box_42)
        return height > self.height * rgb.shape[0] and _is_block(box_42) and coherence(rgb, box_42) < ONE_WAY

    def _is_line(self, box_42: NDArray[Any], frame_height: int) -> bool:
        height, length = _high_and_long(box_42)
        return bool(height <= self.height * frame_height and length >= self.aspect * max(height, 1.0))


def _detected(detector: Any, rgb: NDArray[np.uint8]) -> list[tuple[NDArray[np.float32], float]]:
    """Return the boxes (4, 2) in px that the detector finds, with its score of each."""
    output = detector(rgb[..., ::-1], use_det=True, use_cls=False, use_rec=False)
    if output.boxes is None:
        return []
    return list(zip(np.asarray(output.boxes, np.float32), map(float, output.scores), strict=True))


def _high_and_long(box_42: NDArray[Any]) -> tuple[float, float]:
    """Return a box's height, which is its shorter side, and its length, in px."""
    height, length = sorted(cv2.minAreaRect(box_42)[1])
    return float(height), float(length)


def _is_block(box_42: NDArray[Any]) -> bool:
    height, length = _high_and_long(box_42)
    return length >= BLOCK * height


def _holds(box_42: NDArray[Any], point_2: NDArray[Any]) -> bool:
    return cv2.pointPolygonTest(np.asarray(box_42, np.float32), tuple(map(float, point_2)), False) >= 0


def _from_farther_away(detector: Any, rgb: NDArray[np.uint8]) -> list[tuple[NDArray[np.float32], float]]:
    """Return what the detector finds in the frame shrunk in the middle of a plain one; boxes are in px of ``rgb``."""
    height, width = rgb.shape[:2]
    small = (max(1, width // FARTHER), max(1, height // FARTHER))
    left, top = (width - small[0]) // 2, (height - small[1]) // 2
    ground = np.empty_like(rgb)
    ground[:] = np.median(np.concatenate([rgb[0], rgb[-1], rgb[:, 0], rgb[:, -1]]), axis=0)
    ground[top : top + small[1], left : left + small[0]] = cv2.resize(rgb, small, interpolation=cv2.INTER_AREA)
    scale = np.array([width / small[0], height / small[1]], np.float32)
    return [((box - np.array([left, top], np.float32)) * scale, score) for box, score in _detected(detector, ground)]


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


def first_middle_last(frames: Sequence[EvidenceFrame]) -> tuple[EvidenceFrame, EvidenceFrame, EvidenceFrame]:
    """Return the three evidence frames that SVD's filters look at; of fewer than three, some come twice."""
    return frames[0], frames[len(frames) // 2], frames[-1]


def _row(measured: Sequence[tuple[float, int]]) -> dict[str, Any]:
    areas = [area for area, _ in measured]
    return {
        "text_area": max(areas),
        **{f"text_area_{position}": area for position, area in zip(POSITIONS, areas, strict=True)},
        "text_boxes": max(count for _, count in measured),
    }


def union_area(boxes_n42: Sequence[NDArray[Any]], height: int, width: int) -> float:
    """Return share of a ``height`` x ``width`` frame that lies under any of the quadrilaterals (n, 4, 2) in px."""
    mask = np.zeros((height, width), np.uint8)
    for box in boxes_n42:
        cv2.fillPoly(mask, [np.round(box).astype(np.int32)], 1)
    return float(mask.mean())


def _model_path() -> Path:
    """Return the detector's weights, inside RapidOCR's wheel."""
    folder = package_folder("rapidocr") / "models"
    models = sorted(folder.glob("*_det_*.onnx"))
    if len(models) != 1:
        raise FileNotFoundError(
            f"{folder}: holds {len(models)} text detectors, not one: {[path.name for path in models]}"
        )
    return models[0]


def _load(side: int) -> Any:
    from rapidocr import RapidOCR

    return RapidOCR(
        params={
            "Global.use_cls": False,
            "Global.log_level": "critical",
            "Global.use_rec": False,
            "Det.model_path": str(_model_path()),
            "Det.limit_type": "max",
            "Det.limit_side_len": side,
            # One worker has one core; parallelism is over clips.
            "EngineConfig.onnxruntime.intra_op_num_threads": 1,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
        }
    )
