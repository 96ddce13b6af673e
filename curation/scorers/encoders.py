"""Image and text towers of one space, of open_clip or of transformers: the one way in for all that embeds or compares.

A model is named in one of five ways: those of ``dailies.curation.openclip``, and ``OWNER/NAME``, a hub's
repository in transformers' format. A folder is open_clip's where it has ``open_clip_config.json``, else transformers'.
Embeddings come out of length 1. torch is imported by ``load_encoder`` and by what it returns.

Shape suffixes: N pictures or texts, D width of the embedding.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic.dataclasses import dataclass as pydantic_dataclass

from dailies.curation import openclip, transformers_folder, video
from dailies.curation.config import SPEC
from dailies.curation.downloads import HUB_ID
from dailies.curation.errors import UsageError
from dailies.curation.openclip.openclip_folder import CONFIG
from dailies.curation.scorers import encoder_folder
from dailies.curation.types import EvidenceFrame

Ready = TypeVar("Ready")
Features = Mapping[str, Any]  # what a tower takes of one picture, by name: tensors
AHEAD = 2  # batches of pictures that are made ready while the model looks at one
TEXTS = 64  # at once


@pydantic_dataclass(frozen=True, kw_only=True, config=SPEC)
class ImageTextModel(openclip.OpenClip):
    """A base for scorers that embed pictures or texts.

    Args:
        model: zoo:NAME, a folder of open_clip's or transformers', NAME:PRETRAINED as open_clip lists them,
            hf-hub:OWNER/NAME of open_clip's, or OWNER/NAME of transformers'.
    """

    def weights(self) -> str:
        """Return what tells these weights from others."""
        return encoder_weights(self.model)

    def check(self) -> None:
        """Raise ``Damaged`` or ``UsageError`` for a folder that is not sound, a hub's too: before any work."""
        if _transformers(self.model):
            encoder_folder.check(encoder_folder.folder_of(self.model))
        else:
            openclip.check(self.model)

    def fetch(self) -> None:
        """Download the model, so that no worker has to: nobody sees what those print."""
        if not _transformers(self.model):
            openclip.fetch(self.model)
        else:
            encoder_folder.folder_of(self.model)


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """A model at work.

    Args:
        prepare: one picture (h, w, 3) RGB to what the image tower takes of it.
        encode_images: features with a first dimension N, on the device, to (N, D).
        encode_texts: texts to (N, D).
        logit_scale: what cosines are multiplied by before the softmax, as the model was trained.
        device: cpu or cuda; there sums run in bfloat16, and what comes out is single precision.
    """

    prepare: Callable[[NDArray[np.uint8]], Features]
    encode_images: Callable[[Features], Any]
    encode_texts: Callable[[Sequence[str]], Any]
    logit_scale: float
    device: str

    def ready(self, frame: EvidenceFrame) -> Features:
        """Return what the image tower takes of a frame. Raises ``SourceError`` for a broken JPEG."""
        return self.prepare(video.unjpeg(frame.jpeg))

    def images(self, pictures: Sequence[Features]) -> NDArray[np.float32]:
        """Return the embeddings (N, D) of pictures, each of length 1."""
        import torch

        batch = {name: torch.stack([picture[name] for picture in pictures]) for name in pictures[0]}
        with torch.inference_mode(), self._precision():
            return _of_length_1(self.encode_images({name: each.to(self.device) for name, each in batch.items()}))

    def texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the embeddings (N, D) of texts, each of length 1."""
        import torch

        with torch.inference_mode(), self._precision():
            parts = [
                _of_length_1(self.encode_texts(list(texts[start : start + TEXTS])))
                for start in range(0, len(texts), TEXTS)
            ]
        return np.concatenate(parts)

    def _precision(self) -> AbstractContextManager[Any]:
        import torch

        return torch.autocast("cuda", dtype=torch.bfloat16) if self.device == "cuda" else nullcontext()


def _of_length_1(vectors_ND: Any) -> NDArray[np.float32]:  # noqa: N803
    import torch

    unit_ND: NDArray[np.float32] = torch.nn.functional.normalize(vectors_ND.float(), dim=-1).cpu().numpy()  # noqa: N806
    return unit_ND


def batches_ahead(
    frames: Sequence[EvidenceFrame], ready: Callable[[EvidenceFrame], Ready], batch: int, pool: Executor | None
) -> Iterator[list[Ready]]:
    """Yield frames made ready, in order, ``batch`` at a time.

    With a ``pool``, its threads decode the frames of the next batches while the caller's model looks at this one.
    Raises what ``ready`` raises.
    """
    if pool is None:
        for start in range(0, len(frames), batch):
            yield [ready(frame) for frame in frames[start : start + batch]]
        return
    rest = iter(frames)
    waiting = deque(pool.submit(ready, frame) for frame in islice(rest, AHEAD * batch))
    try:
        while waiting:
            pictures = []
            for _ in range(min(batch, len(waiting))):
                pictures.append(waiting.popleft().result())
                waiting.extend(pool.submit(ready, frame) for frame in islice(rest, 1))
            yield pictures
    finally:
        for future in waiting:
            future.cancel()


# ---- loading --------------------------------------------------------------------------------------------------------


def encoder_weights(name: str) -> str:
    """Return what pins a model: the sha256 of its folder's files, a hub's too, else the name that open_clip resolves."""
    return (
        transformers_folder.fingerprint(encoder_folder.folder_of(name))
        if _transformers(name)
        else openclip.weights(name)
    )


def load_encoder(name: str, *, gpu: bool = False) -> Encoder:
    """Load a model. Raises ``UsageError`` for a name that stands for nothing, ``Damaged`` for a folder that is not sound."""
    device = "cuda" if gpu else "cpu"
    if _transformers(name):
        return _of_transformers(encoder_folder.load(encoder_folder.folder_of(name), device), device)
    return _of_open_clip(openclip.load(name, gpu=gpu))


def _transformers(name: str) -> bool:
    """Return whether a name stands for a model in transformers' format."""
    if name.startswith((openclip.ZOO, openclip.HUB)):
        return False
    folder = Path(name)
    if folder.is_dir():
        return (folder / transformers_folder.CONFIG).is_file() and not (folder / CONFIG).is_file()
    return HUB_ID.fullmatch(name) is not None


def _of_open_clip(loaded: openclip.Loaded) -> Encoder:
    from PIL import Image

    if not hasattr(loaded.model, "encode_text"):
        raise UsageError("model: has no text tower; name a CLIP, CoCa or SigLIP of open_clip")
    return Encoder(
        prepare=lambda rgb: {"image": loaded.prepare(Image.fromarray(rgb))},
        encode_images=lambda features: loaded.model.encode_image(features["image"]),
        encode_texts=lambda texts: loaded.model.encode_text(loaded.tokenize(texts).to(loaded.device)),
        logit_scale=float(loaded.model.logit_scale.detach().exp().mean()),
        device=loaded.device,
    )


def _of_transformers(parts: encoder_folder.Parts, device: str) -> Encoder:
    from PIL import Image

    def prepare(rgb: NDArray[np.uint8]) -> Features:
        return {name: each[0] for name, each in parts.processor(Image.fromarray(rgb), return_tensors="pt").items()}

    def encode_texts(texts: Sequence[str]) -> Any:
        # SigLIP was trained on texts of its full length, whose padding it attends to; CLIP looks at none of it.
        ids = parts.tokenizer(
            texts, padding="max_length", truncation=True, max_length=parts.tokens, return_tensors="pt"
        )
        return _pooled(parts.model.get_text_features(input_ids=ids["input_ids"].to(device)))

    return Encoder(
        prepare=prepare,
        encode_images=lambda features: _pooled(parts.model.get_image_features(**features)),
        encode_texts=encode_texts,
        logit_scale=float(parts.model.logit_scale.detach().exp().mean()),
        device=device,
    )


def _pooled(features: Any) -> Any:
    """Return (N, D) of what transformers answers: a tensor until version 5, outputs that hold it since."""
    return getattr(features, "pooler_output", features)
