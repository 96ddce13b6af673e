"""CLIP, SigLIP and SigLIP 2 in transformers' format: a folder, or the files of a hub's repository, checked and loaded.

Only safetensors are read, and no code of the folder runs (``dailies.curation.model_folders``). The activation is the
configuration's ``hidden_act``; how a picture is resized, cropped and normalised is ``preprocessor_config.json``'s to say,
without which a folder is refused: transformers would take its own defaults.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dailies.curation import transformers_folder
from dailies.curation.errors import Damaged, UsageError
from dailies.curation.litter import without_litter
from dailies.curation.model_folders import refuse_code
from dailies.curation.transformers_folder import PICTURES, SETTINGS, VOCABULARIES

CLASSES = {"clip": "CLIPModel", "siglip": "SiglipModel", "siglip2": "Siglip2Model"}
"""``model_type`` → the class that has both towers."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """A model at work, with what makes its pictures and its words ready; all of transformers."""

    model: Any
    processor: Any
    tokenizer: Any
    tokens: int  # of a text, padding included


def folder_of(name: str) -> Path:
    """Return the folder of a model; of a hub's repository ``OWNER/NAME`` its data is fetched, and none of what may be code.

    Raises ``UsageError`` where it cannot be had.
    """
    return transformers_folder.folder_of(name, wanted=["*.safetensors", *SETTINGS])


def check(folder: Path) -> Mapping[str, Any]:
    """Return the configuration of a folder that is whole and asks for no code. Raises ``Damaged`` or ``UsageError``."""
    refuse_code(folder, pickles=False)
    config = transformers_folder.config_of(folder)
    kind = config.get("model_type")
    if kind not in CLASSES:
        raise UsageError(f"model={str(folder)!r}: model_type={kind!r}: must be one of {', '.join(CLASSES)}")
    if not any(without_litter(folder, "model*.safetensors")):
        raise UsageError(f"model={str(folder)!r}: has no model.safetensors; convert its weights to safetensors")
    if not any((folder / name).is_file() for name in PICTURES):
        raise UsageError(
            f"model={str(folder)!r}: has no {PICTURES[0]}, which says how pictures are resized and normalised; "
            "put the model's own there"
        )
    if not any((folder / name).is_file() for name in VOCABULARIES):
        raise UsageError(f"model={str(folder)!r}: has no vocabulary; put its tokenizer's files into the folder")
    return config


def load(folder: Path, device: str) -> Parts:
    """Load both towers in single precision, ready for inference. Raises ``Damaged`` or ``UsageError`` naming the folder."""
    import transformers

    kind = CLASSES[check(folder)["model_type"]]
    safe = transformers_folder.SAFE
    with transformers_folder.loading(f"model={str(folder)!r}"):
        model = transformers_folder.load_whole(getattr(transformers, kind).from_pretrained, folder)
        processor = transformers.AutoImageProcessor.from_pretrained(str(folder), **safe)
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), **safe)
    text = model.config.text_config
    largest = max(tokenizer.get_vocab().values(), default=0)
    if largest >= text.vocab_size:
        raise Damaged(f"{folder}: its tokenizer has ids up to {largest}; the text tower has {text.vocab_size} vectors")
    return Parts(
        model=model.float().eval().requires_grad_(False).to(device),
        processor=processor,
        tokenizer=tokenizer,
        tokens=int(text.max_position_embeddings),
    )
