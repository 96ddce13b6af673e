"""Loading of ``VideoUNet`` from folders in diffusers' format; ``VideoUNet.save_pretrained`` writes them.

The ``unet/`` of a published Stable Video Diffusion model loads here. An image model's (Stable Diffusion) becomes a video model.
"""

from __future__ import annotations

from os import PathLike

import torch
from torch import Tensor

from dailies.curation.errors import ModelError
from dailies.training.models.config import UNetConfig
from dailies.training.models.files import load_state
from dailies.training.models.insert import insert_temporal, video_config
from dailies.training.models.video_unet import VideoUNet
from dailies.zoo.formats.configs import read_config

IMAGE_MODEL = "UNet2DConditionModel"


def load(
    folder: str | PathLike[str],
    *,
    variant: str | None = None,
    dtype: torch.dtype | None = None,
    device: str | torch.device = "cpu",
) -> VideoUNet:
    """Load the video model in ``folder``.

    Args:
        variant: ``"fp16"`` for the files so named; by default those without a name, or else those of fp16.
        dtype: by default that of the first weight in the file.
        device: where the weights go.

    Raises ``FileNotFoundError`` for a folder without weights and ``ModelError`` for weights that are not the configuration's.
    """
    row = read_config(folder)
    config = UNetConfig.from_diffusers(row)
    state = load_state(folder, variant, str(device))
    with torch.device("meta"):  # no time for random weights that are thrown away
        model = VideoUNet(config)
    _check_fit(model, state, folder)
    dtype = dtype or next(iter(state.values())).dtype
    model.load_state_dict({name: value.to(dtype) for name, value in state.items()}, assign=True)
    model.requires_grad_(True)
    ours = set(config.to_diffusers())
    model.extra_config = {name: value for name, value in row.items() if name not in ours and not name.startswith("_")}
    return model


def load_pretrained(folder: str | PathLike[str]) -> VideoUNet:
    """Load a video model in float32, or an image model with temporal layers that change nothing yet."""
    row = read_config(folder)
    if row.get("_class_name") != IMAGE_MODEL:
        return load(folder, dtype=torch.float32)
    return insert_temporal({name: value.float() for name, value in load_state(folder).items()}, row)


def pretrained_config(folder: str | PathLike[str]) -> UNetConfig:
    """Return the shape of what ``load_pretrained`` would load; no weight is read. Raises ``ModelError``."""
    row = read_config(folder)
    try:
        return video_config(row) if row.get("_class_name") == IMAGE_MODEL else UNetConfig.from_diffusers(row)
    except (KeyError, TypeError, ZeroDivisionError) as error:
        raise ModelError(f"start: {folder}: its config.json is not a UNet's: {error!r}") from error


def _check_fit(model: VideoUNet, state: dict[str, Tensor], folder: str | PathLike[str]) -> None:
    target = model.state_dict()
    wrong = sorted(set(target) ^ set(state))
    wrong += sorted(name for name in set(target) & set(state) if target[name].shape != state[name].shape)
    if wrong:
        raise ModelError(f"{folder}: {len(wrong)} weights do not fit its config.json, {wrong[0]} first")
