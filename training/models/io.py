"""A ``VideoUNet`` as a folder in diffusers' format: ``config.json`` and safetensors.

Ours load in ``UNetSpatioTemporalConditionModel.from_pretrained`` and in ``StableVideoDiffusionPipeline``; the ``unet/`` of a
published Stable Video Diffusion model loads here.
"""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dailies.curation.errors import ModelError
from dailies.training.models.config import UNetConfig
from dailies.training.models.lora import lora_weights
from dailies.training.models.video_unet import VideoUNet

STEM = "diffusion_pytorch_model"


def save(model: VideoUNet, folder: str | PathLike[str]) -> None:
    """Write ``config.json``, ``model.facts`` in it, and the weights as one file, in the type that they have.

    Raises ``ModelError`` for a model with adapters: merge them first, or keep ``lora_weights``.
    """
    if lora_weights(model):
        raise ModelError("model: it has adapters, which diffusers' format does not hold; merge them first")
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    row = {**model.facts, **model.config.to_diffusers()}
    (path / "config.json").write_text(json.dumps(row, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    state = {name: value.detach().contiguous() for name, value in model.state_dict().items()}
    save_file(state, path / f"{STEM}.safetensors", metadata={"format": "pt"})


def load(
    folder: str | PathLike[str],
    *,
    variant: str | None = None,
    dtype: torch.dtype | None = None,
    device: str | torch.device = "cpu",
) -> VideoUNet:
    """The model in ``folder``. ``variant``: ``"fp16"`` for the files so named; by default those without a name,
    or else those of fp16. ``dtype``: by default that of the first weight in the file.

    Raises ``FileNotFoundError`` for a folder without weights and ``ModelError`` for weights that are not the configuration's.
    """
    path = Path(folder)
    row: dict[str, Any] = json.loads((path / "config.json").read_text(encoding="utf-8"))
    config = UNetConfig.from_diffusers(row)
    state: dict[str, Tensor] = {}
    for file in weight_files(path, variant):
        state |= load_file(file, device=str(device))
    with torch.device("meta"):  # no time for random weights that are thrown away
        model = VideoUNet(config)
    _fits(model, state, path)
    kind = dtype or next(iter(state.values())).dtype
    model.load_state_dict({name: value.to(kind) for name, value in state.items()}, assign=True)
    model.requires_grad_(True)
    ours = set(config.to_diffusers())
    model.facts = {name: value for name, value in row.items() if name not in ours and not name.startswith("_")}
    return model


def read_config(folder: str | PathLike[str], field: str = "start") -> dict[str, Any]:
    """A model's config.json. Raises ``ModelError`` naming ``field`` and folder where there is none."""
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise ModelError(f"{field}: no model in {folder}: config.json is missing")
    row = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(row, dict):
        raise ModelError(f"{field}: {path} is not an object")
    return row


def load_image_model(folder: str | PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """State dict in float32 and config.json of a diffusers ``UNet2DConditionModel``."""
    state: dict[str, Tensor] = {}
    for file in weight_files(Path(folder)):
        state |= {name: value.float() for name, value in load_file(file).items()}
    return state, read_config(folder)


def weight_files(folder: Path, variant: str | None = None) -> list[Path]:
    """The safetensors files of a model's folder: one, or those that an index names. Raises ``FileNotFoundError``."""
    for name in [variant] if variant is not None else [None, "fp16"]:
        one = folder / (f"{STEM}.safetensors" if name is None else f"{STEM}.{name}.safetensors")
        index = folder / (f"{STEM}.safetensors.index.json" if name is None else f"{STEM}.safetensors.index.{name}.json")
        if one.exists():
            return [one]
        if index.exists():
            named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
            if any(Path(part).name != part for part in named):
                raise ModelError(f"{index} names files elsewhere")
            return [folder / part for part in sorted(named)]
    wanted = STEM if variant is None else f"{STEM} of variant {variant}"
    raise FileNotFoundError(f"{folder}: no {wanted} in safetensors")


def _fits(model: VideoUNet, state: dict[str, Tensor], folder: Path) -> None:
    target = model.state_dict()
    wrong = sorted(set(target) ^ set(state))
    wrong += sorted(name for name in set(target) & set(state) if target[name].shape != state[name].shape)
    if wrong:
        raise ModelError(f"{folder}: {len(wrong)} weights are not those of its config.json, {wrong[0]} first")
