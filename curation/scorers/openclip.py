"""open_clip models by name: the one way in for the captioner and the scorer that use them.

A model is named in one of four ways: a local folder with ``open_clip_config.json`` and weights, ``NAME:PRETRAINED`` or ``NAME``
as open_clip lists them, or ``hf-hub:OWNER/NAME``. ``zoo:NAME`` stands for a folder that ``pipelines`` puts in its place.
torch and open_clip are imported by ``load`` alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dailies.curation import video
from dailies.curation.errors import UsageError
from dailies.curation.types import EvidenceFrame, Resources

ZOO, HUB = "zoo:", "hf-hub:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """Ids of a tokenizer's start, end and padding."""

    start: int
    end: int
    pad: int


_CLIP_MARKS = Marks(start=49406, end=49407, pad=0)


@dataclass(frozen=True, kw_only=True)
class OpenClip:
    """What a captioner and a scorer by such a model have in common. ``model``: see above. ``batch``: frames or clips at once.
    ``gpus``: what one worker gets; with none it runs on the CPU. Raises ``ValueError`` for a batch of nothing.
    """

    model: str = "zoo:coca-world"
    batch: int = field(default=16, metadata={"meaning": False})
    gpus: float = field(default=0, metadata={"meaning": False})

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ValueError(f"batch must be at least 1, not {self.batch}")

    @property
    def resources(self) -> Resources:
        return Resources(cpus=1, gpus=self.gpus, memory_gb=4)

    def weights(self) -> str:
        """What tells these weights from others."""
        return weights(self.model)


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A model at work. ``prepare``: PIL image to (3, h, w); ``tokenize``: texts to (n, context) ids."""

    model: Any
    prepare: Any
    tokenize: Any
    marks: Marks
    device: str

    def pixels(self, frames: Sequence[EvidenceFrame]) -> Any:
        """Evidence as the model takes it: (n, 3, h, w) on its device. Raises ``SourceError`` for a broken JPEG."""
        import torch
        from PIL import Image

        pictures = [Image.fromarray(video.unjpeg(frame.jpeg)) for frame in frames]
        return torch.stack([self.prepare(picture) for picture in pictures]).to(self.device)

    def text(self, ids: Sequence[int]) -> str:
        """Ids without marks as text."""
        tokenizer = getattr(self.tokenize, "tokenizer", self.tokenize)  # open_clip wraps transformers' tokenizers
        return " ".join(str(tokenizer.decode(list(ids))).split())


def load(name: str, *, gpu: bool = False) -> Loaded:
    """Load a model in single precision, ready for inference. Raises ``UsageError`` for a name that stands for nothing."""
    import open_clip

    device = "cuda" if gpu else "cpu"
    model_name, pretrained = _resolve(name)
    try:
        model, prepare = open_clip.create_model_from_pretrained(model_name, pretrained=pretrained, device=device)
        tokenize = open_clip.get_tokenizer(model_name)
    except (RuntimeError, ValueError, FileNotFoundError) as error:
        raise UsageError(f"model {name!r}: {str(error).splitlines()[0]}") from error
    return Loaded(model=model.eval(), prepare=prepare, tokenize=tokenize, marks=_marks(tokenize), device=device)


def weights(name: str) -> str:
    """What pins a model's weights: the sha256 of a local folder's, else the name that open_clip resolves."""
    folder = Path(name)
    if not folder.is_dir():
        return name
    hasher = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in (".safetensors", ".bin", ".pt", ".pth") or path.name in _SETTINGS:
            hasher.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return hasher.hexdigest()


_SETTINGS = ("open_clip_config.json", "tokenizer.json")


def _resolve(name: str) -> tuple[str, str | None]:
    """open_clip's own (model name, pretrained tag)."""
    import open_clip

    if name.startswith(ZOO):
        raise UsageError(f"model {name!r}: a zoo name must be resolved to a folder first; pipelines does that")
    if Path(name).is_dir():
        return f"local-dir:{name}", None
    if name.startswith(HUB):
        return name, None
    model, _, tag = name.partition(":")
    tags = open_clip.list_pretrained_tags_by_model(model)
    if not tags or (tag and tag not in tags):
        allowed = (
            f"its weights are {', '.join(tags)}" if tags else "no such folder, and open_clip has no weights for it"
        )
        raise UsageError(f"model {name!r}: {allowed}")
    return model, tag or tags[0]


def _marks(tokenize: Any) -> Marks:
    inner = getattr(tokenize, "tokenizer", None)
    if inner is None:
        return _CLIP_MARKS
    start = inner.bos_token_id if inner.bos_token_id is not None else inner.cls_token_id
    end = inner.eos_token_id if inner.eos_token_id is not None else inner.sep_token_id
    return Marks(start=start, end=end, pad=inner.pad_token_id)
