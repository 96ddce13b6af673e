"""open_clip models by name: the one way in for the captioner and the scorer that use them.

A model is named in one of four ways: a local folder with ``open_clip_config.json`` and weights, ``NAME:PRETRAINED`` or ``NAME``
as open_clip lists them, or ``hf-hub:OWNER/NAME``. ``zoo:NAME`` stands for a folder that ``pipelines`` puts in its place.
torch and open_clip are imported by ``load`` alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass as pydantic_dataclass

from dailies.curation import video
from dailies.curation.config import SPEC, GpuShare, did_you_mean, offered
from dailies.curation.downloads import hub_folder, quiet_hub
from dailies.curation.errors import UsageError, first_line
from dailies.curation.openclip import openclip_folder
from dailies.curation.openclip.openclip_activation import activation, pinned
from dailies.curation.progress import progress_in_force
from dailies.curation.types import EvidenceFrame, Resources

ZOO, HUB = "zoo:", "hf-hub:"


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecialTokens:
    """Ids of a tokenizer's start, end and padding."""

    start: int
    end: int
    pad: int


_CLIP_TOKENS = SpecialTokens(start=49406, end=49407, pad=0)


@pydantic_dataclass(frozen=True, kw_only=True, config=SPEC)
class OpenClip:
    """A base for captioners and scorers that use such a model.

    Args:
        model: zoo:NAME, a folder of open_clip's, NAME:PRETRAINED as open_clip lists them, or hf-hub:OWNER/NAME.
        batch: frames or clips at once.
        gpus: what one worker gets, a share of one such as 0.25 or whole ones; with none it runs on the CPU.
    """

    model: str = "zoo:coca-world"
    batch: Annotated[int, Field(ge=1)] = field(default=16, metadata={"meaning": False})
    gpus: GpuShare = field(default=0, metadata={"meaning": False})

    requires: ClassVar[tuple[str, ...]] = ("open_clip", "torch", "transformers")
    models: ClassVar[tuple[str, ...]] = ("model",)

    @property
    def resources(self) -> Resources:
        return Resources(cpus=1, gpus=self.gpus, memory_gb=4)

    def weights(self) -> str:
        """Return what tells these weights from others."""
        return weights(self.model)

    def check(self) -> None:
        """Raise ``Damaged`` or ``UsageError`` for a folder that is not sound, a hub's too: before any work."""
        check(self.model)

    def fetch(self) -> None:
        """Download the model if it is one of open_clip's own, so that no worker has to: nobody sees what those print."""
        fetch(self.model)


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A model at work. ``prepare``: PIL image to (3, h, w); ``tokenize``: texts to (n, context) ids."""

    model: Any
    prepare: Any
    tokenize: Any
    special_tokens: SpecialTokens
    device: str

    def ready(self, frame: EvidenceFrame) -> Any:
        """Return what the model takes of a frame, (3, h, w). Raises ``SourceError`` for a broken JPEG."""
        from PIL import Image

        return self.prepare(Image.fromarray(video.unjpeg(frame.jpeg)))

    def text(self, ids: Sequence[int]) -> str:
        """Decode ids without special tokens to text."""
        tokenizer = getattr(self.tokenize, "tokenizer", self.tokenize)  # open_clip wraps transformers' tokenizers
        return " ".join(str(tokenizer.decode(list(ids))).split())


def load(name: str, *, gpu: bool = False) -> Loaded:
    """Load a model in single precision, with the activation that its weights need, ready for inference.

    Raises ``UsageError`` for a name that stands for nothing.
    """
    import open_clip

    device = "cuda" if gpu else "cpu"
    model_name, pretrained = _resolve(name)
    config = open_clip.get_model_config(model_name) or {}
    # A packaged model's tokenizer may come from a hub: without an answer, transformers would ask whether to run its code.
    untrusted = {"trust_remote_code": False} if config.get("text_cfg", {}).get("hf_tokenizer_name") else {}
    options = activation(model_name, pretrained)
    try:
        model, prepare = open_clip.create_model_from_pretrained(
            model_name, pretrained=pretrained, device=device, weights_only=True, **options
        )
        tokenize = open_clip.get_tokenizer(model_name, **untrusted)
    except (RuntimeError, ValueError, FileNotFoundError) as error:
        raise UsageError(f"model={name!r}: {first_line(error)}") from error
    return Loaded(
        model=model.eval(), prepare=prepare, tokenize=tokenize, special_tokens=_special_tokens(tokenize), device=device
    )


def fetch(name: str) -> None:
    """Download the weights that open_clip itself lists as ``name``, unless they are here. Others are here already.

    Raises ``UsageError`` for a name that stands for nothing, and ``OSError`` or ``RuntimeError`` where nothing can be fetched.
    """
    if name.startswith(HUB) or Path(name).is_dir():
        return
    import open_clip

    model_name, pretrained = _resolve(name)
    if pretrained is not None:
        activation(model_name, pretrained)  # refused before, and not after, gigabytes are fetched
        with progress_in_force()("download", None, name), quiet_hub():
            open_clip.download_pretrained(open_clip.get_pretrained_cfg(model_name, pretrained))


def weights(name: str) -> str:
    """Return what pins a model: the sha256 of its folder's files, a hub's too, else the name that open_clip resolves."""
    folder = folder_of(name)
    return pinned(name) if folder is None else openclip_folder.fingerprint(folder)


def check(name: str) -> None:
    """Raise ``Damaged`` or ``UsageError`` where ``name`` is of a folder, a hub's too, that is not sound."""
    if (folder := folder_of(name)) is not None:
        openclip_folder.check_folder(folder)


def folder_of(name: str) -> Path | None:
    """Return the folder that ``name`` stands for, that of a hub's model once it is fetched; ``None`` for open_clip's own."""
    if name.startswith(HUB):
        return _fetched(name)
    folder = Path(name)
    return folder if folder.is_dir() else None


def _fetched(name: str) -> Path:
    """Fetch the data of a hub's model, and none of what may be code. Raises ``UsageError``."""
    wanted = ["*.safetensors", *openclip_folder.SETTINGS]
    return hub_folder(name.removeprefix(HUB), named=f"model={name!r}", wanted=wanted)


def _resolve(name: str) -> tuple[str, str | None]:
    """Return open_clip's own (model name, pretrained tag). Raises ``Damaged`` for a folder that asks for code."""
    import open_clip

    if name.startswith(ZOO):
        raise UsageError(f"model={name!r}: a zoo name must be resolved to a folder first; pipelines does that")
    if (folder := folder_of(name)) is not None:
        openclip_folder.check_folder(folder)
        return f"local-dir:{folder}", None
    model, _, tag = name.partition(":")
    tags = open_clip.list_pretrained_tags_by_model(model)
    if not tags or (tag and tag not in tags):
        allowed = (
            f"no such weights{offered(tag, tags)}"
            if tags
            else f"no such folder, nor a model of open_clip with weights{did_you_mean(model, open_clip.list_models())}"
        )
        raise UsageError(f"model={name!r}: {allowed}")
    return model, tag or tags[0]


def own_weights(name: str) -> tuple[str, tuple[str, ...]]:
    """Return where open_clip fetches its own weights ``name`` from: a hub's repository, and the files of which one will do.

    Raises ``UsageError`` for a name that stands for nothing.
    """
    import open_clip

    model, tag = _resolve(name)
    repository, _, file = str(open_clip.get_pretrained_cfg(model, tag or "").get("hf_hub", "")).rpartition("/")
    wanted = file or "open_clip_pytorch_model.bin"
    safe = {"open_clip_pytorch_model.bin": "open_clip_model.safetensors"}.get(wanted, f"{wanted[:-4]}.safetensors")
    return repository, (safe, wanted)


def _special_tokens(tokenize: Any) -> SpecialTokens:
    inner = getattr(tokenize, "tokenizer", None)
    if inner is None:
        return _CLIP_TOKENS
    start = inner.bos_token_id if inner.bos_token_id is not None else inner.cls_token_id
    end = inner.eos_token_id if inner.eos_token_id is not None else inner.sep_token_id
    return SpecialTokens(start=start, end=end, pad=inner.pad_token_id)
