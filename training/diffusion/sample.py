"""Sampling: Euler over an objective's noise levels with guidance that grows over the frames.

Guidance is StableVideoDiffusionPipeline's: linear from the first frame to the last.
``dailies.zoo.formats.scheduler.SCHEDULER`` says to diffusers what ``Edm`` does; its video pipelines have none that does
what ``Flow`` does.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from dailies.training.diffusion.conditioning import Condition
from dailies.training.diffusion.objective import Edm, Network, Objective


def network(unet: Any, condition: Condition) -> Network:
    """F of a UNet under a condition; x is (B, 4, h, w) of images or (B, T, 4, h, w) of videos. ``unet`` may be wrapped
    for several processes."""
    masked = getattr(getattr(unet, "module", unet), "masked_latent", None)

    def forward(x: Tensor, noise_B: Tensor) -> Tensor:
        beside = condition.beside(x.shape[1], masked)
        out: Tensor = unet(
            x if beside is None else torch.cat([x, beside], 2), noise_B, condition.tokens_BLD, condition.ids_BK
        )
        return out

    return forward


@torch.no_grad()
def sample(
    unet: Any,
    condition: Condition,
    noise: Tensor,
    objective: Objective = Edm(),  # noqa: B008  (frozen)
    *,
    steps: int = 25,
    guidance: tuple[float, float] = (1.0, 3.0),
) -> Tensor:
    """Latents of ``noise``'s shape, unit variance, scaled. ``guidance``: of the first and the last frame; 1 is none."""
    levels = objective.levels(steps).to(noise.device)
    x = objective.start(noise, levels[0])
    conditional, free = network(unet, condition), network(unet, condition.without())
    scale = torch.tensor(guidance[1], device=noise.device)
    if x.ndim == 5:
        scale = torch.linspace(*guidance, x.shape[1], device=noise.device).reshape(1, -1, 1, 1, 1)
    for sigma, after in pairwise(levels):
        sigma_B = sigma.expand(len(x))
        clean = objective.denoise(conditional, x, sigma_B).float()
        if max(guidance) > 1:
            without = objective.denoise(free, x, sigma_B).float()
            clean = without + scale * (clean - without)
        x = objective.step(x, clean, sigma, after)
    return x
