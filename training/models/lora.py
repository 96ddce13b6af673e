"""Low-rank adapters (arXiv 2106.09685, by peft) on named parts of a ``VideoUNet``; and what holds for
those of any model: their weights, their file, and how they are merged.

Stable Video Diffusion's camera motions are such adapters of rank 16 on temporal attention (arXiv 2311.15127, §4.3).
peft is imported inside functions: only who adds adapters pays for it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from dailies.curation.config import offered
from dailies.curation.errors import ModelError
from dailies.training.models.video_unet import VideoUNet

M = TypeVar("M", bound=nn.Module)
ADAPTERS = "adapter_model.safetensors"  # by peft's name
PREFIX = "base_model.model"  # what peft puts before the names of a model's own layers
ATTENTION = r"attn[12]\.(to_q|to_k|to_v|to_out\.0)"


@dataclass(frozen=True, slots=True)
class LoraTarget:
    """Linear layers, by a pattern of their names, and the usual rank of their adapters."""

    pattern: str
    rank: int


LORA_TARGETS: Mapping[str, LoraTarget] = {
    "spatial_attention": LoraTarget(rf".*\.transformer_blocks\.\d+\.{ATTENTION}", 16),
    "temporal_attention": LoraTarget(rf".*\.temporal_transformer_blocks\.\d+\.{ATTENTION}", 16),
    "spatial_feed_forward": LoraTarget(r".*\.transformer_blocks\.\d+\.ff\.net\.(0\.proj|2)", 16),
    "temporal_feed_forward": LoraTarget(r".*\.temporal_transformer_blocks\.\d+\.(ff|ff_in)\.net\.(0\.proj|2)", 16),
    "camera": LoraTarget(rf".*\.temporal_transformer_blocks\.\d+\.{ATTENTION}", 16),
}


def add_lora(
    model: VideoUNet, parts: Collection[str], rank: int | None = None, *, alpha: float | None = None
) -> VideoUNet:
    """Add adapters to ``parts`` of ``LORA_TARGETS``, in place; they alone train, and change nothing at first.

    Returns ``model``.

    ``rank``: by default the largest that is usual for the parts. W becomes W + (α/rank)·B·A; ``alpha``: by default the rank.
    Raises ``ModelError`` for an unknown part, a rank below 1, and a model that has adapters.
    """
    unknown = sorted(set(parts) - set(LORA_TARGETS))
    if unknown or not parts:
        raise ModelError(
            f"parts: no part {unknown[0]!r}{offered(unknown[0], LORA_TARGETS)}"
            if unknown
            else f"parts: none named; allowed: {', '.join(LORA_TARGETS)}"
        )
    rank = max(LORA_TARGETS[part].rank for part in parts) if rank is None else rank
    if rank < 1:
        raise ModelError(f"rank={rank}: must be 1 or more")
    if _adapted(model):
        raise ModelError("model: already has adapters; merge them first")
    from peft import LoraConfig, inject_adapter_in_model

    pattern = "|".join(f"(?:{LORA_TARGETS[part].pattern})" for part in sorted(set(parts)))
    config = LoraConfig(r=rank, lora_alpha=rank if alpha is None else alpha, target_modules=pattern)
    inject_adapter_in_model(config, model)
    model.adapter_config = config
    return model


def lora_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return the adapters' weights alone, by name: what is to be kept of such a training.

    ``load_state_dict(weights, strict=False)`` puts them back into a model with the same adapters.
    """
    return {name: value for name, value in model.state_dict().items() if ".lora_" in name}


def save_lora(model: nn.Module, weights: Mapping[str, Tensor], folder: str | PathLike[str]) -> None:
    """Write adapters as a folder that ``peft.PeftModel.from_pretrained`` reads, with rank, α and the layers they are for.

    diffusers reads the same file (``load_lora_adapter`` with ``prefix=PREFIX``): what peft keeps in ``adapter_config.json``
    stands in the file's header for it. Without them, α would be peft's default of 8 whatever the rank.

    Args:
        model: with adapters, whose configuration is written.
        weights: of ``lora_weights``, by name.
    """
    config: Any = model.adapter_config
    path = Path(folder)
    config.save_pretrained(str(path))  # makes the folder
    row = config.to_dict()
    header = {f"{PREFIX}.{name}": row[name] for name in ("r", "lora_alpha", "target_modules")}
    # By peft's names, which do not say what an adapter is called within a model.
    tensors = {f"{PREFIX}.{name.replace('.default.', '.')}": value.contiguous() for name, value in weights.items()}
    save_file(tensors, path / ADAPTERS, metadata={"format": "pt", "lora_adapter_metadata": json.dumps(header)})


def merge_lora(model: M) -> M:
    """Add the adapters into the weights, in place, and take them off: the keys are diffusers' again, and all weights train.

    Raises ``ModelError`` for a model without adapters.
    """
    adapted = _adapted(model)
    if not adapted:
        raise ModelError("model: has no adapters")
    with torch.no_grad():
        for name, layer in adapted.items():
            layer.merge(safe_merge=True)
            model.set_submodule(name, layer.get_base_layer())
    model.requires_grad_(True)
    return model


def _adapted(model: nn.Module) -> dict[str, Any]:
    return {name: module for name, module in model.named_modules() if hasattr(module, "lora_A")}
