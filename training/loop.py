"""``train(recipe, data, out, models)``: the phases in order, each from the last one's checkpoint.

The same call goes on where an earlier one was killed: weights, optimizer and step come from the newest whole checkpoint, and
every draw from (seed, position), so that losses and final weights are bit for bit those of a run that was never killed, on the
same machine with as many threads.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
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
from training.flops import Pace, pace
from training.interrupt import interrupts_wait
from training.memory import memory_named
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
    models and folder do not fit, ``FloatingPointError`` naming the samples when a loss is not finite, and ``MemoryError``
    naming the settings to lower when memory runs out in a step.
    """
    chosen = recipe.phases if phase is None else (recipe.phase(phase),)
    if lacking := recipe.frozen.missing:
        raise ValueError(f"models: {recipe.name} asks for weights that cannot be given yet: {', '.join(lacking)}")
    export = Export(data)
    check_columns(recipe, export.columns)
    levels = len(recipe.net.channels)
    for one in chosen:
        if max(one.checkpoint_levels, default=0) >= levels:
            raise ValueError(
                f"phase {one.name}: checkpoint_levels: 0 to {levels - 1} expected, not {one.checkpoint_levels}"
            )
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
    reference = _reference(split)
    entry = run.begin(phase, split.train, reference)
    spent = entry["seconds"]  # by earlier calls
    unet, ema, optimizer, start = _start(recipe, phase, run, encoders, reference, say)
    done = start
    batches = Batches(recipe, phase, split.train, encoders, reference)
    held_out = Batches(recipe, phase, split.validation, encoders, reference)
    metrics, rates = Metrics(folder, start), _rates(unet, held_out, recipe)
    entry["validation"] = [pair for pair in entry["validation"] if pair[0] <= start]

    def validate(done: int) -> None:
        if not any(pair[0] == done for pair in entry["validation"]):
            value, seconds = validation_loss(ema.model, held_out, recipe), time.monotonic() - begun
            entry["validation"].append([done, value])
            metrics.write(done, validation_loss=value)
            say(f"{phase.name}: step {done}/{phase.steps}, validation loss {value:.4f}, {seconds:.0f} s")

    def save(done: int) -> None:
        path = checkpoint.save(folder, done, unet, ema.model, optimizer, keep=phase.keep)
        seconds = round(spent + time.monotonic() - begun, 2)
        entry.update(checkpoint=str(path.relative_to(run.folder)), seconds=seconds)
        run.write()

    try:
        with memory_named(phase, len(recipe.net.channels)), interrupts_wait(say) as check:
            validate(start) if start == 0 else None
            for step in range(start, phase.steps):
                since = time.perf_counter()
                loss = train_step(unet, optimizer, batches.training(step), recipe, phase, step)
                ema.update(unet, step)
                done = step + 1
                metrics.write(step, loss=loss, lr=learning_rate(phase, step), **rates(time.perf_counter() - since))
                if done % phase.validate_every == 0 or done == phase.steps:
                    validate(done)
                if done % phase.save_every == 0 or done == phase.steps:
                    save(done)
                check()
    except KeyboardInterrupt:
        save(done)
        say(f"{phase.name}: interrupted; step {done} is saved, the same command goes on from there")
        raise
    finally:
        metrics.close()
    for side, name in ((batches, "training"), (held_out, "validation")):
        if side.failed:
            say(f"{phase.name}: {len(side.failed)} {name} items could not be read and were replaced")
    _picture(ema.model, held_out, recipe, folder)
    seconds, samples = round(spent + time.monotonic() - begun, 2), (folder / "samples.png").relative_to(run.folder)
    entry.update(done=True, seconds=seconds, samples=str(samples))
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
    unet.facts = {"motion_reference": reference, "task": phase.task, "objective": phase.objective}
    unet.checkpoint_levels(phase.checkpoint_levels)
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


def _reference(split: Split) -> float:
    """The motion score that becomes motion bucket 127: the median of the training clips, 0 where none has one."""
    scores = [motion for motion in split.train.motions if motion is not None]
    return float(median(scores)) if scores else 0.0


def _rates(unet: VideoUNet, held_out: Batches, recipe: Recipe) -> Pace:
    """What a step's seconds amount to; the FLOPs are those of a validation sample, which has the shapes of all."""
    phase = held_out.phase
    one = held_out.make(validation_draws(recipe.seed, phase, held_out.items)[:1], drop=False)
    return pace(unet, one, objective.of(phase), phase.batch, autocast=recipe.autocast)


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


def batch_loss(unet: Any, batch: Batch, recipe: Recipe, phase: Phase) -> Tensor:
    """The phase's objective per sample: (B,)."""
    with torch.autocast(unet.device.type, torch.bfloat16, enabled=recipe.autocast):
        return objective.of(phase).loss(network(unet, batch.condition), batch.clean, batch.noise, batch.sigma)


def parts(batch: Batch, count: int) -> Iterator[Batch]:
    """``count`` equal parts of a batch, its samples in the same order."""
    size = len(batch.ids) // count
    for start in range(0, len(batch.ids), size):
        cut = slice(start, start + size)
        yield replace(
            batch,
            ids=batch.ids[cut],
            clean=batch.clean[cut],
            noise=batch.noise[cut],
            sigma=batch.sigma[cut],
            condition=batch.condition.rows(start, start + size),
        )


def train_step(
    unet: Any, optimizer: torch.optim.Optimizer, batch: Batch, recipe: Recipe, phase: Phase, step: int
) -> float:
    """One optimizer step; returns the loss. Raises ``FloatingPointError`` with the samples' ids when it is not finite."""
    unet.train()
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(phase, step)
    optimizer.zero_grad(set_to_none=True)
    total = torch.zeros((), device=unet.device)
    for part in parts(batch, phase.accumulate):
        # Divided, so that the parts' gradients sum to that of the whole batch's mean.
        loss = batch_loss(unet, part, recipe, phase).mean() / phase.accumulate
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.detach()
    norm = torch.nn.utils.clip_grad_norm_(unet.parameters(), phase.clip_grad)
    value = total.item()
    if math.isfinite(value) and math.isfinite(float(norm)):
        optimizer.step()
        return value
    what = "gradient" if math.isfinite(value) else f"loss ({value})"
    raise FloatingPointError(f"phase {phase.name}, step {step}: {what} is not finite on samples {', '.join(batch.ids)}")


@torch.no_grad()
def validation_loss(unet: Any, batches: Batches, recipe: Recipe) -> float:
    """The objective's mean over the phase's fixed validation samples, noise and noise levels; nothing is dropped."""
    unet.eval()
    phase, losses = batches.phase, []
    size = phase.batch // phase.accumulate  # no more at a time than training has memory for
    for sigma in phase.validation_sigmas:
        draws = validation_draws(recipe.seed, phase, batches.items)
        for start in range(0, len(draws), size):
            batch = batches.make(draws[start : start + size], sigma, drop=False)
            losses.append(batch_loss(unet, batch, recipe, phase))
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
            unet, batch.condition, noise, objective.of(phase), steps=phase.sample_steps, guidance=phase.guidance
        )
    made = [_decode(batches.encoders.vae, one if one.ndim == 4 else one[None]) for one in latents]
    if phase.frames == 1:
        write_png(folder / "samples.png", grid([np.concatenate(truth), np.concatenate(made)]))
        return
    write_png(folder / "samples.png", grid([row for pair in zip(truth, made, strict=True) for row in pair]))
    video.write_clip(np.concatenate(made, 2), phase.fps, folder / "sample.mp4")


def _decode(vae: Any, latents_TCHW: Tensor) -> Pixels:
    return to_pixels(vae.decode(latents_TCHW.float() / vae.config.scaling_factor).sample)
