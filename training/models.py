"""diffusers' UNets in the recipe's size, and how one phase's weights become the next one's.

State-dict keys are diffusers' own throughout, so that a checkpoint is a folder any diffusers pipeline reads.
"""

from __future__ import annotations

from os import PathLike
from typing import Any, TypeAlias

import torch
from diffusers import UNet2DConditionModel, UNetSpatioTemporalConditionModel
from diffusers.utils import logging
from torch import Tensor, nn

from training.recipe import Net, Phase

UNet: TypeAlias = Any  # UNet2DConditionModel | UNetSpatioTemporalConditionModel, which carry no types
# The last layers of all that the spatio-temporal model has over the image model. Zero, each passes its input on; each still
# gets a gradient at once, because what it multiplies is not zero.
LAST_TEMPORAL = (
    "temporal_res_block.conv2.",
    ".ff_in.net.2.",
    ".attn1.to_out.0.",
    ".attn2.to_out.0.",
    ".ff.net.2.",
    "time_pos_embed.linear_2.",
)


def build(phase: Phase, net: Net, cross_dim: int, sample_size: tuple[int, int]) -> UNet:
    """An untrained UNet for ``phase``. ``cross_dim``: width of the tokens attended to; ``sample_size``: latent (h, w)."""
    attends = ["CrossAttn" if has else "" for has in net.attention]
    kind = "2D" if phase.frames == 1 else "SpatioTemporal"
    common: dict[str, Any] = {
        "in_channels": phase.in_channels,
        "out_channels": 4,
        "block_out_channels": net.channels,
        "down_block_types": tuple(f"{has}DownBlock{kind}" for has in attends),
        "up_block_types": tuple(f"{has}UpBlock{kind}" for has in reversed(attends)),
        "layers_per_block": net.layers,
        "cross_attention_dim": cross_dim,
        "sample_size": sample_size,
    }
    if phase.frames == 1:
        # In UNet2DConditionModel, ``attention_head_dim`` is in truth the number of heads.
        return UNet2DConditionModel(**common, attention_head_dim=net.heads, use_linear_projection=True)
    return UNetSpatioTemporalConditionModel(
        **common,
        num_attention_heads=(net.heads,) * len(net.channels),
        addition_time_embed_dim=net.time_ids,
        projection_class_embeddings_input_dim=3 * net.time_ids,
        num_frames=phase.frames,
    )


def carry(before: nn.Module, after: nn.Module) -> list[str]:
    """Load ``before``'s weights into ``after``, which may be spatio-temporal, have more input channels, or other tokens.

    - 2D → spatio-temporal: spatial weights are copied, the last layers of the temporal parts and of the added ids' embedding
      are zeroed. The start then equals the image model frame by frame, whatever the mix factors, which stay diffusers' 0.5.
      Exact but for float rounding of the blend and diffusers' own eps: some spatio-temporal blocks' norms fix 1e-6 where
      the 2D model has 1e-5. (diffusers zeroes none of these layers itself.)
    - 4 → 8 input channels: ``conv_in`` is zero on the new ones: exact.
    - another ``cross_attention_dim``: the cross-attention's keys and values start anew.

    Returns the names of spatial weights that start anew. Raises ``ValueError`` if the two do not fit.
    """
    source, target = dict(before.state_dict()), after.state_dict()
    inflating = not any("temporal" in name for name in source) and any("temporal" in name for name in target)
    if inflating:
        source = {_spatial(name): value for name, value in source.items()}
    strangers = sorted(set(source) - set(target))
    if strangers:
        raise ValueError(f"net: the last phase's weights do not fit, {strangers[0]} has no place")
    fresh: list[str] = []
    loaded: dict[str, Tensor] = {}
    for name, value in target.items():
        if name in source and source[name].shape == value.shape:
            loaded[name] = source[name]
        elif name == "conv_in.weight" and source[name].shape[1] < value.shape[1]:
            loaded[name] = torch.zeros_like(value)
            loaded[name][:, : source[name].shape[1]] = source[name]
        elif name in source and not (".attn2.to_k." in name or ".attn2.to_v." in name):
            raise ValueError(f"net: {name} is {tuple(source[name].shape)} before and {tuple(value.shape)} after")
        else:
            zero = inflating and name not in source and _is_last(name)
            loaded[name] = torch.zeros_like(value) if zero else value
            fresh += [name] if name in source else []
    after.load_state_dict(loaded)
    return fresh


def _spatial(name: str) -> str:
    """``….resnets.0.conv1.weight`` → ``….resnets.0.spatial_res_block.conv1.weight``; other keys are the same in both."""
    if ".resnets." not in name:
        return name
    head, tail = name.split(".resnets.")
    number, rest = tail.split(".", 1)
    return f"{head}.resnets.{number}.spatial_res_block.{rest}"


def _is_last(name: str) -> bool:
    if name.startswith("add_embedding.linear_2."):
        return True
    spatial = "temporal" not in name and "time_pos_embed" not in name
    return not spatial and any(part in name for part in LAST_TEMPORAL)


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def load_unet(folder: str | PathLike[str], *, video: bool) -> UNet:
    """A checkpoint's UNet."""
    kind: Any = UNetSpatioTemporalConditionModel if video else UNet2DConditionModel
    level = logging.get_verbosity()
    logging.set_verbosity_error()  # it would say that our own config entries are not its
    try:
        model: UNet = kind.from_pretrained(folder)
    finally:
        logging.set_verbosity(level)
    return model
