"""Text on screen: RapidOCR's detector (DBNet, Apache-2.0, weights in its wheel) on first, middle and last evidence.

SVD detects text with CRAFT on the first, middle and last frame of a clip and adds up the boxes' area (arXiv 2311.15127,
App. C); more than 7 % of the frame is too much there. Here the area is of the boxes' union, so that overlapping boxes do
not count twice, and a box counts only when it has the shape of a line of text, in any script: the detector also boxes single
rings and crosses, and whole frames of stripes.
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
from dailies.curation.schema import field
from dailies.curation.types import Evidence, EvidenceFrame, Resources

POSITIONS = ("first", "middle", "last")


@dataclass(frozen=True, kw_only=True, config=SPEC)
class TextScorer:
    """The share of the picture that is text.

    Args:
        side: of the longer side at which the detector looks, px.
        aspect: least length of a box over its height to count as text.
        height: most height of a box to count as text, as a share of the frame's.
    """

    side: Annotated[int, Field(ge=32)] = 640
    aspect: Annotated[float, Field(ge=0)] = 1.5
    height: Annotated[float, Field(gt=0, le=1)] = 0.3

    identity: ClassVar[str] = "curation.scorers.text.Text"
    meaning: ClassVar[int] = 1
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
        quads = detector(rgb[..., ::-1], use_det=True, use_cls=False, use_rec=False).boxes
        if quads is None:
            return 0.0, 0
        boxes = [box for box in np.asarray(quads, np.float32) if self._is_line(box, rgb.shape[0])]
        return union_area(boxes, rgb.shape[0], rgb.shape[1]), len(boxes)

    def _is_line(self, box_42: NDArray[Any], frame_height: int) -> bool:
        height, length = sorted(cv2.minAreaRect(box_42)[1])
        return bool(height <= self.height * frame_height and length >= self.aspect * max(height, 1.0))


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
    import rapidocr

    folder = Path(rapidocr.__file__).parent / "models"
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
