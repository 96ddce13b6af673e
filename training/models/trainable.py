"""The UNet in a recipe's size, what of it a phase trains, and how one phase's weights become the next one's.

Every phase trains the same ``VideoUNet``. An image phase gives it pictures, which pass no temporal layer, so that these stay as
they began, adding nothing; the first video phase then starts as the image model, exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from os import PathLike

import torch
from torch import Tensor, nn

from dailies.curation.errors import ModelError
from dailies.training.models.config import UNetConfig
from dailies.training.models.insert import insert_temporal, video_config
from dailies.training.models.io import load, load_image_model, read_config
from dailies.training.models.lora import add_lora
from dailies.training.models.video_unet import VideoUNet, is_temporal
from dailies.training.recipes.phase import Phase
from dailies.training.recipes.recipe import Net


def build(phase: Phase, net: Net | UNetConfig, cross_dim: int, sample_size: tuple[int, int]) -> VideoUNet:
    """An untrained UNet for ``phase``. ``net``: a recipe's, or the shape of given weights; ``cross_dim``: width of the tokens
    attended to; ``sample_size``: latent (h, w)."""
    return VideoUNet(config_of(phase, net, cross_dim, sample_size))


def config_of(phase: Phase, net: Net | UNetConfig, cross_dim: int, sample_size: tuple[int, int]) -> UNetConfig:
    """The shape of ``phase``'s UNet."""
    kind = phase.kind
    own = {
        "in_channels": kind.in_channels,
        "cross_attention_dim": cross_dim,
        "ids": kind.ids,
        "masked": kind.masked,
        "frames": phase.frames,
        "sample_size": sample_size,
    }
    if isinstance(net, UNetConfig):
        # Weights without added ids (SD's) are given them, which change nothing at first.
        return replace(net, id_width=net.id_width or 256, **own)  # type: ignore[arg-type]
    return UNetConfig(
        channels=net.channels,
        attention=net.attention,
        layers=net.layers,
        heads=net.level_heads,
        transformer_layers=(1,) * len(net.channels),
        id_width=net.time_ids,
        **own,  # type: ignore[arg-type]
    )


# ---- what is trained ------------------------------------------------------------------------------------------------

PARTS: Mapping[str, Callable[[str], bool]] = {
    "all": lambda name: True,
    "time-embedding": lambda name: name.startswith("time_embedding."),
    "temporal": lambda name: is_temporal(name) or name.startswith(("add_embedding.", "masked_latent")),
}
"""``Phase.trains`` → which parameters, by their names."""


def prepare(unet: VideoUNet, phase: Phase, widened: Collection[str] = ()) -> None:
    """Let those weights be trained that ``phase`` says, in place: adapters are added, the others take no gradient.

    ``widened``: names of weights that have more inputs than what the phase started from, or are new: those are zero there, and
    must be trained whatever the phase says, or it would never look at what it is shown. In an image phase temporal layers get
    no gradient anyhow. Raises ``ModelError`` for unknown parts or levels.
    """
    unet.checkpoint_levels(phase.checkpoint_levels)
    if phase.lora:
        add_lora(unet, phase.lora, phase.lora_rank)
        return
    wanted = PARTS[phase.trains]
    for name, parameter in unet.named_parameters():
        used = phase.kind.video or not (is_temporal(name) or name.startswith("add_embedding."))
        parameter.requires_grad_(used and (wanted(name) or name in widened))


def trained(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that take a gradient."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


# ---- where it starts ------------------------------------------------------------------------------------------------


IMAGE_MODEL = "UNet2DConditionModel"


def given_config(folder: str | PathLike[str]) -> UNetConfig:
    """The shape of given weights, those of an image model as a video model; no weight is read. Raises ``ModelError``."""
    row = read_config(folder)
    try:
        return video_config(row) if row.get("_class_name") == IMAGE_MODEL else UNetConfig.from_diffusers(row)
    except (KeyError, TypeError, ZeroDivisionError) as error:
        raise ModelError(f"start: {folder}: config.json is not one of a UNet: {error!r}") from error


def given(folder: str | PathLike[str]) -> VideoUNet:
    """Given weights in float32: a video model's, or an image model's with temporal layers that change nothing yet."""
    if read_config(folder).get("_class_name") != IMAGE_MODEL:
        return load(folder, dtype=torch.float32)
    state, row = load_image_model(folder)
    return insert_temporal(state, row)


NEW = ("add_embedding.", "masked_latent")
WIDENED = ("conv_in.weight", "add_embedding.linear_1.weight")


def carry(before: VideoUNet, after: VideoUNet) -> list[str]:
    """Load ``before``'s weights into ``after``, which may have more input channels or ids, or attend to other tokens.

    - more input channels, more added ids: zero on the new ones: exact.
    - another ``cross_attention_dim``: the cross-attention's keys and values start anew.
    - added ids, or a masked latent, where there were none: they begin adding nothing.

    Returns the names of weights that start anew. Raises ``ModelError`` if the two do not fit.
    """
    source, target = before.state_dict(), after.state_dict()
    begun = {name for name in target if name.startswith(NEW) and name not in source}
    strangers = sorted((set(source) ^ set(target)) - begun)
    if strangers:
        raise ModelError(f"net: the last phase's weights do not fit, {strangers[0]} is in only one of the two")
    fresh: list[str] = []
    loaded: dict[str, Tensor] = {}
    for name, value in target.items():
        if name in begun:
            loaded[name] = value
        elif source[name].shape == value.shape:
            loaded[name] = source[name]
        elif name in WIDENED and source[name].shape[1] < value.shape[1]:
            loaded[name] = torch.zeros_like(value)
            loaded[name][:, : source[name].shape[1]] = source[name]
        elif ".attn2.to_k." in name or ".attn2.to_v." in name:
            loaded[name] = value
            fresh.append(name)
        else:
            raise ModelError(f"net: {name} is {tuple(source[name].shape)} before and {tuple(value.shape)} after")
    after.load_state_dict(loaded)
    return fresh


def grown(before: VideoUNet, after: VideoUNet) -> list[str]:
    """Names of ``after``'s weights that are wider than ``before``'s, or new."""
    source = before.state_dict()
    return [
        name
        for name, value in after.state_dict().items()
        if name not in source or (name in WIDENED and source[name].shape != value.shape)
    ]


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())
