"""An image model becomes a video model: temporal layers inserted, input channels added."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dailies.curation.errors import ModelError
from dailies.training.models.config import UNetConfig
from dailies.training.models.video_unet import VideoUNet, is_last, is_temporal

# What SD 1 and 2 are, out of all that UNet2DConditionModel can be: entry → the values that mean so.
PLAIN: dict[str, tuple[Any, ...]] = {
    "mid_block_type": ("UNetMidBlock2DCrossAttn",),
    "act_fn": ("silu",),
    "norm_num_groups": (32,),
    "flip_sin_to_cos": (True,),
    "freq_shift": (0,),
    "conv_in_kernel": (3,),
    "conv_out_kernel": (3,),
    "downsample_padding": (1,),
    "mid_block_scale_factor": (1,),
    "center_input_sample": (False,),
    "only_cross_attention": (False,),
    "dual_cross_attention": (False,),
    "class_embed_type": (None,),
    "addition_embed_type": (None,),
    "encoder_hid_dim": (None,),
    "encoder_hid_dim_type": (None,),
    "time_cond_proj_dim": (None,),
    "time_embedding_type": ("positional",),
    "resnet_time_scale_shift": ("default",),
    "attention_type": ("default",),
}


def insert_temporal(
    unet2d: nn.Module | Mapping[str, Tensor],
    config: Mapping[str, Any] | None = None,
    *,
    frames: int = 14,
    time_id_width: int | None = 256,
    num_time_ids: int = 3,
) -> VideoUNet:
    """Return the video model of a diffusers ``UNet2DConditionModel``, given as itself or as state dict and ``config.json``.

    Spatial weights are copied; what the new layers and the added time ids give is zero, so that every frame passes as an image
    passes our own image model, exactly. Against diffusers' ``UNet2DConditionModel`` there remains the eps of some norms:
    1e-6 in diffusers' video model and in ours, 1e-5 in its image model. Convolutional projections (SD 1) become linear.
    Raises ``ModelError`` naming the entry of a configuration that is not SD's, or the weight that has no place.
    """
    row: Any = unet2d.config if config is None and isinstance(unet2d, nn.Module) else config
    state: Mapping[str, Tensor] = unet2d.state_dict() if isinstance(unet2d, nn.Module) else unet2d
    if row is None:
        raise ModelError("config: a state dict needs the image model's config.json")
    model = VideoUNet(video_config(row, frames=frames, time_id_width=time_id_width, num_time_ids=num_time_ids))
    copy_spatial(state, model)
    return model


def copy_spatial(state: Mapping[str, Tensor], model: VideoUNet) -> None:
    """Load an image model's weights, by diffusers' keys, into ``model``, whose new layers then change nothing.

    Raises ``ModelError`` naming the weight that does not fit.
    """
    target = model.state_dict()
    wanted = {name for name in target if not is_temporal(name) and not name.startswith("add_embedding.")}
    weights = {_spatial(name): value for name, value in state.items()}
    for name in sorted(wanted ^ set(weights)):
        raise ModelError(f"{name}: {'missing from' if name in wanted else 'has no place for'} the image model's weight")
    for name, value in weights.items():
        if name.endswith((".proj_in.weight", ".proj_out.weight")) and value.ndim == 4:
            value = value.flatten(1)  # a 1×1 convolution
        if value.shape != target[name].shape:
            raise ModelError(f"{name}: {tuple(value.shape)} in the image model, {tuple(target[name].shape)} here")
        target[name] = value
    for name in target:
        if is_last(name):
            target[name] = torch.zeros_like(target[name])
    model.load_state_dict(target)


def widen_input(model: VideoUNet, channels: int) -> VideoUNet:
    """Widen ``model`` to ``channels`` input channels, in place, and return it.

    The new channels come last and their weights are zero at first, so that what is concatenated changes nothing. An
    optimizer made before holds the old ``conv_in``. Raises ``ModelError`` if there are more already.
    """
    old = model.conv_in
    if channels < old.in_channels:
        raise ModelError(f"channels={channels}: the model already has {old.in_channels}; channels are only added")
    wide = nn.Conv2d(channels, old.out_channels, 3, padding=1, device=old.weight.device, dtype=old.weight.dtype)
    with torch.no_grad():
        wide.weight.zero_()
        wide.weight[:, : old.in_channels] = old.weight
        wide.bias.copy_(old.bias)  # type: ignore[union-attr,arg-type]
    model.conv_in = wide
    model.config = dataclasses.replace(model.config, in_channels=channels)
    return model


def _spatial(name: str) -> str:
    """Map ``….resnets.0.conv1.weight`` to ``….resnets.0.spatial_res_block.conv1.weight``; other keys are equal."""
    if ".resnets." not in name:
        return name
    head, tail = name.split(".resnets.")
    number, rest = tail.split(".", 1)
    return f"{head}.resnets.{number}.spatial_res_block.{rest}"


def video_config(
    row: Mapping[str, Any], *, frames: int = 14, time_id_width: int | None = 256, num_time_ids: int = 3
) -> UNetConfig:
    """Return the shape of the video model that an image model's ``config.json`` becomes. Raises ``ModelError`` naming the entry
    that is not SD's."""
    for name, allowed in PLAIN.items():
        if name in row and row[name] not in allowed:
            raise ModelError(
                f"{name}={row[name]!r}: Stable Diffusion has {allowed[0]!r}; other image models are not supported"
            )
    # In UNet2DConditionModel, ``attention_head_dim`` is in truth the number of heads.
    heads = row.get("num_attention_heads") or row.get("attention_head_dim", 8)
    mirrored = {
        "down_block_types": [_kind(kind) for kind in row["down_block_types"]],
        "up_block_types": [_kind(kind) for kind in row["up_block_types"]],
    }
    kept = ("in_channels", "out_channels", "block_out_channels", "layers_per_block", "sample_size")
    return UNetConfig.from_diffusers(
        {name: row[name] for name in kept if name in row}
        | mirrored
        | {
            "in_channels": row.get("in_channels", 4),
            "num_attention_heads": heads,
            "transformer_layers_per_block": row.get("transformer_layers_per_block", 1),
            "cross_attention_dim": row.get("cross_attention_dim", 1280),
            "num_frames": frames,
            "addition_time_embed_dim": time_id_width,
            "projection_class_embeddings_input_dim": None if time_id_width is None else num_time_ids * time_id_width,
        }
    )


def _kind(kind: str) -> str:
    """Return ``CrossAttnDownBlock2D`` → ``CrossAttnDownBlockSpatioTemporal``."""
    return kind.removesuffix("2D") + "SpatioTemporal"
