"""Objectives say what the network learns and how it samples: EDM or flow matching, behind one interface.

A noise level is σ, the ratio of noise to signal, whatever the objective, so that draws and validation levels mean the same
for both. Latents have unit variance.

EDM is Karras et al. 2022 (arXiv 2206.00364), with σ_data = 1 and the v-like network of Stable Video Diffusion (arXiv
2311.15127, App. D.2; Stability's ``VScalingWithEDMcNoise``):

    D(x; σ) = c_skip·x + c_out·F(c_in·x; c_noise),  x = y + σ·n                         (Karras eq. 7)

Flow matching is the straight path of Liu et al. 2022 (arXiv 2209.03003) and Lipman et al. 2022 (arXiv 2210.02747):

    x = (1 − t)·y + t·n,  F(x; 1000·t) → n − y,  t = σ/(1 + σ)

Pure tensor functions, y being clean latents and n standard normal noise. Shape suffixes: B batch, then whatever follows; σ and
t are (B,).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from dailies.training.recipes.phase import Phase
from dailies.zoo.formats.scheduler import SIGMA_MAX, SIGMA_MIN

Predictor = Callable[[Tensor, Tensor], Tensor]  # F(scaled noisy latents, c_noise (B,)): of the latents' shape

RHO = 7.0


class Objective(Protocol):
    """An objective answers what training and sampling ask of it. ``loss`` is for training, the rest for sampling."""

    def loss(self, network: Predictor, clean: Tensor, noise: Tensor, sigma_B: Tensor) -> Tensor:
        """Return the mean over each sample, weighted: (B,), float32."""
        ...

    def denoise(self, network: Predictor, x: Tensor, sigma_B: Tensor) -> Tensor:
        """Return D(x; σ): the expected clean latents behind ``x``, of its shape."""
        ...

    def sigmas(self, steps: int) -> Tensor:
        """Return σ before the first Euler step and after each, falling to 0: (steps + 1,)."""
        ...

    def init_noise(self, noise: Tensor, sigma: Tensor) -> Tensor:
        """Return what sampling begins with at the first σ, from standard normal noise."""
        ...

    def euler_step(self, x: Tensor, denoised: Tensor, sigma: Tensor, sigma_next: Tensor) -> Tensor:
        """Return one Euler step from ``sigma`` to ``sigma_next``, where ``denoised`` is D(x; σ)."""
        ...


def of_phase(phase: Phase) -> Objective:
    """Return the objective that ``phase`` trains with and is sampled by."""
    return Flow() if phase.objective == "flow" else Edm(sigma_max=phase.sigma_max)


def draw_sigma(normal_B: Tensor, p_mean: float, p_std: float) -> Tensor:
    """Return σ with ln σ ~ N(p_mean, p_std²), from standard normal draws (Karras Table 1, "training").

    As ln σ is the logit of t, this draws t from the logit-normal of Esser et al. 2024 (arXiv 2403.03206, eq. 19) with
    m = p_mean and s = p_std: one function for both objectives.
    """
    return torch.exp(p_mean + p_std * normal_B)


def expand(value_B: Tensor, like: Tensor) -> Tensor:
    """Return (B,) → (B, 1, 1, …) with as many axes as ``like``."""
    return value_B.reshape(-1, *[1] * (like.ndim - 1))


def to_d(x: Tensor, sigma: Tensor, denoised: Tensor) -> Tensor:
    """Return the derivative that an Euler step follows: (x − D)/σ (Karras Alg. 1, line 4)."""
    return (x - denoised) / sigma


# ---- EDM ------------------------------------------------------------------------------------------------------------


def c_skip(sigma: Tensor) -> Tensor:
    """Return 1/(σ² + 1)."""
    return 1 / (sigma**2 + 1)


def c_out(sigma: Tensor) -> Tensor:
    """Return −σ/√(σ² + 1): the sign of v-prediction."""
    return -sigma / torch.sqrt(sigma**2 + 1)


def c_in(sigma: Tensor) -> Tensor:
    """Return 1/√(σ² + 1): the network's input has unit variance."""
    return 1 / torch.sqrt(sigma**2 + 1)


def c_noise(sigma: Tensor) -> Tensor:
    """Return ¼·ln σ, the network's noise input; diffusers' continuous timestep."""
    return 0.25 * torch.log(sigma)


def weight(sigma: Tensor) -> Tensor:
    """Return λ = (1 + σ²)/σ², so that λ·c_out² = 1: every noise level asks the network for an error of the same size
    (Karras eq. 8)."""
    return (1 + sigma**2) / sigma**2


def get_sigmas_karras(
    steps: int, sigma_max: float = SIGMA_MAX, sigma_min: float = SIGMA_MIN, rho: float = RHO
) -> Tensor:
    """Return σ_0 … σ_{N−1} from ``sigma_max`` down to ``sigma_min``, then 0 (Karras eq. 5): (steps + 1,)."""
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return torch.cat([(high + ramp * (low - high)) ** rho, torch.zeros(1, dtype=torch.float64)]).float()


@dataclass(frozen=True, kw_only=True)
class Edm:
    """Karras et al.'s objective. ``sigma_max``: where sampling begins."""

    sigma_max: float = SIGMA_MAX

    def loss(self, network: Predictor, clean: Tensor, noise: Tensor, sigma_B: Tensor) -> Tensor:
        """Return λ(σ)·‖D(y + σn; σ) − y‖², the mean over each sample (Karras eq. 2 and 8): (B,), in float32."""
        x = clean + expand(sigma_B, clean) * noise
        error = (self.denoise(network, x, sigma_B).float() - clean.float()) ** 2
        per_sample: Tensor = weight(sigma_B) * error.flatten(1).mean(1)
        return per_sample

    def denoise(self, network: Predictor, x: Tensor, sigma_B: Tensor) -> Tensor:
        """Return D(x; σ) (Karras eq. 7). ``network(c_in·x, c_noise)`` is F."""
        skip, out, into = (expand(c(sigma_B), x) for c in (c_skip, c_out, c_in))
        return skip * x + out * network(into * x, c_noise(sigma_B))

    def sigmas(self, steps: int) -> Tensor:
        return get_sigmas_karras(steps, self.sigma_max)

    def init_noise(self, noise: Tensor, sigma: Tensor) -> Tensor:
        """Scale by EulerDiscreteScheduler.init_noise_sigma with "leading" spacing: √(σ² + 1)."""
        return noise * (sigma**2 + 1).sqrt()

    def euler_step(self, x: Tensor, denoised: Tensor, sigma: Tensor, sigma_next: Tensor) -> Tensor:
        """Step along dx/dσ = (x − D)/σ (Karras Alg. 1 without churn and without its second order)."""
        return x + to_d(x, sigma, denoised) * (sigma_next - sigma)


# ---- flow matching --------------------------------------------------------------------------------------------------


def time(sigma: Tensor) -> Tensor:
    """Return t = σ/(1 + σ), 0 for clean and 1 for noise; also of σ = ∞."""
    return torch.sigmoid(torch.log(sigma))


@dataclass(frozen=True, kw_only=True)
class Flow:
    """Rectified flow. All levels weigh the same: what t is drawn from is the weight (Esser, §3.1).

    The network's noise input is 1000·t, because its sinusoids are those of DDPM, made for timesteps from 0 to 1000.
    """

    def loss(self, network: Predictor, clean: Tensor, noise: Tensor, sigma_B: Tensor) -> Tensor:
        """Return ‖F((1 − t)·y + t·n; t) − (n − y)‖², averaged per sample (Liu eq. 1; Lipman eq. 23 with σ_min = 0)."""
        t_B = time(sigma_B)
        t = expand(t_B, clean)
        velocity = network((1 - t) * clean + t * noise, 1000 * t_B)
        error = (velocity.float() - (noise - clean).float()) ** 2
        per_sample: Tensor = error.flatten(1).mean(1)
        return per_sample

    def denoise(self, network: Predictor, x: Tensor, sigma_B: Tensor) -> Tensor:
        """Return y = x − t·(n − y)."""
        t_B = time(sigma_B)
        return x - expand(t_B, x) * network(x, 1000 * t_B)

    def sigmas(self, steps: int) -> Tensor:
        """Return t from 1 down to 0 in even steps; the first σ is ∞."""
        t = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
        return (t / (1 - t)).float()

    def init_noise(self, noise: Tensor, sigma: Tensor) -> Tensor:
        """Return the noise itself: at t = 1 there is nothing else."""
        return noise

    def euler_step(self, x: Tensor, denoised: Tensor, sigma: Tensor, sigma_next: Tensor) -> Tensor:
        """Step along dx/dt = n − y = (x − D)/t."""
        return x + to_d(x, time(sigma), denoised) * (time(sigma_next) - time(sigma))
