"""The quickstart's recipe: SVD's three stages, small enough for two CPU cores in about three minutes."""

from __future__ import annotations

from dataclasses import replace

from dailies.training.recipes.recipe import TrainingRecipe, UNetSpec
from dailies.training.recipes.svd import svd

SIZE = (80, 48)


def tiny() -> TrainingRecipe:
    """Return SVD's image, base video and image-to-video runs on the rendered world, at 80×48 px (latents 20×12).

    What is small is its own: sizes, steps, batches and rates. The noise levels rise from run to run as SVD's do; the
    videos' are higher than SVD's, because whether frames agree is decided where noise is high.
    """
    paper = svd()
    image = replace(
        paper.phase("I-b"), name="image", steps=240, batch=16, size=SIZE, fps=8.0, p_mean=-0.4, p_std=1.4, lr=2e-3,
        warmup=10, decay=0.3, ema=0.99, drop_text=0.1, drop_image=0.1, validate_every=80, save_every=80, samples=8,
        sample_steps=16, sigma_max=80.0, guidance=(2.5, 2.5), validation_clips=16,
    )  # fmt: skip
    video = replace(
        paper.phase("II-b"), name="video", steps=160, batch=4, size=SIZE, frames=8, fps=8.0, p_mean=1.0, p_std=1.6, lr=1e-3,
        warmup=10, decay=0.5, ema=0.97, drop_text=0.1, drop_image=0.1, validate_every=80, save_every=80, samples=3,
        sample_steps=12, sigma_max=80.0, guidance=(3.0, 3.0), validation_clips=8,
    )  # fmt: skip
    hq = replace(
        video, name="hq", task="image-to-video", steps=150, p_mean=1.3, validate_every=75, save_every=75, guidance=(1.5, 2.0),
        select=(("motion", 0.5, None),),
    )  # fmt: skip
    return TrainingRecipe(
        name="tiny", unet=UNetSpec(channels=(64, 64), attention=(False, True)), phases=(image, video, hq)
    )
