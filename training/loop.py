"""``train(recipe, data, out, models)``: the phases in order, each from the last one's checkpoint.

The same call goes on where an earlier one was killed: weights, optimizer and step come from the newest whole checkpoint, and
every draw from (seed, position), so that losses and final weights are bit for bit those of a run that was never killed, on the
same machine with as many threads.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

from curation import video
from training import checkpoint, objective
from training.batches import Batch, Batches, validation_draws
from training.conditioning import Encoders, Models
from training.data import Export, Split, load
from training.draws import generator, normal
from training.ema import Ema
from training.models import VideoUNet, build, carry, parameters
from training.models import load as load_unet
from training.pixels import Pixels, grid, to_pixels
from training.recipe import Phase, Recipe, check_columns
from training.record import Metrics, Run, write_png
from training.sample import network, sample

Say = Callable[[str], None]
FACTOR = 4  # px per latent


def train(
    recipe: Recipe,
    data: str | Path,
    out: str | Path,
    models: Models,
    *,
    phase: str | None = None,
    resume: bool = True,
    say: Say = print,
) -> Run:
    """Train ``recipe`` on the export at ``data`` into the run folder ``out``; all phases, or only the one named.

    ``resume=False`` refuses a folder in which something was begun. Raises ``ValueError`` before any work where recipe, data,
    models and folder do not fit, and ``FloatingPointError`` naming the samples when a loss is not finite.
    """
    chosen = recipe.phases if phase is None else (recipe.phase(phase),)
    export = Export(data)
    check_columns(recipe, export.columns)
    if not resume and (Path(out) / "run.json").exists():
        raise ValueError(f"out: {out} holds a run already; resume it or take another folder")
    splits = {one.name: load(recipe, one, export) for one in chosen}
    run = Run(out, recipe, export, models)
    encoders = Encoders(models, text_tokens=recipe.text_tokens)
    for one in chosen:
        _train_phase(recipe, one, splits[one.name], run, encoders, say)
    return run


def _train_phase(recipe: Recipe, phase: Phase, split: Split, run: Run, encoders: Encoders, say: Say) -> None:
    entry, folder = run.entry(phase), run.phase_folder(phase)
    if entry is not None and entry["done"]:
        say(f"{phase.name}: done before, validation loss {entry['validation'][-1][1]:.4f}")
        return
    begun = time.monotonic()
    for note in split.notes:
        say(f"{phase.name}: {note}")
    scores = [motion for motion in split.train.motions if motion is not None]
    reference = float(median(scores)) if scores else 0.0
    entry = run.begin(phase, split.train, reference)
    spent = entry["seconds"]

    unet, ema, optimizer, start = _start(recipe, phase, run, encoders, reference, say)
    batches = Batches(recipe, phase, split.train, encoders, reference)
    held_out = Batches(recipe, phase, split.validation, encoders, reference)
    metrics = Metrics(folder, start)
    entry["validation"] = [pair for pair in entry["validation"] if pair[0] <= start]

    def validate(done: int) -> None:
        if not any(pair[0] == done for pair in entry["validation"]):
            value = validation_loss(ema.model, held_out, recipe)
            entry["validation"].append([done, value])
            metrics.write(done, validation_loss=value)
            say(
                f"{phase.name}: step {done}/{phase.steps}, validation loss {value:.4f}, {time.monotonic() - begun:.0f} s"
            )

    def save(done: int) -> None:
        path = checkpoint.save(folder, done, unet, ema.model, optimizer, keep=phase.keep)
        entry["checkpoint"] = str(path.relative_to(run.folder))
        entry["seconds"] = round(spent + time.monotonic() - begun, 2)
        run.write()

    done = start
    try:
        validate(start) if start == 0 else None
        for step in range(start, phase.steps):
            loss = train_step(unet, optimizer, batches.training(step), recipe, phase, step)
            ema.update(unet, step)
            done = step + 1
            metrics.write(step, loss=loss, lr=learning_rate(phase, step))
            if done % phase.validate_every == 0 or done == phase.steps:
                validate(done)
            if done % phase.save_every == 0 or done == phase.steps:
                save(done)
    except KeyboardInterrupt:
        save(done)
        say(f"{phase.name}: interrupted; step {done} is saved, the same command goes on from there")
        raise
    finally:
        metrics.close()
    for batch_side, name in ((batches, "training"), (held_out, "validation")):
        if batch_side.failed:
            say(f"{phase.name}: {len(batch_side.failed)} {name} items could not be read and were replaced")
    _picture(ema.model, held_out, recipe, folder)
    entry["samples"] = str((folder / "samples.png").relative_to(run.folder))
    entry["seconds"] = round(spent + time.monotonic() - begun, 2)
    entry["done"] = True
    run.write()
    say(f"{phase.name}: done in {entry['seconds']:.0f} s, samples in {run.folder / entry['samples']}")


# ---- beginning ------------------------------------------------------------------------------------------------------


def _start(
    recipe: Recipe, phase: Phase, run: Run, encoders: Encoders, reference: float, say: Say
) -> tuple[VideoUNet, Ema, torch.optim.AdamW, int]:
    """The UNet, its average, the optimizer, and how many steps are done."""
    torch.manual_seed(recipe.seed)  # initial weights; nothing is drawn from the global generator later
    size = (phase.size[1] // FACTOR, phase.size[0] // FACTOR)
    unet = build(phase, recipe.net, encoders.width(phase.task), size)
    unet.facts = {"motion_reference": reference, "task": phase.task}
    ema = Ema(copy.deepcopy(unet), phase.ema)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=phase.lr, betas=(0.9, 0.99), weight_decay=phase.weight_decay)
    newest = checkpoint.latest(run.phase_folder(phase))
    if newest is not None:
        done = checkpoint.restore(newest, unet, ema.model, optimizer)
        say(f"{phase.name}: goes on from step {done}")
        return unet, ema, optimizer, done
    before = _before(recipe, phase, run)
    words = "from random weights"
    if before is not None:
        # The average is what the last phase is judged by, so it is what the next one starts from.
        fresh = carry(before, unet)
        ema.model.load_state_dict(unet.state_dict())
        words = "from the last phase's averaged weights" + (
            f", {len(fresh)} of other width start anew" if fresh else ""
        )
    say(f"{phase.name}: {parameters(unet) / 1e6:.1f} M parameters, {words}")
    return unet, ema, optimizer, 0


def _before(recipe: Recipe, phase: Phase, run: Run) -> VideoUNet | None:
    """The averaged weights of the phase before, ``None`` for the first. Raises ``ValueError`` if that has not been finished."""
    number = [one.name for one in recipe.phases].index(phase.name)
    if number == 0:
        return None
    last = recipe.phases[number - 1]
    entry = run.entry(last)
    if entry is None or not entry["done"]:
        raise ValueError(f"phase: {phase.name} starts from {last.name}, which is not finished in {run.folder}")
    return load_unet(run.folder / entry["checkpoint"] / "unet_ema")


# ---- one step -------------------------------------------------------------------------------------------------------


def learning_rate(phase: Phase, step: int) -> float:
    """Linear up over ``warmup`` steps, flat, and linear down to 0 over the last ``decay`` of all steps."""
    up = (step + 1) / max(1, phase.warmup)
    down = (phase.steps - step) / max(1.0, phase.decay * phase.steps) if phase.decay else 1.0
    return phase.lr * min(1.0, up, down)


def batch_loss(unet: Any, batch: Batch, recipe: Recipe) -> Tensor:
    """λ-weighted EDM loss per sample: (B,)."""
    with torch.autocast(unet.device.type, torch.bfloat16, enabled=recipe.autocast):
        return objective.loss(network(unet, batch.condition), batch.clean, batch.noise, batch.sigma)


def train_step(
    unet: Any, optimizer: torch.optim.Optimizer, batch: Batch, recipe: Recipe, phase: Phase, step: int
) -> float:
    """One optimizer step; returns the loss. Raises ``FloatingPointError`` with the samples' ids when it is not finite."""
    unet.train()
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(phase, step)
    optimizer.zero_grad(set_to_none=True)
    loss = batch_loss(unet, batch, recipe).mean()
    value = loss.item()
    if math.isfinite(value):
        loss.backward()  # type: ignore[no-untyped-call]
        norm = float(torch.nn.utils.clip_grad_norm_(unet.parameters(), phase.clip_grad))
        if math.isfinite(norm):
            optimizer.step()
            return value
    what = "gradient" if math.isfinite(value) else f"loss ({value})"
    raise FloatingPointError(f"phase {phase.name}, step {step}: {what} is not finite on samples {', '.join(batch.ids)}")


@torch.no_grad()
def validation_loss(unet: Any, batches: Batches, recipe: Recipe) -> float:
    """The mean λ-weighted loss over the phase's fixed validation samples, noise and noise levels; nothing is dropped."""
    unet.eval()
    phase, losses = batches.phase, []
    for sigma in phase.validation_sigmas:
        draws = validation_draws(recipe.seed, phase, batches.items)
        for start in range(0, len(draws), phase.batch):
            batch = batches.make(draws[start : start + phase.batch], sigma, drop=False)
            losses.append(batch_loss(unet, batch, recipe))
    return float(torch.cat(losses).mean())


# ---- pictures -------------------------------------------------------------------------------------------------------


@torch.no_grad()
def _picture(unet: Any, batches: Batches, recipe: Recipe, folder: Path) -> None:
    """samples.png: for videos two rows a sample, truth above; for images truth in the first row. sample.mp4: the
    samples beside one another."""
    phase = batches.phase
    draws = validation_draws(recipe.seed, phase, batches.items)[: phase.samples]
    truth = [batches.pixels(draw) for draw in draws]
    batch = batches.make(draws, drop=False)
    noise = torch.stack(
        [normal(generator(recipe.seed, "samples", i), batch.clean.shape[1:]) for i in range(len(draws))]
    )
    unet.eval()
    with torch.autocast(unet.device.type, torch.bfloat16, enabled=recipe.autocast):
        latents = sample(
            unet, batch.condition, noise, steps=phase.sample_steps, sigma_max=phase.sigma_max, guidance=phase.guidance
        )
    made = [_decode(batches.encoders.vae, one if one.ndim == 4 else one[None]) for one in latents]
    if phase.frames == 1:
        write_png(folder / "samples.png", grid([np.concatenate(truth), np.concatenate(made)]))
        return
    write_png(folder / "samples.png", grid([row for pair in zip(truth, made, strict=True) for row in pair]))
    video.write_clip(np.concatenate(made, 2), phase.fps, folder / "sample.mp4")


def _decode(vae: Any, latents_TCHW: Tensor) -> Pixels:
    return to_pixels(vae.decode(latents_TCHW.float() / vae.config.scaling_factor).sample)
