"""One optimizer step, and the loss on samples held out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from dailies.curation.errors import NotFinite
from dailies.training import distributed
from dailies.training.data.batches import Batch, Batches
from dailies.training.diffusion import objective
from dailies.training.diffusion.sample import network
from dailies.training.recipes.phase import Phase
from dailies.training.recipes.recipe import Recipe


def learning_rate(phase: Phase, step: int) -> float:
    """Linear up over ``warmup`` steps, flat, and linear down to 0 over the last ``decay`` of all steps."""
    up = (step + 1) / max(1, phase.warmup)
    down = (phase.steps - step) / max(1.0, phase.decay * phase.steps) if phase.decay else 1.0
    return phase.lr * min(1.0, up, down)


def batch_loss(unet: Any, batch: Batch, recipe: Recipe, phase: Phase) -> Tensor:
    """The phase's objective per sample: (B,)."""
    with torch.autocast(batch.clean.device.type, torch.bfloat16, enabled=recipe.autocast):
        return objective.of(phase).loss(network(unet, batch.condition), batch.clean, batch.noise, batch.sigma)


def at_once(phase: Phase) -> int:
    """How many samples a process computes at a time."""
    return max(1, phase.batch // phase.accumulate // distributed.world().size)


def parts(batch: Batch, most: int) -> Iterator[Batch]:
    """A batch in parts of at most ``most`` samples, in their order."""
    for start in range(0, len(batch.ids), most):
        yield batch.rows(start, min(start + most, len(batch.ids)))


def train_step(
    unet: Any, optimizer: torch.optim.Optimizer, batches: Sequence[Batch], recipe: Recipe, phase: Phase, step: int
) -> float:
    """One optimizer step on what this process has of the step's samples; returns the loss over all processes' samples.
    Pictures and videos weigh by their number. Raises ``NotFinite`` with the samples' ids when it is not
    finite."""
    unet.train()
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(phase, step)
    optimizer.zero_grad(set_to_none=True)
    processes = distributed.world().size
    todo = [part for batch in batches for part in parts(batch, at_once(phase))]
    value = torch.zeros((), device=todo[0].clean.device)
    for number, part in enumerate(todo):
        # Divided, so that the parts' gradients sum to that of the whole batch's mean; processes' gradients are averaged.
        with nullcontext() if number == len(todo) - 1 else distributed.no_sync(unet):
            loss = batch_loss(unet, part, recipe, phase).sum() / phase.batch
            (loss * processes).backward()  # type: ignore[no-untyped-call]
        value += loss.detach()
    weights = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    norm = float(torch.nn.utils.clip_grad_norm_(weights, phase.clip_grad))
    mean = float(distributed.all_reduce(value))
    if math.isfinite(mean) and math.isfinite(norm):
        optimizer.step()
        return mean
    what = "gradient" if math.isfinite(mean) else f"loss ({mean})"
    names = ", ".join(distributed.all_gather(tuple(name for batch in batches for name in batch.ids)))
    raise NotFinite(f"phase {phase.name}, step {step}: {what} is not finite on samples {names}")


@torch.no_grad()
def validation_loss(unet: Any, batches: Batches, recipe: Recipe, device: torch.device) -> float:
    """The objective's mean over the phase's fixed validation samples, noise and noise levels; nothing is dropped."""
    unet.eval()
    phase = batches.phase
    summed = torch.zeros(2, dtype=torch.float64, device=device)  # of losses, and of samples
    for sigma in phase.validation_sigmas:
        for batch in batches.validation(sigma, at_once(phase), distributed.world()):
            loss = batch_loss(unet, batch.to(device), recipe, phase)
            summed += torch.stack([loss.double().sum(), loss.new_tensor(len(loss)).double()])
    losses, samples = distributed.all_reduce(summed).tolist()
    return float(losses / samples)
