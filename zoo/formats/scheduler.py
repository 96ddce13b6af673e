"""The noise schedule of a published model: SVD's (arXiv 2311.15127), as diffusers' ``EulerDiscreteScheduler`` takes it."""

from __future__ import annotations

from typing import Any

SIGMA_MIN, SIGMA_MAX = 0.002, 700.0  # arXiv 2311.15127 App. D

SCHEDULER: dict[str, Any] = {
    "beta_start": 0.00085,  # the betas are SVD's; Karras sigmas leave them unused
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "interpolation_type": "linear",
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "sigma_min": SIGMA_MIN,
    "sigma_max": SIGMA_MAX,
    "steps_offset": 1,
    "timestep_spacing": "leading",  # makes the first noise √(σ_max² + 1)
    "timestep_type": "continuous",  # timesteps are ¼ ln σ
    "use_karras_sigmas": True,  # EDM's sigmas, rho 7
}
"""Euler over EDM's sigmas with v-prediction: what training's ``Edm`` objective samples."""


def scheduler_config(*, sigma_min: float | None = None, sigma_max: float | None = None) -> dict[str, Any]:
    """Return ``SCHEDULER`` with a model's own range of noise; ``None`` keeps SVD's."""
    return SCHEDULER | {"sigma_min": sigma_min or SIGMA_MIN, "sigma_max": sigma_max or SIGMA_MAX}
