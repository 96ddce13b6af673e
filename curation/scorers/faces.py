"""Faces, by a YOLOv8 detector in ONNX: what goes in, and how its output becomes boxes.

The steps are those of nudenet's own call (``nudenet/nudenet.py``, version 3.4.2), so that the numbers are its numbers: the
frame is filled up to a square with black and made as large as the network's input. Its channels go in as blue, green, red for
nudenet's own network, whose call hands them in so, and for any other as red, green, blue, as YOLOv8 is trained.
Of overlapping boxes of any class the surest stays, and those of a class that is a face remain.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dailies.curation.errors import UsageError, first_line, stopping_error

LEAST, OVERLAP = 0.25, 0.45  # nudenet's least score, and the share (IoU) above which two boxes are one thing
SIDE = 320  # px of the input where the network's file does not say
LARGEST_SIDE = 4096  # px that a file may say: as much as a picture is worth looking at
NUDENET = "c15d8273adad2d0a92f014cc69ab2d6c311a06777a55545f2c4eb46f51911f0f"  # sha256 of 320n.onnx in nudenet's wheel
EXTERNAL = b"\x0a\x08location\x12"  # the key of a ``StringStringEntryProto``, with the tag of its value
Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class FaceDetector:
    """A detector at work.

    ``classes``: which of its classes are faces; ``side``: of its square input, px; ``bgr``: whether it takes blue first.
    """

    session: Any
    classes: tuple[int, ...]
    side: int
    bgr: bool = False

    def __call__(self, rgb: NDArray[np.uint8]) -> Floats:
        """Return the faces on a frame (h, w, 3) as boxes (n, 4): left, top, width, height in px, inside the frame."""
        (name,) = (each.name for each in self.session.get_inputs())
        output = self.session.run(None, {name: blob(rgb, self.side, bgr=self.bgr)})[0]
        return decode(output[0], rgb.shape[0], rgb.shape[1], side=self.side, classes=self.classes)


def load_detector(path: Path, parameter: str) -> FaceDetector:
    """Load the detector in an ONNX file. Raises ``UsageError``, which names ``parameter``, for a file of something else."""
    session = load_onnx(path, parameter)
    told = session.get_modelmeta().custom_metadata_map
    shape = session.get_outputs()[0].shape
    names = _mapping(told.get("names", ""))
    classes = tuple(sorted(number for number, name in names.items() if "face" in str(name).lower()))
    if not classes or len(session.get_inputs()) != 1 or len(shape) != 3 or shape[1] != 4 + len(names):
        has = f"its classes are {', '.join(map(str, names.values()))}" if names else "it names no classes"
        raise UsageError(f"{parameter}={path}: not a YOLOv8 detector with a class of faces; {has}")
    side = _mapping(told.get("imgsz", "")).get(0, SIDE)
    if not isinstance(side, int) or not 32 <= side <= LARGEST_SIDE:
        raise UsageError(f"{parameter}={path}: its imgsz={side!r}: must be from 32 to {LARGEST_SIDE} px")
    with path.open("rb") as file:
        bgr = hashlib.file_digest(file, "sha256").hexdigest() == NUDENET
    return FaceDetector(session=session, classes=classes, side=side, bgr=bgr)


def load_onnx(path: Path, parameter: str) -> Any:
    """Open an ONNX file with one thread: workers are many. Raises ``UsageError`` for a file that is none.

    It is read whole, and the runtime is told of no folder: weights in a file beside it would be in no fingerprint.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(
            _self_contained(path, parameter), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # the runtime's own kinds are of no tree
        if (stopping := stopping_error(error)) is not None:
            raise stopping from error
        raise UsageError(f"{parameter}={path}: not an ONNX file that loads: {first_line(error)}") from error


def _self_contained(path: Path, parameter: str) -> bytes:
    """Return a file's bytes. Raises ``UsageError`` for one that keeps weights in a file beside it."""
    content = path.read_bytes()
    if EXTERNAL in content:
        raise UsageError(
            f"{parameter}={path}: keeps weights in a file beside it; save it as one, by onnx.save(model, path) without "
            "save_as_external_data"
        )
    return content


def _mapping(text: str) -> dict[int, Any]:
    """Read what a network's exporter wrote as Python's text of a list or mapping; nothing where it is neither."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return {}
    if isinstance(value, dict):
        return {key: each for key, each in value.items() if isinstance(key, int)}
    return dict(enumerate(value)) if isinstance(value, list) else {}


def blob(rgb: NDArray[np.uint8], side: int, *, bgr: bool) -> Floats:
    """Return the input (1, 3, side, side) of the network for a frame (h, w, 3)."""
    height, width = rgb.shape[:2]
    longer = max(height, width)
    square = cv2.copyMakeBorder(rgb, 0, longer - height, 0, longer - width, cv2.BORDER_CONSTANT)
    filled: Floats = cv2.dnn.blobFromImage(square, 1 / 255.0, (side, side), (0, 0, 0), swapRB=bgr, crop=False)
    return filled


def decode(output: Floats, height: int, width: int, *, side: int, classes: Sequence[int]) -> Floats:
    """Return the boxes (n, 4) of faces in the network's output (4 + classes, anchors) for a ``height`` x ``width`` frame.

    The output's first four rows are a box's middle, width and height in px of the network's input; the others are scores.
    """
    scores, kinds = output[4:].max(0), output[4:].argmax(0)
    sure = scores >= LEAST
    scale = max(height, width) / side
    middle, size = output[:2, sure].T * scale, output[2:4, sure].T * scale
    low = np.clip(middle - size / 2, 0, (width, height))
    boxes = np.concatenate([low, np.minimum(size, np.array((width, height)) - low)], 1).astype(np.float32)
    kept = cv2.dnn.NMSBoxes(boxes.tolist(), scores[sure].tolist(), LEAST, OVERLAP)
    chosen = [int(index) for index in np.ravel(np.asarray(kept)) if kinds[sure][int(index)] in classes]
    return boxes[chosen]


def share_under(boxes: Floats, height: int, width: int) -> float:
    """Return the share of a ``height`` x ``width`` frame that lies under any of the boxes (n, 4), to the px."""
    mask = np.zeros((height, width), bool)
    for left, top, wide, high in np.round(boxes).astype(int):
        mask[top : top + high, left : left + wide] = True
    return float(mask.mean())
