"""EDM and flow matching: the equations, diffusers' scheduler, and distributions that sampling must give back."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from dailies.curation.errors import RecipeError  # noqa: E402
from dailies.training.diffusion import objective  # noqa: E402
from dailies.training.diffusion.conditioning import Condition  # noqa: E402
from dailies.training.diffusion.objective import Edm, Flow, Objective  # noqa: E402
from dailies.training.diffusion.sample import sample  # noqa: E402
from dailies.training.recipes.recipe import Phase  # noqa: E402
from dailies.zoo.formats.scheduler import SCHEDULER  # noqa: E402

PHASE = Phase(name="image", task="text-to-image", steps=1, batch=4, size=(32, 24), sigma_max=50.0)
BOTH = pytest.mark.parametrize("how", [Edm(sigma_max=80.0), Flow()], ids=["edm", "flow"])
Tensor = torch.Tensor


def test_every_noise_level_weighs_the_same() -> None:
    sigma = torch.logspace(-3, 3, 50, dtype=torch.float64)
    assert torch.allclose(objective.weight(sigma) * objective.c_out(sigma) ** 2, torch.ones_like(sigma))
    # c_in makes unit variance of σ_data² + σ²; c_skip·x + c_out·F has unit variance for F of unit variance.
    assert torch.allclose(objective.c_in(sigma) ** 2 * (1 + sigma**2), torch.ones_like(sigma))
    total = objective.c_skip(sigma) ** 2 * (1 + sigma**2) + objective.c_out(sigma) ** 2
    assert torch.allclose(total, torch.ones_like(sigma))
    assert torch.allclose(objective.c_noise(sigma), sigma.log() / 4)


def test_the_loss_is_that_of_v_prediction() -> None:
    clean, noise = torch.randn(2, 4, 4, 3, 3).unbind()
    sigma = torch.tensor([0.1, 1.0, 2.0, 30.0])
    level = sigma.reshape(-1, 1, 1, 1)
    v = (noise - level * clean) / torch.sqrt(1 + level**2)  # what F has to say
    assert Edm().loss(lambda x, t: v, clean, noise, sigma).max() < 1e-3
    off = Edm().loss(lambda x, t: v + 1, clean, noise, sigma)
    assert torch.allclose(off, torch.ones(4), atol=1e-3)


def test_the_loss_is_that_of_rectified_flow() -> None:
    clean, noise = torch.randn(2, 4, 4, 3, 3).unbind()
    t = torch.tensor([0.1, 0.5, 0.75, 0.99])
    seen = {}

    def network(x: Tensor, told: Tensor) -> Tensor:
        seen.update(x=x, told=told)
        return noise - clean + torch.tensor([0.0, 1.0, 2.0, 3.0]).reshape(-1, 1, 1, 1)

    loss = Flow().loss(network, clean, noise, t / (1 - t))
    assert torch.allclose(loss, torch.tensor([0.0, 1.0, 4.0, 9.0]), atol=1e-5)
    assert torch.allclose(seen["told"], 1000 * t)
    assert torch.allclose(seen["x"][1], (clean[1] + noise[1]) / 2, atol=1e-6)
    assert torch.allclose(seen["x"][3], 0.01 * clean[3] + 0.99 * noise[3], atol=1e-5)


def test_one_draw_is_log_normal_in_sigma_and_logit_normal_in_t() -> None:
    normal = torch.linspace(-3, 3, 13, dtype=torch.float64)
    sigma = objective.draw_sigma(normal, 0.7, 1.6)
    assert torch.allclose(sigma.log(), 0.7 + 1.6 * normal)
    assert torch.allclose(torch.logit(objective.time(sigma)), 0.7 + 1.6 * normal)


def test_a_phase_says_its_objective() -> None:
    assert objective.of_phase(PHASE) == Edm(sigma_max=50.0)
    assert objective.of_phase(dataclasses.replace(PHASE, objective="flow")) == Flow()
    with pytest.raises(RecipeError, match="objective='ddpm': must be 'edm' or 'flow'"):
        dataclasses.replace(PHASE, objective="ddpm")


def test_sampling_is_that_of_diffusers() -> None:
    from diffusers import EulerDiscreteScheduler

    scheduler = EulerDiscreteScheduler(**SCHEDULER)
    scheduler.set_timesteps(10)
    levels = objective.get_sigmas_karras(10)
    assert torch.allclose(scheduler.sigmas, levels, rtol=1e-4)
    assert torch.allclose(scheduler.timesteps, objective.c_noise(levels[:-1]), atol=1e-4)
    torch.manual_seed(0)
    noise, tokens = torch.randn(1, 4, 4, 4), torch.zeros(1, 1, 8)

    def unet(x: Tensor, t: Tensor, *_: object) -> Tensor:
        return torch.tanh(x) * 0.3 + t.reshape(-1, 1, 1, 1) * 0.1

    x = noise * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        x = scheduler.step(unet(scheduler.scale_model_input(x, t), t), t, x).prev_sample
    ours = sample(unet, Condition(tokens_BLD=tokens), noise, steps=10, guidance=(1.0, 1.0))
    assert torch.allclose(x, ours, rtol=1e-3, atol=1e-3)


def test_flow_sampling_is_that_of_diffusers() -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler()
    # The last level that diffusers makes itself is 1/1000; given the levels it takes them as they are.
    scheduler.set_timesteps(sigmas=[1 - i / 10 for i in range(10)])
    levels = Flow().sigmas(10)
    assert levels[0] == float("inf")
    assert levels[-1] == 0
    assert torch.allclose(scheduler.sigmas, objective.time(levels), atol=1e-6)
    torch.manual_seed(0)
    noise, tokens = torch.randn(1, 4, 4, 4), torch.zeros(1, 1, 8)

    def unet(x: Tensor, t: Tensor, *_: object) -> Tensor:
        return torch.tanh(x) * 0.3 + t.reshape(-1, 1, 1, 1) * 1e-3

    x = noise
    for t in scheduler.timesteps:
        x = scheduler.step(unet(x, t.reshape(1)), t, x).prev_sample
    ours = sample(unet, Condition(tokens_BLD=tokens), noise, Flow(), steps=10, guidance=(1.0, 1.0))
    assert torch.allclose(x, ours, atol=1e-5)


MEAN, SPREAD = 0.7, 0.4


def _ideal(how: Objective) -> Callable[..., Tensor]:
    """The best network there is for latents of N(MEAN, SPREAD²): F that gives E[y | x]."""

    def unet(x: Tensor, told: Tensor, *_: object) -> Tensor:
        told = told.reshape(-1, 1, 1, 1)
        if isinstance(how, Edm):
            sigma = torch.exp(4 * told)
            x = x * torch.sqrt(1 + sigma**2)
            best = MEAN + SPREAD**2 / (SPREAD**2 + sigma**2) * (x - MEAN)
            return (best - objective.c_skip(sigma) * x) / objective.c_out(sigma)
        t = told / 1000
        best = MEAN + (1 - t) * SPREAD**2 / ((1 - t) ** 2 * SPREAD**2 + t**2) * (x - (1 - t) * MEAN)
        return (x - best) / t

    return unet


@BOTH
def test_sampling_gives_the_distribution_that_was_learned(how: Objective) -> None:
    torch.manual_seed(0)
    noise = torch.randn(1000, 4, 3, 2)
    tokens = torch.zeros(1000, 1, 8)
    made = sample(_ideal(how), Condition(tokens_BLD=tokens), noise, how, steps=100, guidance=(1.0, 1.0))
    assert made.mean().item() == pytest.approx(MEAN, abs=0.02)
    assert made.std().item() == pytest.approx(SPREAD, rel=0.03)


@BOTH
def test_the_ideal_network_has_the_least_loss(how: Objective) -> None:
    torch.manual_seed(0)
    clean = MEAN + SPREAD * torch.randn(2000, 4, 3, 2)
    noise, sigma = torch.randn_like(clean), objective.draw_sigma(torch.randn(2000), 0.0, 1.0)
    ideal = _ideal(how)

    def loss(scale: float, shift: float) -> float:
        return how.loss(lambda x, told: scale * ideal(x, told) + shift, clean, noise, sigma).mean().item()

    best = loss(1.0, 0.0)
    assert all(best < loss(*other) for other in ((0.9, 0.0), (1.1, 0.0), (1.0, 0.1), (1.0, -0.1)))


@pytest.mark.parametrize("how", [Edm(sigma_max=50.0), Flow()])
def test_guidance_grows_linearly_over_the_frames(how: Objective) -> None:
    """From no noise at all, one step gives what the condition adds, as often as each frame's guidance says."""

    def unet(x: torch.Tensor, level: torch.Tensor, tokens: torch.Tensor, ids: None) -> torch.Tensor:
        return tokens.mean((1, 2)).reshape(-1, 1, 1, 1, 1).expand_as(x)

    condition = Condition(tokens_BLD=torch.ones(2, 3, 4))
    made = sample(unet, condition, torch.zeros(2, 5, 4, 2, 2), how, steps=1, guidance=(1.0, 3.0))
    each = made[0, :, 0, 0, 0]
    assert (each / each[0]).tolist() == pytest.approx([1.0, 1.5, 2.0, 2.5, 3.0])
