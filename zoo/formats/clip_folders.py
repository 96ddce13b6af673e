"""CLIP's two encoders in the ways that people have them: a CLIPModel's folder, and the parts of a diffusers pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dailies.zoo.formats.configs import read_config

TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "vocab.txt", "spiece.model"),
)
"""All that a tokenizer is loaded from, whichever of them it has."""

VISION = "clip_vision_model"  # model_type of SVD's image_encoder


def text_row(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the part of a config.json that describes the text encoder."""
    row: Mapping[str, Any] = config.get("text_config") or config
    return row


def vision_row(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the part of a config.json that describes the image encoder."""
    row: Mapping[str, Any] = config.get("vision_config") or config
    return row


def vision_config(folder: Path) -> Any:
    """Return transformers' configuration of the image encoder in ``folder``, with the width of its projection.

    Raises ``ModelError`` where there is no config.json.
    """
    from transformers import CLIPConfig, CLIPVisionConfig

    if read_config(folder).get("model_type") == VISION:
        return CLIPVisionConfig.from_pretrained(str(folder), local_files_only=True)
    whole: Any = CLIPConfig.from_pretrained(str(folder), local_files_only=True)
    # A CLIPModel's projection is as wide as its own configuration says; its image encoder's may still say 512.
    whole.vision_config.projection_dim = whole.projection_dim
    return whole.vision_config


def tokenizer_folder(folder: Path) -> Path:
    """Return where the tokenizer of the text encoder in ``folder`` lies: there, or in the folder beside it."""
    return _beside(folder, "tokenizer", ("tokenizer.json", "vocab.json", "spiece.model", "vocab.txt"))


def processor_folder(folder: Path) -> Path:
    """Return where the processor of the image encoder in ``folder`` lies: there, or in the folder beside it."""
    return _beside(folder, "feature_extractor", ("preprocessor_config.json", "processor_config.json"))


def _beside(folder: Path, name: str, marks: tuple[str, ...]) -> Path:
    if any((folder / mark).exists() for mark in marks) or not (folder.parent / name).is_dir():
        return folder
    return folder.parent / name


def half_only(folder: Path) -> str | None:
    """Return ``fp16`` for a folder that has its weights in that variant alone; transformers must be told."""
    plain = (folder / "model.safetensors").exists() or (folder / "model.safetensors.index.json").exists()
    return "fp16" if not plain and any(folder.glob("model*.fp16*")) else None
