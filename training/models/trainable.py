"""The UNet in a recipe's size, what of it a phase trains, and how one phase's weights become the next one's.

Every phase trains the same ``VideoUNet``. An image phase gives it pictures, which pass no temporal layer, so that these stay as
they began, adding nothing; the first video phase then starts as the image model, exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from dailies.curation.errors import ModelError
from dailies.training.models.config import UNetConfig
from dailies.training.models.lora import add_lora
from dailies.training.models.video_unet import VideoUNet, is_temporal
from dailies.training.recipes.phase import Phase
from dailies.training.recipes.recipe import UNetSpec


def build(phase: Phase, shape: UNetSpec | UNetConfig, cross_dim: int, sample_size: tuple[int, int]) -> VideoUNet:
    """Build an untrained UNet for ``phase``.

    Args:
        shape: a recipe's, or that of pretrained weights.
        cross_dim: width of the tokens attended to.
        sample_size: latent (height, width).
    """
    return VideoUNet(config_of(phase, shape, cross_dim, sample_size))


def config_of(phase: Phase, shape: UNetSpec | UNetConfig, cross_dim: int, sample_size: tuple[int, int]) -> UNetConfig:
    """Return the shape of ``phase``'s UNet. Arguments as for ``build``."""
    spec = phase.task_spec
    own = {
        "in_channels": spec.in_channels,
        "cross_attention_dim": cross_dim,
        "num_time_ids": spec.num_time_ids,
        "masked": spec.masked,
        "frames": phase.frames,
        "sample_size": sample_size,
    }
    if isinstance(shape, UNetConfig):
        # Weights without time ids (SD's) gain them; they change nothing at first.
        return replace(shape, time_id_width=shape.time_id_width or 256, **own)  # type: ignore[arg-type]
    return UNetConfig(
        channels=shape.channels,
        attention=shape.attention,
        layers=shape.layers,
        heads=shape.level_heads,
        transformer_layers=(1,) * len(shape.channels),
        time_id_width=shape.time_id_width,
        **own,  # type: ignore[arg-type]
    )


# ---- what is trained ------------------------------------------------------------------------------------------------

TRAINABLE: Mapping[str, Callable[[str], bool]] = {
    "all": lambda name: True,
    "time-embedding": lambda name: name.startswith("time_embedding."),
    "temporal": lambda name: is_temporal(name) or name.startswith(("add_embedding.", "masked_latent")),
}
"""``Phase.trains`` → which parameters, by their names."""


def set_trainable(unet: VideoUNet, phase: Phase, widened: Collection[str] = ()) -> None:
    """Choose, in place, which weights ``phase`` trains: adapters are added where it asks; all others take no gradient.

    ``widened``: names of weights with more inputs than what the phase started from, and of new ones. They are zero at first
    and are trained whatever the phase says, or the network would never use its new inputs. In an image phase temporal layers
    get no gradient anyway. Raises ``ModelError`` for unknown parts or levels.
    """
    unet.checkpoint_levels(phase.checkpoint_levels)
    if phase.lora:
        add_lora(unet, phase.lora, phase.lora_rank)
        return
    wanted = TRAINABLE[phase.trains]
    for name, parameter in unet.named_parameters():
        used = phase.task_spec.video or not (is_temporal(name) or name.startswith("add_embedding."))
        parameter.requires_grad_(used and (wanted(name) or name in widened))


def trainable_params(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that take a gradient."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


# ---- from one phase to the next --------------------------------------------------------------------------------------

NEW = ("add_embedding.", "masked_latent")
WIDENED = ("conv_in.weight", "add_embedding.linear_1.weight")


def transfer_weights(before: VideoUNet, after: VideoUNet) -> list[str]:
    """Load ``before``'s weights into ``after``, which may have more input channels or time ids, or attend to other tokens.

    - more input channels or time ids: the weights on the new ones are zero, so the function stays exactly the same.
    - another ``cross_attention_dim``: the cross-attention's keys and values keep their new, random weights.
    - time ids, or a masked latent, where there were none: they add nothing at first.

    Returns the names of the weights that stay random. Raises ``ModelError`` if the two do not fit.
    """
    source, target = before.state_dict(), after.state_dict()
    added = {name for name in target if name.startswith(NEW) and name not in source}
    strangers = sorted((set(source) ^ set(target)) - added)
    if strangers:
        raise ModelError(f"unet: the last phase's weights do not fit: only one of the two has {strangers[0]}")
    reinitialized: list[str] = []
    loaded: dict[str, Tensor] = {}
    for name, value in target.items():
        if name in added:
            loaded[name] = value
        elif source[name].shape == value.shape:
            loaded[name] = source[name]
        elif name in WIDENED and source[name].shape[1] < value.shape[1]:
            loaded[name] = torch.zeros_like(value)
            loaded[name][:, : source[name].shape[1]] = source[name]
        elif ".attn2.to_k." in name or ".attn2.to_v." in name:
            loaded[name] = value
            reinitialized.append(name)
        else:
            raise ModelError(f"unet: {name} is {tuple(source[name].shape)} before and {tuple(value.shape)} after")
    after.load_state_dict(loaded)
    return reinitialized


def widened_params(before: VideoUNet, after: VideoUNet) -> list[str]:
    """Return names of ``after``'s weights that are wider than ``before``'s, or new."""
    source = before.state_dict()
    return [
        name
        for name, value in after.state_dict().items()
        if name not in source or (name in WIDENED and source[name].shape != value.shape)
    ]
