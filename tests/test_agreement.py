"""Training's samples and the published pipeline agree: same weights, noise and condition give the same latents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from PIL import Image  # noqa: E402

from dailies.training.diffusion.conditioning import Condition  # noqa: E402
from dailies.training.diffusion.encoders import ImageEncoder, VideoVae  # noqa: E402
from dailies.training.diffusion.sample import sample  # noqa: E402
from dailies.training.models.io import load  # noqa: E402
from dailies.training.models.pixels import to_tensor  # noqa: E402
from dailies.zoo.load import load_pipeline  # noqa: E402
from tests import svd_format  # noqa: E402

CPU = torch.device("cpu")
SIDE, FRAMES, STEPS = 64, 4, 3
PAIRS = [(1.0, 3.0), (8.0, 1.0), (3.0, 3.0), (1.0, 1.0), (0.5, 0.9), (0.0, 2.0)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return svd_format.svd(tmp_path_factory.mktemp("agreement") / "svd")


@pytest.fixture(scope="module")
def image() -> Any:
    """Noise in blocks: every channel has another mean, so that no normalisation can be left out unnoticed."""
    blocks = np.random.default_rng(3).integers(0, 256, (8, 8, 3), np.uint8) // np.array([1, 2, 4], np.uint8)
    return Image.fromarray(blocks.astype(np.uint8).repeat(SIDE // 8, 0).repeat(SIDE // 8, 1))


def noise(*shape: int, seed: int) -> Any:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def ours(folder: Path, image: Any, start: Any, pair: tuple[float, float], aug: float, aug_noise: Any) -> Any:
    """Sample as training does, from the parts' own loaders."""
    pixels = np.asarray(image)[None]
    tokens = ImageEncoder(folder / "image_encoder", CPU)(pixels)
    modes = VideoVae(folder / "vae", CPU).modes(to_tensor(pixels) + aug * aug_noise)
    condition = Condition(
        tokens_BLD=tokens,
        added_time_ids_BK=torch.tensor([[6.0, 127.0, aug]]),  # fps − 1, motion bucket, noise augmentation
        image_latents_BSCHW=modes[:, None],
    )
    return sample(load(folder / "unet").eval(), condition, start, steps=STEPS, guidance=pair)


def theirs(pipeline: Any, image: Any, start: Any, pair: tuple[float, float], aug: float, **options: Any) -> Any:
    return pipeline(
        image, height=SIDE, width=SIDE, num_frames=FRAMES, num_inference_steps=STEPS, fps=7, motion_bucket_id=127,
        noise_aug_strength=aug, min_guidance_scale=pair[0], max_guidance_scale=pair[1], latents=start.clone(),
        output_type="latent", **options,
    ).frames  # fmt: skip


def close(one: Any, other: Any) -> float:
    """Return the greatest difference in units of the spread."""
    return float((one - other).abs().max() / other.std())


@pytest.mark.parametrize("pair", PAIRS)
def test_the_published_pipeline_samples_as_training_does(folder: Path, image: Any, pair: tuple[float, float]) -> None:
    pipeline = load_pipeline(folder, device="cpu")
    pipeline.set_progress_bar_config(disable=True)
    start = noise(1, FRAMES, 4, SIDE // 2, SIDE // 2, seed=1)
    want = theirs(pipeline, image, start, pair, 0.0)
    assert close(ours(folder, image, start, pair, 0.0, 0.0), want) < 1e-4
    if max(pair) > 1:
        assert close(theirs(pipeline, image, start, (1.0, 1.0), 0.0), want) > 1e-2, "there is guidance"


@pytest.mark.parametrize("pair", [(1.0, 3.0), (3.0, 3.0)])
def test_diffusers_own_pipeline_samples_as_training_does(folder: Path, image: Any, pair: tuple[float, float]) -> None:
    """With noise on the image: the level that is told, the latents of the noised image, and the token of the clean one."""
    from diffusers import StableVideoDiffusionPipeline

    pipeline = StableVideoDiffusionPipeline.from_pretrained(folder, use_safetensors=True)
    pipeline.set_progress_bar_config(disable=True)
    start, aug = noise(1, FRAMES, 4, SIDE // 2, SIDE // 2, seed=1), 0.3
    generator = torch.Generator().manual_seed(5)
    want = theirs(pipeline, image, start, pair, aug, generator=generator)
    assert close(ours(folder, image, start, pair, aug, noise(1, 3, SIDE, SIDE, seed=5)), want) < 1e-4
    assert close(ours(folder, image, start, pair, 0.0, 0.0), want) > 1e-2, "the noise is seen"
