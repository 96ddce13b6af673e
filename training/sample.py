"""Sampling: Euler over EDM noise levels with guidance that grows over the frames.

Karras et al. 2022 (arXiv 2206.00364), Alg. 1 without churn and eq. 5 (ρ = 7); guidance as
StableVideoDiffusionPipeline: linear from
the first frame to the last. ``SCHEDULER`` says the same to diffusers.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from training.conditioning import Condition
from training.objective import denoise, expand

SIGMA_MIN, SIGMA_MAX, RHO = 0.002, 700.0, 7.0

# EulerDiscreteScheduler of the published image-to-video models. ``sigma_max`` is a phase's own.
SCHEDULER: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "interpolation_type": "linear",
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "sigma_min": SIGMA_MIN,
    "sigma_max": SIGMA_MAX,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "timestep_type": "continuous",
    "use_karras_sigmas": True,
}


def sigmas(steps: int, sigma_max: float = SIGMA_MAX, sigma_min: float = SIGMA_MIN, rho: float = RHO) -> Tensor:
    """σ_0 … σ_{N−1} from ``sigma_max`` down to ``sigma_min``, then 0 (Karras eq. 5): (steps + 1,)."""
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return torch.cat([(high + ramp * (low - high)) ** rho, torch.zeros(1, dtype=torch.float64)]).float()


def network(unet: Any, condition: Condition) -> Callable[[Tensor, Tensor], Tensor]:
    """F(x, c_noise) of a UNet under a condition; x is (B, 4, h, w) of images or (B, T, 4, h, w) of videos."""

    def forward(x: Tensor, noise_B: Tensor) -> Tensor:
        if condition.image_BCHW is not None:
            x = torch.cat([x, condition.image_BCHW[:, None].expand(-1, x.shape[1], -1, -1, -1)], 2)
        out: Tensor = unet(x, noise_B, condition.tokens_BLD, condition.ids_B3)
        return out

    return forward


@torch.no_grad()
def sample(
    unet: Any,
    condition: Condition,
    noise: Tensor,
    *,
    steps: int = 25,
    sigma_max: float = SIGMA_MAX,
    guidance: tuple[float, float] = (1.0, 3.0),
) -> Tensor:
    """Latents of ``noise``'s shape, unit variance, scaled. ``guidance``: of the first and the last frame; 1 is none."""
    levels = sigmas(steps, sigma_max)
    # EulerDiscreteScheduler.init_noise_sigma with "leading" spacing: √(σ_max² + 1).
    x = noise * (levels[0] ** 2 + 1).sqrt()
    conditional, free = network(unet, condition), network(unet, condition.without())
    scale = torch.tensor(guidance[1])
    if x.ndim == 5:
        scale = torch.linspace(*guidance, x.shape[1]).reshape(1, -1, 1, 1, 1)
    for sigma, after in pairwise(levels):
        sigma_B = sigma.expand(len(x))
        clean = denoise(conditional, x, sigma_B).float()
        if max(guidance) > 1:
            without = denoise(free, x, sigma_B).float()
            clean = without + scale * (clean - without)
        x = x + (x - clean) / expand(sigma_B, x) * (after - sigma)  # Euler along dx/dσ = (x − D)/σ
    return x
