"""Tiny image-text models with random weights, in the formats that people have them in, and clips to look at."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from dailies.curation.timing import Span
from dailies.curation.types import Evidence, EvidenceFrame
from dailies.curation.video import jpeg

WORDS = Path(__file__).resolve().parents[1] / "zoo" / "builtin" / "clip-world"  # whose tokenizer has 512 words
WIDTH = 24  # of the embeddings
OPEN_CLIP = {
    "embed_dim": WIDTH,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "layers": 1, "width": 16, "heads": 2},
}
KINDS = ("clip", "siglip", "siglip2")


def spread(model: Any) -> Any:
    """Make random weights large enough for pictures, texts and activations to tell."""
    import torch

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and "logit" not in name:
                parameter.normal_(std=0.35)
    return model.eval()


def open_clip_model(seed: int = 0, **changes: Any) -> Any:
    import torch
    from open_clip.model import CLIP

    torch.manual_seed(seed)
    return spread(CLIP(**{**OPEN_CLIP, **changes}))


def open_clip_folder(folder: Path) -> Path:
    """Write a checkpoint in open_clip's format, which shrinks the shorter side and crops."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    row = {"model_cfg": OPEN_CLIP, "preprocess_cfg": {"resize_mode": "shortest", "interpolation": "bicubic"}}
    (folder / "open_clip_config.json").write_text(json.dumps(row))
    state = {name: each.contiguous() for name, each in open_clip_model().state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    return folder


def transformers_folder(folder: Path, kind: str = "clip", activation: str | None = None) -> Path:
    """Write a checkpoint in transformers' format. CLIP crops, SigLIP squashes, SigLIP 2 takes patches of any shape."""
    import torch
    import transformers as tf

    torch.manual_seed(1)
    tower = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    words = {"vocab_size": 512, "max_position_embeddings": 16, "eos_token_id": 3, "pad_token_id": 0, "bos_token_id": 1}
    text, vision = {**tower, **words}, {**tower, "patch_size": 8}
    if activation:
        text["hidden_act"] = vision["hidden_act"] = activation
    if kind == "clip":
        config = tf.CLIPConfig(text_config=text, vision_config={**vision, "image_size": 32}, projection_dim=WIDTH)
        model, processor = tf.CLIPModel(config), tf.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32)
    elif kind == "siglip":
        config = tf.SiglipConfig(text_config=text, vision_config={**vision, "image_size": 32})
        model, processor = tf.SiglipModel(config), tf.SiglipImageProcessor(size={"height": 32, "width": 32})
    else:
        text["vocab_size"] = 520  # transformers adds a word to such a model's tokenizer
        config = tf.Siglip2Config(text_config=text, vision_config={**vision, "num_patches": 16})
        model, processor = tf.Siglip2Model(config), tf.Siglip2ImageProcessor(patch_size=8, max_num_patches=16)
    spread(model).save_pretrained(folder)
    processor.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(WORDS / name, folder / name)
    return folder


def picture(seed: int, height: int = 36, width: int = 64) -> np.ndarray[Any, Any]:
    """A picture whose left, middle and right differ, so that a crop shows."""
    rng = np.random.default_rng(seed)
    cells = rng.integers(0, 255, (4, 8, 3)).astype(np.uint8)
    return np.ascontiguousarray(np.kron(cells, np.ones((height // 4, width // 8, 1), np.uint8)))


def clip(name: str, seeds: Sequence[int], **columns: Any) -> Evidence:
    """A clip whose evidence frames are the pictures of ``seeds``."""
    frames = tuple(EvidenceFrame(pts=10 * number, jpeg=jpeg(picture(seed), 95)) for number, seed in enumerate(seeds))
    span = Span(start=0, end=10 * len(seeds) + 1, time_base=Fraction(1, 100))
    return Evidence(clip_id=name, span=span, frames=frames, columns=columns)
