"""The temporal decoder's formulas on numbers that are known: losses and their weights, units, windows, and the judgement."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from torch import nn  # noqa: E402

from dailies.training.models.vae import vae  # noqa: E402
from dailies.training.vae import objective  # noqa: E402
from dailies.training.vae.recipe import VaeRecipe  # noqa: E402
from dailies.training.vae.task import VaeTask  # noqa: E402
from dailies.training.vae.windows import Window, Windows  # noqa: E402

RECIPE = VaeRecipe(frames=3, size=(4, 4), edges=0.25, flicker=3.0, validation_clips=4)


def known() -> tuple[Any, Any, dict[str, float]]:
    """Frames made of random numbers, (1, T, C, H, W), and their losses, by numpy."""
    rng = np.random.default_rng(0)
    out, x = rng.random((2, 1, 3, 3, 4, 4), np.float32)
    error = out - x
    wanted = {
        "pixel": np.abs(error).mean(),
        "edges": np.abs(np.diff(error, axis=4)).mean() + np.abs(np.diff(error, axis=3)).mean(),
        "flicker": np.abs(np.diff(error, axis=1)).mean(),
    }
    return torch.from_numpy(out), torch.from_numpy(x), {name: float(value) for name, value in wanted.items()}


def test_losses_are_of_pixels_of_edges_both_ways_and_of_the_next_frame() -> None:
    out, x, wanted = known()
    assert {name: float(value) for name, value in objective.losses(out, x).items()} == pytest.approx(wanted)


class Vae:
    """Its posterior has mean 1 and standard deviation 2."""

    device = torch.device("cpu")

    def encode(self, x: Any) -> Any:
        mean = torch.ones(len(x), 4, 1, 1)
        return SimpleNamespace(latent_dist=SimpleNamespace(mean=mean, std=2 * mean, var=4 * mean))


def test_a_window_is_encoded_to_a_sample_of_its_posterior() -> None:
    latents = objective.encode(Vae(), np.zeros((3, 4, 4, 3), np.uint8), np.random.default_rng(5))
    normal = np.random.default_rng(5).standard_normal((3, 4, 1, 1), dtype=np.float32)
    torch.testing.assert_close(latents, torch.from_numpy(1 + 2 * normal))


def test_the_loss_weighs_edges_and_flicker_as_the_recipe_says() -> None:
    out, x, _ = known()
    pixels = ((x[0] + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    parts = objective.losses(out, torch.from_numpy(pixels).permute(0, 3, 1, 2)[None].float() / 127.5 - 1)
    task: Any = SimpleNamespace(settings=RECIPE, device=torch.device("cpu"), vae=Vae())
    window = Window(clip_id="a", frames=pixels, rng=np.random.default_rng(0))
    losses = VaeTask.losses(task, lambda latents: out[0], window)
    torch.testing.assert_close(losses["loss"], parts["pixel"] + 0.25 * parts["edges"] + 3 * parts["flicker"])
    assert {name: losses[name] for name in parts} == parts


def test_quality_is_of_levels_and_of_their_change_from_frame_to_frame() -> None:
    """Off by 10 levels and by 20: a mean square of 250, and a change of 10. Excludes the mean of each frame's dB."""
    truth = np.full((2, 4, 4, 3), 100, np.uint8)
    levels = torch.tensor([110.0, 120.0]).reshape(2, 1, 1, 1).expand(2, 3, 4, 4)
    held_out = [(torch.zeros(2, 4, 1, 1), truth)] * 2
    quality = objective.quality(lambda latents: levels / 127.5 - 1, held_out, torch.device("cpu"))
    assert quality.psnr == pytest.approx(10 * math.log10(255**2 / 250), abs=1e-4)
    assert quality.flicker == pytest.approx(10, abs=1e-4)


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        conv, norm, last = nn.Conv2d(3, 4, 3), nn.GroupNorm(1, 4), nn.Conv3d(3, 3, (3, 1, 1))
        self.decoder = nn.ModuleDict({"conv": conv, "norm": norm, "time_conv_out": last})
        nn.init.constant_(conv.weight, 0.5)
        nn.init.constant_(norm.weight, -2.0)

    def decode(self, latents: Any, num_frames: int) -> None:
        pass


def test_a_spatial_layers_unit_is_its_size_beside_torchs_initial_one() -> None:
    """A convolution of 27 inputs begins within ±1/√27, with an RMS of 1/√81: weights of 0.5 are 4.5 times as large. A norm's
    begin at 1."""
    toy = Toy()
    units = objective.units(toy, list(toy.named_parameters()), torch.zeros(2, 4, 1, 1))
    assert units == pytest.approx(
        {
            "decoder.conv.weight": 4.5,
            "decoder.conv.bias": 4.5,
            "decoder.norm.weight": 2.0,
            "decoder.norm.bias": 2.0,
            "decoder.time_conv_out.weight": 0.1,
            "decoder.time_conv_out.bias": 0.1,
        }
    )


class Counted(Windows):
    """Windows of ten clips of five frames, which say what was asked for."""

    def __init__(self) -> None:
        self.recipe, self.clip_ids, self._lengths = RECIPE, [str(number) for number in range(10)], [5] * 10
        self.failed = {}
        self.asked: list[tuple[int, int, int]] = []

    def _frames(self, item: int, first: int, count: int) -> Any:
        self.asked.append((item, first, count))
        return np.zeros((count, 4, 4, 3), np.uint8)


@pytest.mark.parametrize(("offset", "first"), [(0.0, 0), (0.33, 0), (0.34, 1), (0.66, 1), (0.67, 2), (1.0, 2)])
def test_each_of_a_clips_windows_is_as_likely(offset: float, first: int) -> None:
    """Three windows of three frames lie in five; excludes the last one never being seen."""
    windows = Counted()
    windows._window(0, offset, (0.5, 0.5))
    assert windows.asked == [(0, first, 3)]


def test_held_out_windows_are_spread_over_all_clips() -> None:
    windows = Counted()
    assert len(objective.encode_held_out(Vae(), windows)) == 4
    assert windows.asked == [(item, 1, 3) for item in (0, 2, 5, 7)]


# ---- the image VAE's own training -----------------------------------------------------------------------------------


@pytest.fixture
def small() -> Any:
    torch.set_num_threads(1)
    built = vae.build_vae(seed=1)
    vae.start_as_blur(built)
    return built.eval()


@torch.no_grad()
def test_norms_are_softened_for_training_and_hardened_without_changing_the_function(small: Any) -> None:
    vae.soften_norms(small)
    x, z = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1, torch.ones(1, 4, 4, 4)
    before = small.encode(x).latent_dist.mean, small.decode(z).sample
    vae.harden_norms(small)
    assert {module.eps for module in small.modules() if isinstance(module, nn.GroupNorm)} == {1e-6}
    torch.testing.assert_close(small.encode(x).latent_dist.mean, before[0], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(small.decode(z).sample, before[1], rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_stretched_latents_are_so_many_times_as_large_and_mean_the_same_pictures(small: Any) -> None:
    x, z = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1, torch.ones(1, 4, 4, 4)
    before, decoded, factor = small.encode(x).latent_dist, small.decode(z).sample, small.config.scaling_factor
    vae.stretch_latents(small, 4.0)
    after = small.encode(x).latent_dist
    torch.testing.assert_close(after.mean, 4 * before.mean)
    torch.testing.assert_close(after.std, 4 * before.std)
    torch.testing.assert_close(small.decode(4 * z).sample, decoded)
    assert small.config.scaling_factor == pytest.approx(factor / 4)


def test_scaled_latents_have_unit_deviation(small: Any) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
    vae.set_scale(small, frames)
    latents = vae.encode_modes(small, frames) * small.config.scaling_factor
    assert float(latents.std()) == pytest.approx(1, abs=1e-3)
