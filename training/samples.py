"""Samples show people what a model makes of the held-out clips."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from dailies.curation import video
from dailies.curation.atomic import new_file
from dailies.curation.contact_sheet import Strip, save_sheet, spread
from dailies.training.data.batches import Batches
from dailies.training.data.sampling import generator, normal
from dailies.training.diffusion import objective
from dailies.training.diffusion.sample import sample
from dailies.training.models.pixels import Pixels
from dailies.training.recipes.recipe import TrainingRecipe

FRAMES = 8  # of a video that the picture shows


@torch.no_grad()
def save_samples(
    unet: Any, batches: Batches, recipe: TrainingRecipe, folder: Path, name: str, device: torch.device
) -> None:
    """Write FOLDER/NAME.png, and of videos FOLDER/NAME.mp4 (sample.mp4 beside samples.png), with the same truth and noise
    each time.

    The picture is a contact sheet: of each clip the truth and the sample, under the caption or frame that it was made from.
    The video shows the samples beside one another.
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
    strips = [
        strip
        for number, spec in enumerate(specs)
        for strip in _strips(truth[number], decoded[number], batches.made_from(subset, spec))
    ]
    save_sheet(folder / f"{name}.png", strips, title=f"phase {phase.name}: {name}, {phase.task}")
    if subset.shape.frames > 1:
        with new_file(folder / f"{'sample' if name == 'samples' else name}.mp4") as hidden:
            video.write_clip(np.concatenate(decoded, 2), subset.fps or phase.fps, hidden)


def _strips(truth: Pixels, sample: Pixels, made_from: str) -> list[Strip]:
    """Return an image's truth and sample side by side, or some frames of a video's under each other."""
    if len(truth) == 1:
        return [Strip(label="", pictures=[truth[0], sample[0]], notes=["truth", "sample"], text=made_from)]
    shown = spread(range(len(truth)), FRAMES)
    return [
        Strip(label="truth", pictures=[truth[i] for i in shown], text=made_from),
        Strip(label="sample", pictures=[sample[i] for i in shown], notes=[f"frame {i + 1}" for i in shown]),
    ]
