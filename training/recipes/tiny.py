"""The quickstart's recipe: the three phases of Stable Video Diffusion, small enough for two CPU cores in about two minutes."""

from __future__ import annotations

from training.recipe import Net, Phase, Recipe


def tiny() -> Recipe:
    """Image → video → high quality on the rendered world, at 80×48 px (latents 20×12).

    The noise levels follow the paper's: −1.2/1.0 for images, higher for videos, whose frames say much about one another,
    and highest for image-to-video.
    """
    size = (80, 48)
    return Recipe(
        name="tiny",
        net=Net(channels=(64, 64), attention=(False, True)),
        phases=(
            Phase(name="image", task="text-to-image", steps=240, batch=16, size=size, p_mean=-0.4, p_std=1.4, lr=2e-3,
                  decay=0.3, validate_every=80, save_every=80, samples=8, guidance=(2.5, 2.5), validation_clips=16),
            Phase(name="video", task="text-to-video", steps=80, batch=4, size=size, frames=8, p_mean=0.0, p_std=1.4, lr=1e-3,
                  decay=0.3, ema=0.97, validate_every=40, save_every=40, samples=3, sample_steps=12, guidance=(2.5, 2.5)),
            Phase(name="hq", task="image-to-video", steps=80, batch=4, size=size, frames=8, p_mean=0.7, p_std=1.6, lr=1e-3,
                  decay=0.3, ema=0.97, validate_every=40, save_every=40, samples=3, sample_steps=12, guidance=(1.0, 2.0),
                  select=(("motion", 0.5, None),)),
        ),
    )  # fmt: skip
