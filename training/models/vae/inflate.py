"""An image VAE inflated to one with a temporal decoder, which starts as the image decoder frame by frame."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderKLTemporalDecoder
from torch import Tensor

from dailies.curation.errors import ModelError

# What the temporal decoder of one layer a block has no place for, or does not use; here it stays the identity.
# (Its middle has layers_per_block ResBlocks and an attention after the first one only if a second follows.)
LACKING = ("decoder.mid_block.resnets.1.", "decoder.mid_block.attentions.")


def inflate(vae: AutoencoderKL) -> AutoencoderKLTemporalDecoder:
    """Return the same encoder, and a temporal decoder that starts as the image decoder frame by frame, in float32.

    Every temporal ResBlock's last convolution is zero, so that it passes its input on and any blend of the two branches
    is the spatial one; ``time_conv_out`` is the identity kernel. The temporal layers' first convolutions are random,
    always the same for VAEs of one shape.

    The temporal class has no ``post_quant_conv``: it is folded into ``decoder.conv_in``. That is exact except for its
    bias in the outermost ring of latents: conv_in pads with zeros after it, the folded one before it (``_fold``).
    Raises ``ModelError`` naming what else the class has no place for.
    """
    _check_place(vae)
    config = vae.config
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        out = AutoencoderKLTemporalDecoder(
            in_channels=config.in_channels,
            out_channels=config.out_channels,
            block_out_channels=tuple(config.block_out_channels),
            down_block_types=tuple(config.down_block_types),
            layers_per_block=config.layers_per_block,
            latent_channels=config.latent_channels,
            sample_size=config.sample_size,
            scaling_factor=config.scaling_factor,
            force_upcast=config.force_upcast,
        )
    out.encoder.load_state_dict(_filled(out.encoder, vae.encoder.state_dict()))
    if vae.quant_conv is not None:
        out.quant_conv.load_state_dict(vae.quant_conv.state_dict())
    else:
        torch.nn.init.dirac_(out.quant_conv.weight)
        torch.nn.init.zeros_(out.quant_conv.bias)
    state = vae.decoder.state_dict()
    if vae.post_quant_conv is not None:
        state |= _fold(vae)
    if config.layers_per_block == 1:
        state = _without_idle(state)
    state = {_spatial(name) if ".resnets." in name else name: value for name, value in state.items()}
    out.decoder.load_state_dict(_filled(out.decoder, state))
    return out.to(vae.device).eval()


def _check_place(vae: AutoencoderKL) -> None:
    """Raise ``ModelError`` naming a setting that the temporal class cannot have."""
    config = vae.config
    fixed: dict[str, tuple[Any, ...]] = {
        "norm_num_groups": (32,),
        "act_fn": ("silu", "swish"),  # the same function
        # The pipelines that decode with the temporal class only divide by scaling_factor.
        "shift_factor": (None,),
        "latents_mean": (None,),
        "latents_std": (None,),
    }
    for name, allowed in fixed.items():
        if config[name] not in allowed:
            raise ModelError(f"vae: {name}={config[name]}: a temporal decoder has {allowed[0]}")
    if other := sorted(set(config.up_block_types) - {"UpDecoderBlock2D"}):
        raise ModelError(f"vae: up_block_types={other[0]}: a temporal decoder has UpDecoderBlock2D only")


def _fold(vae: AutoencoderKL) -> dict[str, Tensor]:
    """Return ``conv_in`` ∘ ``post_quant_conv`` as one convolution: W'(o, c) = Σ_i W(o, i)·P(i, c), b' = b + Σ W·p.

    Zeros around Pz + p differ from zeros around z by the bias p, which the folded kernel adds outside too. No one
    kernel has both, so b' is that of the inside, which all but the outermost ring of latents is.
    """
    weight, bias = vae.decoder.conv_in.weight.detach().double(), vae.decoder.conv_in.bias.detach().double()
    post = vae.post_quant_conv.weight.detach().double()[:, :, 0, 0]
    folded = torch.einsum("oikl,ic->ockl", weight, post)
    shifted = bias + weight.sum((2, 3)) @ vae.post_quant_conv.bias.detach().double()
    return {"conv_in.weight": folded.float(), "conv_in.bias": shifted.float()}


def _without_idle(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Drop the layers that a temporal decoder of one layer a block lacks. Raises ``ModelError`` where one does something."""
    for name, value in state.items():
        writes = "conv2." in name or "to_out.0" in name
        if f"decoder.{name}".startswith(LACKING) and writes and value.any():
            raise ModelError(
                f"vae: decoder.{name} is not zero, and a temporal decoder of layers_per_block 1 has no such layer"
            )
    return {name: value for name, value in state.items() if not f"decoder.{name}".startswith(LACKING)}


def _filled(part: torch.nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the state of ``part`` with ``weights`` in it; what they lack starts idle."""
    state = part.state_dict()
    if unknown := sorted(set(weights) - set(state)):
        raise ModelError(f"vae: the temporal decoder has no place for {unknown[0]}")
    for name, value in state.items():
        if name in weights:
            assert value.shape == weights[name].shape, name
            state[name] = weights[name]
        elif "temporal_res_block.conv2" in name or "to_out.0" in name or name.startswith("time_conv_out"):
            state[name] = torch.zeros_like(value)
    if "time_conv_out.weight" in state:
        torch.nn.init.dirac_(state["time_conv_out.weight"])
    return state


def _spatial(name: str) -> str:
    """Return ``mid_block.resnets.0.conv1.weight`` → ``mid_block.resnets.0.spatial_res_block.conv1.weight``."""
    head, tail = name.split(".resnets.")
    number, rest = tail.split(".", 1)
    return f"{head}.resnets.{number}.spatial_res_block.{rest}"
