"""The EDM objective: preconditioning, noise levels, weights. Pure tensor functions.

Karras et al. 2022 (arXiv 2206.00364), with σ_data = 1 and the v-like network of Stable Video Diffusion (arXiv 2311.15127,
App. D.2; Stability's ``VScalingWithEDMcNoise``):

    D(x; σ) = c_skip·x + c_out·F(c_in·x; c_noise)                                       (Karras eq. 7)

Shape suffixes: B batch, then whatever follows; σ is (B,).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def c_skip(sigma: Tensor) -> Tensor:
    """1/(σ² + 1)."""
    return 1 / (sigma**2 + 1)


def c_out(sigma: Tensor) -> Tensor:
    """−σ/√(σ² + 1): the sign of v-prediction."""
    return -sigma / torch.sqrt(sigma**2 + 1)


def c_in(sigma: Tensor) -> Tensor:
    """1/√(σ² + 1): the network's input has unit variance."""
    return 1 / torch.sqrt(sigma**2 + 1)


def c_noise(sigma: Tensor) -> Tensor:
    """¼·ln σ: what the network is told; diffusers' continuous timestep."""
    return 0.25 * torch.log(sigma)


def weight(sigma: Tensor) -> Tensor:
    """λ = (1 + σ²)/σ², so that λ·c_out² = 1: every noise level asks the network for an error of the same size
    (Karras eq. 8)."""
    return (1 + sigma**2) / sigma**2


def draw_sigma(normal_B: Tensor, p_mean: float, p_std: float) -> Tensor:
    """σ with ln σ ~ N(p_mean, p_std²), from standard normal draws (Karras Table 1, "training")."""
    return torch.exp(p_mean + p_std * normal_B)


def expand(value_B: Tensor, like: Tensor) -> Tensor:
    """(B,) → (B, 1, 1, …) with as many axes as ``like``."""
    return value_B.reshape(-1, *[1] * (like.ndim - 1))


def denoise(network: Callable[[Tensor, Tensor], Tensor], x: Tensor, sigma_B: Tensor) -> Tensor:
    """D(x; σ): the expected clean latents behind ``x``. ``network(c_in·x, c_noise)`` is F."""
    skip, out, into = (expand(c(sigma_B), x) for c in (c_skip, c_out, c_in))
    return skip * x + out * network(into * x, c_noise(sigma_B))


def loss(network: Callable[[Tensor, Tensor], Tensor], clean: Tensor, noise: Tensor, sigma_B: Tensor) -> Tensor:
    """λ(σ)·‖D(y + σn; σ) − y‖², the mean over each sample (Karras eq. 2 and 8): (B,), in float32."""
    x = clean + expand(sigma_B, clean) * noise
    error = (denoise(network, x, sigma_B).float() - clean.float()) ** 2
    per_sample: Tensor = weight(sigma_B) * error.flatten(1).mean(1)
    return per_sample
