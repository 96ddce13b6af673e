"""Stable Video Diffusion's runs (arXiv 2311.15127, §4, App. D), as far as a ``Phase`` can say them; and what it cannot.

``dailies train svd --dry-run`` prints what they cost and lack. Where a comment says "ours", the paper does not say.
"""

from __future__ import annotations

from dataclasses import replace

from training.recipe import Net, Phase, Recipe

# Runs of the paper that are not in the recipe, each with what keeps it out.
LACKING = {
    "I-a, SD 2.1 → EDM": "trains the time embedding alone, a phase trains every weight; batch and lr are not published",
    "interpolation": "5 latents, 3 of them learned, and a mask, 9 channels in: no task is like that",
    "multi-view": "21 views of an orbit, with the elevation's sin and cos: no task is like that; noise levels not published",
    "camera LoRA": "trains adapters of rank 16 on temporal attention (training.models.add_lora), a phase every weight",
}
# What is in the recipe, and yet not quite the paper's.
DIFFERS = (
    "I-b starts from random weights, the paper's from SD 2.1: the loop cannot be given an image model yet.",
    "i2v-base starts from III, as every phase from the one above it; the paper's from II-b, its base model.",
    "One caption column; the paper draws from three captions, with p = 0.5, 0.25 and 0.25.",
    "fps, motion and noise augmentation are ids of every video phase (3 M weights); known of image-to-video only.",
)


def svd() -> Recipe:
    """Image → text-to-video in three sizes → image-to-video, with SD 2.1's VAE and OpenCLIP's towers.

    The selection is the data's: ``pipelines/recipes/svd.yaml`` drops static clips and those with much text by quantiles over
    the whole dataset, so the phases have no rules of their own. III and hq take smaller, better sets, which are not public.
    """
    image = Phase(
        name="I-b",
        task="text-to-image",
        steps=30_000,
        batch=1536,  # ours: II-a's
        size=(384, 256),
        fps=7.0,  # ours: what the public models make by default
        p_mean=-1.2,
        p_std=1.0,
        lr=1e-4,  # ours: II-a's
        warmup=1000,  # ours
        ema=0.9999,  # published for III
        drop_text=0.15,
        drop_image=0.15,  # ours: as the text
        noise_aug=(-3.0, 0.5),
        # From here on all is ours, but for the sampler's steps and sigma_max (public code).
        validate_every=5000,
        validation_clips=64,
        save_every=1000,
        samples=8,
        sample_steps=25,
        sigma_max=700.0,
        guidance=(7.5, 7.5),
    )
    # The paper names two P_std for II-a, 1.0 and 1.2, and none for II-b: 1.2 is ours.
    low = replace(image, name="II-a", task="text-to-video", steps=150_000, frames=14)
    middle = replace(low, name="II-b", steps=100_000, batch=768, size=(576, 320), p_mean=0.0, p_std=1.2)
    high = replace(middle, name="III", steps=50_000, size=(1024, 576), p_mean=0.5, p_std=1.4, lr=3e-5)
    base = replace(high, name="i2v-base", task="image-to-video", size=(576, 320), p_mean=0.7, p_std=1.6)
    base = replace(base, guidance=(1.0, 2.5))
    hq = replace(base, name="i2v-hq-14", size=(1024, 576), p_mean=1.0)
    long = replace(hq, name="i2v-hq-25", frames=25, guidance=(1.5, 3.0))
    return Recipe(
        name="svd",
        net=Net(  # config.json of stabilityai/stable-video-diffusion-img2vid-xt
            channels=(320, 640, 1280, 1280),
            attention=(True, True, True, False),
            head_width=64,
            layers=2,
            time_ids=256,
        ),
        phases=(image, low, middle, high, base, hq, long),
        text_tokens=77,
        models="sd",
    )
