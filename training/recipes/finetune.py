"""Image-to-video finetunes of weights in Stable Video Diffusion's format: all of them, or adapters."""

from __future__ import annotations

from dataclasses import replace

from dailies.training.recipes.recipe import TrainingRecipe
from dailies.training.recipes.svd import svd


def finetune() -> TrainingRecipe:
    """Return SVD's last run (14 frames, 576×1024) for one GPU: small batches, few steps, memory before speed."""
    hq = svd().phase("i2v-hq-14")
    phase = replace(
        hq,
        name="i2v",
        start=None,
        steps=2000,
        batch=8,
        accumulate=8,
        checkpoint_levels=(0, 1, 2),
        lr=1e-5,
        warmup=100,
        ema=0.999,
        validate_every=250,
        sample_every=500,
        save_every=250,
        validation_clips=8,
        samples=2,
    )
    return TrainingRecipe(name="finetune", unet=None, phases=(phase,), models="given", init_from="given")


def lora() -> TrainingRecipe:
    """Return the same with adapters of rank 16 on temporal attention, as SVD's camera motions are."""
    whole = finetune()
    phase = replace(whole.phases[0], name="camera", lora=("camera",), lr=1e-4)
    return replace(whole, name="lora", phases=(phase,))
