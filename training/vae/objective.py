"""A temporal decoder's objective: its loss, the units of its parameters, and how it is judged.

Blattmann et al. 2023 (arXiv 2311.15127) finetune the decoder of Stable Diffusion's VAE with temporal layers and do not
publish how. Here the loss is L1 on pixels, on differences of neighbouring pixels and on differences of neighbouring
frames; there is no perceptual (LPIPS) and no adversarial (PatchGAN) loss, so that it removes flicker and invents no
fine texture.

Shape suffixes: B windows, T frames, C channels, H height, W width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dailies.training import distributed
from dailies.training.data.sampling import generator, normal
from dailies.training.models.pixels import Pixels, to_tensor
from dailies.training.vae.recipe import Trains
from dailies.training.vae.windows import Windows

TEMPORAL = ("temporal_res_block", "time_mixer", "time_conv_out")  # in the names of the decoder's temporal layers
OUTPUT_UNIT = 0.1  # of time_conv_out: frames are in [−1, 1], where some hundredths are a large error


def trainable_params(vae: Any, trains: Trains) -> list[tuple[str, torch.nn.Parameter]]:
    """Return names and parameters that finetuning changes; all others stop asking for gradients."""
    chosen = []
    for name, weight in vae.named_parameters():
        inside = name.startswith("decoder.") and (trains == "decoder" or any(part in name for part in TEMPORAL))
        weight.requires_grad_(inside)
        if inside:
            chosen.append((name, weight))
    return chosen


@torch.no_grad()
def units(vae: Any, chosen: Sequence[tuple[str, torch.nn.Parameter]], latents_TCHW: Tensor) -> dict[str, float]:
    """Return the scale of an Adam step, which is absolute, for each of the ``chosen`` parameters.

    A temporal ResBlock's last convolution starts at zero and adds to a stream, so its unit is that stream's RMS, measured over
    ``latents_TCHW`` of one window: streams of SD's VAE and of the built-in one differ by some thousand times. Other temporal
    layers are of unit size, but ``time_conv_out``. A spatial layer's unit is its weights' RMS beside that of torch's initial
    ones, √(1/(3·fan_in)); so one that is zero throughout stays idle.
    """
    streams: dict[str, float] = {}

    def measure(name: str) -> Callable[[Any, Any], None]:
        return lambda module, inputs: streams.__setitem__(name, float(inputs[0].float().square().mean().sqrt()))

    blocks = [(name, block) for name, block in vae.named_modules() if name.endswith("temporal_res_block")]
    hooks = [block.register_forward_pre_hook(measure(name)) for name, block in blocks]
    vae.decode(latents_TCHW, num_frames=len(latents_TCHW))
    for hook in hooks:
        hook.remove()
    unit_of = {}
    for name, _ in chosen:
        layer, _, _ = name.rpartition(".")
        if ".temporal_res_block.conv2" in name:
            unit_of[name] = streams.get(
                layer.removesuffix(".conv2"), 1.0
            )  # diffusers never calls some of more than two layers
        elif any(part in name for part in TEMPORAL):
            unit_of[name] = OUTPUT_UNIT if "time_conv_out" in name else 1.0
        else:
            kernel = vae.get_parameter(f"{layer}.weight")  # a bias goes with its weight
            fan_in = kernel[0].numel() if kernel.ndim > 1 else 1 / 3
            unit_of[name] = float(kernel.float().square().mean().sqrt()) * (3 * fan_in) ** 0.5
    return unit_of


def losses(out_BTCHW: Tensor, x_BTCHW: Tensor) -> dict[str, Tensor]:
    """Return the mean absolute error of pixels, of their differences to the right and below, and of those to the next frame."""

    def differences(dim: int) -> Tensor:
        return F.l1_loss(torch.diff(out_BTCHW, dim=dim), torch.diff(x_BTCHW, dim=dim))

    return {
        "pixel": F.l1_loss(out_BTCHW, x_BTCHW),
        "edges": differences(-1) + differences(-2),
        "flicker": differences(1),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Says how near decoded held-out windows are to the truth. ``psnr``: dB. ``flicker``: mean |Δt out − Δt truth| in levels
    of 0–255."""

    psnr: float
    flicker: float


HeldOut = list[tuple[Tensor, Pixels]]
"""For each held-out window its latents (T, C, h, w) on the CPU, and its true frames (T, H, W, 3)."""


@torch.no_grad()
def encode(vae: Any, frames_THWC: Pixels, rng: np.random.Generator) -> Tensor:
    """Sample the posterior (T, C, h, w): what image decoders are trained on, and what UNets are trained to make."""
    posterior = vae.encode(to_tensor(frames_THWC).to(vae.device)).latent_dist
    noise = normal(rng, tuple(posterior.mean.shape)).to(vae.device)
    latents: Tensor = posterior.mean + posterior.std * noise
    return latents


def encode_held_out(vae: Any, windows: Windows) -> HeldOut:
    """Encode the middle windows of clips spread over all held-out ones, each to its fixed sample of the posterior."""
    count = min(windows.recipe.validation_clips, len(windows))
    # Where a clip cannot be read the next one stands in: each counts once.
    middles = dict(windows.middle(i * len(windows) // count) for i in range(count))
    seed = windows.recipe.seed
    return [
        (encode(vae, frames, generator(seed, "vae held out", i)).cpu(), frames)
        for i, frames in enumerate(middles.values())
    ]


@torch.no_grad()
def quality(decode: Callable[[Tensor], Tensor], held_out: HeldOut, device: torch.device) -> Quality:
    """Measure ``decode``, which makes frames (T, 3, H, W) in [−1, 1] of one window's latents (T, C, h, w).

    Each process takes a share of the windows; the figures are of all. ``device`` serves to add them up.
    """
    world = distributed.world()
    squares, changes, pixels, steps = 0.0, 0.0, 0, 0
    for latents, frames in held_out[world.rank :: world.size]:
        out = ((decode(latents).float().cpu().clamp(-1, 1) + 1) * 127.5).double()
        error = out - torch.from_numpy(np.array(frames)).permute(0, 3, 1, 2).double()
        squares, pixels = squares + float((error**2).sum()), pixels + error.numel()
        change = torch.diff(error, dim=0).abs()  # Δt out − Δt truth = Δt (out − truth)
        changes, steps = changes + float(change.sum()), steps + change.numel()
    sums = torch.tensor([squares, changes, pixels, steps], dtype=torch.float64, device=device)
    squares, changes, pixels, steps = distributed.all_reduce(sums).tolist()
    return Quality(psnr=10 * math.log10(255**2 / max(squares / pixels, 1e-12)), flicker=changes / steps)
