"""Samples show people what a model makes of the held-out clips."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from dailies.curation import video
from dailies.curation.atomic import new_file
from dailies.training.data.batches import Batches
from dailies.training.data.sampling import generator, normal
from dailies.training.diffusion import objective
from dailies.training.diffusion.sample import sample
from dailies.training.models.pixels import grid
from dailies.training.recipes.recipe import TrainingRecipe
from dailies.training.run_log import write_png


@torch.no_grad()
def save_samples(
    unet: Any, batches: Batches, recipe: TrainingRecipe, folder: Path, name: str, device: torch.device
) -> None:
    """Write FOLDER/NAME.png, and of videos FOLDER/NAME.mp4 (sample.mp4 beside samples.png), with the same truth and noise
    each time.

    The picture has two rows a sample for videos, truth above; for images truth in the first row. The video shows the samples
    beside one another.
    """
    phase = batches.phase
    subset, specs = batches.held_out()[0]
    specs = specs[: phase.samples]
    truth = [batches.pixels(subset, spec) for spec in specs]
    unet.eval()
    decoded = []
    for number, spec in enumerate(specs):  # one at a time: a step's memory is all that there need be
        batch = batches.make(subset, [spec], drop=False).to(device)
        noise = normal(generator(recipe.seed, "samples", number), tuple(batch.clean.shape[1:]))[None].to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=recipe.autocast):
            how = objective.of_phase(phase)
            latents = sample(unet, batch.condition, noise, how, steps=phase.sample_steps, guidance=phase.guidance)
        decoded.append(batches.encoders.vae.decode(latents[0] if latents.ndim == 5 else latents))
    if subset.shape.frames == 1:
        write_png(folder / f"{name}.png", grid([np.concatenate(truth), np.concatenate(decoded)]))
        return
    write_png(folder / f"{name}.png", grid([row for pair in zip(truth, decoded, strict=True) for row in pair]))
    with new_file(folder / f"{'sample' if name == 'samples' else name}.mp4") as hidden:
        video.write_clip(np.concatenate(decoded, 2), subset.fps or phase.fps, hidden)
