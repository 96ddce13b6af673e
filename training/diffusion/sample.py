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
from dailies.training.diffusion.objective import Edm, Objective, Predictor


def bind_condition(unet: Any, condition: Condition) -> Predictor:
    """Return F of ``unet`` under ``condition``, a function of x and c_noise.

    x is (B, 4, h, w) of images or (B, T, 4, h, w) of videos. ``unet`` may be wrapped for several processes.
    """
    masked_latent = getattr(getattr(unet, "module", unet), "masked_latent", None)

    def forward(x: Tensor, c_noise_B: Tensor) -> Tensor:
        channels = condition.concat_channels(x.shape[1], masked_latent)
        x = x if channels is None else torch.cat([x, channels], 2)
        out: Tensor = unet(x, c_noise_B, condition.tokens_BLD, condition.added_time_ids_BK)
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
    """Sample latents of ``noise``'s shape, scaled to unit variance.

    ``guidance``: the scale for the first and the last frame, linear between; 1 is none.
    """
    sigmas = objective.sigmas(steps).to(noise.device)
    x = objective.init_noise(noise, sigmas[0])
    cond, uncond = bind_condition(unet, condition), bind_condition(unet, condition.unconditional())
    scale = torch.tensor(guidance[1], device=noise.device)
    if x.ndim == 5:
        scale = torch.linspace(*guidance, x.shape[1], device=noise.device).reshape(1, -1, 1, 1, 1)
    for sigma, sigma_next in pairwise(sigmas):
        sigma_B = sigma.expand(len(x))
        denoised = objective.denoise(cond, x, sigma_B).float()
        if max(guidance) > 1:
            denoised_uncond = objective.denoise(uncond, x, sigma_B).float()
            denoised = denoised_uncond + scale * (denoised - denoised_uncond)
        x = objective.euler_step(x, denoised, sigma, sigma_next)
    return x
