"""The UNet in a recipe's size, and how one phase's weights become the next one's.

Every phase trains the same ``VideoUNet``. An image phase gives it pictures, which pass no temporal layer, so that these stay as
they began, adding nothing; the first video phase then starts as the image model, exactly.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.models.config import UNetConfig
from training.models.video_unet import VideoUNet
from training.recipe import Net, Phase


def build(phase: Phase, net: Net, cross_dim: int, sample_size: tuple[int, int]) -> VideoUNet:
    """An untrained UNet for ``phase``. ``cross_dim``: width of the tokens attended to; ``sample_size``: latent (h, w)."""
    levels = len(net.channels)
    config = UNetConfig(
        in_channels=phase.in_channels,
        channels=net.channels,
        attention=net.attention,
        layers=net.layers,
        heads=net.level_heads,
        transformer_layers=(1,) * levels,
        cross_attention_dim=cross_dim,
        id_width=net.time_ids,
        frames=phase.frames,
        sample_size=sample_size,
    )
    return VideoUNet(config)


def carry(before: VideoUNet, after: VideoUNet) -> list[str]:
    """Load ``before``'s weights into ``after``, which may have more input channels, or attend to other tokens.

    - 4 → 8 input channels: ``conv_in`` is zero on the new ones: exact.
    - another ``cross_attention_dim``: the cross-attention's keys and values start anew.

    Returns the names of weights that start anew. Raises ``ValueError`` if the two do not fit.
    """
    source, target = before.state_dict(), after.state_dict()
    strangers = sorted(set(source) ^ set(target))
    if strangers:
        raise ValueError(f"net: the last phase's weights do not fit, {strangers[0]} is in only one of the two")
    fresh: list[str] = []
    loaded: dict[str, Tensor] = {}
    for name, value in target.items():
        if source[name].shape == value.shape:
            loaded[name] = source[name]
        elif name == "conv_in.weight" and source[name].shape[1] < value.shape[1]:
            loaded[name] = torch.zeros_like(value)
            loaded[name][:, : source[name].shape[1]] = source[name]
        elif ".attn2.to_k." in name or ".attn2.to_v." in name:
            loaded[name] = value
            fresh.append(name)
        else:
            raise ValueError(f"net: {name} is {tuple(source[name].shape)} before and {tuple(value.shape)} after")
    after.load_state_dict(loaded)
    return fresh


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())
